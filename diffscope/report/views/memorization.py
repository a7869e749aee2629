"""Generated samples that copy training images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from diffscope.report.parts import Notes, Part, Text, few, table
from diffscope.report.scores import Score
from diffscope.report.views.base import View
from diffscope.report.words import memorization as words
from diffscope.report.words import quality
from diffscope.results import Result

if TYPE_CHECKING:
    from diffscope.report.figures.canvas import Figure
    from diffscope.report.page.charts import Drawn

DROPPED_FIRST = (["median d1"], ["median ratio"], ["median cosine"], ["its interval"])
QUALITY_FIRST = (["density"], ["coverage"], ["FD"], ["recall"], ["KD"])


class _View(View[Result]):
    number = "share"
    names = ("checkpoint",)
    labels = ("step",)
    pictures: ClassVar = {
        "pairs": "The samples nearest to a training image, each beside that image.",
        "samples": "Samples of the network.",
    }

    def parts(self, shown: Result, pictured: bool = False) -> Iterator[Part]:
        rows, less = few(shown.rows, "rows")
        yield table(words.columns(shown.rows), rows, left=["checkpoint"], dropped_first=DROPPED_FIRST, beneath=less)
        if "quality" in shown.sections:
            yield self._quality(shown)
            yield Text([quality.compared(shown), quality.finding(shown)])
        yield Text([words.finding(shown)], f"{words.headline(shown)}.".capitalize())

    def _quality(self, shown: Result) -> Part:
        lines, less = few(quality.lines(shown), "lines")
        notes = Notes(shown.rows)
        columns = {**quality.columns(lines), **notes.column()}
        beneath = [*less, *notes.footnotes()]
        return table(columns, lines, left=["checkpoint", "against"], dropped_first=QUALITY_FIRST, beneath=beneath)

    def verdict(self, shown: Result) -> str:
        return words.finding(shown)

    def scores(self, shown: Result) -> list[Score]:
        """The share of samples that copy a training image, of each checkpoint."""
        return [
            Score(
                "memorization",
                "share of samples that copy a training image",
                row["share"],
                {key: row[key] for key in ("step", "samples", "share_low", "share_high", "criterion") if key in row},
            )
            for row in shown.rows
            if row["share"] is not None
        ]

    def figures(self, shown: Result) -> dict[str, Figure]:
        from diffscope.report.figures import memorization as pictures

        return pictures.figures(shown)

    def charts(self, shown: Result) -> list[Drawn]:
        from diffscope.report.page.charts import Axis, Dot, Dots
        from diffscope.report.page.training import quality_charts, share_charts

        title, axis = "Share of copies among samples", Axis(f"share of copies ({shown.rows[0]['criterion']})")
        if sum(row["step"] is not None for row in shown.rows) > 1:
            of_quality = quality_charts(shown) if "quality" in shown.sections else []
            return [*share_charts(shown.rows, "share", title, axis), *of_quality]
        dots = [
            Dot(Path(row["checkpoint"]).name, row["share"], row["share_low"], row["share_high"]) for row in shown.rows
        ]
        return [Dots("share", title, axis, dots, said="Bars: 95 % intervals.")]


VIEW = _View()
