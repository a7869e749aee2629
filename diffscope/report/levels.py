"""What there is to see of ICR over noise levels and layers, of one measurement or of several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffscope.report import terminal, variation, verdict
from diffscope.report.cells import lowest, number, share
from diffscope.report.terminal import Console
from diffscope.report.views.base import View
from diffscope.results import VARIED, Result

if TYPE_CHECKING:
    from diffscope.report.figures.canvas import Figure


class LevelsView(View[Result]):
    """Of `icr` and `sweep`."""

    labels = (*VARIED, "sigma")

    def show(self, shown: Result, console: Console, pictured: bool = False) -> None:
        if shown.varied is not None:
            variation.print_variation(shown, console)
            return
        terminal.print_rows(shown, console)
        terminal.print_self_check(shown, console)
        if shown.window:
            terminal.print_curve(shown, console)
            terminal.print_window(shown, console)

    def verdict(self, shown: Result) -> str:
        if shown.varied is not None:
            return " ".join(variation.paragraphs(shown)[0])
        for window in verdict.ranked(shown)[:1]:
            where = "" if window.sigma is None else f", σ = {number(window.sigma)}, ICR {share(window.icr)}"
            return f"{window.layer}: {verdict.HEADLINE[verdict.shape(window)]}{where}"
        best = lowest(shown.rows)
        return "no ICR" if best is None else f"{best.layer}: ICR {share(best['icr'])} at σ = {number(best.sigma)}"

    def figures(self, shown: Result) -> dict[str, Figure]:
        from diffscope.report.figures import sweep as levels
        from diffscope.report.figures import variation as members

        return members.figures(shown) if shown.varied else levels.figures(shown)
