"""Pictures of a training run: ICR over steps with its minimum and onset, traces, and what else the features say.

Traces over training have the form of figure 8 of Li et al., 2026, https://arxiv.org/abs/2606.09718.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from diffscope.report.figures import alarm as pooled
from diffscope.report.figures import canvas
from diffscope.report.figures.overlay import OVERLAYS, overlay_panel, turn_style
from diffscope.report.figures.traces import measured, traces_figure
from diffscope.report.figures.window_map import window_map
from diffscope.report.text import best_first, lowest, number, share
from diffscope.report.words import series, training
from diffscope.results import OnsetRow, Result, Row

COMPANIONS = {
    "alignment": "alignment of unit features (0: views agree)",
    "alignment_raw": "alignment of raw features (2 tr Σξ)",
    "uniformity": "uniformity (lower: more spread out)",
    "effective_rank": "effective rank (directions)",
}


@dataclass(frozen=True)
class Run:
    """What the pictures show of a result."""

    result: Result
    groups: dict[str, list[Row]]
    shown: list[str]
    """Series drawn in colour."""
    best: str
    """The series of lowest ICR: what is marked is marked of it, as marks of several would lie over one another."""
    onset: OnsetRow | None
    """Of that series."""
    dense: bool
    """Too many snapshots for markers."""

    @cached_property
    def steps(self) -> list[int]:
        """All that were measured."""
        return sorted({series.step(row) for row in self.result.rows})

    @property
    def one(self) -> bool:
        """Whether there is only one series."""
        return len(self.groups) == 1

    @property
    def has_held_out(self) -> bool:
        """Whether ICR was measured on held-out images too."""
        return any(row.get("icr_holdout") is not None for row in self.result.rows)

    @property
    def marked(self) -> list[Row]:
        """Rows of the series that is marked."""
        return self.groups[self.best]

    @property
    def of(self) -> str:
        """What a legend adds to a mark where several series are drawn."""
        return "" if self.one or self.result.alarm else f" ({self.best})"

    def style(self, i: int) -> dict[str, Any]:
        """How the i-th curve is drawn."""
        return {**canvas.curve_style(i), "marker": None} if self.dense else canvas.curve_style(i)


def figures(result: Result) -> dict[str, canvas.Figure]:
    """Draws icr always; traces and companions where something of them was measured."""
    drawn = {"icr": _icr_figure(_run(result, result.shown_rows))}
    if result.window:
        drawn["window"] = window_map(result)
    run = _run(result, result.rows)
    if measured(result.rows):
        drawn["traces"] = _traces_figure(run)
    if any(row.get(key) is not None for row in result.rows for key in COMPANIONS):
        drawn["companions"] = _companions_figure(run)
    return drawn


def _run(result: Result, rows: Sequence[Row]) -> Run:
    groups = series.by_series(rows)
    ranked = best_first(groups)
    onset = series.onset_of(result, groups[ranked[0]][0])
    return Run(
        result,
        groups,
        shown=list(groups) if len(groups) <= canvas.DISTINCT else ranked[: canvas.BEST],
        best=ranked[0],
        onset=next(iter(result.onset), None) if result.alarm else onset,
        dense=max(map(len, groups.values())) > canvas.MARKED,
    )


# --- ICR, and below it losses and the user's own columns


def _icr_figure(run: Run) -> canvas.Figure:
    alarm = run.result.alarm
    has_loss = not alarm and any(row.get(key) is not None for row in run.marked for key in ("loss", "loss_holdout"))
    columns = run.result.overlay[:OVERLAYS]
    handles = [*_curve_handles(run), *_mark_handles(run)]
    if any(column.turn_step is not None for column in columns):
        handles.append(canvas.Line2D([], [], **turn_style(), linestyle="none", label="turn of an overlay column"))
    if len(run.result.overlay) > OVERLAYS:
        more = len(run.result.overlay) - OVERLAYS
        handles.append(canvas.Line2D([], [], linestyle="none", label=f"{more} more overlay columns in result.json"))
    if alarm:
        handles[1:1] = pooled.handles(alarm)
    rises = pooled.panels(alarm)
    apart = run.has_held_out and not run.one
    panels = [3.4, *([2.4] if apart else []), *(1.35 for _ in rises), *([1.35] if has_loss else []),
              *(1.35 for _ in columns)]  # fmt: skip
    figure = canvas.figure(0.9 + sum(panels), handles)
    first, *below = figure.subplots(len(panels), 1, sharex=True, height_ratios=panels, squeeze=False)[:, 0]
    _icr_panel(first, run)
    if apart:
        canvas.small_title(first, "training images")
        _held_out_panel(below.pop(0), run)
    for limit in rises:
        assert alarm is not None
        pooled.draw_rise(below.pop(0), alarm, limit)
    if has_loss:
        _loss_panel(below.pop(0), run)
    for axes, column in zip(below, columns, strict=True):
        overlay_panel(axes, run.marked[0], column)
    for axes in figure.axes:
        _mark_run(axes, run)
    _steps(figure.axes[-1], run, [point[0] for column in columns for point in column.points])
    figure.suptitle(_title(run))
    canvas.legend(figure, handles)
    return figure


def _icr_panel(axes: canvas.Axes, run: Run) -> None:
    for name in [name for name in run.groups if name not in run.shown]:
        canvas.line(axes, run.groups[name], series.step, "icr", color=canvas.faint(), linewidth=0.8, zorder=1.5)
    alpha = 0.16 if len(run.shown) <= 3 else 0.08
    for i, name in enumerate(run.shown):
        rows, zorder = run.groups[name], 3 + 0.1 * (canvas.DISTINCT - i)
        canvas.line(axes, rows, series.step, "icr", **run.style(i), markerfacecolor=canvas.paper(), zorder=zorder)
        canvas.band(axes, rows, series.step, "icr", color=canvas.PALETTE[i], alpha=alpha)
        _alone(axes, rows, i)
        if run.one:
            _held_out(axes, rows, held_out_style(run), alpha)
        _lowest_point(axes, rows, i, series.onset_of(run.result, rows[0]))
    if run.result.alarm:
        pooled.draw_cells(axes, run.result, run.marked)
    kept = _kept(run)
    if kept is not None:
        axes.plot([series.step(kept)], [kept["icr"]], **_ring(), zorder=6, clip_on=False)
    axes.set_ylabel(canvas.ICR)
    if lowest(run.result.rows) is None:
        canvas.say_no_icr(axes)


def _alone(axes: canvas.Axes, rows: Sequence[Row], i: int) -> None:
    """The interval of a snapshot between two without ICR, where a band has no width, as a bar."""
    known = [row.get("icr_low") is not None and row.get("icr_high") is not None for row in rows]
    for before, row, is_known, after in zip([False, *known], rows, known, [*known[1:], False], strict=False):
        if is_known and not before and not after:
            steps = [series.step(row)] * 2
            axes.plot(steps, [row["icr_low"], row["icr_high"]], color=canvas.PALETTE[i], linewidth=1.2, zorder=2)


def _ring() -> dict[str, Any]:
    """Around the checkpoint to keep."""
    return {"marker": "o", "markersize": 13, "markerfacecolor": "none", "color": canvas.ink(), "linestyle": "none"}


def held_out_style(run: Run) -> dict[str, Any]:
    """Of one series, whose training images have the first style."""
    return {**run.style(1), "linewidth": 1.1, "markersize": 3.5}


def _held_out(axes: canvas.Axes, rows: Sequence[Row], look: dict[str, Any], alpha: float) -> None:
    canvas.line(axes, rows, series.step, "icr_holdout", **look, markerfacecolor=canvas.paper(), zorder=2.5)
    canvas.band(axes, rows, series.step, "icr_holdout", color=look["color"], alpha=alpha)


def _held_out_panel(axes: canvas.Axes, run: Run) -> None:
    """Of several series, each of which has its colour already."""
    for i, name in enumerate(run.shown):
        _held_out(axes, run.groups[name], run.style(i), 0.08)
    axes.set_ylabel("ICR")
    canvas.small_title(axes, "held-out images")


def _lowest_point(axes: canvas.Axes, rows: Sequence[Row], i: int, onset: OnsetRow | None) -> None:
    minimum = None if onset is None else onset.minimum
    best = next((row for row in rows if minimum and row.step == minimum.step), None) or lowest(rows)
    if best is not None:
        axes.plot(
            [series.step(best)],
            [canvas.gap(best.get("icr"))],
            **canvas.curve_style(i),
            zorder=5,
            markersize=7,
            clip_on=False,
        )


def _kept(run: Run) -> Row | None:
    """The row of the checkpoint to keep, where the verdict gives one and the picture has its point."""
    found = (row for row in run.marked if run.onset is not None and row.checkpoint == run.onset.keep)
    return next((row for row in found if row.get("icr") is not None), None)


def _loss_panel(axes: canvas.Axes, run: Run) -> None:
    """Of the best series' noise level: losses of different levels have little in common."""
    looks = {"loss": ("training", 0), "loss_holdout": ("held-out", 1)}
    for key, (label, i) in looks.items():
        rows = [row for row in run.marked if row.get(key) is not None]
        if not rows:
            continue
        steps = [series.step(row) for row in rows]
        errors = [1.96 * (row.get(f"{key}_se") or 0.0) for row in rows]
        low, high = ([row[key] + side * e for row, e in zip(rows, errors, strict=True)] for side in (-1, 1))
        look = {**run.style(i), "markersize": 3.5, "linewidth": 1.2, "markerfacecolor": canvas.paper()}
        axes.plot(steps, [row[key] for row in rows], label=label, **look)
        axes.fill_between(steps, low, high, color=canvas.PALETTE[i], alpha=0.15, linewidth=0)
    values = [row[key] for row in run.marked for key in looks if row.get(key) is not None]
    if min(values) > 0 and max(values) > 10 * min(values):
        axes.set_yscale("log", nonpositive="mask")
        canvas.plain_numbers(axes.yaxis, max(values) / min(values))
    canvas.small_title(axes, f"denoising loss at σ = {number(run.marked[0].sigma)} (MSE a pixel)")
    if canvas.is_narrow():  # the title takes the width
        axes.legend(loc="best", handlelength=2.4)
    else:
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=2, borderaxespad=0, handlelength=2.4)


