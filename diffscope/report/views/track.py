"""ICR over a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffscope.report import terminal, training
from diffscope.report.terminal import Console
from diffscope.report.views.base import View
from diffscope.results import Result

if TYPE_CHECKING:
    from diffscope.report.figures.canvas import Figure


class _View(View[Result]):
    labels = ("sigma", "step")

    def show(self, shown: Result, console: Console, pictured: bool = False) -> None:
        terminal.print_training(shown, console)

    def verdict(self, shown: Result) -> str:
        for onset in training.by_urgency(shown.onset)[:1]:
            keep = "" if onset.keep_step is None else f", keep step {onset.keep_step:,}"
            return f"{training.place(onset)}: {training.HEADLINE[training.verdict(onset)]}{keep}"
        return "no verdict yet"

    def figures(self, shown: Result) -> dict[str, Figure]:
        from diffscope.report.figures import training as pictures

        return pictures.figures(shown)


VIEW = _View()
