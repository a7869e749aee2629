"""Picture of the quality of samples over training: distances, and shares of neighbourhoods, each with its error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from diffscope.report.figures import canvas
from diffscope.report.words import quality, series
from diffscope.results import Result

LOOKS: dict[str, dict[str, Any]] = {
    "": {"color": canvas.PALETTE[0], "marker": "o", "linestyle": "-"},
    "_holdout": {"color": canvas.PALETTE[1], "marker": "s", "linestyle": (0, (5, 2))},
}
DISTANCES = ("fd", "fd_infinity", "kd")
SHARES = ("precision", "recall", "coverage", "authenticity")
"""From 0 to 1."""
MARKED = 40
"""Snapshots up to which each has its marker."""


def over_training(result: Result) -> canvas.Figure:
    """A panel for each measure, with 95 % intervals where there are errors."""
    ends = quality.ends(result)
    keys = [key for key in quality.NAMES if any(row.get(key) is not None for row in result.rows)]
    figure = canvas.Figure(figsize=(1.15 * canvas.WIDTH, 0.9 + 1.9 * -(-len(keys) // 2)))
    for i, key in enumerate(keys, start=1):
        axes = figure.add_subplot(-(-len(keys) // 2), 2, i)
        values = [row[f"{key}{end}"] for row in result.rows for end in ends if row[f"{key}{end}"] is not None]
        floor = canvas.floor_of(axes, values) if key in DISTANCES else 0.0
        for end in ends:
            _curve(axes, result, key, end, floor)
        axes.set_title(quality.NAMES[key], fontsize=9.5)
        axes.xaxis.set_major_locator(canvas.MaxNLocator(nbins=5, integer=True))
        axes.xaxis.set_major_formatter(canvas.FuncFormatter(lambda value, _: series.short(value)))
        if i + 2 > len(keys):
            axes.set_xlabel(series.steps_count(result))
    count = result.rows[0]["samples"]
    figure.suptitle(canvas.title(f"quality of {count:,} samples", "bands: 95 % intervals"), fontsize=10)
    handles = [
        canvas.Line2D([], [], **LOOKS[end], markerfacecolor="white", label=f"{quality.AGAINST[end]} images")
        for end in ends
    ]
    canvas.legend(figure, handles)
    return figure


def _curve(axes: canvas.Axes, result: Result, key: str, end: str, floor: float) -> None:
    rows = [row for row in result.rows if row[f"{key}{end}"] is not None]
    steps, values = [series.step(row) for row in rows], np.array([row[f"{key}{end}"] for row in rows])
    errors = np.array([1.96 * (row[f"{key}{end}_se"] or 0.0) for row in rows])
    marker = {"marker": None} if len(rows) > MARKED else {}
    axes.plot(steps, values, **(LOOKS[end] | marker), markerfacecolor="white", markersize=4, zorder=3, clip_on=False)
    low, high = np.maximum(values - errors, floor), np.minimum(values + errors, 1 if key in SHARES else math.inf)
    axes.fill_between(steps, low, high, color=LOOKS[end]["color"], alpha=0.14, linewidth=0)
