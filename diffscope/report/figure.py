"""A result as pictures fit for a paper: PNG to look at, SVG to typeset; the one file that knows matplotlib.

Colours are those of Okabe and Ito (Color Universal Design, 2008, https://jfly.uni-koeln.de/color/), and every layer
has its own marker and line style as well, so that a greyscale print can be read. The same result gives the same bytes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from diffscope.report.cells import by_layer, layers_by_icr, lowest, number
from diffscope.report.streams import one_line
from diffscope.results import Result, Row, WindowRow

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F6000")
"""Okabe and Ito, darkest contrasts first; a brown stands for their yellow, which is lost on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 2)),
    (0, (5, 1.5, 1, 1.5)),
    (0, (1.2, 1.4)),
    (0, (9, 2)),
    (0, (3, 1.5, 1, 1.5, 1, 1.5)),
    (0, (2.5, 1.5)),
    (0, (9, 2, 1.5, 2)),
)
"""Points on and off, in units of the line's width."""

DISTINCT = 8
"""Layers that can be told apart in one picture."""
BEST = 6
"""Layers drawn in colour where there are more than that."""

WIDTH = 6.4
"""Inches."""
CHARACTERS = 82
"""Of 9 points, that a legend of this width holds."""

OTHERS = "#C8C8C8"
SHADE = "#FBF6CC"
RULE: dict[str, Any] = {"color": "#404040", "linestyle": (0, (4, 3)), "linewidth": 1.1}

TRACES = (("trace_s", "trace_xi", "raw features"), ("trace_s_l2", "trace_xi_l2", "L2-normalised features"))
"""Keys of signal and residual, and the title of their picture."""

SIGMA = "noise level σ (noise-to-signal ratio)"
ICR = "ICR (lower: more semantic)"

LOOK = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "legend.frameon": False,
    "savefig.dpi": 200,
    "legend.handlelength": 3.2,
    "legend.columnspacing": 1.6,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.06,
    "svg.hashsalt": "diffscope",
}


