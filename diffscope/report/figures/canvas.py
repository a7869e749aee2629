"""What all pictures share, and the one file that knows matplotlib: others take its names from here.

Colours are those of Okabe and Ito (Color Universal Design, 2008, https://jfly.uni-koeln.de/color/), and every curve
has its own marker and line style as well, so that a greyscale print can be read.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as _Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from diffscope.report.streams import one_line
from diffscope.report.text import number
from diffscope.results import Row

__all__ = ["Axes", "Figure", "FuncFormatter", "Line2D", "MaxNLocator", "NullLocator", "Patch"]

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
"""Curves that can be told apart in one picture."""
BEST = 6
"""Curves drawn in colour where there are more than that."""

WIDTH = 6.4
"""Inches."""
CHARACTERS = 82
"""Of 9 points, that a legend of this width holds."""

OTHERS = "#C8C8C8"
INK = "#404040"
SHADE = "#FBF6CC"
RULE: dict[str, Any] = {"color": INK, "linestyle": (0, (4, 3)), "linewidth": 1.1}

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

Across = Callable[[Row], float]
"""Where a row stands on the horizontal axis."""


class Figure(_Figure):
    """A picture that a notebook shows where it is the value of a cell."""

    def _repr_png_(self) -> bytes:
        return png(self)


@contextmanager
def look() -> Iterator[None]:
    """Our style, whatever the user's own defaults are, while pictures are made and written."""
    with style.context(["default", LOOK]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a file name in a script that the font lacks
        yield


def png(figure: Figure) -> bytes:
    """As the file would have it, a little coarser."""
    with look(), io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
        return file.getvalue()


def save(figure: Figure, stem: Path) -> list[Path]:
    """Without dates and versions in the files: two runs can be compared byte by byte."""
    png, svg = stem.with_suffix(".png"), stem.with_suffix(".svg")
    with look():
        figure.savefig(png, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return [png, svg]


# --- curves


def curve_style(i: int) -> dict[str, Any]:
    return {"color": PALETTE[i], "marker": MARKERS[i], "linestyle": DASHES[i]}


def line(axes: Axes, rows: Sequence[Row], across: Across, key: str, **look: Any) -> None:
    axes.plot([across(row) for row in rows], [gap(row.get(key)) for row in rows], **look)


def band(axes: Axes, rows: Sequence[Row], across: Across, key: str, **look: Any) -> None:
    """From KEY_low to KEY_high."""
    low, high = ([gap(row.get(f"{key}_{end}")) for row in rows] for end in ("low", "high"))
    axes.fill_between([across(row) for row in rows], low, high, linewidth=0, **look)


def gap(value: float | None) -> float:
    """NaN is how matplotlib is told of a gap."""
    return math.nan if value is None else value


def curve_handles(labels: Sequence[str], others: int, what: str) -> list[Any]:
    curves = [Line2D([], [], **curve_style(i), label=literal(label)) for i, label in enumerate(labels)]
    grey = Line2D([], [], color=OTHERS, linewidth=0.8, label=f"{others} other {what}")
    return [*curves, grey] if others else curves


def outlined() -> list[AbstractPathEffect]:
    """What makes a white line visible on light colours."""
    return [withStroke(linewidth=2.6, foreground=INK)]


# --- axes


def plain_numbers(axis: Axis, span: float) -> None:
    """0.1 rather than 10⁻¹ on a logarithmic axis, and 1, 2, 5 where decades are too few."""
    axis.set_major_locator(LogLocator(subs=(1.0,) if span > 100 else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.set_minor_formatter(NullFormatter())


def floor_of(axes: Axes, values: Sequence[float]) -> float:
    """Makes the axis logarithmic where all values are above 0 and the highest would hide the others.

    Returns:
        Where a band has to end below so that it can be drawn: −inf on a linear axis.
    """
    if not values or min(values) <= 0 or max(values) < 10 * min(values):
        return -math.inf
    floor = min(values) / 2
    axes.set_yscale("log")
    axes.set_ylim(floor, 1.5 * max(values))
    plain_numbers(axes.yaxis, max(values) / floor)
    return floor


def say_no_icr(axes: Axes) -> None:
    axes.set_yticks([])
    axes.grid(False)
    axes.text(0.5, 0.5, "no ICR could be computed: see the notes in result.json", transform=axes.transAxes, ha="center")


# --- legends and titles


def legend(figure: Figure, handles: Sequence[Any]) -> None:
    """Below the axes, where it cannot lie over a curve."""
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=_columns(handles))


def legend_height(handles: Sequence[Any]) -> float:
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


def title(*parts: str) -> str:
    """What the parts say, as one line; the middle of a very long one is left out."""
    return literal(shortened(", ".join(part for part in parts if part), 72))


def shortened(text: str, most: int) -> str:
    head = (most - 1) // 2
    return text if len(text) <= most else f"{text[:head]}…{text[head + 1 - most :]}"


def literal(text: str) -> str:
    """Not mathematics, however many dollars a name holds; a leading underscore would hide a legend's entry."""
    text = one_line(text, "utf-8").replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
