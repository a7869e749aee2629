"""Generated samples that copy training images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from diffscope.report.parts import Part, Text, few, table
from diffscope.report.views.base import View
from diffscope.report.words import memorization as words
from diffscope.results import Result

if TYPE_CHECKING:
    from diffscope.report.figures.canvas import Figure

DROPPED_FIRST = (["median d1"], ["median ratio"], ["median cosine"], ["its interval"])


class _View(View[Result]):
    number = "share"
    names = ("checkpoint",)
    labels = ("step",)

    def parts(self, shown: Result, pictured: bool = False) -> Iterator[Part]:
        rows, less = few(shown.rows, "rows")
        yield table(words.columns(shown.rows), rows, left=["checkpoint"], dropped_first=DROPPED_FIRST, beneath=less)
        yield Text([words.finding(shown)], f"{words.headline(shown)}.".capitalize())

    def verdict(self, shown: Result) -> str:
        return words.finding(shown)

    def figures(self, shown: Result) -> dict[str, Figure]:
        from diffscope.report.figures import memorization as pictures

        return pictures.figures(shown)


VIEW = _View()
