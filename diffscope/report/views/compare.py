"""The paired difference of two results, row by row."""

from __future__ import annotations

from typing import Any

from diffscope.report import terminal
from diffscope.report.cells import direction
from diffscope.report.terminal import Console
from diffscope.report.views.base import View
from diffscope.results import Record


class _View(View[Record]):
    number = "change"

    def show(self, shown: Record, console: Console, pictured: bool = False) -> None:
        terminal.print_comparison(shown["rows"], console)

    def verdict(self, shown: Record) -> str:
        found = [direction(record) for record in shown["rows"]]
        return f"of {len(found)} rows ICR is lower in {found.count('lower')}, higher in {found.count('higher')}"

    def where(self, shown: Record) -> str:
        return f"{shown['old']['path']} against {shown['new']['path']}"

    def records(self, shown: Record) -> list[dict[str, Any]]:
        return [dict(row) for row in shown["rows"]]


VIEW = _View()
