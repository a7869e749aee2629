"""A few images and what the network makes of them at each noise level: a line an image.

It has the form of figure 3, below, of Wang et al., 2025, https://arxiv.org/abs/2502.05743.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffscope.report.figures import canvas
from diffscope.report.text import number
from diffscope.results import Result

LEVELS = 10
"""Side by side; of more, some that are evenly spaced, the first and the last among them."""
INCH, GAP = 0.72, 0.06
"""Side of a picture, and the space between two in pictures."""


def denoised_figure(result: Result, pictures: Mapping[str, Any]) -> canvas.Figure:
    """Draws what `studies.probe.denoised` read."""
    sigmas = pictures["sigmas"]
    levels = np.unique(np.linspace(0, len(sigmas) - 1, min(len(sigmas), LEVELS)).round().astype(int))
    columns = [("image", pictures["images"])]
    columns += [(number(sigmas[level]), pictures["denoised"][level]) for level in levels]
    lines = len(pictures["images"])
    across, down = len(columns) * (1 + GAP) + 2 * GAP, lines * (1 + GAP) + 0.35
    wide = canvas.width(max(4.6, INCH * across + 0.2))
    inch = min(INCH, (wide - 0.2) / across)
    figure = canvas.Figure(figsize=(wide, inch * down + 0.65))
    axes = figure.add_subplot()
    for column, (name, shown) in enumerate(columns):
        x = column * (1 + GAP) + (2 * GAP if column else 0)  # the image stands a little apart
        label = name if not column else f"σ = {name}" if column == 1 else name
        axes.text(x + 0.5, -0.08, label, ha="center", va="bottom", fontsize="small", color=canvas.ink())
        for line, picture in enumerate(shown):
            y = line * (1 + GAP)
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255, extent=(x, x + 1, y + 1, y), interpolation="nearest")
    axes.set_xlim(-GAP, across)
    axes.set_ylim(down - 0.35, -0.35)
    axes.set_aspect("equal")
    axes.set_axis_off()
    name = Path(str(result.checkpoint.get("path", ""))).name
    figure.suptitle(canvas.title(name, f"denoised from {pictures['input']} input", across=wide))
    return figure
