"""Kernel distance: the squared maximum mean discrepancy of samples and references, unbiased whatever their number.

MMD² = mean k(x, x') + mean k(r, r') − 2 mean k(x, r) over pairs of different ones, with k(a, b) = (a·b/d + 1)³:
Gretton et al., "A Kernel Two-Sample Test", 2012, https://jmlr.org/papers/v13/gretton12a.html; kernel and use: Bińkowski
et al., "Demystifying MMD GANs", 2018, https://arxiv.org/abs/1801.01401, who call it KID in the space of Inception. They
average over subsets of 1,000; all pairs at once have the same expectation and scatter less. It may be below 0.
"""

from __future__ import annotations

import numpy as np

from diffscope.distributions.samples import Estimate, TooFew, blocks, pieces, with_error
from diffscope.numerics import FloatArray

DEGREE = 3


class KernelReference:
    """The references, and the mean of the kernel over their pairs.

    Args:
        features: float64 [N, d], N ≥ 2.

    Raises:
        TooFew: If there are fewer than two.
    """

    def __init__(self, features: FloatArray) -> None:
        if len(features) < 2:
            raise TooFew(f"{len(features)} references; a pair needs 2")
        self.features = features
        whole = np.ones((len(features), 1))
        self._among = _among(features, whole).item() / (len(features) * (len(features) - 1))

    def distance(self, samples: FloatArray) -> Estimate:
        """Measures samples.

        Args:
            samples: float64 [n, d].

        Raises:
            TooFew: If there are fewer than two.
        """
        n, count = len(samples), blocks(len(samples))
        if n < 2:
            raise TooFew(f"{n} samples; a pair needs 2")
        member = np.eye(max(1, count))[np.arange(n) % max(1, count)]
        among, across = _among(samples, member), self._across(samples, member)
        # Without block g, all pairs that it has a part in are gone.
        sizes = member.sum(0)
        pairs = among.sum() - among.sum(0) - among.sum(1) + np.diagonal(among)
        left = self._distance(n - sizes, pairs, across.sum() - across) if count else np.zeros(0)
        return with_error(np.concatenate([[self._distance(n, among.sum(), across.sum())], left]))

    def _distance(self, n: FloatArray | int, among: FloatArray, across: FloatArray) -> FloatArray:
        """From the sums of the kernel over pairs of n samples and over all pairs of a sample and a reference."""
        return np.asarray(among / (n * (n - 1)) + self._among - 2 * across / (n * len(self.features)))

    def _across(self, samples: FloatArray, member: FloatArray) -> FloatArray:
        """Sums of the kernel of each block with all references, [G]."""
        found = np.zeros(member.shape[1])
        for rows in pieces(len(samples), len(self.features)):
            found += _kernel(samples[rows], self.features).sum(1) @ member[rows]
        return found


def _among(features: FloatArray, member: FloatArray) -> FloatArray:
    """Sums of the kernel over pairs of different rows, by the blocks of both, [G, G]."""
    found = np.zeros((member.shape[1], member.shape[1]))
    for rows in pieces(len(features), len(features)):
        kernel = _kernel(features[rows], features)
        kernel[np.arange(len(kernel)), np.arange(rows.start, rows.stop)] = 0
        found += member[rows].T @ (kernel @ member)
    return found


def _kernel(a: FloatArray, b: FloatArray) -> FloatArray:
    """[n, m] of rows [n, d] and [m, d]."""
    return np.asarray((a @ b.T / a.shape[1] + 1) ** DEGREE)
