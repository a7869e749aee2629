"""What the picture of a training run shows of the alarm: rises with their limits, and the cells that they come from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from diffscope.report.figures import canvas
from diffscope.report.words import series
from diffscope.results import Alarm, AlarmLimit, Result, Row

LEADING = 3
"""Cells that are drawn one by one."""
ERRORS = 1.96
"""Standard errors on either side of a band: 95 %."""
THIN: dict[str, Any] = {"linewidth": 0.9, "alpha": 0.8, "zorder": 2}

TITLES = {
    "icr": "ICR above its lowest so far",
    "loss_views": "loss on views that training never saw, above its lowest so far",
    "loss_gap": "loss on held-out images above that on training images",
}


def panels(alarm: Alarm | None) -> list[AlarmLimit]:
    """Of each a panel."""
    return [] if alarm is None else list(alarm.limits)


def draw_cells(axes: canvas.Axes, result: Result, rows: Sequence[Row]) -> None:
    """ICR of the cells that rose most surely, thin, and around the pooled one the error that its rise has."""
    assert result.alarm is not None
    steps = [series.step(row) for row in rows]
    low, high = ([row["icr"] * math.exp(side * ERRORS * row["icr_rise_se"]) for row in rows] for side in (-1, 1))
    axes.fill_between(steps, low, high, color=canvas.PALETTE[0], alpha=0.35, linewidth=0)
    for i, cell in enumerate(result.alarm.cells[:LEADING], start=2):
        own = [row for row in result.rows if (row.layer, row.sigma) == (cell.layer, cell.sigma)]
        canvas.line(axes, own, series.step, "icr", color=canvas.PALETTE[i], linestyle=canvas.DASHES[i], **THIN)


def handles(alarm: Alarm) -> list[Any]:
    """Of what `draw_cells` and `draw_rise` draw."""
    cells = [
        canvas.Line2D([], [], color=canvas.PALETTE[i], linestyle=canvas.DASHES[i], linewidth=0.9,
                      label=canvas.literal(series.place(cell)))
        for i, cell in enumerate(alarm.cells[:LEADING], start=2)
    ]  # fmt: skip
    return [
        canvas.Patch(color=canvas.PALETTE[0], alpha=0.4, linewidth=0, label="dark band: error of the rise"),
        *cells,
        canvas.Line2D([], [], **_limit(), label="limit of the alarm"),
    ]


def _limit() -> dict[str, Any]:
    return {"color": canvas.PALETTE[1], "linestyle": (0, (1.2, 1.4)), "linewidth": 1.2}


def draw_rise(axes: canvas.Axes, alarm: Alarm, limit: AlarmLimit) -> None:
    """One quantity above its lowest so far in per cent, with the error of the rise and its limit."""
    name = "icr_rise" if limit.quantity == "icr" else "loss_rise"
    steps = [point.step for point in alarm.points]
    rises = [getattr(point, name) for point in alarm.points]
    reach = [ERRORS * getattr(point, f"{name}_se") for point in alarm.points]
    low, high = (
        [100 * ((1 + r) * math.exp(side * e) - 1) for r, e in zip(rises, reach, strict=True)] for side in (-1, 1)
    )
    axes.fill_between(steps, low, high, color=canvas.ink(), alpha=0.2, linewidth=0)
    axes.plot(steps, [100 * rise for rise in rises], color=canvas.ink(), linewidth=1.2)
    axes.axhline(100 * limit.rise, **_limit())
    # Before features have formed everything rises and falls by far more than what matters later.
    shown = [100 * rise for rise in rises[len(rises) // 4 :]]
    highest = max(4 * 100 * limit.rise, 1.25 * max(shown, default=0.0), 10.0)
    if highest > 2000 * limit.rise:  # or the limit would lie on the axis
        axes.set_yscale("symlog", linthresh=100 * limit.rise)
        axes.yaxis.set_major_formatter(canvas.FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    axes.set_ylim(-1.5, highest)
    axes.set_ylabel("%")
    canvas.small_title(axes, TITLES[limit.quantity])
