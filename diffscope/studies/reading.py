"""Rows of numbers from moments: what is read once the network has run, whoever ran it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from diffscope import seeding
from diffscope.errors import EstimationError
from diffscope.features import SPACING
from diffscope.metrics.base import Context, measure_all
from diffscope.moments import BlockAccumulator, Moments
from diffscope.results import Row, finite
from diffscope.studies.settings import Job, Level

Beside = Callable[[Row, Moments | None], Row]
"""What a study adds to a row from the moments behind it; None where its layer was refused before any were made."""


@dataclass(frozen=True)
class Cell:
    """One layer at one noise level, and what its metrics must know beside its moments."""

    layer: str
    level: Level
    context: Context


def cell(job: Job, level: int, layer: int) -> Cell:
    plan = job.plan
    found = plan.layers[layer]
    positions = found.positions if plan.pool == "mean" else 1
    return Cell(found.name, job.levels[level], Context(SPACING[plan.precision], positions, job.settings.reduce))


def read_rows(
    cells: Sequence[Cell], moments: Callable[[int], Moments], beside: Beside | None = None
) -> tuple[list[Row], list[EstimationError]]:
    """A row for each cell, `moments` giving those of cell 0, 1, …; nulls with the reason where there is no number."""
    rows, failures = [], []
    for number, one in enumerate(cells):
        found = moments(number)
        try:
            measured = measure_all(found, one.context)
        except EstimationError as error:
            failures.append(error)
            row = null_row(one.layer, one.level, found.total.n, found.d, note_of(error))
        else:
            values = {key: _plain(value) for key, value in measured.values.items()}
            n, d = int(values.pop("n")), int(values.pop("d"))
            row = Row(one.layer, one.level.sigma, one.level.t, n, d, values, measured.notes, one.level.requested)
        rows.append(row if beside is None else beside(row, found))
    return rows, failures


def null_row(layer: str, level: Level, n: int, d: int, note: str) -> Row:
    """A row whose numbers could not be computed, with the reason."""
    keys = [key for key in _example() if key not in ("n", "d")]
    return Row(layer, level.sigma, level.t, n, d, dict.fromkeys(keys), (note,), level.requested)


def row_keys() -> set[str]:
    """What a gate on a row may ask for: its numbers."""
    return {"sigma", "t", *(key for key, value in _example().items() if not isinstance(value, (list, tuple)))}


@cache
def _example() -> Mapping[str, Any]:
    """The metrics of a few random numbers, for the keys and kinds of what a row holds."""
    z = torch.from_numpy(seeding.noise(0, seeding.Stream.SYNTHETIC, 0, 0, (4, 8, 2, 2)))
    blocks = []
    for part in z:
        accumulator = BlockAccumulator(2, 2)
        accumulator.update(part)
        blocks.append(accumulator.finish())
    return measure_all(Moments.from_blocks(blocks), Context()).values


def note_of(error: EstimationError) -> str:
    """`too_few_images: …` of TooFewImages."""
    name = type(error).__name__
    code = "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
    return f"{code}: {error}"


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [float(v) for v in value]
    return finite(None if value is None else float(value))
