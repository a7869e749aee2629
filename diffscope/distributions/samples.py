"""What the measures share: samples dealt into blocks, errors from them, and rows in pieces that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from diffscope.numerics import FloatArray, jackknife_se

CHUNK = 64_000_000
"""Bytes of distances or kernel values in memory at a time."""


class TooFew(ValueError):
    """Fewer samples or references than a measure is defined for."""


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error over other samples."""

    value: float
    error: float | None
    """None where there are fewer than 16 samples, or where no block of them makes a difference."""


def blocks(count: int) -> int:
    """G: sample number i belongs to block i mod G; 0 where there are too few samples for an error.

    Args:
        count: Samples.
    """
    return 16 if count >= 64 else 8 if count >= 32 else 4 if count >= 16 else 0


def without(count: int, block: int) -> np.ndarray:
    """Returns the numbers of all samples but one block's, int64 [n].

    Args:
        count: Samples.
        block: From 0 to blocks(count) - 1.
    """
    numbers = np.arange(count)
    return np.asarray(numbers[numbers % blocks(count) != block])


def with_error(values: FloatArray) -> Estimate:
    """An estimate with the jackknife's standard error.

    Of samples from known distributions (32 and 256 in 24 dimensions) the distances scatter by 0.6 to 1.1 of that,
    recall and coverage by 0.4 to 1.

    Args:
        values: Of all samples, and without each block [1 + G].
    """
    error = float(jackknife_se(values[1:])) if len(values) > 1 else 0.0
    return Estimate(float(values[0]), error if error > 0 else None)


def mean_of(values: np.ndarray) -> Estimate:
    """The mean of a number of each sample, and its standard error s/√n.

    Args:
        values: Numbers or truth values [n].
    """
    x = values.astype(np.float64)
    error = float(x.std(ddof=1) / np.sqrt(len(x))) if blocks(len(x)) else 0.0
    return Estimate(float(x.mean()), error if error > 0 else None)


def pieces(rows: int, columns: int) -> Iterator[slice]:
    """Cuts the rows of a float64 matrix so that each piece is within CHUNK bytes, or one row.

    Args:
        rows: Of the whole matrix.
        columns: Of each row.
    """
    size = max(1, CHUNK // (8 * max(1, columns)))
    for start in range(0, rows, size):
        yield slice(start, min(rows, start + size))


def squared_distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """|a|² + |b|² − 2ab of rows [n, d] and [m, d], [n, m]: off by 1e-16 of the squared norms, so centre them first."""
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)
    squares -= 2 * (a @ b.T)
    return np.asarray(np.maximum(squares, 0, out=squares))
