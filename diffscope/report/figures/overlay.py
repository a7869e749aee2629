"""Panels of columns of the user's below ICR of a training run."""

from __future__ import annotations

from typing import Any

from diffscope.report.figures import canvas
from diffscope.report.text import CORRELATED
from diffscope.report.words import series
from diffscope.results import Overlay, OverlayAgainst, Row

OVERLAYS = 4
"""Columns that have room."""


def turn_style() -> dict[str, Any]:
    """Of the point at which a column turns."""
    return {"color": canvas.ink(), "marker": "D", "markersize": 6}


def overlay_panel(axes: canvas.Axes, row: Row, column: Overlay) -> None:
    """A column over steps, with its turn, and how it goes with ICR of the series that a row is of."""
    steps, values = [point[0] for point in column.points], [point[1] for point in column.points]
    marker = None if len(steps) > canvas.MARKED else "o"
    floor = canvas.floor_of(axes, values)
    axes.plot(
        steps, values, color=canvas.ink(), linewidth=1.2, marker=marker, markersize=3.5, markerfacecolor=canvas.paper()
    )
    both = sorted(dict(column.low).keys() & dict(column.high).keys())
    low, high = ([max(floor, dict(side)[step]) for step in both] for side in (column.low, column.high))
    axes.fill_between(both, low, high, color=canvas.ink(), alpha=0.16, linewidth=0)
    turn = "no turn within the run"
    if column.turn_step is not None:
        value = dict(column.points)[column.turn_step]
        axes.plot([column.turn_step], [value], **turn_style(), zorder=5, clip_on=False)
        turn = f"turns at {series.short(column.turn_step)}"
    known = [a for a in column.against if (a.layer, a.sigma) == (row.layer, row.sigma)]
    parts = [turn, *(part for against in known for part in _against(against))]
    canvas.small_title(axes, f"{canvas.shortened(column.column, 20)}: {', '.join(parts)}")


def _against(against: OverlayAgainst) -> list[str]:
    """How far the column's turn is from that of ICR, and how alike the two are."""
    parts = []
    if against.lead is not None:
        count = f"{abs(against.lead)} snapshot{'' if abs(against.lead) == 1 else 's'}"
        parts.append("with ICR" if against.lead == 0 else f"{count} {'after' if against.lead > 0 else 'before'} ICR")
    if against.rank_correlation is not None and against.n >= CORRELATED:
        parts.append(f"rank correlation {against.rank_correlation:+.2f}".replace("-", "−"))
    return parts
