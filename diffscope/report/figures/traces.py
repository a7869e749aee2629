"""tr Σs and tr Σξ over noise or over training: how much of the features the views share, and how much they do not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffscope.report.figures import canvas
from diffscope.results import Row

TRACES = (("trace_s", "trace_xi", "raw features"), ("trace_s_l2", "trace_xi_l2", "L2-normalised features"))
"""Keys of signal and residual, and the title of their picture."""
BANDED = 3
"""Curves of each kind whose intervals can still be told apart."""


def measured(rows: Sequence[Row]) -> bool:
    """Whether any row has traces."""
    return any(row.get(signal) is not None for row in rows for signal, *_ in TRACES)


def traces_figure(
    groups: Mapping[str, Sequence[Row]],
    shown: Sequence[str],
    across: canvas.Across,
    dress: Callable[[canvas.Axes], None],
    title: str,
    markers: bool = True,
    marks: Sequence[Any] = (),
) -> canvas.Figure:
    """Signal and residual variance, raw and of features of length one; those of the two that were measured.

    `dress` gives axes their horizontal scale and label, and whatever `marks` are the legend's entries of.
    """
    rows = [row for group in groups.values() for row in group]
    kinds = [kind for kind in TRACES if any(row.get(kind[0]) is not None for row in rows)]
    handles = [*_handles(shown, markers), *marks]
    if len(shown) <= BANDED and any(row.get(f"{key}_se") is not None for row in rows for kind in kinds for key in kind):
        handles.append(canvas.bands_handle())
    columns = 1 if canvas.is_narrow() else len(kinds)
    lines = len(kinds) // columns
    figure = canvas.figure(3.4 * lines, handles, canvas.WIDTH if len(kinds) == 1 else 1.15 * canvas.WIDTH)
    for i, (signal, residual, name) in enumerate(kinds, start=1):
        axes = figure.add_subplot(lines, columns, i)
        for j, label in enumerate(shown):
            look = canvas.curve_style(j) if markers else {**canvas.curve_style(j), "marker": None}
            canvas.line(axes, groups[label], across, signal, **{**look, "linestyle": "-"})
            canvas.line(
                axes, groups[label], across, residual, **{**look, "linestyle": ":"}, markerfacecolor=canvas.paper()
            )
        dress(axes)
        values = [row.get(key) for label in shown for row in groups[label] for key in (signal, residual)]
        is_log = _log_if_wide(axes, values)
        floor = 0.8 * min(value for value in values if value is not None and value > 0) if is_log else -math.inf
        for j, label in enumerate(shown if len(shown) <= BANDED else ()):
            for key in (signal, residual):
                canvas.error_band(axes, groups[label], across, key, floor, color=canvas.PALETTE[j], alpha=0.14)
        axes.set_title(name, fontsize="small")
    for axes in figure.axes[::columns]:
        axes.set_ylabel("trace of the covariance")
    figure.suptitle(title)
    canvas.legend(figure, handles)
    return figure


def _handles(shown: Sequence[str], markers: bool) -> list[Any]:
    """What is solid and what dotted; then the curves, by colour and marker."""
    one = len(shown) == 1
    look: dict[str, Any] = {
        "color": canvas.PALETTE[0] if one else canvas.ink(),
        "marker": canvas.MARKERS[0] if markers else None,
    }
    of = f"{canvas.literal(shown[0])}: " if one else ""
    signal = canvas.Line2D([], [], **look, label=rf"{of}tr $\Sigma_s$ (shared by views)")
    residual = canvas.Line2D(
        [], [], **look, linestyle=":", markerfacecolor=canvas.paper(), label=rf"{of}tr $\Sigma_\xi$ (not shared)"
    )
    curves = (
        []
        if one
        else [
            canvas.Line2D(
                [],
                [],
                color=canvas.PALETTE[i],
                marker=canvas.MARKERS[i] if markers else None,
                label=canvas.literal(label),
            )
            for i, label in enumerate(shown)
        ]
    )
    return [signal, residual, *curves]


def _log_if_wide(axes: canvas.Axes, values: Sequence[float | None]) -> bool:
    """Logarithmic where values span more than a decade; a trace can be estimated below 0, which then is a gap."""
    positive = [value for value in values if value is not None and value > 0]
    if not positive or max(positive) <= 10 * min(positive):
        if all(value is None or value >= 0 for value in values):  # else the margin below the lowest stays
            axes.set_ylim(bottom=0)
        return False
    axes.set_yscale("log", nonpositive="mask")
    canvas.plain_numbers(axes.yaxis, max(positive) / min(positive))
    return True
