"""Fréchet distance of two Gaussians with the means and covariances of samples and references.

|μ − μ_r|² + tr Σ + tr Σ_r − 2 tr (Σ Σ_r)^½: Dowson and Landau, "The Fréchet distance between multivariate normal
distributions", 1982, https://doi.org/10.1016/0047-259X(82)90077-X; of features of samples: Heusel et al., "GANs Trained
by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", 2017, https://arxiv.org/abs/1706.08500.

Of few samples it is too large, by about c/n: their covariance is too uneven, and the root is concave. Chong and
Forsyth, "Effectively Unbiased FID and Inception Score and where to find them", 2020, https://arxiv.org/abs/1911.07023,
take it at several n and read a straight line over 1/n at 0. Ours goes through n and n/2, the latter as the mean of both
halves: twice the former less the latter. In simulations (12, 64 and 128 features, variances that fall as a power law)
it is off by 11 % at most, where a half has as many samples as there are features, and by 1 % at eight times as many; it
scatters like the distance itself, and a line from n/10 on, as published, is off by up to 27 % there. Of fewer samples
the distance is no line over 1/n, and nothing is extrapolated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffscope.distributions.samples import Estimate, TooFew, blocks, scatter, without
from diffscope.numerics import FloatArray, symmetrise

NEGLIGIBLE = 1e-12
"""Of the largest eigenvalue: directions of less variance are rounding."""


@dataclass(frozen=True)
class FrechetDistance:
    """Of some samples from the references."""

    distance: Estimate
    """As it is usually given, too large by `distance − infinite`."""
    infinite: Estimate | None
    """Extrapolated to infinitely many samples; None where half of them are fewer than the references' directions."""


class FrechetReference:
    """Mean and covariance of the references.

    Args:
        features: float64 [N, d], N ≥ 2.

    Raises:
        TooFew: If there are fewer than two.
    """

    def __init__(self, features: FloatArray) -> None:
        if len(features) < 2:
            raise TooFew(f"{len(features)} references; a covariance needs 2")
        self.mean = features.mean(0)
        covariance = symmetrise(np.atleast_2d(np.cov(features, rowvar=False)))
        variances, directions = np.linalg.eigh(covariance)
        kept = variances > NEGLIGIBLE * variances.max()
        self.trace = float(variances[kept].sum())
        self.root = directions[:, kept] * np.sqrt(variances[kept])
        """R [d, r] with R Rᵀ = Σ_r: tr (Σ Σ_r)^½ = tr (Rᵀ Σ R)^½."""

    @property
    def directions(self) -> int:
        """r, the rank of their covariance."""
        return int(self.root.shape[1])

    def distance(self, samples: FloatArray) -> FrechetDistance:
        """Measures samples.

        Args:
            samples: float64 [n, d].

        Raises:
            TooFew: If there are fewer than two.
        """
        if len(samples) < 2:
            raise TooFew(f"{len(samples)} samples; a covariance needs 2")
        turned, groups = samples @ self.root, range(blocks(len(samples)))
        left = [without(len(samples), block) for block in groups]
        plain = self._plain(samples, turned)
        infinite = None
        if len(samples) // 2 >= max(2, self.directions):
            replicates = [self._infinite(samples[rest], turned[rest]) for rest in left]
            infinite = Estimate(self._infinite(samples, turned), scatter(replicates))
        replicates = [self._plain(samples[rest], turned[rest]) for rest in left]
        return FrechetDistance(Estimate(plain, scatter(replicates)), infinite)

    def _infinite(self, samples: FloatArray, turned: FloatArray) -> float:
        """On the straight line over 1/n through all and through halves, at 1/n = 0."""
        halves = [self._plain(samples[start::2], turned[start::2]) for start in (0, 1)]
        return 2 * self._plain(samples, turned) - sum(halves) / 2

    def _plain(self, samples: FloatArray, turned: FloatArray) -> float:
        mean, n = samples.mean(0), len(samples)
        spread = float(((samples - mean) ** 2).sum()) / (n - 1)
        apart = float(((mean - self.mean) ** 2).sum())
        return apart + spread + self.trace - 2 * _trace_of_root(turned - turned.mean(0), n - 1)


def _trace_of_root(turned: FloatArray, divisor: int) -> float:
    """Computes tr (YᵀY/divisor)^½ of Y [n, r], from whichever product is the smaller."""
    gram = turned @ turned.T if len(turned) <= turned.shape[1] else turned.T @ turned
    return float(np.sqrt(np.linalg.eigvalsh(gram / divisor).clip(min=0)).sum())
