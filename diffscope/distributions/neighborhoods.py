"""Precision, recall, density, coverage and authenticity: who lies in whose neighbourhood.

The k-neighbourhood of a point is the ball that reaches to the k-th nearest other one of its own set.

- precision: share of samples within the neighbourhood of some reference; recall: share of references within that of
  some sample (k = 3). Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models",
  2019, https://arxiv.org/abs/1904.06991.
- density: in how many neighbourhoods of references a sample lies, over k; 1 is expected of samples like the references,
  and more where they crowd. coverage: share of references with a sample in their neighbourhood (k = 5). Naeem et al.,
  "Reliable Fidelity and Diversity Metrics for Generative Models", 2020, https://arxiv.org/abs/2002.09797.
- authenticity: share of samples that are farther from the nearest reference than that is from its nearest other one.
  Alaa et al., "How Faithful is your Synthetic Data?", 2022, https://arxiv.org/abs/2102.08921.

All depend on how many samples and references there are: recall and coverage grow with the samples, precision falls with
the references. Compare at equal numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffscope.distributions.samples import Estimate, TooFew, blocks, mean_of, pieces, squared_distances, with_error
from diffscope.numerics import FloatArray

PRECISION_K = 3
"""Neighbours of precision and recall, as published."""
DENSITY_K = 5
"""Neighbours of density and coverage, as published."""


@dataclass(frozen=True)
class Neighborhoods:
    """Of some samples among the references; each from 0 to 1, density from 0 up."""

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate
    authenticity: Estimate


class NeighborhoodReference:
    """The references, and how far the nearest of them are from each.

    Args:
        features: float64 [N, d], N > 5.

    Raises:
        TooFew: If there are no five others of each.
    """

    def __init__(self, features: FloatArray) -> None:
        if len(features) <= DENSITY_K:
            raise TooFew(f"{len(features)} references; neighbourhoods of {DENSITY_K} need {DENSITY_K + 1}")
        self._centre = features.mean(0)
        self.features = features - self._centre
        self._nearest = np.empty((len(features), DENSITY_K))
        """Squared distances to the nearest others, ascending."""
        for rows in pieces(len(features), len(features)):
            squares = _to_others(self.features, rows)
            self._nearest[rows] = np.sort(np.partition(squares, DENSITY_K - 1, axis=1)[:, :DENSITY_K], axis=1)

    def measure(self, samples: FloatArray) -> Neighborhoods:
        """Measures samples.

        Args:
            samples: float64 [n, d].

        Raises:
            TooFew: If there are no three others of each.
        """
        if len(samples) <= PRECISION_K:
            raise TooFew(f"{len(samples)} samples; neighbourhoods of {PRECISION_K} need {PRECISION_K + 1}")
        samples = samples - self._centre
        radii = _sample_radii(samples)
        recalled, nearest = [], []
        precise, dense = np.zeros(len(samples), bool), np.zeros(len(samples))
        closest, which = np.full(len(samples), np.inf), np.zeros(len(samples), np.int64)
        for rows in pieces(len(self.features), len(samples)):
            squares = squared_distances(self.features[rows], samples)
            precise |= (squares <= self._nearest[rows, PRECISION_K - 1, None]).any(0)
            dense += (squares <= self._nearest[rows, DENSITY_K - 1, None]).sum(0)
            recalled.append(_within(squares, radii))
            nearest.append(_least(squares))
            first = squares.argmin(0)
            least = squares[first, np.arange(len(samples))]
            which = np.where(least < closest, rows.start + first, which)
            closest = np.minimum(closest, least)
        covered = _least_without(np.concatenate(nearest)) <= self._nearest[:, DENSITY_K - 1, None]
        return Neighborhoods(
            precision=mean_of(precise),
            recall=with_error(np.concatenate(recalled).mean(0)),
            density=mean_of(dense / DENSITY_K),
            coverage=with_error(covered.mean(0)),
            authenticity=mean_of(closest > self._nearest[which, 0]),
        )


def _to_others(features: FloatArray, rows: slice) -> FloatArray:
    """Squared distances of some rows to all, [n, N]; that to itself is infinite."""
    squares = squared_distances(features[rows], features)
    squares[np.arange(len(squares)), np.arange(rows.start, rows.stop)] = np.inf
    return squares


def _sample_radii(samples: FloatArray) -> FloatArray:
    """Squared radii of the neighbourhoods among all samples, and among those without each block [1 + G, n].

    Only the nearest of each block can be the nearest of all.
    """
    groups = max(1, blocks(len(samples)))
    radii = np.full((1 + blocks(len(samples)), len(samples)), np.inf)
    for rows in pieces(len(samples), len(samples)):
        squares = _to_others(samples, rows)
        near = [_few(squares[:, group::groups], PRECISION_K) for group in range(groups)]
        radii[0, rows] = _few(np.concatenate(near, axis=1), PRECISION_K).max(1)
        for block in range(len(radii) - 1):
            others = np.concatenate(near[:block] + near[block + 1 :], axis=1)
            radii[1 + block, rows] = _few(others, PRECISION_K).max(1)
    return radii


def _few(values: FloatArray, count: int) -> FloatArray:
    """The least `count` of each row, in any order; all where there are no more."""
    return np.partition(values, count - 1, axis=1)[:, :count] if values.shape[1] > count else values


def _within(squares: FloatArray, radii: FloatArray) -> np.ndarray:
    """Which references lie in the neighbourhood of some sample, of all and without each block: bool [m, 1 + G].

    Args:
        squares: Squared distances of references to samples [m, n].
        radii: Of the samples' neighbourhoods [1 + G, n].
    """
    groups = len(radii) - 1
    found = np.empty((len(squares), len(radii)), bool)
    found[:, 0] = (squares <= radii[0]).any(1)
    for block in range(groups):
        inside = squares <= radii[1 + block]
        inside[:, block::groups] = False
        found[:, 1 + block] = inside.any(1)
    return found


def _least(squares: FloatArray) -> FloatArray:
    """The least of each row by blocks of columns, [m, G], or [m, 1] where there are no blocks."""
    groups = max(1, blocks(squares.shape[1]))
    return np.stack([squares[:, group::groups].min(1) for group in range(groups)], axis=1)


def _least_without(nearest: FloatArray) -> FloatArray:
    """The least of each row [m, G], and that without each block: [m, 1 + G], [m, 1] of one block."""
    groups = nearest.shape[1]
    if groups == 1:
        return nearest
    left = [np.delete(nearest, block, axis=1).min(1) for block in range(groups)]
    return np.stack([nearest.min(1), *left], axis=1)
