"""Effective rank: exp of the entropy of the normalised eigenvalues of S_z, the covariance of one view.

Roy & Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007,
https://ieeexplore.ieee.org/document/7098875, definition 1, here on the covariance. Not corrected for finite N: compare
at equal n.
"""

from __future__ import annotations

from diffscope.metrics.base import Context, Measurement, jackknifed, with_errors
from diffscope.moments import Moments, PooledMoments
from diffscope.numerics import entropy_rank

KEYS = with_errors(
    {"effective_rank": "exp entropy of the covariance spectrum of one view, 1…d; compare at equal n [directions]"}
)


def measure(moments: Moments, context: Context) -> Measurement:
    """Measures the key above; `metrics/base.py` states the contract."""
    return jackknifed("effective_rank", moments, effective_rank, spectral=True)


def effective_rank(pooled: PooledMoments) -> float:
    """Computes exp of the entropy of the normalised eigenvalues of S_z.

    Returns:
        A number of directions, from 1 to d.
    """
    return entropy_rank(pooled.view_eigenvalues)
