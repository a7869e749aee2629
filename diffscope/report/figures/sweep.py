"""Pictures of a sweep over noise levels: ICR with its window, traces, and layers side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from diffscope.report.figures import canvas
from diffscope.report.figures.traces import measured, traces_figure
from diffscope.report.text import best_first, best_of, by_layer, lowest, number
from diffscope.results import Result, Row, WindowRow

SIGMA = "noise level σ (noise-to-signal ratio)"


def figures(result: Result) -> dict[str, canvas.Figure]:
    """Draws icr and traces, for more than eight layers also layers.

    Where only one noise level was measured there is no curve: icr then shows the layers side by side, and traces is
    not drawn, as it is not where the result has none.
    """
    groups = by_layer(result.rows)
    one_level = all(len(rows) == 1 for rows in groups.values())
    drawn = {"icr": _layers_figure(result, groups) if one_level else _icr_figure(result, groups)}
    if not one_level and measured(result.rows):
        drawn["traces"] = _traces_figure(result, groups)
    if len(groups) > canvas.DISTINCT and not one_level:
        drawn["layers"] = _layers_figure(result, groups)
    return drawn


# --- ICR over sigma


def _icr_figure(result: Result, groups: dict[str, list[Row]]) -> canvas.Figure:
    shown, window = _shown(groups), _window_of_best(result)
    names = [f"ICR of {shown[0]}"] if len(groups) == 1 else shown
    handles = [*canvas.curve_handles(names, len(groups) - len(shown), "layers"), canvas.bands_handle()]
    handles.append(canvas.filled_handle("filled: lowest measured"))
    handles += [] if window is None else _window_handles(window, len(groups) == 1)
    handles = [] if lowest(result.rows) is None else handles
    figure = canvas.figure(4.0, handles)
    axes = figure.add_subplot()
    for layer in [layer for layer in groups if layer not in shown]:
        canvas.line(axes, groups[layer], _sigma, "icr", color=canvas.faint(), linewidth=0.8, zorder=1.5)
    for i, layer in enumerate(shown):
        _icr_curve(
            axes, groups[layer], best_of(result, layer, groups[layer]), i, alpha=0.16 if len(shown) <= 3 else 0.08
        )
    if window is not None:
        _mark_window(axes, window)
    canvas.level_axis(axes, [row.sigma for row in result.rows], SIGMA)
    axes.set_ylabel(canvas.ICR)
    if lowest(result.rows) is None:
        canvas.say_no_icr(axes)
    top = _time_axis(axes, groups[shown[0]])
    (top or axes).set_title(_name(result))
    canvas.legend(figure, handles)
    return figure


def _icr_curve(axes: canvas.Axes, rows: Sequence[Row], best: Row | None, i: int, alpha: float) -> None:
    """Line, band and markers; the lowest point filled, the others hollow."""
    canvas.line(
        axes,
        rows,
        _sigma,
        "icr",
        **canvas.curve_style(i),
        markerfacecolor=canvas.paper(),
        zorder=3 + 0.1 * (canvas.DISTINCT - i),
    )
    canvas.band(axes, rows, _sigma, "icr", color=canvas.PALETTE[i], alpha=alpha)
    if best is not None:
        axes.plot([best.sigma], [best["icr"]], **canvas.curve_style(i), zorder=5, markersize=7, clip_on=False)


def _window_of_best(result: Result) -> WindowRow | None:
    """The window of the layer that is ranked first: those of several layers would lie over one another."""
    known = [window for window in result.window if window.icr is not None and window.sigma is not None]
    return min(known, key=lambda window: (not window.is_ranked, window.icr or 0.0), default=None)


def _mark_window(axes: canvas.Axes, window: WindowRow) -> None:
    """Shades the levels that cannot be told apart from the best, and dashes the recommended one."""
    if window.low is not None and window.high is not None and window.low < window.high:
        axes.axvspan(window.low, window.high, color=canvas.shade(), linewidth=0, zorder=0.5)
    if window.sigma is not None:
        axes.axvline(window.sigma, **canvas.rule(), zorder=2)


def _window_handles(window: WindowRow, one_layer: bool) -> list[Any]:
    if window.sigma_error is None:
        level = f"lowest at σ = {number(window.sigma)}"
    else:
        level = f"recommended σ = {number(window.sigma)}"
    of = "" if one_layer else f" ({window.layer})"
    rule = canvas.Line2D([], [], **canvas.rule(), label=canvas.literal(f"{level}{of}"))
    if window.low is None or window.high is None or window.low >= window.high:
        return [rule]
    name = "window" if window.shape == "u" else "as good:"
    return [rule, canvas.Patch(color=canvas.shade(), label=f"{name} {number(window.low)} to {number(window.high)}")]


def _time_axis(axes: canvas.Axes, rows: Sequence[Row]) -> canvas.Axes | None:
    """A second axis on top with the model's own noise variable, exact at measured levels.

    Only where it runs one way and says something else than sigma does.
    """
    steps = [after.t - before.t for before, after in pairwise(rows)]
    one_way = all(step > 0 for step in steps) or all(step < 0 for step in steps)
    if len(rows) < 3 or not one_way or all(abs(row.t - row.sigma) <= 1e-6 * row.sigma for row in rows):
        return None
    ticks = rows[:: -(-len(rows) // (4 if canvas.is_narrow() else 7))]  # so many labels have room
    top = axes.twiny()
    top.set_xscale("log")
    top.set_xlim(axes.get_xlim())
    top.set_xticks([row.sigma for row in ticks], [number(row.t).replace("-", "−") for row in ticks])
    top.xaxis.set_minor_locator(canvas.NullLocator())
    top.set_xlabel("t (the model's own noise variable)", fontsize="small")
    top.tick_params(axis="x", pad=2)
    top.grid(False)
    top.spines["top"].set_visible(True)
    return top


# --- traces over sigma


def _traces_figure(result: Result, groups: dict[str, list[Row]]) -> canvas.Figure:
    shown = _shown(groups)
    few = "" if len(groups) == len(shown) else f" ({len(shown)} of {len(groups)} layers)"
    name = _name(result) + few
    levels = [row.sigma for row in result.rows]
    return traces_figure(groups, shown, _sigma, lambda axes: canvas.level_axis(axes, levels, "noise level σ"), name)


# --- layers side by side


def _layers_figure(result: Result, groups: dict[str, list[Row]]) -> canvas.Figure:
    """Lowest ICR of every layer with its interval, in the order of the network from top to bottom."""
    first = lowest(row for row in result.rows if row.is_ranked)
    levels = {row.sigma for row in result.rows}
    named = "ICR of a layer" if len(levels) == 1 else "lowest ICR of a layer"
    handles = [canvas.Line2D([], [], **_dot_style(False), label=f"{named} (line: 95 % interval)")]
    if first is not None and len(groups) > 1:
        handles.append(canvas.Line2D([], [], **_dot_style(True), label=canvas.literal(f"lowest: {first.layer}")))
    figure = canvas.figure(max(2.0, 1.3 + 0.19 * len(groups)), handles)
    axes = figure.add_subplot()
    for y, rows in enumerate(groups.values()):
        row = lowest(rows)
        if row is None:
            axes.text(
                0.02,
                y,
                "no ICR",
                transform=axes.get_yaxis_transform(),
                fontsize="small",
                color=canvas.ink(),
                va="center",
            )
        else:
            _dot(axes, row, y, is_first=row is first and len(groups) > 1)
    axes.set_yticks(range(len(groups)), [canvas.literal(layer) for layer in groups])
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.margins(x=0.05 if len(groups) > 1 else 1.0)
    axes.set_xlabel(
        f"{canvas.ICR}, at σ = {number(levels.pop())}" if len(levels) == 1 else f"{canvas.ICR}, lowest over σ"
    )
    axes.set_title(_name(result))
    canvas.legend(figure, handles)
    return figure


def _dot(axes: canvas.Axes, row: Row, y: int, is_first: bool) -> None:
    look = _dot_style(is_first)
    axes.plot([canvas.gap(row.get(key)) for key in ("icr_low", "icr_high")], [y, y], color=look["color"])
    axes.plot([row["icr"]], [y], **look)


def _dot_style(is_first: bool) -> dict[str, Any]:
    color, marker = (canvas.PALETTE[1], "D") if is_first else (canvas.PALETTE[0], "o")
    return {"color": color, "marker": marker, "markersize": 6, "linestyle": "none"}


# --- what these pictures share


def _shown(groups: dict[str, list[Row]]) -> list[str]:
    """Layers drawn in colour: all in the order of the network, or the best where they are too many."""
    return list(groups) if len(groups) <= canvas.DISTINCT else best_first(groups)[: canvas.BEST]


def _sigma(row: Row) -> float:
    return row.sigma


def _name(result: Result) -> str:
    """The checkpoint's file name."""
    return canvas.title(Path(str(result.checkpoint.get("path", ""))).name)
