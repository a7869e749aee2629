"""ICR over log sigma as a few lines of characters, legible without colour.

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
from collections.abc import Sequence

from diffscope.report.cells import lowest, number, share
from diffscope.results import Row, WindowRow

HEIGHT = 9
WIDTH = 60
LABEL = 8
NEEDED = LABEL + 2 + WIDTH + 3
"""Characters of the longest line."""

LEGEND = "◆ lowest ICR   ● not distinguishable from it   ○ other levels   │ 95 % interval"


def draw(rows: Sequence[Row], window: WindowRow | None) -> list[str]:
    """The plot of one layer, rows by rising sigma; no lines where fewer than two levels have an ICR."""
    measured = [row for row in rows if row.values.get("icr") is not None]
    best = lowest(measured)
    if best is None or len(measured) < 2:
        return []
    bottom, top = _range(measured)
    canvas = [[" "] * WIDTH for _ in range(HEIGHT)]
    for row in measured:
        column = _column(row.sigma, measured)
        low, high = _ends(row)
        for line in range(_line(high, bottom, top), _line(low, bottom, top) + 1):
            canvas[line][column] = "│"
    for row in sorted(measured, key=lambda row: row is best):  # the minimum last: nothing is drawn over it
        canvas[_line(row["icr"], bottom, top)][_column(row.sigma, measured)] = _marker(row, best, window)
    return [*_with_scale(canvas, bottom, top), *_axis(measured)]


def _ends(row: Row) -> tuple[float, float]:
    """The interval, or the point itself where it has none."""
    icr, low, high = row["icr"], row.values.get("icr_low"), row.values.get("icr_high")
    return float(icr if low is None else low), float(icr if high is None else high)


def _range(measured: Sequence[Row]) -> tuple[float, float]:
    """What the vertical axis spans: all intervals; a little more than nothing where all are equal."""
    bottom = min(_ends(row)[0] for row in measured)
    top = max(_ends(row)[1] for row in measured)
    return (bottom, top) if top > bottom else (bottom - 0.001, top + 0.001)


def _line(icr: float, bottom: float, top: float) -> int:
    return round((HEIGHT - 1) * (top - icr) / (top - bottom))


def _column(level: float, measured: Sequence[Row]) -> int:
    first, last = math.log(measured[0].sigma), math.log(measured[-1].sigma)
    return 1 + round((WIDTH - 3) * (math.log(level) - first) / (last - first)) if last > first else WIDTH // 2


def _marker(row: Row, best: Row, window: WindowRow | None) -> str:
    if row is best:
        return "◆"
    if window is None or window.low is None or window.high is None:
        return "○"
    return "●" if window.low <= row.sigma <= window.high else "○"


def _with_scale(canvas: Sequence[Sequence[str]], bottom: float, top: float) -> list[str]:
    labels = {0: top, HEIGHT // 2: (top + bottom) / 2, HEIGHT - 1: bottom}
    return [
        (f"{share(labels[i]):>{LABEL}} ┤" if i in labels else " " * LABEL + " │") + "".join(line).rstrip()
        for i, line in enumerate(canvas)
    ]


def _axis(measured: Sequence[Row]) -> list[str]:
    """Ticks at levels that were measured, as many as their labels leave room for; first and last always."""
    ticks, labels = ["─"] * WIDTH, [" "] * (WIDTH + 8)
    last = _span(measured[-1], measured)
    free = 0
    for row in measured:
        start, end, text = _span(row, measured)
        if row is not measured[-1] and (start < free or end >= last[0]):
            continue
        ticks[_column(row.sigma, measured)] = "┬"
        labels[start:end] = text
        free = end + 1
    margin = " " * (LABEL + 1)
    return [f"{margin}└{''.join(ticks)}", f"{margin} {''.join(labels).rstrip()}  σ"]


def _span(row: Row, measured: Sequence[Row]) -> tuple[int, int, str]:
    """Where a tick's label stands, centred under its level."""
    text = number(row.sigma, 2)
    start = max(0, _column(row.sigma, measured) - len(text) // 2)
    return start, start + len(text), text
