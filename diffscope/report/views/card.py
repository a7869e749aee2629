"""Results as a section of a model's card: shown as it is, to be sent into a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diffscope.report.parts import Part, Text
from diffscope.report.streams import carry
from diffscope.report.terminal import Console
from diffscope.report.views.base import View
from diffscope.results import Record


class _View(View[Record]):
    number = "metric_value"
    names = ("metric_name",)
    labels = ()

    def parts(self, shown: Record, pictured: bool = False) -> Iterator[Part]:
        yield Text([self.verdict(shown)])

    def verdict(self, shown: Record) -> str:
        return f"{len(shown['scores'])} scores of {shown['name']}"

    def records(self, shown: Record) -> list[dict[str, Any]]:
        return [dict(score) for score in shown["scores"]]

    def show(self, shown: Record, console: Console, pictured: bool = False) -> None:
        console.out(carry(str(shown["text"]), console.encoding), end="", highlight=False)


VIEW = _View()
