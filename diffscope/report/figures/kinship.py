"""Maps of kinship: CKA and CKNNA of each two representations."""

from __future__ import annotations

import numpy as np

from diffscope.report.figures import canvas
from diffscope.report.words import kinship as words
from diffscope.report.words.neighbors import file_name
from diffscope.results import Result

WRITTEN = 9
"""Representations up to which each square says its number."""
LONGEST = 26
"""Characters of a name."""
WHOLE = 14
"""Up to which their names are set in small letters; of more, in the smallest."""
NAMED = 40
"""The same of names; of more every second, third … is named."""


def figures(result: Result) -> dict[str, canvas.Figure]:
    """`kinship`; none of two representations alone, whose one number needs no map."""
    return {"kinship": kinship_map(result)} if len(result.sections["items"]) > 2 else {}


def kinship_map(result: Result) -> canvas.Figure:
    """Two squares side by side; what could not be computed is left empty."""
    names = words.labels(result.sections["items"])
    longest = max(map(len, names))
    lines = 2 if canvas.is_narrow() else 1
    wide = canvas.width(canvas.WIDTH + 1.2)
    beside = (0.07 if len(names) <= WHOLE else 0.05) * canvas.width() / canvas.WIDTH * min(longest, LONGEST)
    square = (wide - 1.1 - beside) * lines / 2
    handles = [canvas.Patch(facecolor=canvas.paper(), edgecolor=canvas.faint(), label="empty: could not be computed")]
    handles = handles if any(row[key] is None for row in result.rows for key in words.NAMES) else []
    high = lines * (square + 0.3) + 0.4 + beside + canvas.legend_height(handles)
    figure = canvas.Figure(figsize=(wide, high))
    panels = figure.subplots(lines, 2 // lines)
    for axes, (key, name) in zip(panels, words.NAMES.items(), strict=True):
        values = np.array([[canvas.gap(value) for value in row] for row in words.square(result, key)])
        drawn = axes.imshow(values, cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(name if key == "cka" else f"{name}, {words.k_of(result)} neighbours", fontsize="small")
        _names(axes, names, across=lines == 1 or key != "cka", down=lines == 2 or key == "cka")
        axes.grid(False)
        if len(names) <= WRITTEN:
            _numbers(axes, values)
    bar = figure.colorbar(drawn, ax=panels, pad=0.02, shrink=0.8)
    bar.set_label("1: alike", fontsize="small")
    count = len(result.checkpoints)  # of which names of items tell; none where there is one alone
    whose = f"{count} checkpoints" if count else file_name({"checkpoint": result.checkpoint["path"]})
    same = {(item["layer"], item["sigma"]) for item in result.sections["items"] if "layer" in item}
    layers, levels = ({one[i] for one in same} for i in (0, 1))
    told = [layer for layer in layers if len(layers) == 1] + [
        f"σ = {level:.3g}" for level in levels if len(levels) == 1
    ]
    figure.suptitle(canvas.title(whose, *told))
    canvas.legend(figure, handles)
    return figure


def _names(axes: canvas.Axes, names: list[str], across: bool, down: bool) -> None:
    step = -(-len(names) // NAMED)
    at = list(range(0, len(names), step))
    shown = [canvas.literal(canvas.shortened(names[i], LONGEST)) for i in at]
    size = "small" if len(at) <= WHOLE else "xx-small"
    axes.set_xticks(at, shown if across else [""] * len(at), rotation=90, fontsize=size)
    axes.set_yticks(at, shown if down else [""] * len(at), fontsize=size)
    axes.tick_params(length=0)


def _numbers(axes: canvas.Axes, values: np.ndarray) -> None:
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value) and row != column:
            colour = "black" if value > 0.6 else "white"
            text = f"{value:.2f}".removeprefix("0").replace("-0", "−")
            axes.text(column, row, text, ha="center", va="center", fontsize="x-small", color=colour)
