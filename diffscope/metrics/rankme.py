"""RankMe: exp of the entropy of the normalised singular values of the uncentred feature matrix.

Garrido et al., "RankMe: assessing the downstream performance of pretrained self-supervised representations by their
rank", 2023, https://arxiv.org/abs/2210.02885 (definition of RankMe): p_k = σ_k/Σσ + 1e-7 over all d.
Singular values are the roots of the eigenvalues of the second moment. A large mean feature lowers it, and some
libraries use centred covariance eigenvalues instead: another number. Not corrected for finite N: compare at equal n.
"""

from __future__ import annotations

import numpy as np

from diffscope.metrics.base import Context, Measurement, jackknifed, with_errors
from diffscope.moments import Moments, PooledMoments
from diffscope.numerics import eigenvalues, entropy_rank

KEYS = with_errors({"rankme": "exp entropy of the uncentred singular values, 1…d; compare at equal n [directions]"})

FLOOR = 1e-7
"""ε of the definition, for float32."""


def measure(moments: Moments, context: Context) -> Measurement:
    """Measures the key above; `metrics/base.py` states the contract."""
    return jackknifed("rankme", moments, rankme, spectral=True)


def rankme(pooled: PooledMoments) -> float:
    """Computes exp of the entropy of the normalised singular values of the uncentred features.

    Returns:
        A number of directions, from 1 to d.
    """
    return entropy_rank(np.sqrt(np.maximum(eigenvalues(pooled.second_moment), 0)), FLOOR)
