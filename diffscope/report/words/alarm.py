"""The alarm in words: whether it fired, on what, and what stands beside it."""

from __future__ import annotations

from diffscope.report.text import number, percent
from diffscope.report.words.series import place
from diffscope.results import Alarm, AlarmLimit

LOSSES = {
    "loss_views": "the loss on views that training never saw",
    "loss_gap": "the loss on held-out images",
}
"""What the alarm watches beside ICR."""

HEADINGS = {"loss_views": "loss, new views", "loss_gap": "held-out loss"}
"""Of the table's columns."""


def risen(rise: float | None, se: float | None) -> str:
    """A rise above the lowest so far, with its standard error; nothing at the lowest itself."""
    if rise is None or se is None:
        return ""
    return "" if rise == 0 else f"{percent(rise)} ± {100 * (1 + rise) * se:.1f}"


def sentences(alarm: Alarm) -> list[str]:
    """Whether it fired, on what, and what stands beside it."""
    passes = "" if alarm.passes is None else f" (after {_count(alarm.passes)} passes over these images in all)"
    if alarm.fired_at is None:
        waits = " and ".join(
            f"{_quantity(limit)} by {limit.rise:.0%}, {limit.errors:g} standard error{'s' * (limit.errors != 1)}"
            for limit in alarm.limits
        )
        return [f"The alarm has not fired{passes}: it waits for a rise of {waits}."]
    point = next(point for point in alarm.points if point.step == alarm.fired_at)
    said = [
        f"{_quantity(limit)} by {percent(point.icr_rise if limit.quantity == 'icr' else point.loss_rise)}"
        for limit in alarm.limits
    ]
    cells = ", ".join(f"{place(cell)} ({percent(cell.rise)})" for cell in alarm.cells[:3])
    rate = (
        ""
        if alarm.false_alarms is None
        else f" In simulations of runs that only flatten out it fires in {100 * alarm.false_alarms:.2g} %."
    )
    return [
        f"The alarm fired at step {alarm.fired_at:,}{passes}: there is a rise of {' and of '.join(said)}. "
        f"ICR rose most surely in {cells}.{rate}"
    ]


def _quantity(limit: AlarmLimit) -> str:
    if limit.quantity == "icr":
        return "ICR above its lowest"
    above = "that on the training images" if limit.quantity == "loss_gap" else "its lowest"
    return f"{LOSSES[limit.quantity]} above {above}"


def _count(passes: float) -> str:
    return f"{passes:,.0f}" if passes >= 10 else number(passes, 2)