# --- traces and companions over steps


def _traces_figure(run: Run) -> canvas.Figure:
    few = "" if len(run.groups) == len(run.shown) else f" ({len(run.shown)} of {len(run.groups)} series)"

    def dress(axes: canvas.Axes) -> None:
        axes.update_datalim([(series.step(run.marked[0]), 0.0)])  # the margin above is then one of the whole height
        _mark_run(axes, run)
        _steps(axes, run)

    name = _subject(run) + few
    return traces_figure(run.groups, run.shown, series.step, dress, name, not run.dense, _rule_handles(run))


def _companions_figure(run: Run) -> canvas.Figure:
    """Those that were measured, two side by side."""
    keys = [key for key in COMPANIONS if any(row.get(key) is not None for row in run.result.rows)]
    sure = any(row.get(f"{key}_se") is not None for row in run.result.rows for key in keys)
    handles = [*_names(run), *([canvas.bands_handle()] if sure else []), *_rule_handles(run)]
    columns = 1 if canvas.is_narrow() else min(2, len(keys))
    lines = -(-len(keys) // columns)
    figure = canvas.figure(0.6 + 2.1 * lines, handles, 1.15 * canvas.WIDTH)
    alpha = 0.16 if len(run.shown) <= 3 else 0.08
    for i, key in enumerate(keys, start=1):
        axes = figure.add_subplot(lines, columns, i)
        for name in [name for name in run.groups if name not in run.shown]:
            canvas.line(axes, run.groups[name], series.step, key, color=canvas.faint(), linewidth=0.8, zorder=1.5)
        for j, name in enumerate(run.shown):
            canvas.line(
                axes, run.groups[name], series.step, key, **run.style(j), markerfacecolor=canvas.paper(), zorder=3
            )
            canvas.error_band(axes, run.groups[name], series.step, key, color=canvas.PALETTE[j], alpha=alpha)
        axes.set_title(COMPANIONS[key], fontsize="small")
        _mark_run(axes, run)
        _steps(axes, run)
        if i + columns <= len(keys):
            axes.set_xlabel("")
    figure.suptitle(_subject(run))
    canvas.legend(figure, handles)
    return figure


# --- what they share


def _mark_run(axes: canvas.Axes, run: Run) -> None:
    """Shades the snapshots that cannot be told apart from the lowest, and dashes the step at which the rule fired."""
    if run.onset is None:
        return
    minimum, fired_at = run.onset.minimum, run.onset.fired_at
    if minimum is not None and minimum.low_step < minimum.high_step:
        axes.axvspan(minimum.low_step, minimum.high_step, color=canvas.shade(), linewidth=0, zorder=0.5)
    if fired_at is not None:
        axes.axvline(fired_at, **canvas.rule(), zorder=2)


def _rule_handles(run: Run) -> list[Any]:
    """Of what `_mark_run` draws."""
    if run.onset is None:
        return []
    minimum, fired_at = run.onset.minimum, run.onset.fired_at
    handles: list[Any] = []
    if minimum is not None and minimum.low_step < minimum.high_step:
        reach = f"{series.short(minimum.low_step)} to {series.short(minimum.high_step)}"
        handles.append(
            canvas.Patch(
                color=canvas.shade(), label=canvas.literal(f"not distinguishable from the lowest ICR: {reach}{run.of}")
            )
        )
    if fired_at is not None:
        label = f"memorization onset fired at {series.short(fired_at)}{run.of}"
        handles.append(canvas.Line2D([], [], **canvas.rule(), label=canvas.literal(label)))
    return handles


def _names(run: Run) -> list[Any]:
    """Which curve is which series: its layer, and its noise level where that tells series apart."""
    handles = canvas.curve_handles(run.shown, len(run.groups) - len(run.shown), "series")
    for handle in handles if run.dense else ():
        handle.set_marker("None")
    return handles


def _curve_handles(run: Run) -> list[Any]:
    if run.one:
        look = {**run.style(0), "markerfacecolor": canvas.paper()}
        of = ", training images" if run.has_held_out else ""
        curves = [canvas.Line2D([], [], **look, label=canvas.literal(f"ICR of {run.best}{of}"))]
        if run.has_held_out:
            look = {**held_out_style(run), "markerfacecolor": canvas.paper()}
            curves.append(canvas.Line2D([], [], **look, label="ICR, held-out images"))
        return [*curves, canvas.bands_handle()]
    names = [f"{name}{_state(series.onset_of(run.result, run.groups[name][0]))}" for name in run.shown]
    curves = canvas.curve_handles(names, len(run.groups) - len(run.shown), "series")
    return [*curves, canvas.bands_handle()]


def _state(onset: OnsetRow | None) -> str:
    if onset is None:
        return ""
    return f": {onset.state}" + ("" if onset.fired_at is None else f", fired at {series.short(onset.fired_at)}")


def _mark_handles(run: Run) -> list[Any]:
    """The minimum, how far it reaches, where the rule fired, and what to keep."""
    handles: list[Any] = []
    minimum = None if run.onset is None else run.onset.minimum
    if minimum is not None:
        look: dict[str, Any] = {"color": canvas.PALETTE[0] if run.one else canvas.ink(), "marker": "o", "markersize": 7}
        label = f"lowest ICR {share(minimum.icr)} at {series.short(minimum.step)}{run.of}"
        label = label if run.one else f"filled: {label}"
        handles.append(canvas.Line2D([], [], **look, linestyle="none", label=canvas.literal(label)))
    handles += _rule_handles(run)
    kept = _kept(run)
    if kept is not None:
        name = series.file_names(run.result).get(kept.checkpoint or "", kept.checkpoint or "")
        label = f"keep {canvas.shortened(name, 40)}, step {series.short(series.step(kept))}{run.of}"
        handles.append(canvas.Line2D([], [], **{**_ring(), "markersize": 10}, label=canvas.literal(label)))
    return handles


def _title(run: Run) -> str:
    onset = run.onset
    if onset is None:
        return _subject(run)
    keep = "" if onset.keep_step is None else f"keep step {series.short(onset.keep_step)}"
    told = {
        "fired": f"turned: {keep}",
        "retrospective": f"turned, seen looking back: {keep}",
        "falling": "still falling: no sign of memorization",
        "flat": "flat: not memorizing",
        "unclear": "undecided"
        + ("" if onset.images_needed is None else f": about {onset.images_needed:,} images would decide"),
    }[training.verdict(onset)]
    return f"{_subject(run)}\n{canvas.literal(told + run.of)}"


def _subject(run: Run) -> str:
    return canvas.title(series.run_name(run.result), series.shared(run.result.rows))


def _steps(axes: canvas.Axes, run: Run, others: Sequence[int] = ()) -> None:
    canvas.step_axis(axes, [*run.steps, *others], series.steps_count(run.result))
