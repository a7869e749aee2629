"""Participation ratio (tr Σ)²/tr(Σ²): the number of equal variances with the same spread.

Gao et al., "A theory of multineuronal dimensionality, dynamics and measurement", 2017,
https://doi.org/10.1101/214262 (definition of the participation ratio). For one view it is biased low by about
PR²/N. For the invariant and the residual covariance, products of different blocks are free of bias in numerator and
denominator:
Σ_{g≠h} tr Σ̂_g tr Σ̂_h / Σ_{g≠h} tr(Σ̂_gΣ̂_h), each sum taken as (sum)² − Σ(squares), without assumptions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from diffscope.errors import EstimationError
from diffscope.metrics.base import Context, Measurement, jackknifed, merged, standard_error, with_errors
from diffscope.moments import Moments, PooledMoments
from diffscope.numerics import FloatArray

KEYS = with_errors(
    {
        "participation_ratio": "(tr S_z)²/tr(S_z²) of one view's covariance, 1…d; biased low by about its square/n"
        " [directions]",
        "participation_s": "participation ratio of the invariant covariance, unbiased sums [directions]",
        "participation_xi": "participation ratio of the residual covariance, unbiased sums [directions]",
        "pr_fisher": "(Σλ⁺)²/Σ(λ⁺)², directions that carry the signal-to-noise ratio [directions]",
    }
)


def measure(moments: Moments, context: Context) -> Measurement:
    """Measures the keys above; `metrics/base.py` states the contract."""
    return merged(
        [
            jackknifed("participation_ratio", moments, participation_ratio),
            _cross_block("participation_s", moments, _cov_invariant),
            _cross_block("participation_xi", moments, _cov_residual),
            jackknifed("pr_fisher", moments, pr_fisher, spectral=True),
        ]
    )


def participation_ratio(pooled: PooledMoments) -> float:
    """Computes (tr S_z)²/tr(S_z²) of one view's covariance.

    Returns:
        A number of directions, from 1 to d.
    """
    cov = pooled.cov_view
    return float(np.trace(cov) ** 2 / np.vdot(cov, cov))


def pr_fisher(pooled: PooledMoments) -> float:
    """Computes (Σλ⁺)²/Σ(λ⁺)² of the positive eigenvalues of S_W⁻¹Σ̂s.

    Returns:
        A number of directions, from 1 to d.

    Raises:
        EstimationError: No eigenvalue is above 0, or S_W is singular.
    """
    spectrum = np.maximum(pooled.fisher_eigenvalues, 0)
    if not spectrum.any():
        raise EstimationError("0 directions with a positive signal, expected at least one; take more images")
    return float(spectrum.sum() ** 2 / np.sum(spectrum**2))


def _cov_invariant(moments: Moments, g: int) -> FloatArray:
    """Σ̂s of one block, centred at its own mean (divisor n_g − 1), so that blocks are independent."""
    n, views = moments.n[g], moments.views
    if n < 2:
        raise EstimationError(f"{n:.0f} image in block {g}, expected at least 2; take more images")
    b_sum = moments.view_sum[g].sum(0) / np.sqrt(views)
    between = (moments.between[g] - np.outer(b_sum, b_sum) / n) / (n - 1)
    return np.asarray((between - _cov_residual(moments, g)) / views)


def _cov_residual(moments: Moments, g: int) -> FloatArray:
    """S_W of one block."""
    return np.asarray(moments.within[g] / (moments.n[g] * (moments.views - 1)))


def _cross_block(key: str, moments: Moments, covariance: Callable[[Moments, int], FloatArray]) -> Measurement:
    """A ratio of sums over pairs of different blocks and its jackknife error, or None with the reason."""
    try:
        value, *replicates = _ratios(moments, covariance)
    except EstimationError as reason:
        return Measurement({key: None, f"{key}_se": None}, (f"undefined: {key}: {reason}",))
    return Measurement({key: value, f"{key}_se": standard_error(value, replicates)})


def _ratios(moments: Moments, covariance: Callable[[Moments, int], FloatArray]) -> list[float]:
    """The ratio of all blocks, then without each one."""
    total = sum((covariance(moments, g) for g in range(moments.blocks)), np.zeros((moments.d, moments.d)))
    trace, square = np.trace(total), np.vdot(total, total)
    traces, squares, overlaps = np.zeros((3, moments.blocks))
    for g in range(moments.blocks):
        # Made a second time rather than kept: 16 matrices of d = 1152 are 170 MB.
        block = covariance(moments, g)
        traces[g], squares[g], overlaps[g] = np.trace(block), np.vdot(block, block), np.vdot(total, block)
    above = np.append(trace**2 - np.sum(traces**2), (trace - traces) ** 2 - (np.sum(traces**2) - traces**2))
    below = np.append(square - squares.sum(), square - 2 * overlaps + squares - (squares.sum() - squares))
    if below.min() <= 0:
        raise EstimationError(
            f"the sum of cross-block products is {below.min():.3g}, expected above 0: no covariance is common to the "
            "blocks; take more images"
        )
    return [float(ratio) for ratio in above / below]
