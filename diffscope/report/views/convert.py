"""A checkpoint as safetensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diffscope.report.parts import Part, Text
from diffscope.report.views.base import View
from diffscope.results import Record


class _View(View[Record]):
    number = "bytes"
    names = ("path",)
    labels = ("tensors",)

    def parts(self, shown: Record, pictured: bool = False) -> Iterator[Part]:
        yield Text([self.verdict(shown)])

    def verdict(self, shown: Record) -> str:
        return f"{shown['tensors']} tensors, {shown['bytes'] / 1e6:.1f} MB"

    def where(self, shown: Record) -> str:
        return str(shown["path"])

    def records(self, shown: Record) -> list[dict[str, Any]]:
        return [{key: shown[key] for key in ("path", "bytes", "tensors")}]


VIEW = _View()
