"""Pictures of a probe of pixels: mIoU over σ, IoU of each class, and image, truth and prediction of a few images.

The first has the form of figure 1b of Wang et al., 2025, https://arxiv.org/abs/2502.05743.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffscope.report.figures import canvas
from diffscope.report.text import number
from diffscope.report.words.segmentation import best_row, class_name, layers, prefix
from diffscope.results import Result, Row, SegmentationRow

VOID, VOID_COLOUR = 255, "#FFFFFF"
NAMED_CLASSES = 24
"""That a legend has room for."""
LETTERS = 34
"""Of a class's name."""


def figures(result: Result) -> dict[str, canvas.Figure]:
    """Draws segmentation (of several levels), classes, and masks of a result that was not read from a file."""
    drawn = {}
    if len(result.rows) > 1:
        drawn["segmentation"] = _levels_figure(result)
    drawn["classes"] = _classes_figure(result)
    if result.pictures is not None and result.pictures["images"]:
        drawn["masks"] = _masks_figure(result, result.pictures)
    return drawn


# --- over noise levels


def _levels_figure(result: Result) -> canvas.Figure:
    handles = [*_input_handles(result), canvas.bands_handle(), canvas.filled_handle("filled: best")]
    figure = canvas.figure(4.0, handles)
    axes = figure.add_subplot()
    rows = sorted(result.rows, key=_sigma)
    for i, of in enumerate(result.segmentation):
        key = f"{prefix(of, result)}miou"
        canvas.line(axes, rows, _sigma, key, **canvas.curve_style(i), markerfacecolor=canvas.paper(), zorder=3)
        canvas.band(axes, rows, _sigma, key, color=canvas.PALETTE[i], alpha=0.16)
        axes.plot([of.sigma], [of.miou], **{**canvas.curve_style(i), "markersize": 7}, zorder=5, clip_on=False)
    levels = [row.sigma for row in rows]
    canvas.level_axis(axes, levels, "noise level σ (noise-to-signal ratio)")
    axes.set_ylabel("mIoU of test images")
    axes.set_title(_title(result))
    canvas.legend(figure, handles)
    return figure


def _input_handles(result: Result) -> list[Any]:
    return [
        canvas.Line2D([], [], **canvas.curve_style(i), markerfacecolor=canvas.paper(), label=f"{of.input} input")
        for i, of in enumerate(result.segmentation)
    ]


# --- classes


def _classes_figure(result: Result) -> canvas.Figure:
    """A line a class, best on top, with the interval of each input at its best level."""
    first = best_row(result.segmentation[0], result)
    classes = [k for k in range(result.data["classes"]) if first[f"iou_{k}"] is not None]
    classes.sort(key=lambda k: float(first[f"iou_{k}"]))
    handles = [
        canvas.Line2D([], [], **_point(i), label=f"{of.input} input, σ = {number(of.sigma)}")
        for i, of in enumerate(result.segmentation)
    ]
    figure = canvas.figure(1.4 + 0.24 * len(classes), handles)
    axes = figure.add_subplot()
    for i, of in enumerate(result.segmentation):
        row, key = best_row(of, result), prefix(of, result)
        for place, k in enumerate(classes):
            _class_point(axes, row, f"{key}iou_{k}", place + 0.16 * (i - (len(result.segmentation) - 1) / 2), i)
    axes.set_yticks(range(len(classes)), [_named(result, k) for k in classes])
    axes.set_ylim(-0.6, len(classes) - 0.4)
    axes.set_xlim(0, 1)
    axes.set_xlabel("IoU at the best level (lines: 95 % intervals)")
    axes.set_title(_title(result))
    canvas.legend(figure, handles)
    return figure


def _class_point(axes: canvas.Axes, row: Row, key: str, place: float, i: int) -> None:
    if row[f"{key}_low"] is not None:
        axes.plot([row[f"{key}_low"], row[f"{key}_high"]], [place, place], color=canvas.PALETTE[i], linewidth=1.2)
    axes.plot([row[key]], [place], **_point(i))


def _point(i: int) -> dict[str, Any]:
    return {"color": canvas.PALETTE[i], "marker": canvas.MARKERS[i], "linestyle": "none", "markersize": 5}


# --- masks


def _masks_figure(result: Result, pictures: Mapping[str, Any]) -> canvas.Figure:
    """A column an image: as the network is given it, its mask, and the prediction of each input at its best level."""
    lines = ["image", "truth", *(_line_name(of) for of in result.segmentation)]
    masks = [pictures["truth"], *pictures["predicted"]]
    shown = sorted({int(k) for line in masks for mask in line for k in np.unique(mask)})
    handles = _class_handles(result, shown)
    across = len(pictures["images"])
    wide = canvas.width(max(4.6, 1.1 + 1.3 * across))
    inch = min(1.35, (wide - 0.8) / across)
    figure = canvas.Figure(figsize=(wide, inch * len(lines) + 0.5 + canvas.legend_height(handles)))
    panels = figure.subplots(len(lines), across, squeeze=False)
    for column in range(across):
        panels[0, column].imshow(pictures["images"][column], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        for line, of_line in enumerate(masks, start=1):
            panels[line, column].imshow(_coloured(of_line[column]), interpolation="nearest")
    for axes in panels.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(False)
        for side in ("top", "right"):
            axes.spines[side].set_visible(True)
    for line, name in enumerate(lines):
        panels[line, 0].set_ylabel(name, fontsize="small")
    figure.suptitle(_title(result, wide))
    canvas.legend(figure, handles)
    return figure


def _line_name(of: SegmentationRow) -> str:
    return f"{of.input} input\nσ = {number(of.sigma)}"


def _class_handles(result: Result, shown: Sequence[int]) -> list[Any]:
    """Which class has which colour, of those that are seen; none where they are too many to be told apart."""
    if len(shown) > NAMED_CLASSES:
        return []
    return [
        canvas.Patch(
            facecolor=colour(k),
            edgecolor=canvas.ink(),
            linewidth=0.4,
            label="void" if k == VOID else _named(result, k),
        )
        for k in shown
    ]


def _coloured(mask: np.ndarray) -> np.ndarray:
    """Classes [H, W] as their colours, uint8 [H, W, 3]."""
    table = [[int(colour(k)[i : i + 2], 16) for i in (1, 3, 5)] for k in range(256)]
    return np.take(np.array(table, np.uint8), mask, axis=0)


def colour(k: int) -> str:
    """Of a class: 0, often the background, grey, the next seven as curves have them, others around the hues."""
    if k in (0, VOID):
        return VOID_COLOUR if k else "#D9D9D9"
    known = list(dict.fromkeys(canvas.PALETTE[i] for i in range(len(canvas.PALETTE))))
    if k <= len(known):
        return str(known[k - 1])
    # Steps of the golden ratio never come near a hue that was just taken.
    hue = (0.11 + (k - len(known)) * 0.618034) % 1
    light = (0.42, 0.68, 0.55)[k % 3]
    return "#" + "".join(f"{round(255 * part):02X}" for part in colorsys.hls_to_rgb(hue, light, 0.75))


def _named(result: Result, k: int) -> str:
    return canvas.literal(canvas.shortened(class_name(result, k), LETTERS))


def _sigma(row: Row) -> float:
    return row.sigma


def _title(result: Result, across: float = canvas.WIDTH) -> str:
    head = {"linear": "a linear head", "mlp": "ten MLPs"}[result.protocol["segmentation"]["pixel_head"]]
    return canvas.title(Path(str(result.checkpoint.get("path", ""))).name, layers(result), head, across=across)
