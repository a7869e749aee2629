"""Nearest neighbours by invariant part and by residual."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from diffscope.report.parts import Part, Table, Text, few, table
from diffscope.report.views.base import View
from diffscope.report.words import neighbors as words
from diffscope.results import Result

if TYPE_CHECKING:
    from diffscope.report.figures.canvas import Figure
    from diffscope.report.page.charts import Drawn


class _View(View[Result]):
    number = "same_class"
    names = ("checkpoint", "layer", "encoder")
    labels = ("step", "sigma", "component")
    pictures: ClassVar = {
        "neighbors": "Images, each with its nearest neighbours by s, what views share, and by ξ, what they differ in.",
        "beside": "The same queries with their nearest neighbours by other encoders.",
        "clusters": "Views of a few images in the plane of their first two principal components.",
    }

    def parts(self, shown: Result, pictured: bool = False) -> Iterator[Part]:
        rows, less = few(shown.rows, "rows")
        yield table(words.columns(shown), rows, left=words.LEFT, once=words.ONCE, dropped_first=[["queries"], ["ICR"]])
        if beside := shown.sections.get("beside"):
            title = "By another encoder's features of the images as they are:"
            yield table(words.beside_columns(shown), beside, left=["encoder"], title=title)
        if said := [*less, *words.notes(shown)]:
            yield Text(said)
        for title, lines in [] if pictured else words.listing(shown):
            headings = words.listed(shown)
            yield Table(headings, lines, left=headings, title=title)
        if finding := words.finding(shown):
            yield Text([finding])

    def records(self, shown: Result) -> list[dict[str, Any]]:
        beside = shown.sections.get("beside", ())
        return [*super().records(shown), *({k: v for k, v in row.items() if k != "grid"} for row in beside)]

    def verdict(self, shown: Result) -> str:
        return words.finding(shown) or "no classes to compare"

    def figures(self, shown: Result) -> dict[str, Figure]:
        from diffscope.report.figures import neighbors as pictures

        return pictures.figures(shown)

    def charts(self, shown: Result) -> list[Drawn]:
        from diffscope.report.page.neighbors import charts

        return charts(shown)


VIEW = _View()
