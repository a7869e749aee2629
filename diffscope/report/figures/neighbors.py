"""Pictures of nearest neighbours: the grid by s and by ξ, and the views of a few images in a plane.

They have the form of figures 2 and 7 of Li et al., 2026, https://arxiv.org/abs/2606.09718. Every thumbnail is the view
that was compared, before noise; what is compared by the mean over all views is shown as the image is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffscope.report.figures import canvas
from diffscope.report.text import number, share
from diffscope.report.words import neighbors
from diffscope.results import Result

Pictures = Mapping[tuple[int, int], np.ndarray]
"""(image, view) → uint8 [H, W] or [H, W, 3]."""

CHECKPOINTS = 8
"""That one picture holds; of more, some evenly spaced."""
PANELS = 6
"""The same of clusters."""
ENCODERS = 6
"""Beside the network, in one picture."""
COLUMNS = 15
"""Thumbnails side by side that are still seen."""
GRID_WIDTH = 7.2
"""Inches: both columns of a page."""

KEYS, KEY_STEP = 12, 1.45
"""Images that are named below clusters, and how far apart they stand in thumbnails."""
NAMED = 0.48
"""Height in thumbnails of the text beneath one, where it also says the class."""
CAPTION, GAP, APART, LABEL = 0.30, 0.07, 0.30, 0.34
"""Heights and widths in thumbnails: of the text beneath one, between two, between query and neighbours, of s and ξ."""


def figures(result: Result) -> dict[str, canvas.Figure]:
    """`neighbors` and, where the result has them, `clusters`; none of a result that was read from a file."""
    if result.pictures is None:
        return {}
    drawn = {"neighbors": grid_figure(result, result.pictures)}
    if result.sections.get("beside"):
        drawn["beside"] = beside_figure(result, result.pictures)
    if "clusters" in result.sections:
        drawn["clusters"] = clusters_figure(result, result.pictures)
    return drawn


# --- the grid


def beside_figure(result: Result, pictures: Pictures) -> canvas.Figure:
    """A line for each encoder beside the network, under those by s and ξ of the last checkpoint."""
    last, encoders = result.sections["grid"][-1], result.sections["beside"][:ENCODERS]
    found = {f"beside {i}": {q["image"]: q["neighbors"] for q in one["grid"]} for i, one in enumerate(encoders)}
    queries = [
        {**query, **{key: {"view": None, "neighbors": near.get(query["image"], [])} for key, near in found.items()}}
        for query in last["queries"]
    ]
    names = [canvas.literal(canvas.shortened(Path(one["encoder"]).name, 14)) for one in encoders]
    lines = {**neighbors.SYMBOL, **dict(zip(found, names, strict=True))}
    return grid_figure(result, pictures, [{**last, "queries": queries}], lines)


def grid_figure(
    result: Result,
    pictures: Pictures,
    parts: Sequence[Any] | None = None,
    lines: Mapping[str, str] = neighbors.SYMBOL,
) -> canvas.Figure:
    """Lines of each query, by s and by ξ, queries side by side where there is room; checkpoints one below the other."""
    series = parts is None and len(result.sections["grid"]) > 1
    parts = neighbors.picked(result.sections["grid"], CHECKPOINTS) if parts is None else parts
    k = result.rows[0]["k"]
    most = max(len(part["queries"]) for part in parts)
    room = COLUMNS * canvas.width(GRID_WIDTH) / GRID_WIDTH if canvas.is_narrow() else COLUMNS
    across = min(most, max(1, int(room) // (k + 2)))
    block = LABEL + 1 + APART + k * (1 + GAP)
    margin = 1.75 if series else 0.0
    width = margin + across * block + (across - 1) * APART
    line = 1 + (NAMED if result.data.get("class_names") else CAPTION)
    pair = len(lines) * line + 0.12
    heights = [-(-len(part["queries"]) // across) * pair + (0.3 if series else 0.0) for part in parts]
    height = sum(heights) + (0.1 if series else 0.4)
    handles = _handles(any(query["label"] is not None for part in parts for query in part["queries"]))
    inch = min(canvas.width(GRID_WIDTH) / width, 0.9)
    wide = canvas.width(max(inch * width, 4.6))
    figure = canvas.Figure(figsize=(wide, inch * height + 0.4 + canvas.legend_height(handles)))
    axes = figure.subplots()
    top = 0.4
    for column in range(across):
        left = margin + column * (block + APART)
        _text(axes, left + LABEL + 0.5, 0.32, "query", va="bottom")
        _text(axes, left + LABEL + 1 + APART, 0.32, "nearest neighbours →", ha="left", va="bottom")
    for part, size in zip(parts, heights, strict=True):
        if series:
            said = neighbors.place(part).replace(", ", "\n")
            _text(axes, 0.0, top + (size - 0.3) / 2, said, ha="left", fontsize="small")
            if part is not parts[0]:
                axes.plot([0, width], [top - 0.18] * 2, color=canvas.faint(), linewidth=0.6)
        for number_of_query, query in enumerate(part["queries"]):
            row, column = divmod(number_of_query, across)
            left = margin + column * (block + APART)
            for i, (component, name) in enumerate(lines.items()):
                _line(axes, result, pictures, query, (component, name), left, top + row * pair + i * line)
        top += size
    axes.set_xlim(-0.05, width + 0.05)
    axes.set_ylim(height, 0)
    axes.set_aspect("equal")
    axes.set_axis_off()
    figure.suptitle(_title(result, parts, wide))
    canvas.legend(figure, handles)
    return figure


def _handles(labelled: bool) -> list[canvas.Line2D]:
    """What frames and numbers say."""
    frames = {"same class as the query": True, "another class": False} if labelled else {}
    handles = [canvas.Line2D([], [], **frame(same), label=label) for label, same in frames.items()]
    told = ["numbers: cosine similarity to the query", "s: by what an image's views share; ξ: by what they differ in"]
    return [*handles, *(canvas.Line2D([], [], linestyle="none", label=line) for line in told)]


def _line(
    axes: canvas.Axes,
    result: Result,
    pictures: Pictures,
    query: Mapping[str, Any],
    component: tuple[str, str],
    x: float,
    y: float,
) -> None:
    """Query and neighbours by one component (its key and name), from the left edge x and the upper edge y."""
    key, name = component
    found = query[key]
    look = {"fontsize": 10} if len(name) == 1 else {"fontsize": 6, "rotation": 90}
    _text(axes, x + LABEL / 2 - 0.04, y + 0.5, name, **look)
    x += LABEL
    _thumbnail(axes, pictures[query["image"], found["view"] or 0], x, y)
    _text(axes, x + 0.5, y + 1.03, _query_caption(result, query, found["view"]), va="top", fontsize="xx-small")
    x += 1 + APART
    for near in found["neighbors"]:
        _thumbnail(axes, pictures[near["image"], near["view"] or 0], x, y)
        if query["label"] is not None:
            _frame(axes, x, y, frame(near["label"] == query["label"]))
        said = f"{near['similarity']:.2f}".replace("-", "−")
        if near["label"] not in (None, query["label"]) and result.data.get("class_names"):
            said += f"\n{canvas.literal(canvas.shortened(neighbors.class_name(result, near['label']), 10))}"
        _text(axes, x + 0.5, y + 1.05, said, va="top", fontsize="xx-small", linespacing=1.0)
        x += 1 + GAP


def _query_caption(result: Result, query: Mapping[str, Any], view: int | None) -> str:
    if view is not None:
        return neighbors.view_name(view)
    if query["label"] is None:
        return f"image {query['image']}"
    return canvas.literal(canvas.shortened(neighbors.class_name(result, query["label"]), 13))


def _thumbnail(axes: canvas.Axes, picture: np.ndarray, x: float, y: float) -> None:
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, extent=(x, x + 1, y + 1, y), interpolation="nearest")


def _frame(axes: canvas.Axes, x: float, y: float, style: Mapping[str, Any]) -> None:
    axes.plot([x, x + 1, x + 1, x, x], [y, y, y + 1, y + 1, y], **style, solid_joinstyle="miter", zorder=3)


def frame(same: bool) -> dict[str, Any]:
    """Of a neighbour: dark and whole if of the query's class, else light and dashed, so that grey tells them apart."""
    if same:
        return {"color": canvas.PALETTE[0], "linestyle": "-", "linewidth": 1.5}
    return {"color": canvas.PALETTE[4], "linestyle": (0, (2, 1.4)), "linewidth": 1.1}


