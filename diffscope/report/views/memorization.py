"""Generated samples that copy training images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffscope.report import memorization, terminal
from diffscope.report.terminal import Console
from diffscope.report.views.base import View
from diffscope.results import Result

if TYPE_CHECKING:
    from diffscope.report.figures.canvas import Figure


class _View(View[Result]):
    number = "share"
    names = ("checkpoint",)
    labels = ("step",)

    def show(self, shown: Result, console: Console, pictured: bool = False) -> None:
        columns = memorization.columns(shown.rows)
        cells = [[show(row) for show in columns.values()] for row in shown.rows]
        terminal.print_table(list(columns), cells, console, left=memorization.LEFT)
        console.print()
        heading = f"{memorization.headline(shown)}.".capitalize()
        terminal.print_text(memorization.finding(shown), console, heading)

    def verdict(self, shown: Result) -> str:
        return memorization.finding(shown)

    def figures(self, shown: Result) -> dict[str, Figure]:
        from diffscope.report.figures import memorization as pictures

        return pictures.figures(shown)


VIEW = _View()
