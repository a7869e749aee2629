"""A share of a measurement, left in a folder for `merge`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diffscope.report.parts import Part, Text
from diffscope.report.views.base import View
from diffscope.results import Record


class _View(View[Record]):
    number = "blocks"
    names = ("folder",)
    labels = ("shard",)

    def parts(self, shown: Record, pictured: bool = False) -> Iterator[Part]:
        yield Text([self.verdict(shown)])

    def verdict(self, shown: Record) -> str:
        blocks = ", ".join(map(str, shown["blocks"]))
        return f"{shown['folder']}  shard {shown['shard']}: blocks {blocks} of {shown['of']}"

    def records(self, shown: Record) -> list[dict[str, Any]]:
        return [{"folder": shown["folder"], "shard": shown["shard"], "blocks": len(shown["blocks"])}]


VIEW = _View()
