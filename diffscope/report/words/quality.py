"""What is said of samples held against images as a whole: columns, and what was compared in which space."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from diffscope.report.text import NULL, number
from diffscope.results import Result, Row

AGAINST = {"": "training", "_holdout": "held-out"}

MEASURES = {
    "fd": "FD",
    "fd_infinity": "FD∞",
    "kd": "KD",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "authenticity": "authenticity",
}
"""Key → heading."""

NAMES = {
    "fd": "Fréchet distance",
    "fd_infinity": "Fréchet distance, extrapolated",
    "kd": "kernel distance",
    **{key: key for key in ("precision", "recall", "density", "coverage", "authenticity")},
}
"""Key → name."""


def ends(result: Result) -> list[str]:
    """Of the keys: what the samples were held against; none where quality was not asked for."""
    return [end for end in AGAINST if any(f"fd{end}" in row for row in result.rows)]


def lines(result: Result) -> list[Row]:
    """A line for each row and what it is held against, by the end of its keys under `against`."""
    return [row.having(against=end) for row in result.rows for end in ends(result)]


def columns(lines: Sequence[Row]) -> dict[str, Callable[[Row], str]]:
    """Headings of the table, and how a line fills them."""
    shown: dict[str, Callable[[Row], str]] = {
        "checkpoint": lambda line: os.path.basename(str(line["checkpoint"])) or str(line["checkpoint"]),
        "step": lambda line: NULL if line.step is None else f"{line['step']:,}",
        "against": lambda line: AGAINST[line["against"]],
        **{heading: _measure(key) for key, heading in MEASURES.items()},
    }
    several = any(line.step is not None for line in lines)
    del shown["checkpoint" if several else "step"]
    return shown


def _measure(key: str) -> Callable[[Row], str]:
    def show(line: Row) -> str:
        value, error = line[f"{key}{line['against']}"], line[f"{key}{line['against']}_se"]
        return number(value) + ("" if error is None else f" ± {number(error, 2)}")

    return show


def compared(result: Result) -> str:
    """What was held against what, in which space."""
    told, rows = result.sections["quality"], result.rows
    images = f"{told['references']:,} training images"
    if "holdout" in told:
        images += f" and {told['references_holdout']:,} held-out ones"
    if "encoder" in told:
        space = f"{told['features']:,} features of {os.path.basename(str(told['encoder']))}"
    else:
        at = f"{told['layer']}, σ = {number(told['sigma'])}"
        step = "" if told["step"] is None else f" (step {told['step']:,})"
        space = f"{told['features']:,} features of {os.path.basename(str(told['features_of']))}{step}: {at}"
    return f"Quality: {rows[0]['samples']:,} samples against {images}, in {space}. Errors are over samples."


def finding(result: Result) -> str:
    """What the last checkpoint comes to."""
    line = lines(result)[-len(ends(result))]
    at = "" if line.step is None or len(result.rows) == 1 else f"At step {line['step']:,}: "
    shown = columns([line])
    key = "fd" if line["fd_infinity"] is None else "fd_infinity"
    said = [
        f"{NAMES[name]} {shown[MEASURES[name]](line)}" for name in (key, "kd", "precision", "recall", "authenticity")
    ]
    text = at + ", ".join(said) + "."
    return text[0].upper() + text[1:]
