"""How pictures are drawn: nothing that a number depends on."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Annotated

from diffscope.errors import UsageError
from diffscope.options.option import OUTPUT, Declared, Option

FORMATS = ("png", "svg", "pdf")
WIDTHS = {"column": 3.25, "page": 6.75}
"""Inches, as papers of two columns have them."""
NARROWEST, WIDEST = 2.0, 20.0


def inches(text: str) -> float:
    """The width that `column`, `page` or a number stands for; UsageError."""
    if text in WIDTHS:
        return WIDTHS[text]
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"`size={text}`: expected column, page or a width in inches") from None


@dataclass(frozen=True)
class Drawing(Declared):
    """How pictures are drawn."""

    format: Annotated[
        tuple[str, ...],
        Option(
            "Of figures: png, svg, pdf (repeatable, or a list by commas).",
            group=OUTPUT,
            choices=FORMATS,
            completes="choices",
        ),
    ] = ("png", "svg")
    size: Annotated[
        float | None,
        Option(
            "Width of figures: column (3.25 inches), page (6.75), or a number of inches; text is then set to be read "
            "in print.",
            group=OUTPUT,
            metavar="SIZE",
            shown="as each needs",
            read=inches,
        ),
    ] = None
    style: Annotated[
        str | None,
        Option(
            "A style file of matplotlib's for figures, laid over ours (report/figures/diffscope.mplstyle).",
            group=OUTPUT,
            metavar="FILE",
            shown="",
            path=True,
        ),
    ] = None
    step_scale: Annotated[
        str, Option("Of the axis of training steps.", group=OUTPUT, choices=("linear", "log"), completes="choices")
    ] = "linear"

    def __post_init__(self) -> None:
        """Checks what a single field cannot say of itself."""
        super().__post_init__()
        if not self.format:
            raise UsageError("`format=`: expected one of png, svg, pdf, or several")
        if self.size is not None and not (math.isfinite(self.size) and NARROWEST <= self.size <= WIDEST):
            raise UsageError(f"`size={self.size:g}`: expected {NARROWEST:g} to {WIDEST:g} inches, column or page")
        if self.style is not None and not os.path.isfile(self.style):
            raise UsageError(f"`style={self.style}`: no such file; expected a style file of matplotlib's (.mplstyle)")
