"""Pictures of samples: a grid of them, the pairs that look most like copies, and their share over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffscope.report.figures import canvas, quality
from diffscope.report.words import memorization
from diffscope.report.words.series import AXIS, run_name
from diffscope.results import Result

Gallery = Mapping[str, np.ndarray]
"""`samples` [m, C, S, S]; `pair_samples` and `pair_images` [k, C, S, S], side by side as they are to be seen."""

COLUMNS = 8
"""Samples side by side."""
PAIR_COLUMNS = 4

COPY, LOOSER = 0, 1
"""Measures by which a sample is a copy, and their places in the palette."""
HALF = "ratio<1/2"
"""The looser measure, as results name it."""
DEFINED = "d₁, d₂: Euclidean distances of the sample to the nearest and second nearest training image"


def figures(result: Result) -> dict[str, canvas.Figure]:
    """`samples` and `pairs`, unless the result was read from a file; of several checkpoints `share` and `quality`."""
    drawn = {}
    if (gallery := result.pictures) is not None:
        pairs = [pair for pair in result.sections["pairs"] if pair["checkpoint"] == gallery["checkpoint"]]
        drawn = {"samples": _samples(result, gallery, gallery), "pairs": _pairs(result, gallery, pairs, gallery)}
    if len(result.rows) > 1:
        drawn["share"] = _share(result)
        if "quality" in result.sections:
            drawn["quality"] = quality.over_training(result)
    return drawn


# --- grids


def _samples(result: Result, gallery: Gallery, shown: Mapping[str, Any]) -> canvas.Figure:
    images = pictures(gallery["samples"])
    columns = min(COLUMNS, len(images))
    lines = -(-len(images) // columns)
    width = canvas.width(max(canvas.WIDTH / COLUMNS * columns, 4.0))
    cell = min(width / columns, canvas.width() / COLUMNS)
    figure = canvas.Figure(figsize=(width, cell * lines + 0.4))
    axes = _blank(figure, columns * 1.06, lines * 1.06)
    for n, image in enumerate(images):
        _put(axes, image, n % columns * 1.06 + 0.03, n // columns * 1.06 + 0.03)
    count = result.rows[0]["samples"]
    first = f"first {len(images)} of {count:,} samples" if count > len(images) else f"{count} samples"
    figure.suptitle(canvas.title(first, *_of(result, shown), across=width))
    return figure


def _pairs(
    result: Result, gallery: Gallery, pairs: Sequence[Mapping[str, Any]], shown: Mapping[str, Any]
) -> canvas.Figure:
    """Sample on the left, its nearest training image on the right; the frame says by which measure it is a copy."""
    both = pictures(np.concatenate([gallery["pair_samples"], gallery["pair_images"]]))
    ours, theirs = both[: len(pairs)], both[len(pairs) :]
    most = 2 if canvas.is_narrow() else PAIR_COLUMNS
    columns = min(most, len(pairs))
    lines = -(-len(pairs) // columns)
    across, down = 2.3, 1.42
    handles = _pair_handles(result, pairs)
    width = canvas.width(max(canvas.WIDTH / most * columns, 4.0))
    cell = min(width / columns, canvas.width() / most) / across
    figure = canvas.Figure(figsize=(width, cell * down * lines + 0.5 + canvas.legend_height(handles)))
    axes = _blank(figure, columns * across, lines * down)
    for n, pair in enumerate(pairs):
        left, top = n % columns * across + 0.13, n // columns * down + 0.1
        _put(axes, ours[n], left, top)
        _put(axes, theirs[n], left + 1.04, top)
        frame = _frame(result, pair)
        if frame is not None:
            x, y = (left - 0.05, left + 2.09), (top - 0.05, top + 1.05)
            axes.plot([x[0], x[1], x[1], x[0], x[0]], [y[0], y[0], y[1], y[1], y[0]], **_look(frame), clip_on=False)
        mark = " ↔" if pair["mirrored"] else ""
        axes.text(left + 1.02, top + 1.08, _value(pair) + mark, ha="center", va="top", fontsize="small")
    figure.suptitle(canvas.title("samples, each left of its nearest training image", *_of(result, shown), across=width))
    canvas.legend(figure, handles)
    return figure


def _pair_handles(result: Result, pairs: Sequence[Mapping[str, Any]]) -> list[canvas.Line2D]:
    """What is in the picture, and nothing else."""
    frames = [_frame(result, pair) for pair in pairs]
    handles = []
    if COPY in frames:
        label = f"copy: {_measure(str(result.rows[0]['criterion']))}"
        handles.append(canvas.Line2D([], [], **_look(COPY), label=label))
    if LOOSER in frames:
        handles.append(canvas.Line2D([], [], **_look(LOOSER), label=_measure(HALF)))
    if any(pair["mirrored"] for pair in pairs):
        arrow: dict[str, Any] = {
            "linestyle": "none",
            "marker": r"$\leftrightarrow$",
            "markersize": 11,
            "color": canvas.ink(),
        }
        handles.append(canvas.Line2D([], [], **arrow, label="mirrored"))
    if any("ratio" in pair for pair in pairs):
        handles.append(canvas.Line2D([], [], linestyle="none", label=DEFINED))
    elif pairs:
        handles.append(canvas.Line2D([], [], linestyle="none", label="cosine: similarity of the two in features"))
    return handles


def _measure(criterion: str) -> str:
    """A criterion as the pictures say it."""
    return canvas.literal(criterion.replace("ratio<", "d₁/d₂ < "))


def _look(measure: int) -> dict[str, Any]:
    """Of a frame."""
    dashes, width = {COPY: ("-", 1.8), LOOSER: ((0, (4, 2)), 1.3)}[measure]
    return {"color": canvas.PALETTE[measure], "linestyle": dashes, "linewidth": width}


def _frame(result: Result, pair: Mapping[str, Any]) -> int | None:
    threshold = result.protocol["threshold"]
    if "ratio" in pair:
        return COPY if pair["ratio"] < threshold else LOOSER if pair["ratio"] < 1 / 2 else None
    return COPY if pair["similarity"] > threshold else None


def _value(pair: Mapping[str, Any]) -> str:
    return f"d₁/d₂ = {pair['ratio']:.2f}" if "ratio" in pair else f"cosine {pair['similarity']:.3f}"


def _of(result: Result, shown: Mapping[str, Any]) -> list[str]:
    """Which checkpoint is seen."""
    name = memorization.columns(result.rows)["checkpoint"](shown)
    step = [f"step {shown['step']:,}"] if shown["step"] is not None else []
    return [name if not step else "", *step]


def _blank(figure: canvas.Figure, width: float, height: float) -> canvas.Axes:
    """Axes in units of a picture's side, from the top left corner."""
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_aspect("equal")
    return axes


