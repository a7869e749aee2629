"""ICR over a training run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from diffscope.report import curve
from diffscope.report.parts import Columns, Notes, Part, Plots, Table, Text, few, rest, table
from diffscope.report.scores import Score
from diffscope.report.text import NULL, TOLD, best_first, number, share
from diffscope.report.views.base import View
from diffscope.report.words import moving_window, series
from diffscope.report.words import training as words
from diffscope.report.words import window as of_window
from diffscope.results import Result, Row

if TYPE_CHECKING:
    from diffscope.report.figures.canvas import Figure
    from diffscope.report.page.charts import Drawn

DROPPED_FIRST = (
    ["trace s", "trace ξ"], ["alignment", "uniformity"], ["eff. rank"], ["held-out ICR"], ["loss", "held-out loss"],
    ["checkpoint"],
)  # fmt: skip
"""Columns of the table of snapshots that a narrow terminal goes without, in this order."""

SERIES: Columns = {
    "layer": lambda onset: str(onset.layer),
    "σ": lambda onset: number(onset.sigma),
    "verdict": words.verdict,
    "lowest ICR": lambda onset: share(None if onset.minimum is None else onset.minimum.icr),
    "at step": lambda onset: _step(None if onset.minimum is None else onset.minimum.step),
    "keep step": lambda onset: _step(onset.keep_step),
    "fired at": lambda onset: _step(onset.fired_at),
}


class _View(View[Result]):
    labels = ("sigma", "step")
    logged = (
        *("icr", "icr_low", "icr_high", "icr_holdout", "loss", "loss_views", "loss_holdout"),
        *("icr_rise", "loss_rise", "exceeds", "trace_s", "trace_xi", "effective_rank", "alignment", "uniformity"),
    )

    def parts(self, shown: Result, pictured: bool = False) -> Iterator[Part]:
        groups, notes = series.by_series(shown.shown_rows), Notes(shown.shown_rows)
        if shown.window:
            yield from _windows(shown)
        else:
            yield from _snapshots(shown, groups, notes)
            yield from _courses(shown, groups)
        others = [*words.overlay_lines(shown), *words.left_out(shown)]
        if others:
            yield Text(others)
        yield from _verdicts(shown, notes)
        if shown.accuracy is not None:
            yield Text([words.images(shown.accuracy)], "Images:")

    def where(self, shown: Result) -> str:
        return f"{series.run_name(shown)} on {shown.data['path']}"

    def verdict(self, shown: Result) -> str:
        for onset in words.by_urgency(shown.onset)[:1]:
            keep = "" if onset.keep_step is None else f", keep step {onset.keep_step:,}"
            return f"{series.place(onset)}: {words.HEADLINE[words.verdict(onset)]}{keep}"
        return "no verdict yet"

    def scores(self, shown: Result) -> list[Score]:
        """The lowest ICR of each series, with the step at which it was."""
        return [
            Score(
                "icr",
                f"ICR, lowest of the run, {series.place(onset)}",
                onset.minimum.icr,
                {"step": onset.minimum.step, "verdict": onset.state, "keep_step": onset.keep_step},
            )
            for onset in shown.onset
            if onset.minimum is not None
        ]

    def figures(self, shown: Result) -> dict[str, Figure]:
        from diffscope.report.figures import training as pictures

        return pictures.figures(shown)

    def charts(self, shown: Result) -> list[Drawn]:
        from diffscope.report.page import training

        return training.charts(shown)


VIEW = _View()


def _snapshots(result: Result, groups: Mapping[str, Sequence[Row]], notes: Notes) -> Iterator[Table]:
    """A table for each series, of many for the best few; of long ones a selection."""
    columns = {**words.columns(result), **notes.column()}
    names = list(groups) if len(groups) <= TOLD else best_first(groups)[:TOLD]
    for name in names:
        whole = groups[name]
        rows = words.selection(whole, series.onset_of(result, whole[0]))
        less = rest(len(rows), len(whole), "snapshots")
        if name == names[-1]:
            less = [*less, *rest(len(names), len(groups), "series"), *notes.footnotes()]
        title = series.place(whole[0]) if len(groups) > 1 else ""
        left = ["checkpoint", "mark", "notes"]
        yield table(columns, rows, left=left, dropped_first=DROPPED_FIRST, beneath=less, title=title)


WINDOWS: Columns = {
    "step": lambda window: _step(window.step),
    "layer": lambda window: str(window.layer),
    "shape": of_window.shape,
    "σ": lambda window: number(window.sigma),
    "window": lambda window: f"{number(window.low)} to {number(window.high)}",
    "lowest ICR": lambda window: share(window.icr),
}


def _windows(result: Result) -> Iterator[Part]:
    """Where the window lies at each snapshot, and how it moved."""
    several = len(moving_window.swept_layers(result)) > 1
    columns = {name: fill for name, fill in WINDOWS.items() if name != "layer" or several}
    shown = moving_window.told(result)
    less = rest(len(shown), len(result.window), "windows")
    yield table(columns, shown, left=["layer", "shape"], dropped_first=[["window"]], beneath=less)
    yield Text(moving_window.window_lines(result))


def _courses(result: Result, groups: Mapping[str, Sequence[Row]]) -> Iterator[Plots]:
    """ICR over steps for each series, of many for the best few."""
    shown = best_first(groups)[:TOLD] if len(groups) > TOLD else list(groups)
    over = f"ICR over {series.steps_count(result)}"
    drawn = {
        f"{series.place(groups[name][0])}: {over}": curve.over_steps(
            groups[name], series.onset_of(result, groups[name][0])
        )
        for name in shown
    }
    more = [f"The {len(shown)} series of lowest ICR, of {len(groups)}."] if len(groups) > len(shown) else []
    if found := {title: lines for title, lines in drawn.items() if lines}:
        yield Plots(found, curve.NEEDED_BY_STEPS, [curve.LEGEND_OF_STEPS, *more])


def _verdicts(result: Result, notes: Notes) -> Iterator[Part]:
    """Of several series a list, then a paragraph a series, then what the verdicts mean."""
    onsets = words.by_urgency(result.onset)
    if len(onsets) > 1:
        shown, less = few(onsets, "series")
        yield table(SERIES, shown, left=["layer", "verdict"], dropped_first=[["at step"], ["lowest ICR"]], beneath=less)
    told = onsets[: 1 if result.window else TOLD]
    for onset in told:
        heading = f"{series.place(onset)}: {words.HEADLINE[words.verdict(onset)]}."
        yield Text([" ".join([words.finding(result, onset), *notes.new(onset.notes)])], heading)
    verdicts = list(dict.fromkeys(words.verdict(onset) for onset in told))
    for name in verdicts:
        yield Text([words.MEANING[name]], f"What {name} means:" if len(verdicts) > 1 else "What to do:")


def _step(step: int | None) -> str:
    return NULL if step is None else f"{step:,}"
