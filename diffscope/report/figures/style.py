"""Our style file, a user's over it, and the width that pictures are to have."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from matplotlib import RcParams, rc_params_from_file, rcParams, style
from matplotlib.colors import to_hex, to_rgb

from diffscope.errors import UsageError
from diffscope.options.drawing import Drawing

OURS = Path(__file__).with_name("diffscope.mplstyle")

WIDTH = 6.4
"""Inches, where none is asked for."""
NARROW = 4.5
"""Inches; below, panels stand one under the other."""
SIZED: dict[bool, dict[str, Any]] = {
    True: {"font.size": 8, "lines.linewidth": 1.2, "lines.markersize": 3.5, "legend.handlelength": 2.6},
    False: {"font.size": 9, "lines.linewidth": 1.4, "lines.markersize": 4.5},
}
"""Of narrow and of other pictures whose width was asked for: what is drawn is printed as large as it is."""


_drawing: ContextVar[Drawing | None] = ContextVar("drawing", default=None)
_width: ContextVar[float | None] = ContextVar("width", default=None)
"""Inches, where the user or the style asks for it."""


@contextmanager
def look(drawing: Drawing | None = None) -> Iterator[None]:
    """Our style, whatever the user's own defaults are, while pictures are made and written.

    Args:
        drawing: What the user asks for.

    Raises:
        UsageError: The user's style file is none.
    """
    drawing = drawing or Drawing()
    theirs: Any = {} if drawing.style is None else read(drawing.style)
    width = drawing.size or (theirs["figure.figsize"][0] if "figure.figsize" in theirs else None)
    sized = {} if width is None else SIZED[width < NARROW]
    tokens = _drawing.set(drawing), _width.set(width)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # a file name in a script that the font lacks
            warnings.filterwarnings("ignore", message="Style includes a parameter")  # of windows, say: left out
            with style.context(["default", OURS, sized, theirs]):
                if theirs and "axes.grid" not in theirs:  # the grid is ours, and no louder on their ground
                    rcParams["grid.color"] = mixed(0.1)
                yield
    finally:
        _drawing.reset(tokens[0])
        _width.reset(tokens[1])


def read(path: str) -> RcParams:
    """What a style file says.

    Raises:
        UsageError: A line is none of a style file, in one line.
    """
    try:
        for number, line in enumerate(Path(path).read_text("utf-8").splitlines(), 1):
            key, colon, _ = line.partition(":")
            if line.strip() and not line.lstrip().startswith("#") and not (colon and key.strip() in rcParams):
                raise ValueError(f"line {number}: '{line.strip()}' is no setting of matplotlib's")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of settings that a later matplotlib will not have
            # By its whole path, which is no address on the network.
            return rc_params_from_file(Path(path).resolve(), fail_on_error=True, use_default_template=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise UsageError(f"`style={path}`: {reason}; expected a style file of matplotlib's (.mplstyle)") from None


def drawing() -> Drawing:
    """What the user asks for."""
    return _drawing.get() or Drawing()


def width(natural: float = WIDTH) -> float:
    """Inches of a picture that needs so many where none are asked for."""
    return _width.get() or natural


def is_narrow() -> bool:
    """Whether there is no room for two panels side by side."""
    return width() < NARROW


def height(natural: float) -> float:
    """Inches of a part that is as high at the usual width: less where that is less, but not in the same measure."""
    return natural * float((width() / WIDTH) ** 0.6)


def letters(inches: float, size: float = 1.0) -> int:
    """Characters of that part of the size of text that these inches hold."""
    return int(inches * 72 / (0.58 * size * float(rcParams["font.size"])))


class Palette(Sequence[str]):
    """The colours of the style, which begin again where there are too few."""

    def __getitem__(self, i: Any) -> Any:
        colours = rcParams["axes.prop_cycle"].by_key().get("color") or ["black"]
        return to_hex(colours[i % len(colours)]).upper()

    def __len__(self) -> int:
        return 8


# --- colours that follow from those of the style, so that a dark one is legible too

HIGHLIGHT = "#F0DE42"


def paper() -> str:
    """What curves are drawn on."""
    return to_hex(rcParams["axes.facecolor"]).upper()


def ink() -> str:
    """Marks, words in panels and whatever is no curve."""
    return mixed(0.75)


def faint() -> str:
    """Curves that are too many to be told apart."""
    return mixed(0.216 if sum(to_rgb(rcParams["axes.facecolor"])) > 1.5 else 0.4)  # as much less is seen on black


def shade() -> str:
    """Behind what cannot be told from the best."""
    return mixed(0.27, HIGHLIGHT)


def mixed(part: float, colour: str | None = None) -> str:
    """That part of a colour, or of the colour of text, on the ground."""
    over, under = to_rgb(rcParams["text.color"] if colour is None else colour), to_rgb(rcParams["axes.facecolor"])
    red, green, blue = (part * a + (1 - part) * b for a, b in zip(over, under, strict=True))
    return to_hex((red, green, blue)).upper()
