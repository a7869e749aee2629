"""Nearest neighbours by invariant part and by residual."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffscope.report import neighbors, terminal
from diffscope.report.terminal import Console
from diffscope.report.views.base import View
from diffscope.results import Result

if TYPE_CHECKING:
    from diffscope.report.figures.canvas import Figure


class _View(View[Result]):
    number = "same_class"
    names = ("checkpoint", "layer")
    labels = ("step", "sigma", "component")

    def show(self, shown: Result, console: Console, pictured: bool = False) -> None:
        headings = neighbors.headings(shown)
        terminal.print_table(headings, neighbors.cells(shown), console, left=neighbors.LEFT)
        console.print()
        for sentence in neighbors.notes(shown):
            terminal.print_text(sentence, console)
        for title, lines in [] if pictured else neighbors.listing(shown):
            terminal.print_text(title, console)
            terminal.print_table(neighbors.listed(shown), lines, console, left=neighbors.listed(shown))
            console.print()
        if finding := neighbors.finding(shown):
            terminal.print_text(finding, console)

    def verdict(self, shown: Result) -> str:
        return neighbors.finding(shown) or "no classes to compare"

    def figures(self, shown: Result) -> dict[str, Figure]:
        from diffscope.report.figures import neighbors as pictures

        return pictures.figures(shown)


VIEW = _View()
