"""Picture of the quality of samples over training: distances, and shares of neighbourhoods, each with its error."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from diffscope.report.figures import canvas
from diffscope.report.text import number
from diffscope.report.words import quality, series
from diffscope.results import Result

LOOKS = {"": 0, "_holdout": 1}
"""Places in the palette: of training images, and of held-out ones."""
DISTANCES = ("fd", "fd_infinity", "kd")
SHARES = ("precision", "recall", "coverage", "authenticity")
"""From 0 to 1."""


def over_training(result: Result) -> canvas.Figure:
    """A panel for each measure, with 95 % intervals where there are errors."""
    ends = quality.ends(result)
    keys = [key for key in quality.NAMES if any(row.get(key) is not None for row in result.rows)]
    handles: list[Any] = [
        canvas.Line2D([], [], **canvas.curve_style(LOOKS[end]), markerfacecolor=canvas.paper(), label=label(end))
        for end in ends
    ]
    handles += [canvas.bands_handle(), canvas.Line2D([], [], linestyle="none", label=_space(result))]
    columns = 1 if canvas.is_narrow() else 2
    lines = -(-len(keys) // columns)
    figure = canvas.figure(0.7 + 1.9 * lines, handles, 1.15 * canvas.WIDTH)
    for i, key in enumerate(keys, start=1):
        axes = figure.add_subplot(lines, columns, i)
        values = [row[f"{key}{end}"] for row in result.rows for end in ends if row[f"{key}{end}"] is not None]
        floor = canvas.floor_of(axes, values) if key in DISTANCES else 0.0
        for end in ends:
            _curve(axes, result, key, end, floor)
        axes.set_title(quality.NAMES[key], fontsize="small")
        last = i + columns > len(keys)
        canvas.step_axis(axes, list(map(series.step, result.rows)), series.steps_count(result) if last else "")
    count = result.rows[0]["samples"]
    figure.suptitle(canvas.title(series.run_name(result), f"quality of {count:,} samples"))
    canvas.legend(figure, handles)
    return figure


def _space(result: Result) -> str:
    """In what the distances are."""
    told = result.sections["quality"]
    of = Path(str(told["encoder"])).name if "encoder" in told else f"{told['layer']}, σ = {number(told['sigma'])}"
    return canvas.literal(f"in features of {canvas.shortened(str(of), 50)}")


def label(end: str) -> str:
    """What the samples are held against."""
    return f"against {quality.AGAINST[end]} images"


def _curve(axes: canvas.Axes, result: Result, key: str, end: str, floor: float) -> None:
    rows = [row for row in result.rows if row[f"{key}{end}"] is not None]
    steps, values = [series.step(row) for row in rows], np.array([row[f"{key}{end}"] for row in rows])
    errors = np.array([1.96 * (row[f"{key}{end}_se"] or 0.0) for row in rows])
    marker = {"marker": None} if len(rows) > canvas.MARKED else {}
    look = canvas.curve_style(LOOKS[end]) | marker
    axes.plot(steps, values, **look, markerfacecolor=canvas.paper(), markersize=4, zorder=3, clip_on=False)
    low, high = np.maximum(values - errors, floor), np.minimum(values + errors, 1 if key in SHARES else math.inf)
    axes.fill_between(steps, low, high, color=canvas.PALETTE[LOOKS[end]], alpha=0.14, linewidth=0)
