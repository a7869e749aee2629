"""Accuracy of a linear probe over noise levels, beside ICR."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from diffscope.report.parts import MOST, Notes, Part, Text, few, rest, table
from diffscope.report.scores import Score
from diffscope.report.text import TOLD, by_layer, labelled, number, share
from diffscope.report.views.base import View
from diffscope.report.words import probe as words
from diffscope.report.words import segmentation
from diffscope.results import Result, Row

if TYPE_CHECKING:
    from diffscope.report.figures.canvas import Figure
    from diffscope.report.page.charts import Drawn

DROPPED_FIRST = (["t"], ["k-NN"], ["CSNR"], ["95 % of ICR"])


class _View(View[Result]):
    number = "accuracy"
    names = ("layer", "encoder")
    pictures: ClassVar = {
        "denoised": "A few images and what the network makes of them at each noise level.",
        "masks": "Test images, their masks, and the masks that the probe of pixels gives.",
    }

    def parts(self, shown: Result, pictured: bool = False) -> Iterator[Part]:
        yield from _of_pixels(shown) if shown.segmentation else self._of_images(shown)

    def _of_images(self, shown: Result) -> Iterator[Part]:
        rows = _best_rows(shown)
        notes = Notes(rows)
        less = rest(len(rows), len(shown.rows), "rows, the best layers")
        yield table(
            {**words.columns(shown), **notes.column()},
            rows,
            left=["layer", "notes"],
            once=["layer"],
            gaps=True,
            dropped_first=DROPPED_FIRST,
            beneath=[*less, *notes.footnotes()],
        )
        if beside := shown.sections.get("beside"):
            yield table(
                words.beside_columns(shown),
                beside,
                left=["encoder"],
                dropped_first=[["CSNR"], ["k-NN"], ["features"]],
                title="The same probe on another encoder's features of the same images:",
            )
        if shown.sections.get("denoised"):
            yield table(
                words.denoised_columns(shown),
                words.denoised_lines(shown),
                left=[],
                title="Fréchet distance of the denoised images from the images, in the space of",
            )
        for found in words.ranked(shown)[:TOLD]:
            heading = f"{found.layer}: {words.headline(found, shown.rows)}."
            yield Text([" ".join([words.finding(shown, found), *notes.new(found.notes)])], heading)

    def records(self, shown: Result) -> list[dict[str, Any]]:
        sections = (shown.sections.get(key, ()) for key in ("beside", "denoised"))
        return [*super().records(shown), *(dict(row) for rows in sections for row in rows)]

    def verdict(self, shown: Result) -> str:
        if shown.segmentation:
            return segmentation.headline(shown)
        best = words.ranked(shown)[0]
        told = f"best accuracy {share(best.accuracy)} at σ = {number(best.sigma)}; {words.headline(best, shown.rows)}"
        return f"{best.layer}: {told}"

    def scores(self, shown: Result) -> list[Score]:
        """The best accuracy of each layer."""
        return [
            Score(
                "accuracy",
                f"linear probe of {found.layer}, best, at σ = {number(found.sigma)}",
                found.accuracy,
                {"layer": found.layer, "sigma": found.sigma},
            )
            for found in shown.probe
        ]

    def figures(self, shown: Result) -> dict[str, Figure]:
        if shown.segmentation:
            from diffscope.report.figures import segmentation as masks

            return masks.figures(shown)
        from diffscope.report.figures import probe as pictures

        return pictures.figures(shown)

    def charts(self, shown: Result) -> list[Drawn]:
        from diffscope.report.page import levels

        if shown.segmentation:
            return levels.segmentation_charts(shown)
        kinds = {f"{prefix}accuracy": f"{name}features" for prefix, name in words.PREFIXES.items()}
        return [*levels.accuracy_charts(shown, kinds), *levels.charts(shown, list(kinds))]

    def quiet(self, shown: Result) -> list[str]:
        key = "miou" if shown.segmentation else self.number
        return [labelled(row, self.names, self.labels, key) for row in self.records(shown) if key in row]


VIEW = _View()


def _of_pixels(shown: Result) -> Iterator[Part]:
    notes = Notes(shown.rows)
    columns = {**segmentation.columns(shown), **notes.column()}
    yield table(
        columns,
        shown.rows,
        left=["notes"],
        dropped_first=(["t"], [name for name in columns if name.endswith("pixels")], ["clean − noisy"]),
        beneath=notes.footnotes(),
    )
    lines, less = few(segmentation.class_lines(shown), "classes")
    yield table(segmentation.class_columns(shown), lines, left=["class"], beneath=less)
    yield Text(segmentation.findings(shown))


def _best_rows(result: Result) -> list[Row]:
    """All that a reader reads; of more the layers of best accuracy that have room, and one in any case."""
    groups, kept = by_layer(result.rows), set[str]()
    for found in words.ranked(result):
        if kept and sum(len(groups[name]) for name in (*kept, found.layer)) > MOST:
            break
        kept.add(found.layer)
    return [row for layer, rows in groups.items() if layer in kept or len(result.rows) <= MOST for row in rows]
