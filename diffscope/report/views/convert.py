"""A checkpoint as safetensors."""

from __future__ import annotations

from typing import Any

from diffscope.report.terminal import Console
from diffscope.report.views.base import View
from diffscope.results import Record


class _View(View[Record]):
    number = "bytes"
    names = ("path",)
    labels = ("tensors",)

    def show(self, shown: Record, console: Console, pictured: bool = False) -> None:
        console.print(self.verdict(shown))

    def verdict(self, shown: Record) -> str:
        return f"{shown['tensors']} tensors, {shown['bytes'] / 1e6:.1f} MB"

    def where(self, shown: Record) -> str:
        return str(shown["path"])

    def records(self, shown: Record) -> list[dict[str, Any]]:
        return [{key: shown[key] for key in ("path", "bytes", "tensors")}]


VIEW = _View()