def _text(axes: canvas.Axes, x: float, y: float, text: str, **style: Any) -> None:
    axes.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": 7, "color": canvas.ink(), **style})


def _title(result: Result, parts: Sequence[Any], wide: float) -> str:
    row = result.rows[0]
    whole = result.sections["grid"]
    few = "" if len(parts) == len(whole) else f"{len(parts)} of {len(whole)} checkpoints"
    icr = f"ICR {share(row['icr'])}" if len(whole) == 1 and row["icr"] is not None else ""
    name = neighbors.file_name({"checkpoint": result.checkpoint["path"]})
    return canvas.title(name, row["layer"], f"σ = {number(row['sigma'])}", icr, few, across=wide)


# --- clusters


def clusters_figure(result: Result, pictures: Pictures) -> canvas.Figure:
    """A panel a checkpoint, with the views of each image in its colour and marker; below, which image that is."""
    parts = neighbors.picked(result.sections["clusters"], PANELS)
    images = parts[0]["images"]
    across = 2 if len(parts) == 4 or canvas.is_narrow() else 3
    across = min(len(parts), across)
    lines = -(-len(parts) // across)
    wide = canvas.width(canvas.WIDTH if across > 1 else 4.6)
    panel = canvas.height(2.3 if across > 1 else 3.6)
    shown = min(len(images), KEYS)
    inch = min(0.5, wide / (KEY_STEP * shown))
    rest = 1.45 * inch + 0.1 + canvas.legend_height(_view_handles())
    figure = canvas.Figure(figsize=(wide, 0.4 + panel * lines + rest))
    above, below = figure.subfigures(2, 1, height_ratios=[0.4 + panel * lines, rest], squeeze=False)[:, 0]
    for i, part in enumerate(parts, start=1):
        axes = above.add_subplot(lines, across, i)
        _views(axes, part["images"])
        first, second = (f"{100 * explained:.0f} %" for explained in part["explained"])
        axes.set_xlabel(f"first component ({first})", fontsize="small")
        axes.set_ylabel(f"second ({second})", fontsize="small")
        axes.set_xticks([])
        axes.set_yticks([])
        if len(result.sections["clusters"]) > 1:
            axes.set_title(neighbors.place(part), fontsize="small")
    above.suptitle(_title(result, parts, wide))
    _key(below.subplots(), result, pictures, images[:shown], wide / inch)
    below.legend(handles=_view_handles(), loc="outside lower center", ncols=2 - canvas.is_narrow())
    return figure


def _view_handles() -> list[canvas.Line2D]:
    """What the size of a marker says; its colour and form say which image it is of."""
    look: dict[str, Any] = {"color": canvas.faint(), "marker": "o", "linestyle": "none"}
    return [
        canvas.Line2D([], [], **look, markersize=8, markeredgecolor=canvas.ink(), label="large: the image as it is"),
        canvas.Line2D([], [], **look, markersize=4, markeredgewidth=0, label="small: its augmented views"),
    ]


def _views(axes: canvas.Axes, images: Sequence[Mapping[str, Any]]) -> None:
    """The image as it is larger and edged."""
    for i, image in enumerate(images):
        points = np.array(image["points"])
        style: dict[str, Any] = {
            "color": canvas.PALETTE[i % len(canvas.PALETTE)],
            "marker": canvas.MARKERS[i % len(canvas.MARKERS)],
        }
        axes.plot(points[1:, 0], points[1:, 1], **style, linestyle="none", markersize=4, alpha=0.75, markeredgewidth=0)
        axes.plot(points[:1, 0], points[:1, 1], **style, markersize=8, markeredgecolor=canvas.ink(), zorder=4)


def _key(
    axes: canvas.Axes, result: Result, pictures: Pictures, images: Sequence[Mapping[str, Any]], width: float
) -> None:
    """Which image has which marker."""
    start = (width - KEY_STEP * len(images)) / 2
    for i, image in enumerate(images):
        x = start + i * KEY_STEP + 0.2
        _thumbnail(axes, pictures[image["image"], 0], x, 0)
        style: dict[str, Any] = {
            "color": canvas.PALETTE[i % len(canvas.PALETTE)],
            "marker": canvas.MARKERS[i % len(canvas.MARKERS)],
        }
        axes.plot(
            [x - 0.16], [0.5], **style, markersize=6, markeredgecolor=canvas.ink(), linestyle="none", clip_on=False
        )
        name = f"image {image['image']}" if image["label"] is None else neighbors.class_name(result, image["label"])
        _text(axes, x + 0.5, 1.06, canvas.literal(canvas.shortened(name, 13)), va="top", fontsize="x-small")
    axes.set_xlim(0, width)
    axes.set_ylim(1.4, -0.05)
    axes.set_aspect("equal")
    axes.set_axis_off()
