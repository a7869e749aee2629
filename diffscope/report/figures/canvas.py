"""What all pictures share, and with `style` the one file that knows matplotlib: others take its names from here.

Every curve has its own colour, marker and line style, so that a greyscale print can be read.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as _Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from diffscope.report.figures.style import (
    WIDTH,
    Palette,
    drawing,
    faint,
    height,
    ink,
    is_narrow,
    letters,
    look,
    mixed,
    paper,
    shade,
    width,
)  # fmt: skip
from diffscope.report.streams import one_line
from diffscope.report.text import number
from diffscope.report.words import series

__all__ = [
    "WIDTH", "Axes", "Figure", "FuncFormatter", "Line2D", "MaxNLocator", "NullLocator", "Patch", "drawing", "faint",
    "height", "ink", "is_narrow", "letters", "look", "mixed", "paper", "shade", "width",
]  # fmt: skip

PALETTE = Palette()
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
MARKED = 40
"""Snapshots of a series up to which each has its marker; of more they would hide the curve."""
BEST = 6
"""Curves drawn in colour where there are more than that."""

OUTLINE = "#404040"
"""Of white lines on a map of colours, which are the same in all styles."""

ICR = "ICR (lower: more semantic)"

Rows = Sequence[Mapping[str, Any]]
"""Lines of a result, or records with the same keys."""
Across = Callable[[Any], float]
"""Where a row stands on the horizontal axis."""


class Figure(_Figure):
    """A picture that knows how it is to be written, and that a notebook shows where it is the value of a cell."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.drawing = drawing()

    def _repr_png_(self) -> bytes:
        return png(self)


def figure(inches: float, handles: Sequence[Any] = (), across: float = WIDTH) -> Figure:
    """An empty picture.

    Args:
        inches: How high the axes are with their titles and labels, at the usual width.
        handles: What the legend below is to hold.
        across: How wide the picture is where the user does not say.
    """
    return Figure(figsize=(width(across), height(inches) + legend_height(handles)))


def png(figure: Figure) -> bytes:
    """As the file would have it, a little coarser."""
    with look(figure.drawing), io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=110, metadata=WITHOUT_DATES["png"])
        return file.getvalue()


