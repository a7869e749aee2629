"""Pictures of ICR under several augmentations or from several numbers of images, in panels by layer.

They have the form of figures 14 and 13 of Li et al., 2026, https://arxiv.org/abs/2606.09718.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diffscope.report.figures import canvas
from diffscope.report.text import best_first, by_layer, lowest, number
from diffscope.report.words.variation import is_curve, level_of, member, members, of_member, series, short
from diffscope.results import Result, Row, WindowRow

PANELS = 4
"""Layers, or layers at a noise level, that have room."""

ESTIMATES = {
    "icr": "ICR (band: 95 % interval)",
    "icr_gauss": "ICR Gauss (debiased)",
    "icr_raw": "ICR raw (plug-in)",
}


def figures(result: Result) -> dict[str, canvas.Figure]:
    """icr; of a sweep over numbers of images also images, ICR over their number at each layer's best level."""
    if not is_curve(result):
        groups = {_at(layer, sigma): rows for (layer, sigma), rows in series(result.rows).items()}
        return {
            "icr": _images_figure(result, groups) if result.varied == "num_images" else _chain_figure(result, groups)
        }
    layers = by_layer(result.rows)
    drawn = {"icr": _levels_figure(result, layers)}
    if result.varied == "num_images":
        best = {layer: level_of(rows) for layer, rows in layers.items()}
        groups = {_at(layer, at): [row for row in layers[layer] if row.sigma == at] for layer, at in best.items()}
        drawn["images"] = _images_figure(result, groups)
    return drawn


def _at(layer: str, sigma: float) -> str:
    return f"{layer}, σ = {number(sigma)}"


# --- ICR over sigma, a curve a member


def _levels_figure(result: Result, layers: dict[str, list[Row]]) -> canvas.Figure:
    names = members(result)
    shown = names[-canvas.DISTINCT :]
    handles = [
        *canvas.curve_handles([_named(result, layers, name) for name in shown], len(names) - len(shown), "numbers")
    ]

    def draw(axes: canvas.Axes, rows: Sequence[Row]) -> None:
        for name in names[: -canvas.DISTINCT]:
            canvas.line(axes, of_member(rows, name), _sigma, "icr", color=canvas.faint(), linewidth=0.8, zorder=1.5)
        for i, name in enumerate(shown):
            of_name = of_member(rows, name)
            canvas.line(axes, of_name, _sigma, "icr", **canvas.curve_style(i), markerfacecolor=canvas.paper(), zorder=3)
            canvas.band(axes, of_name, _sigma, "icr", color=canvas.PALETTE[i], alpha=0.1)
            best = lowest(of_name)
            if best is not None:
                axes.plot([best.sigma], [best["icr"]], **canvas.curve_style(i), zorder=5, markersize=7)
        canvas.level_axis(axes, [row.sigma for row in rows], "noise level σ (noise-to-signal ratio)")

    return _panels(result, layers, draw, [*handles, canvas.bands_handle(), canvas.filled_handle("filled: lowest")], 3.9)


def _named(result: Result, layers: dict[str, list[Row]], name: str) -> str:
    """A curve's name in the legend; of one layer with its window."""
    of = f"{name} images" if result.varied == "num_images" else name
    if len(layers) > 1:
        return of
    return f"{of}: {_window([w for w in result.window if member(w) == name])}"


def _window(windows: Sequence[WindowRow]) -> str:
    if not windows or windows[0].icr is None:
        return "no ICR"
    return f"window, σ = {number(windows[0].sigma)}" if windows[0].shape == "u" else windows[0].shape or "undecided"


# --- ICR over the chain of augmentations, a line a series


def _chain_figure(result: Result, groups: dict[str, list[Row]]) -> canvas.Figure:
    names = members(result)
    shown = list(groups) if len(groups) <= canvas.DISTINCT else best_first(groups)[: canvas.BEST]
    handles = canvas.curve_handles(shown, len(groups) - len(shown), "series", hollow=False)
    handles.append(canvas.Line2D([], [], color=canvas.ink(), linewidth=1.6, label="bars: 95 % intervals"))
    figure = canvas.figure(3.4, handles)
    axes = figure.add_subplot()
    for name in [name for name in groups if name not in shown]:
        axes.plot(
            range(len(names)), [canvas.gap(row.get("icr")) for row in groups[name]], color=canvas.faint(), linewidth=0.8
        )
    for i, name in enumerate(shown):
        for j, row in enumerate(groups[name]):
            x = j + 0.06 * (i - (len(shown) - 1) / 2)  # side by side, so that intervals can be told apart
            ends = [canvas.gap(row.get(key)) for key in ("icr_low", "icr_high")]
            axes.plot([x, x], ends, color=canvas.PALETTE[i], linewidth=1.6, zorder=3)
            axes.plot([x - 0.03, x + 0.03], [ends[0]] * 2, color=canvas.PALETTE[i], linewidth=1.2, zorder=3)
            axes.plot([x - 0.03, x + 0.03], [ends[1]] * 2, color=canvas.PALETTE[i], linewidth=1.2, zorder=3)
        xs = [j + 0.06 * (i - (len(shown) - 1) / 2) for j in range(len(names))]
        look = {**canvas.curve_style(i), "linewidth": 0.9}
        axes.plot(xs, [canvas.gap(row.get("icr")) for row in groups[name]], **look, zorder=4)
    axes.set_xticks(range(len(names)), list(map(short, names)))
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.margins(y=0.12)
    axes.set_xlabel("augmentation (each adds to the one before)")
    axes.set_ylabel(canvas.ICR)
    if lowest(result.rows) is None:
        canvas.say_no_icr(axes)
    axes.set_title(_name(result, ""))
    canvas.legend(figure, handles)
    return figure