def draw_sweep(result: Result, folder: Path) -> list[Path]:
    """Writes icr and traces, for more than eight layers also layers, each as .png and .svg; returns what it wrote.

    Where only one noise level was measured there is no curve: icr then shows the layers side by side, and traces is
    not drawn, as it is not where the result has none.
    """
    groups = by_layer(result.rows)
    one_level = all(len(rows) == 1 for rows in groups.values())
    with style.context(["default", LOOK]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a file name in a script that the font lacks
        figures = {"icr": _layers_figure(result, groups) if one_level else _icr_figure(result, groups)}
        if not one_level and any(row.values.get(signal) is not None for row in result.rows for signal, *_ in TRACES):
            figures["traces"] = _traces_figure(result, groups)
        if len(groups) > DISTINCT and not one_level:
            figures["layers"] = _layers_figure(result, groups)
        return [path for name, figure in figures.items() for path in _save(figure, folder / name)]


def _save(figure: Figure, stem: Path) -> list[Path]:
    """Without dates and versions in the files: two runs can be compared byte by byte."""
    png, svg = stem.with_suffix(".png"), stem.with_suffix(".svg")
    figure.savefig(png, metadata={"Software": None})
    figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return [png, svg]


# --- ICR over sigma


def _icr_figure(result: Result, groups: dict[str, list[Row]]) -> Figure:
    shown, window = _shown(result), _window_of_best(result)
    handles = [] if len(shown) == 1 else _layer_handles(shown, len(groups) - len(shown))
    handles += [] if window is None else _window_handles(window, len(shown) == 1)
    figure = Figure(figsize=(WIDTH, 4.0 + _legend_height(handles)))
    axes = figure.add_subplot()
    for layer in [layer for layer in groups if layer not in shown]:
        _line(axes, groups[layer], "icr", color=OTHERS, linewidth=0.8, zorder=1.5)
    for i, layer in enumerate(shown):
        _icr_curve(axes, groups[layer], i, band=0.16 if len(shown) <= 3 else 0.08)
    if window is not None:
        _mark_window(axes, window)
    _log_sigma(axes, result.rows)
    axes.set_ylabel(ICR)
    if lowest(result.rows) is None:
        axes.set_yticks([])
        axes.grid(False)
        axes.text(
            0.5, 0.5, "no ICR could be computed: see the notes in result.json", transform=axes.transAxes, ha="center"
        )
    top = _time_axis(axes, groups[shown[0]])
    (top or axes).set_title(_name(result, shown if len(groups) == 1 else []))
    _legend(figure, handles)
    return figure


def _icr_curve(axes: Axes, rows: Sequence[Row], i: int, band: float) -> None:
    """Line, band and markers; the lowest point filled, the others hollow."""
    _line(axes, rows, "icr", **_style(i), markerfacecolor="white", zorder=3 + 0.1 * (DISTINCT - i))
    axes.fill_between(
        [row.sigma for row in rows],
        [_gap(row.values.get("icr_low")) for row in rows],
        [_gap(row.values.get("icr_high")) for row in rows],
        color=PALETTE[i],
        alpha=band,
        linewidth=0,
    )
    best = lowest(rows)
    if best is not None:
        axes.plot([best.sigma], [best["icr"]], **_style(i), zorder=5, markersize=7, clip_on=False)


def _window_of_best(result: Result) -> WindowRow | None:
    """The window of the layer of lowest ICR: those of several layers would lie over one another."""
    known = [window for window in result.window if window.icr is not None and window.sigma is not None]
    return min(known, key=lambda window: window.icr or 0.0, default=None)


def _mark_window(axes: Axes, window: WindowRow) -> None:
    """Shades the levels that cannot be told apart from the best, and dashes the recommended one."""
    if window.low is not None and window.high is not None and window.low < window.high:
        axes.axvspan(window.low, window.high, color=SHADE, linewidth=0, zorder=0.5)
    if window.sigma is not None:
        axes.axvline(window.sigma, **RULE, zorder=2)


def _window_handles(window: WindowRow, one_layer: bool) -> list[Any]:
    level = (
        f"recommended σ = {number(window.sigma)}" if window.shape == "u" else f"lowest at σ = {number(window.sigma)}"
    )
    of = "" if one_layer else f" ({window.layer})"
    rule = Line2D([], [], **RULE, label=_literal(f"{level}{of}"))
    if window.low is None or window.high is None or window.low >= window.high:
        return [rule]
    return [rule, Patch(color=SHADE, label=f"window {number(window.low)} to {number(window.high)}")]


def _time_axis(axes: Axes, rows: Sequence[Row]) -> Axes | None:
    """A second axis on top with the model's own noise variable, exact at measured levels.

    Only where it runs one way and says something else than sigma does.
    """
    steps = [after.t - before.t for before, after in pairwise(rows)]
    one_way = all(step > 0 for step in steps) or all(step < 0 for step in steps)
    if len(rows) < 3 or not one_way or all(abs(row.t - row.sigma) <= 1e-6 * row.sigma for row in rows):
        return None
    ticks = rows[:: -(-len(rows) // 7)]  # seven labels have room
    top = axes.twiny()
    top.set_xscale("log")
    top.set_xlim(axes.get_xlim())
    top.set_xticks([row.sigma for row in ticks], [number(row.t).replace("-", "−") for row in ticks])
    top.xaxis.set_minor_locator(NullLocator())
    top.set_xlabel("t (the model's own noise variable)", fontsize=9)
    top.tick_params(axis="x", pad=2)
    top.grid(False)
    top.spines["top"].set_visible(True)
    return top


# --- traces over sigma


def _traces_figure(result: Result, groups: dict[str, list[Row]]) -> Figure:
    """Signal and residual variance, raw and of features of length one; those of the two that were measured."""
    shown = _shown(result)
    kinds = [kind for kind in TRACES if any(row.values.get(kind[0]) is not None for row in result.rows)]
    handles = _trace_handles(shown)
    figure = Figure(figsize=(WIDTH if len(kinds) == 1 else 1.15 * WIDTH, 3.4 + _legend_height(handles)))
    for i, (signal, residual, title) in enumerate(kinds, start=1):
        axes = figure.add_subplot(1, len(kinds), i)
        for j, layer in enumerate(shown):
            _line(axes, groups[layer], signal, **{**_style(j), "linestyle": "-"})
            _line(axes, groups[layer], residual, **{**_style(j), "linestyle": ":"}, markerfacecolor="white")
        _log_sigma(axes, result.rows)
        _log_if_wide(
            axes, [row.values.get(key) for layer in shown for row in groups[layer] for key in (signal, residual)]
        )
        axes.set_title(title)
        axes.set_xlabel("noise level σ")
    figure.axes[0].set_ylabel("trace of the covariance")
    few = "" if len(groups) == len(shown) else f" ({len(shown)} of {len(groups)} layers)"
    figure.suptitle(_name(result, shown if len(groups) == 1 else []) + few, fontsize=10)
    _legend(figure, handles)
    return figure


def _trace_handles(shown: Sequence[str]) -> list[Any]:
    """What is solid and what dotted; then the layers, by colour and marker."""
    one = len(shown) == 1
    look: dict[str, Any] = {"color": PALETTE[0] if one else "#404040", "marker": MARKERS[0]}
    signal = Line2D([], [], **look, label=r"tr $\Sigma_s$ (shared by views)")
    residual = Line2D([], [], **look, linestyle=":", markerfacecolor="white", label=r"tr $\Sigma_\xi$ (not shared)")
    layers = (
        []
        if one
        else [
            Line2D([], [], color=PALETTE[i], marker=MARKERS[i], label=_literal(layer)) for i, layer in enumerate(shown)
        ]
    )
    return [signal, residual, *layers]


def _log_if_wide(axes: Axes, values: Sequence[float | None]) -> None:
    """Logarithmic where values span more than a decade; a trace can be estimated below 0, which then is a gap."""
    positive = [value for value in values if value is not None and value > 0]
    if not positive or max(positive) <= 10 * min(positive):
        axes.set_ylim(bottom=min([0.0, *(value for value in values if value is not None)]))
        return
    axes.set_yscale("log", nonpositive="mask")
    _plain_numbers(axes.yaxis, max(positive) / min(positive))


# --- layers side by side


def _layers_figure(result: Result, groups: dict[str, list[Row]]) -> Figure:
    """Lowest ICR of every layer with its interval, in the order of the network from top to bottom."""
    figure = Figure(figsize=(WIDTH, max(2.0, 1.3 + 0.19 * len(groups))))
    axes = figure.add_subplot()
    first = lowest(result.rows)
    for y, rows in enumerate(groups.values()):
        row = lowest(rows)
        if row is None:
            axes.text(0.02, y, "no ICR", transform=axes.get_yaxis_transform(), fontsize=9, color="#606060", va="center")
        else:
            _dot(axes, row, y, is_first=row is first and len(groups) > 1)
    axes.set_yticks(range(len(groups)), [_literal(layer) for layer in groups])
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.margins(x=0.05 if len(groups) > 1 else 1.0)
    levels = {row.sigma for row in result.rows}
    axes.set_xlabel(f"{ICR}, at σ = {number(levels.pop())}" if len(levels) == 1 else f"{ICR}, lowest over σ")
    axes.set_title(_name(result, [] if first is None or len(groups) == 1 else [f"lowest at {first.layer}"]))
    return figure


def _dot(axes: Axes, row: Row, y: int, is_first: bool) -> None:
    color, marker = (PALETTE[1], "D") if is_first else (PALETTE[0], "o")
    axes.plot([_gap(row.values.get(key)) for key in ("icr_low", "icr_high")], [y, y], color=color)
    axes.plot([row["icr"]], [y], color=color, marker=marker, markersize=6)


# --- what the pictures share


def _shown(result: Result) -> list[str]:
    """Layers drawn in colour: all in the order of the network, or the best where they are too many."""
    layers = list(by_layer(result.rows))
    return layers if len(layers) <= DISTINCT else layers_by_icr(result.rows)[:BEST]


def _style(i: int) -> dict[str, Any]:
    return {"color": PALETTE[i], "marker": MARKERS[i], "linestyle": DASHES[i]}


def _line(axes: Axes, rows: Sequence[Row], key: str, **look: Any) -> None:
    axes.plot([row.sigma for row in rows], [_gap(row.values.get(key)) for row in rows], **look)


def _gap(value: float | None) -> float:
    """NaN is how matplotlib is told of a gap."""
    return math.nan if value is None else value


def _log_sigma(axes: Axes, rows: Sequence[Row]) -> None:
    levels = [row.sigma for row in rows]
    axes.set_xscale("log")
    axes.set_xlim(min(levels) / 1.25, max(levels) * 1.25)
    _plain_numbers(axes.xaxis, max(levels) / min(levels))
    axes.set_xlabel(SIGMA)


def _plain_numbers(axis: Axis, span: float) -> None:
    """0.1 rather than 10⁻¹ on a logarithmic axis, and 1, 2, 5 where decades are too few."""
    axis.set_major_locator(LogLocator(subs=(1.0,) if span > 100 else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.set_minor_formatter(NullFormatter())


def _layer_handles(shown: Sequence[str], others: int) -> list[Any]:
    layers = [Line2D([], [], **_style(i), label=_literal(layer)) for i, layer in enumerate(shown)]
    grey = Line2D([], [], color=OTHERS, linewidth=0.8, label=f"{others} other layers")
    return [*layers, grey] if others else layers


def _legend(figure: Figure, handles: Sequence[Any]) -> None:
    """Below the axes, where it cannot lie over a curve."""
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=_columns(handles))


def _legend_height(handles: Sequence[Any]) -> float:
    """Inches, so that the axes keep theirs."""
    return 0.2 * -(-len(handles) // _columns(handles)) if handles else 0.0


def _columns(handles: Sequence[Any]) -> int:
    """As many as fit side by side; matplotlib fills column after column, the first ones one longer."""
    lengths = [len(handle.get_label()) for handle in handles]
    for columns in (4, 3, 2):
        depth, longer = divmod(len(lengths), columns)
        starts = [depth * i + min(i, longer) for i in range(columns + 1)]
        if sum(max(lengths[a:b], default=0) + 9 for a, b in pairwise(starts)) <= CHARACTERS:
            return columns
    return 1


def _name(result: Result, parts: Sequence[str]) -> str:
    """The checkpoint's file name, and what else the title says; the middle of a very long one is left out."""
    text = ", ".join([Path(str(result.checkpoint.get("path", ""))).name, *parts])
    return _literal(text if len(text) <= 72 else f"{text[:35]}…{text[-36:]}")


def _literal(text: str) -> str:
    """Not mathematics, however many dollars a name holds; a leading underscore would hide a legend's entry."""
    text = one_line(text, "utf-8").replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