WITHOUT_DATES: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""Nor versions: two runs can be compared byte by byte."""


def save(figure: Figure, stem: Path) -> list[Path]:
    """Writes the picture in each of the forms that were asked for when it was made.

    Returns:
        The paths.
    """
    written = []
    with look(figure.drawing):
        for kind in figure.drawing.format:
            written.append(stem.with_suffix(f".{kind}"))
            figure.savefig(written[-1], metadata=WITHOUT_DATES[kind])
    return written


# --- curves


def rule() -> dict[str, Any]:
    """Of the line at what is recommended, or where something happened."""
    return {"color": ink(), "linestyle": (0, (4, 3)), "linewidth": 1.1}


def curve_style(i: int) -> dict[str, Any]:
    return {"color": PALETTE[i], "marker": MARKERS[i], "linestyle": DASHES[i]}


def line(axes: Axes, rows: Rows, across: Across, key: str, **look: Any) -> None:
    axes.plot([across(row) for row in rows], [gap(row.get(key)) for row in rows], **look)


def band(axes: Axes, rows: Rows, across: Across, key: str, **look: Any) -> None:
    """From KEY_low to KEY_high."""
    low, high = ([gap(row.get(f"{key}_{end}")) for row in rows] for end in ("low", "high"))
    axes.fill_between([across(row) for row in rows], low, high, linewidth=0, **look)


def error_band(axes: Axes, rows: Rows, across: Across, key: str, floor: float = -math.inf, **look: Any) -> None:
    """1.96 standard errors, KEY_se, on either side and not below the floor; a gap where there are none."""
    ends = [_ends(gap(row.get(key)), 1.96 * gap(row.get(f"{key}_se")), floor) for row in rows]
    if not all(math.isnan(low) for low, _ in ends):
        low, high = zip(*ends, strict=True)
        axes.fill_between([across(row) for row in rows], low, high, linewidth=0, **look)


def _ends(value: float, error: float, floor: float) -> tuple[float, float]:
    if math.isnan(value + error) or value <= floor:
        return math.nan, math.nan
    return max(floor, value - error), value + error


def gap(value: float | None) -> float:
    """NaN is how matplotlib is told of a gap."""
    return math.nan if value is None else value


def curve_handles(labels: Sequence[str], others: int, what: str, hollow: bool = True) -> list[Any]:
    """What a legend says of curves in the order of their styles, and of how many others that are grey."""
    face = paper() if hollow else None
    curves = [
        Line2D([], [], **curve_style(i), markerfacecolor=face, label=literal(label)) for i, label in enumerate(labels)
    ]
    grey = Line2D([], [], color=faint(), linewidth=0.8, label=f"{others} other {what}")
    return [*curves, grey] if others else curves


def bands_handle(label: str = "bands: 95 % intervals") -> Patch:
    """What a legend says of bands."""
    return Patch(color=ink(), alpha=0.15, linewidth=0, label=label)


def filled_handle(label: str) -> Line2D:
    """What a legend says of the one point that is filled."""
    return Line2D([], [], color=ink(), marker="o", linestyle="none", markersize=7, label=label)


def outlined() -> list[AbstractPathEffect]:
    """What makes a white line visible on light colours."""
    return [withStroke(linewidth=2.6, foreground=OUTLINE)]


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


def level_axis(axes: Axes, levels: Sequence[float], label: str) -> None:
    """Noise levels on the horizontal axis."""
    axes.set_xscale("log")
    axes.set_xlim(min(levels) / 1.25, max(levels) * 1.25)
    plain_numbers(axes.xaxis, max(levels) / min(levels))
    axes.set_xlabel(label)


def step_axis(axes: Axes, steps: Sequence[float], label: str) -> None:
    """Training on the horizontal axis, linear or as the user asks for it; a step of 0 then stands apart at its left."""
    first, last = min(steps), max(steps)
    if drawing().step_scale == "log" and last > 0:
        least = min(step for step in steps if step > 0)
        if first > 0:
            axes.set_xscale("log")
        else:
            axes.set_xscale("symlog", linthresh=least, linscale=0.4)
        margin = (last / least) ** 0.03 if last > least else 1.25
        axes.set_xlim(least / margin if first > 0 else -0.1 * least, last * margin)
        shown = [0.0] if first <= 0 else []
        axes.set_xticks([*shown, *_decades(least, last)])
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        margin = 0.03 * (last - first) or max(1.0, 0.5 * last)
        axes.set_xlim(first - margin, last + margin)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4 if is_narrow() else 6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: series.short(value)))
    axes.set_xlabel(label)


def _decades(least: float, last: float) -> list[float]:
    """1, 2, 5 of each power of ten between; of more than two powers 1 alone."""
    parts = (1,) if last > 200 * least else (1, 2, 5)
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(last)) + 1)
    return [part * 10.0**power for power in powers for part in parts if least <= part * 10.0**power <= last]


def say_no_icr(axes: Axes) -> None:
    axes.set_yticks([])
    axes.grid(False)
    axes.text(0.5, 0.5, "no ICR could be computed: see the notes in result.json", transform=axes.transAxes, ha="center")


# --- legends and titles


def legend(figure: Figure, handles: Sequence[Any]) -> None:
    """Below the axes, where it cannot lie over a curve."""
    if handles:
        _wrap(handles)
        figure.legend(handles=handles, loc="outside lower center", ncols=_columns(handles))


def legend_height(handles: Sequence[Any]) -> float:
    """Inches, so that the axes keep theirs."""
    if not handles:
        return 0.0
    _wrap(handles)
    columns = _columns(handles)
    depth = -(-len(handles) // columns)
    extra = float(sum(handle.get_label().count("\n") for handle in handles)) / columns
    return 0.02 * float(rcParams["font.size"]) * (depth + extra)


def _wrap(handles: Sequence[Any]) -> None:
    """Labels that are wider than the picture, in several lines."""
    most = max(letters(width(), SMALL) - HANDLE, 12)
    for handle in handles:
        if len(label := handle.get_label()) > most and "\n" not in label:
            handle.set_label(textwrap.fill(label, most))


def _columns(handles: Sequence[Any]) -> int:
    """As many as fit side by side; matplotlib fills column after column, the first ones one longer."""
    lengths = [max(map(len, handle.get_label().split("\n"))) for handle in handles]
    for columns in (4, 3, 2):
        depth, longer = divmod(len(lengths), columns)
        starts = [depth * i + min(i, longer) for i in range(columns + 1)]
        if sum(max(lengths[a:b], default=0) + HANDLE for a, b in pairwise(starts)) <= letters(width(), SMALL):
            return columns
    return 1


SMALL = 0.833
"""Of the size of text: matplotlib's `small`, which a legend has."""
HANDLE = 9
"""Characters that what stands before a label is as wide as."""


def title(*parts: str, across: float = WIDTH) -> str:
    """What the parts say, as one line, in less than the usual width as two; of a very long one the middle is left out.

    Args:
        parts: Those that are empty are left out.
        across: How wide the picture is where the user does not say.
    """
    inches = width(across)
    text, most = one_line(", ".join(part for part in parts if part), "utf-8"), letters(inches)
    lines = textwrap.wrap(text, most, break_on_hyphens=False) if inches < WIDTH else [text]
    return "\n".join(map(literal, lines)) if len(lines) == 2 else literal(shortened(text, most))


def small_title(axes: Axes, *lines: str, share: float = 0.85) -> None:
    """What a panel shows, at its left; lines that are longer than that share of the picture are wrapped."""
    most = int(share * letters(width(), SMALL))
    wrapped = [part for line in lines for part in textwrap.wrap(one_line(line, "utf-8"), most)]
    axes.set_title("\n".join(map(literal, wrapped)), loc="left", fontsize="small", pad=3)


def shortened(text: str, most: int) -> str:
    head = (most - 1) // 2
    return text if len(text) <= most else f"{text[:head]}…{text[head + 1 - most :]}"


def literal(text: str) -> str:
    """Not mathematics, however many dollars a name holds; a leading underscore would hide a legend's entry."""
    text = one_line(text, "utf-8").replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
