"""Accuracy of a linear probe over noise levels, beside ICR."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffscope.report import footnotes, probe, terminal
from diffscope.report.cells import number, share
from diffscope.report.terminal import Console
from diffscope.report.views.base import View
from diffscope.results import Result

if TYPE_CHECKING:
    from diffscope.report.figures.canvas import Figure


class _View(View[Result]):
    number = "accuracy"

    def show(self, shown: Result, console: Console, pictured: bool = False) -> None:
        terminal.print_table(list(probe.columns(shown)), probe.cells(shown), console, left=("layer", "notes"))
        for footnote in footnotes.footnotes(shown.rows):
            terminal.print_text(footnote, console)
        console.print()
        for found in probe.ranked(shown)[: terminal.PLOTS]:
            heading = f"{found.layer}: {probe.headline(found, shown.rows)}."
            terminal.print_text(probe.finding(shown, found), console, heading)

    def verdict(self, shown: Result) -> str:
        best = probe.ranked(shown)[0]
        told = f"best accuracy {share(best.accuracy)} at σ = {number(best.sigma)}; {probe.headline(best, shown.rows)}"
        return f"{best.layer}: {told}"

    def figures(self, shown: Result) -> dict[str, Figure]:
        from diffscope.report.figures import probe as pictures

        return pictures.figures(shown)


VIEW = _View()
