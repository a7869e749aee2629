"""ICR and what else was measured over a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffscope.report.page.charts import Axis, Chart, Curve, Drawn, Map, Marks, curve, level
from diffscope.report.page.levels import ICR, LAYER, SIGMA
from diffscope.report.page.measures import MEASURE, measures_chart
from diffscope.report.text import number
from diffscope.report.words import alarm as of_alarm
from diffscope.report.words import quality, series, training
from diffscope.results import Alarm, OnsetRow, Overlay, Result, Row

LEVEL = "σ"
IMAGES = "images"
TRAINING, HELD_OUT = "training", "held-out"


def charts(result: Result) -> list[Drawn]:
    """ICR over steps, the alarm that rests on it, the user's columns, and whatever else the rows hold."""
    x = Axis(series.steps_count(result), whole=True)
    groups = _groups(result.rows)
    others = measures_chart(x.label, groups, (LAYER, LEVEL), x, series.step, ("icr", "icr_holdout"))
    pooled = [] if result.alarm is None else _of_alarm(result, result.alarm, x)
    return [*pooled, _icr(result, groups, x), *_overlays(result.overlay, x), *others]


STEP = Axis("training step", whole=True)


def share_charts(rows: Sequence[Row], key: str, title: str, axis: Axis) -> list[Drawn]:
    """A share over steps, as of copies among samples."""
    drawn = curve((), _by_step(rows), series.step, key)
    return [Chart(f"{key} over steps", title, STEP, axis, (), [drawn], said="Bands: 95 % intervals.")]


def quality_charts(result: Result) -> list[Drawn]:
    """How samples as a whole compare with images over steps, one measure at a time."""
    rows = _by_step(result.rows)
    curves = [
        curve((name, against), rows, series.step, f"{key}{end}")
        for key, name in quality.NAMES.items()
        for end, against in quality.AGAINST.items()
        if any(row.get(f"{key}{end}") is not None for row in rows)
    ]
    facets, said = (MEASURE, "against"), quality.compared(result)
    return [Chart("quality over steps", "Quality of samples", STEP, Axis("value"), facets, curves, single=MEASURE,
                  said=f"Bands: 95 % intervals. {said}")]  # fmt: skip


def _by_step(rows: Sequence[Row]) -> list[Row]:
    return sorted((row for row in rows if row.step is not None), key=series.step)


def _groups(rows: Sequence[Row]) -> dict[tuple[str, ...], list[Row]]:
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in sorted(rows, key=series.step):
        groups.setdefault((row.layer, level(row.sigma)), []).append(row)
    return groups


def _icr(result: Result, groups: Mapping[tuple[str, ...], list[Row]], x: Axis) -> Chart:
    """Each layer at each noise level; held-out images beside those of training where they were measured."""
    kinds = {"icr": TRAINING, "icr_holdout": HELD_OUT}
    held_out = any(row.get("icr_holdout") is not None for row in result.rows)
    curves = [
        curve((*at, name), rows, series.step, key, _marks(series.onset_of(result, rows[0])))
        for at, rows in groups.items()
        for key, name in kinds.items()
        if key == "icr" or held_out
    ]
    title = "ICR over training" if result.alarm is None else "ICR of each layer and noise level"
    drawn = Map(LEVEL, SIGMA.label, _windows(result)) if result.window else None
    return Chart(f"icr over {x.label}", title, x, ICR, (LAYER, LEVEL, IMAGES), curves, best="lowest",
                 said="Bands: 95 % intervals.", map=drawn)  # fmt: skip


def _windows(result: Result) -> dict[tuple[str, ...], list[dict[str, float | None]]]:
    """Of each layer, the window at each step where there is one."""
    found: dict[tuple[str, ...], list[dict[str, float | None]]] = {}
    for window in result.window:
        if window.shape == "u" and window.step is not None:
            point = {"x": float(window.step), "level": window.sigma, "low": window.low, "high": window.high}
            found.setdefault((window.layer, TRAINING), []).append(point)
    return found


def _marks(onset: OnsetRow | None) -> Marks | None:
    """Snapshots that cannot be told from the lowest, and the step at which the rule fired."""
    if onset is None or onset.minimum is None:
        return None
    minimum = onset.minimum
    span = (float(minimum.low_step), float(minimum.high_step)) if minimum.low_step < minimum.high_step else None
    told = [training.HEADLINE[training.verdict(onset)]]
    if onset.fired_at is not None:
        told.append(f"dashed: onset fired at step {onset.fired_at:,}")
    if span is not None:
        told.append(
            f"shaded: steps {minimum.low_step:,} to {minimum.high_step:,}, which cannot be told from the lowest"
        )
    if onset.keep_step is not None:
        told.append(f"keep step {onset.keep_step:,}")
    return Marks("; ".join(told), span, None if onset.fired_at is None else float(onset.fired_at))


# --- the alarm over all layers and levels


def _of_alarm(result: Result, alarm: Alarm, x: Axis) -> list[Drawn]:
    """Pooled ICR, and how far each quantity has risen above its lowest."""
    rows = [dict(vars(point)) for point in alarm.points]

    def across(row: Mapping[str, Any]) -> float:
        return float(row["step"])

    pooled = curve((), rows, across, "icr", _marks(result.onset[0]) if result.onset else None)
    title = f"ICR, {series.POOLED}"
    drawn: list[Drawn] = [
        Chart(f"pooled icr over {x.label}", title, x, ICR, (), [pooled], best="lowest", said="Band: 95 % interval.")
    ]
    for limit in alarm.limits:
        key = "icr_rise" if limit.quantity == "icr" else "loss_rise"
        name = "ICR" if limit.quantity == "icr" else of_alarm.HEADINGS[limit.quantity]
        rises = curve((), rows, across, key)
        errors = f"{number(limit.errors)} standard error{'' if limit.errors == 1 else 's'}"
        said = f"Line: the rise of {limit.rise:.0%} that the alarm waits for, which has to be {errors} at least."
        axis = Axis("rise above the lowest so far", signed=True)
        drawn.append(
            Chart(f"{key} over {x.label}", f"Rise of {name}", x, axis, (), [rises], reference=limit.rise, said=said)
        )
    return drawn


# --- the user's own columns


def _overlays(columns: Sequence[Overlay], x: Axis) -> list[Drawn]:
    """The columns of --overlay, one at a time."""
    curves = [_overlay(column) for column in columns]
    if not curves:
        return []
    chart = Chart(f"overlay over {x.label}", "Your own columns", x, Axis("value"), ("column",), curves, single="column")
    return [chart]


def _overlay(column: Overlay) -> Curve:
    low, high = dict(column.low), dict(column.high)
    steps = [step for step, _ in column.points]
    turn = column.turn_step
    marks = None if turn is None else Marks(f"dashed: its turn, step {turn:,}", None, float(turn))
    return Curve(
        (column.column,),
        [float(step) for step in steps],
        [value for _, value in column.points],
        [low.get(step) for step in steps],
        [high.get(step) for step in steps],
        marks,
    )
