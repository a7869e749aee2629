"""ICR over log sigma, or over the steps of a training run, as a few lines of characters, legible without colour.

ICR 0.372 ┤○
          │  ○                          ○
          │     ○                    ○
          │         ●             ●
    0.181 ┤             ●   ◆
          └┬─────────────┬─────────────┬
           0.01        0.316          10   σ
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from diffscope.report.text import lowest, number, share
from diffscope.report.words import series
from diffscope.results import OnsetRow, Row, WindowRow

HEIGHT = 9
WIDTH = 60
LABEL = 8
NEEDED = LABEL + 2 + WIDTH + 3
"""Characters of the longest line over sigma."""
NEEDED_BY_STEPS = NEEDED + 5

LEGEND = "◆ lowest ICR   ● not told apart from the best   ○ other levels   │ 95 % interval"
LEGEND_OF_STEPS = "◆ lowest ICR   ● not told apart from it   ○ others   │ 95 % interval   : onset"


@dataclass(frozen=True)
class Across:
    """A horizontal axis."""

    at: Callable[[Row], float]
    """Where a row stands, on an even scale."""
    label: Callable[[Row], str]
    unit: str


LEVELS = Across(lambda row: math.log(row.sigma), lambda row: number(row.sigma, 2), "σ")
STEPS = Across(series.step, lambda row: series.short(series.step(row)), "step")


def over_levels(rows: Sequence[Row], window: WindowRow | None, best: Row | None) -> list[str]:
    """The plot of one layer, rows by rising sigma; no lines where fewer than two levels have an ICR."""
    near = () if window is None else window.near
    return _draw(rows, LEVELS, lambda row: row.sigma in near, best)


def over_steps(rows: Sequence[Row], onset: OnsetRow | None) -> list[str]:
    """The plot of one series, rows by rising step; no lines where fewer than two snapshots have an ICR."""
    minimum = None if onset is None else onset.minimum
    if onset is None or minimum is None:
        return _draw(rows, STEPS, lambda row: False, lowest(rows))
    fired = next((row for row in rows if row.step == onset.fired_at), None)
    return _draw(
        rows, STEPS, lambda row: minimum.low_step <= series.step(row) <= minimum.high_step, lowest(rows), fired
    )


def _draw(
    rows: Sequence[Row], across: Across, near: Callable[[Row], bool], best: Row | None, ruled: Row | None = None
) -> list[str]:
    """`near` says what cannot be told apart from the `best`; a dotted rule stands at one row, behind all others."""
    measured = [row for row in rows if row.get("icr") is not None]
    if best is None or len(measured) < 2:
        return []
    bottom, top = _range(measured)
    canvas = [[" "] * WIDTH for _ in range(HEIGHT)]
    if ruled in measured:
        for line in canvas:
            line[_column(ruled, measured, across)] = ":"
    for row in measured:
        column = _column(row, measured, across)
        low, high = _ends(row)
        for i in range(_line(high, bottom, top), _line(low, bottom, top) + 1):
            canvas[i][column] = "│"
    for row in sorted(measured, key=lambda row: row is best):  # the minimum last: nothing is drawn over it
        marker = "◆" if row is best else "●" if near(row) else "○"
        canvas[_line(row["icr"], bottom, top)][_column(row, measured, across)] = marker
    return [*_with_scale(canvas, bottom, top), *_axis(measured, across)]


def _ends(row: Row) -> tuple[float, float]:
    """The interval, or the point itself where it has none."""
    icr, low, high = row["icr"], row.get("icr_low"), row.get("icr_high")
    return float(icr if low is None else low), float(icr if high is None else high)


def _range(measured: Sequence[Row]) -> tuple[float, float]:
    """What the vertical axis spans: all intervals; a little more than nothing where all are equal."""
    bottom = min(_ends(row)[0] for row in measured)
    top = max(_ends(row)[1] for row in measured)
    return (bottom, top) if top > bottom else (bottom - 0.001, top + 0.001)


def _line(icr: float, bottom: float, top: float) -> int:
    return round((HEIGHT - 1) * (top - icr) / (top - bottom))


def _column(row: Row, measured: Sequence[Row], across: Across) -> int:
    first, last = across.at(measured[0]), across.at(measured[-1])
    return 1 + round((WIDTH - 3) * (across.at(row) - first) / (last - first)) if last > first else WIDTH // 2


def _with_scale(canvas: Sequence[Sequence[str]], bottom: float, top: float) -> list[str]:
    labels = {0: top, HEIGHT // 2: (top + bottom) / 2, HEIGHT - 1: bottom}
    return [
        (f"{share(labels[i]):>{LABEL}} ┤" if i in labels else " " * LABEL + " │") + "".join(line).rstrip()
        for i, line in enumerate(canvas)
    ]


def _axis(measured: Sequence[Row], across: Across) -> list[str]:
    """Ticks at rows that were measured, as many as their labels leave room for; first and last always."""
    ticks, labels = ["─"] * WIDTH, [" "] * (WIDTH + 8)
    last = _span(measured[-1], measured, across)
    free = 0
    for row in measured:
        start, end, text = _span(row, measured, across)
        if row is not measured[-1] and (start < free or end >= last[0]):
            continue
        ticks[_column(row, measured, across)] = "┬"
        labels[start:end] = text
        free = end + 1
    margin = " " * (LABEL + 1)
    return [f"{margin}└{''.join(ticks)}", f"{margin} {''.join(labels).rstrip()}  {across.unit}"]


def _span(row: Row, measured: Sequence[Row], across: Across) -> tuple[int, int, str]:
    """Where a tick's label stands, centred under its row."""
    text = across.label(row)
    start = max(0, _column(row, measured, across) - len(text) // 2)
    return start, start + len(text), text