def _put(axes: canvas.Axes, image: np.ndarray, left: float, top: float) -> None:
    extent = (left, left + 1, top + 1, top)
    axes.imshow(image, extent=extent, interpolation="nearest", cmap="gray", vmin=0, vmax=255)
    # imshow fits the axes to its own extent.
    axes.autoscale(False)


def pictures(images: np.ndarray) -> np.ndarray:
    """[n, C, S, S] → uint8 [n, S, S] or [n, S, S, 3].

    Floats are shown from their lowest value to their highest, of other than three channels the first.
    """
    if images.dtype != np.uint8:
        low, high = float(images.min()), float(images.max())
        images = np.round(255 * (images - low) / ((high - low) or 1.0)).astype(np.uint8)
    return np.moveaxis(images, 1, -1) if images.shape[1] == 3 else images[:, 0]


# --- the share over training


def _share(result: Result) -> canvas.Figure:
    steps = [row["step"] for row in result.rows]
    measures = [("share", str(result.rows[0]["criterion"]))]
    if "share_half" in result.rows[0] and measures[0][1] != HALF:
        measures.append(("share_half", HALF))
    handles = [*canvas.curve_handles([_measure(name) for _, name in measures], 0, ""), canvas.bands_handle()]
    if "share_half" in result.rows[0]:
        handles.append(canvas.Line2D([], [], linestyle="none", label=DEFINED))
    figure = canvas.figure(3.4, handles)
    axes = figure.add_subplot()
    dense = len(steps) > 40
    for i, (key, _) in enumerate(measures):
        low, high = ([row[f"{key}_{end}"] for row in result.rows] for end in ("low", "high"))
        axes.fill_between(steps, low, high, color=canvas.PALETTE[i], alpha=0.16, linewidth=0)
        style = canvas.curve_style(i) | ({"marker": None} if dense else {})
        shares = [row[key] for row in result.rows]
        # A share of 0 lies on the axis and is to be seen.
        axes.plot(steps, shares, **style, markerfacecolor=canvas.paper(), clip_on=False, zorder=3)
    highest = max(row[f"{key}_high"] for row in result.rows for key, _ in measures)
    axes.set_ylim(0, min(1.0, 1.05 * highest))
    axes.yaxis.set_major_formatter(canvas.FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
    axes.set_ylabel("samples that are copies")
    units = {entry.get("step_unit") for entry in result.sections["checkpoints"] if "why" not in entry}
    unit = units.pop() if len(units) == 1 else None
    canvas.step_axis(axes, steps, AXIS.get(str(unit), "training step"))
    axes.tick_params(color=canvas.ink())
    count = result.rows[0]["samples"]
    figure.suptitle(canvas.title(run_name(result), f"copies among {count:,} samples"))
    canvas.legend(figure, handles)
    return figure
