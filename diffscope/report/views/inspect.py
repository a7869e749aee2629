"""What a checkpoint is."""

from __future__ import annotations

from typing import Any

from diffscope.report import terminal
from diffscope.report.terminal import Console
from diffscope.report.views.base import View
from diffscope.results import Record


class _View(View[Record]):
    number = "features"
    names = ("name",)
    labels = ()

    def show(self, shown: Record, console: Console, pictured: bool = False) -> None:
        terminal.print_inspection(shown, console)

    def verdict(self, shown: Record) -> str:
        return f"{shown['class']} of family {shown['family']}, {shown['parameters']:,} parameters"

    def where(self, shown: Record) -> str:
        return str(shown["path"])

    def records(self, shown: Record) -> list[dict[str, Any]]:
        return [dict(layer) for layer in shown["layers"]]


VIEW = _View()
