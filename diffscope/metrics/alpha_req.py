"""α-ReQ: the exponent of the power law w_k ∝ k^−α through the eigenvalues of S_z, the covariance of one view.

Agrawal et al., "α-ReQ: assessing representation quality in self-supervised learning by measuring eigenspectrum decay",
2022, https://papers.neurips.cc/paper_files/paper/2022/hash/70596d70542c51c8d9b4e423f4bf2736-Abstract-Conference.html;
the exponent is fitted by least squares of log w_k on log k with weights 1/k, as in Stringer et
al., "High-dimensional geometry of population responses in visual cortex", 2019,
https://doi.org/10.1038/s41586-019-1346-5. Noise flattens the tail and sampling steepens it: the ranks of the fit stand
with the number.
"""

from __future__ import annotations

import numpy as np

from diffscope.errors import EstimationError
from diffscope.metrics.base import Context, Measurement, jackknifed, merged, with_errors
from diffscope.moments import Moments, PooledMoments

KEYS = {
    **with_errors({"alpha_req": "decay exponent of the covariance spectrum of one view over the ranks of the fit [1]"}),
    "alpha_req_first": "first rank of the fit, from 1 [rank]",
    "alpha_req_last": "last rank of the fit [rank]",
}

FEWEST = 5
"""Ranks in a fit that is reported: two parameters and three to check them."""


def measure(moments: Moments, context: Context) -> Measurement:
    """Measures the keys above over the ranks that `context` asks for; `metrics/base.py` states the contract."""
    first, last = context.alpha_req_ranks or (5, min(100, moments.d // 2))

    def exponent(pooled: PooledMoments) -> float:
        if last - first + 1 < FEWEST:
            raise EstimationError(
                f"{max(0, last - first + 1)} ranks from {first} to {last} of {moments.d} channels, expected at least "
                f"{FEWEST}; choose a layer with more channels"
            )
        return alpha_req(pooled, first, last)

    found = jackknifed("alpha_req", moments, exponent, spectral=True)
    ranks = (first, last) if found.values["alpha_req"] is not None else (None, None)
    return merged([found, Measurement({"alpha_req_first": ranks[0], "alpha_req_last": ranks[1]})])


def alpha_req(pooled: PooledMoments, first: int, last: int) -> float:
    """Fits the decay exponent of the eigenvalues of S_z.

    Args:
        pooled: Moments of d channels.
        first: First rank of the fit, from 1. Lower ranks measure the few largest variances.
        last: Last rank, at most d. Higher ranks reach into the tail that noise and sampling shape.

    Returns:
        Minus the slope of log w_k on log k, weighted by 1/k.

    Raises:
        EstimationError: An eigenvalue in the range is missing or not above 0.
    """
    spectrum = pooled.view_eigenvalues[first - 1 : last]
    if len(spectrum) < last - first + 1 or not np.all(spectrum > 0):
        raise EstimationError(
            f"{np.count_nonzero(spectrum > 0)} positive eigenvalues at ranks {first} to {last}, expected "
            f"{last - first + 1}; choose a layer with more channels"
        )
    rank = np.arange(first, first + len(spectrum), dtype=np.float64)
    x, y, weight = np.log(rank), np.log(spectrum), 1 / rank
    x = x - np.average(x, weights=weight)
    return float(-np.sum(weight * x * y) / np.sum(weight * x * x))
