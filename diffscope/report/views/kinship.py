"""How alike layers, noise levels, checkpoints and encoders see the same images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from diffscope.report.parts import MOST, Notes, Part, Text, rest, table
from diffscope.report.views.base import View
from diffscope.report.words import kinship as words
from diffscope.results import Result, Row

if TYPE_CHECKING:
    from diffscope.report.figures.canvas import Figure
    from diffscope.report.page.charts import Drawn


class _View(View[Result]):
    number = "cka"
    names = ("a", "b")
    labels = ()

    def parts(self, shown: Result, pictured: bool = False) -> Iterator[Part]:
        rows = _most_alike(shown.rows)
        notes = Notes(rows)
        yield table(
            {**words.columns(shown), **notes.column()},
            rows,
            left=["a", "b", "notes"],
            dropped_first=[["95 % of CKNNA"], ["common neighbours"]],
            beneath=[*rest(len(rows), len(shown.rows), "pairs, the most alike by CKA"), *notes.footnotes()],
        )
        yield Text(words.finding(shown))

    def verdict(self, shown: Result) -> str:
        return words.finding(shown)[0]

    def figures(self, shown: Result) -> dict[str, Figure]:
        from diffscope.report.figures import kinship as pictures

        return pictures.figures(shown)

    def charts(self, shown: Result) -> list[Drawn]:
        from diffscope.report.page.charts import Square

        names = words.labels(shown.sections["items"])
        return [
            Square(key, f"{name} of each two", names, words.square(shown, key)) for key, name in words.NAMES.items()
        ]


VIEW = _View()


def _most_alike(rows: tuple[Row, ...]) -> list[Row]:
    """All that a reader reads, in their order; of more those of highest CKA."""
    if len(rows) <= MOST:
        return list(rows)
    by_cka = sorted(range(len(rows)), key=lambda i: -1.0 if rows[i]["cka"] is None else -float(rows[i]["cka"]))
    return [rows[i] for i in sorted(by_cka[:MOST])]
