"""The window over training: ICR as a map over steps and noise levels, and where its minimum lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffscope.report.figures import canvas
from diffscope.report.text import best_first, by_layer, number
from diffscope.report.words import moving_window, series
from diffscope.results import Result, Row, WindowRow

PANELS = 4
"""Layers that have room."""


def window_map(result: Result) -> canvas.Figure:
    """A map for each layer; the recommended level of every snapshot that has a window, and how far that reaches.

    Of more than four layers those of lowest ICR.
    """
    groups, swept = by_layer(result.rows), moving_window.swept_layers(result)
    best = best_first({layer: groups[layer] for layer in swept})[:PANELS]
    layers = [layer for layer in swept if layer in best]
    handles: list[Any] = []
    if any(window.shape == "u" for window in result.window):
        handles.append(canvas.Line2D([], [], **_recommended(), label="recommended σ"))
        handles.append(canvas.Line2D([], [], **_ends(), label="ends of the window"))
    if any(window.shape != "u" and window.sigma is not None for window in result.window):
        handles.append(canvas.Line2D([], [], **_lost(), label="lowest ICR, no window"))
    if any(row.get("icr") is None for row in result.rows):
        handles.append(canvas.Patch(facecolor=canvas.paper(), edgecolor=canvas.faint(), label="no ICR"))
    few = "" if len(layers) == len(swept) else f"the {len(layers)} layers of lowest ICR, of {len(swept)}"
    figure = canvas.figure(3.3 * len(layers), handles)
    for place, layer in enumerate(layers, start=1):
        axes = figure.add_subplot(len(layers), 1, place)
        _map(figure, axes, result, groups[layer])
        _trace(axes, [window for window in result.window if window.layer == layer])
        axes.set_title(canvas.literal(layer), fontsize="small")
        axes.set_ylabel("noise level σ")
        if place < len(layers):
            axes.set_xlabel("")
    figure.suptitle(canvas.title(series.run_name(result), few))
    canvas.legend(figure, handles)
    return figure


def _map(figure: canvas.Figure, axes: canvas.Axes, result: Result, rows: Sequence[Row]) -> None:
    steps = sorted({series.step(row) for row in rows})
    levels = sorted({row.sigma for row in rows})
    values = np.full((len(levels), len(steps)), np.nan)
    column = {step: i for i, step in enumerate(steps)}
    for row in rows:
        values[levels.index(row.sigma), column[series.step(row)]] = canvas.gap(row.get("icr"))
    is_log = canvas.drawing().step_scale == "log" and steps[0] > 0
    x = np.exp(_borders(np.log(steps))) if is_log else _borders(np.array(steps, float))
    y = np.exp(_borders(np.log(levels)))
    drawn = axes.pcolormesh(x, y, np.clip(values, None, 1.0), cmap="viridis", rasterized=True)
    axes.set_yscale("log")
    axes.grid(False)
    canvas.plain_numbers(axes.yaxis, levels[-1] / levels[0])
    canvas.step_axis(axes, steps, series.steps_count(result))
    axes.set_xlim(x[0], x[-1])
    bar = figure.colorbar(drawn, ax=axes, pad=0.02)
    bar.set_label("ICR (1: also what is above)" if np.nanmax(values) > 1 else "ICR", fontsize="small")
    bar.ax.yaxis.set_major_formatter(canvas.FuncFormatter(lambda value, _: number(value)))


def _trace(axes: canvas.Axes, windows: Sequence[WindowRow]) -> None:
    found = [window.shape == "u" for window in windows]
    steps = [float(window.step or 0) for window in windows]

    def line(values: Sequence[float | None]) -> list[float]:
        return [canvas.gap(value) if has else np.nan for value, has in zip(values, found, strict=True)]

    axes.plot(steps, line([window.sigma for window in windows]), **_recommended())
    for end in ("low", "high"):
        axes.plot(steps, line([getattr(window, end) for window in windows]), **_ends())
    lost = [(step, window.sigma) for step, window, has in zip(steps, windows, found, strict=True) if not has]
    known = [(step, sigma) for step, sigma in lost if sigma is not None]
    axes.plot([step for step, _ in known], [sigma for _, sigma in known], **_lost())


def _recommended() -> dict[str, Any]:
    return {
        "color": "white", "marker": "o", "markersize": 4, "markeredgecolor": canvas.OUTLINE, "markeredgewidth": 0.6,
        "linewidth": 1.6, "path_effects": canvas.outlined(),
    }  # fmt: skip


def _ends() -> dict[str, Any]:
    return {"color": "white", "linewidth": 0.9, "linestyle": (0, (4, 2)), "path_effects": canvas.outlined()}


def _lost() -> dict[str, Any]:
    return {"color": canvas.PALETTE[1], "marker": "x", "linestyle": "none", "markersize": 5}


def _borders(centres: np.ndarray) -> np.ndarray:
    """Of cells around these centres."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])
