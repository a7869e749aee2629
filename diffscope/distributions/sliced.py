"""Sliced Wasserstein distance: how far apart two sets of features are along random directions.

SW₂² is the mean over directions θ of the unit sphere of W₂² of what both sets are along θ; of equally many points that
is the mean squared difference of their sorted projections. Rabin et al., "Wasserstein Barycenter and its Application to
Texture Mixing", 2011, https://doi.org/10.1007/978-3-642-24785-9_37; Bonneel et al., "Sliced and Radon Wasserstein
Barycenters of Measures", 2015, https://doi.org/10.1007/s10851-014-0506-3.

Two sets from one distribution are a little apart too, by less where there are more points: compare at equal numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffscope.distributions.samples import Estimate, TooFew, blocks, pieces, with_error
from diffscope.numerics import FloatArray

DIRECTIONS = 500
"""The distance of two Gaussians one unit apart in 1,000 dimensions then depends on the seed by 3 % (POT takes 50)."""


def sliced_wasserstein(a: NDArray[np.floating], b: NDArray[np.floating], seed: int) -> Estimate:
    """Measures SW₂ of two sets, in the unit of the features.

    Args:
        a: [n, d], n ≥ 1.
        b: [n, d]; where a row of both is of the same image, the error allows for that.
        seed: Of the directions.

    Returns:
        The distance, and its standard error over other images (along the same directions).

    Raises:
        TooFew: If there are no points.
        ValueError: If the sets have different numbers of points or features.
    """
    if a.shape != b.shape:
        raise ValueError(f"sets of shapes {list(a.shape)} and {list(b.shape)}; expected the same")
    if not len(a):
        raise TooFew("no points; a distance needs 1")
    draws, groups = np.random.default_rng([seed, 5]), blocks(len(a))
    squares = np.zeros(1 + groups)
    for some in pieces(DIRECTIONS, max(a.shape)):
        directions = draws.standard_normal((some.stop - some.start, a.shape[1]))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        (x, of_x), (y, of_y) = (_sorted(z, directions) for z in (a, b))
        squares[0] += ((x - y) ** 2).mean(1).sum()
        for block in range(groups):
            left = _without(x, of_x, block, groups) - _without(y, of_y, block, groups)
            squares[1 + block] += (left**2).mean(1).sum()
    return with_error(np.sqrt(squares / DIRECTIONS))


def spread(z: NDArray[np.floating]) -> float:
    """Root mean square distance of points from their mean along a random direction: √(tr Σ/d).

    Args:
        z: [n, d], n ≥ 1.
    """
    return float(np.sqrt(z.var(0, dtype=np.float64).mean()))


def _sorted(z: NDArray[np.floating], directions: FloatArray) -> tuple[FloatArray, NDArray[np.int64]]:
    """Points along each direction, ascending [directions, n], and their numbers."""
    along = np.empty((len(directions), len(z)))
    for rows in pieces(*z.shape):
        along[:, rows] = directions @ z[rows].astype(np.float64).T
    order = along.argsort(1, kind="stable")
    return np.take_along_axis(along, order, 1), order


def _without(along: FloatArray, numbers: NDArray[np.int64], block: int, groups: int) -> FloatArray:
    """Sorted points without those of a block: as many of each direction."""
    left: FloatArray = along[numbers % groups != block].reshape(len(along), -1)
    return left
