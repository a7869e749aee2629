"""A file of features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diffscope.report.parts import Part, Text
from diffscope.report.views.base import View
from diffscope.results import Record


class _View(View[Record]):
    number = "features"
    labels = ()

    def parts(self, shown: Record, pictured: bool = False) -> Iterator[Part]:
        yield Text([f"{name} {' x '.join(map(str, shape))}" for name, shape in shown["tensors"].items()])

    def verdict(self, shown: Record) -> str:
        return f"{len(shown['tensors'])} tensors"

    def where(self, shown: Record) -> str:
        return str(shown["path"])

    def records(self, shown: Record) -> list[dict[str, Any]]:
        keys = ("levels", "views", "images", "features")
        shapes = {name: shape for name, shape in shown["tensors"].items() if len(shape) == len(keys)}
        return [{"layer": name, **dict(zip(keys, shape, strict=True))} for name, shape in shapes.items()]


VIEW = _View()