# --- three estimates over the number of images


def _images_figure(result: Result, groups: dict[str, list[Row]]) -> canvas.Figure:
    def draw(axes: canvas.Axes, rows: Sequence[Row]) -> None:
        known = [row for row in rows if row.get("icr") is not None]
        for i, key in enumerate(ESTIMATES):
            canvas.line(
                axes,
                rows,
                _images,
                key,
                **canvas.curve_style(i),
                markerfacecolor=canvas.paper() if i else None,
                zorder=4 - i,
            )
        canvas.band(axes, rows, _images, "icr", color=canvas.PALETTE[0], alpha=0.16)
        if known:  # what all would meet if they had converged
            axes.axhline(known[-1]["icr"], color=canvas.ink(), linewidth=0.8, linestyle=(0, (1, 2)), zorder=1.8)
        for row in rows:
            if row not in known:
                axes.axvspan(
                    _images(row) / 1.06, _images(row) * 1.06, color=canvas.mixed(0.06), linewidth=0, zorder=0.4
                )
        axes.set_xscale("log")
        counts = [row.num_images or 0 for row in rows]
        axes.set_xlim(min(counts) / 1.15, max(counts) * 1.15)
        axes.set_xticks(_apart(counts))
        axes.xaxis.set_major_formatter(canvas.FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_locator(canvas.NullLocator())
        axes.set_xlabel("images (nested subsets)")

    handles: list[Any] = [
        canvas.Line2D([], [], **canvas.curve_style(i), label=label) for i, label in enumerate(ESTIMATES.values())
    ]
    for handle in handles[1:]:
        handle.set_markerfacecolor(canvas.paper())
    handles.append(
        canvas.Line2D(
            [], [], color=canvas.ink(), linewidth=0.8, linestyle=(0, (1, 2)), label="ICR from the most images"
        )
    )
    if any(row.get("icr") is None for rows in groups.values() for row in rows):
        handles.append(canvas.Patch(color=canvas.mixed(0.06), label="too few images"))
    return _panels(result, groups, draw, handles, 3.5)


def _apart(counts: Sequence[int]) -> list[int]:
    """Those whose numbers do not lie over one another; the last one always."""
    kept: list[int] = []
    for count in sorted(counts, reverse=True):
        if not kept or kept[-1] / count > (max(counts) / min(counts)) ** 0.09:
            kept.append(count)
    return kept


def _images(row: Row) -> float:
    return float(row.num_images or 0)


# --- what they share


def _panels(
    result: Result,
    groups: dict[str, list[Row]],
    draw: Callable[[canvas.Axes, Sequence[Row]], None],
    handles: Sequence[Any],
    height: float,
) -> canvas.Figure:
    """One panel a group, two side by side; of more than four the best."""
    shown = list(groups) if len(groups) <= PANELS else best_first(groups)[:PANELS]
    columns = 1 if canvas.is_narrow() else min(2, len(shown))
    lines = -(-len(shown) // columns)
    inches = height if lines == 1 else 2.7 * lines + 0.4
    figure = canvas.figure(inches, handles, canvas.WIDTH if columns == 1 else 1.15 * canvas.WIDTH)
    for i, name in enumerate(shown, start=1):
        axes = figure.add_subplot(lines, columns, i)
        draw(axes, groups[name])
        if lowest(groups[name]) is None:
            canvas.say_no_icr(axes)
        if i % 2 or columns == 1:
            axes.set_ylabel(canvas.ICR)
        if i + columns <= len(shown):
            axes.set_xlabel("")
        if len(shown) > 1:
            axes.set_title(canvas.literal(name), fontsize="small")
    few = "" if len(shown) == len(groups) else f"the {len(shown)} of lowest ICR, of {len(groups)}"
    figure.suptitle(_name(result, shown[0] if len(groups) == 1 else few))
    canvas.legend(figure, handles)
    return figure


def _sigma(row: Row) -> float:
    return row.sigma


def _name(result: Result, part: str) -> str:
    return canvas.title(Path(str(result.checkpoint.get("path", ""))).name, part)
