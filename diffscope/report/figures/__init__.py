"""A result as pictures fit for a paper: PNG to look at, SVG to typeset. The same result gives the same bytes."""

from __future__ import annotations

from pathlib import Path

from diffscope.report.figures import canvas, sweep, training, variation
from diffscope.results import Result


def draw(result: Result, folder: Path) -> list[Path]:
    """Writes the pictures of this kind of result, each as .png and .svg; returns what it wrote."""
    with canvas.look():
        kind = training if result.command == "track" else variation if result.varied else sweep
        figures = kind.figures(result)
        return [path for name, figure in figures.items() for path in canvas.save(figure, folder / name)]
