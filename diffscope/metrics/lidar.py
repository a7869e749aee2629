"""LiDAR: exp of the entropy of the linear-discriminant spectrum, with images as classes and views as samples.

Thilak et al., "LiDAR: sensing linear probing performance in joint embedding SSL architectures", 2024,
https://arxiv.org/abs/2312.04000 (definition of LiDAR): eigenvalues e of Σw^{-1/2}Σ_bΣw^{-1/2} with Σ_b = S_B/V,
Σw = S_W + 1e-4·I, and p_k = e_k/Σe + 1e-7. With few views e_k ≈ λ_k + 1/V, which flattens the spectrum:
compare at equal V and n only.
`lidar_signal`, of this project, takes the eigenvalues λ̂⁺ of S_W⁻¹Σ̂s instead, without that offset, δ and ε.
"""

from __future__ import annotations

import numpy as np

from diffscope.errors import EstimationError
from diffscope.metrics.base import Context, Measurement, jackknifed, merged, with_errors
from diffscope.moments import Moments, PooledMoments
from diffscope.numerics import entropy_rank, generalised_eigenvalues

KEYS = with_errors(
    {
        "lidar": "exp entropy of the discriminant spectrum, 1…d; compare at equal views and n [directions]",
        "lidar_signal": "the same for signal over noise without the offset 1/V, 1…d [directions]",
    }
)

RIDGE = 1e-4
"""δ added to the within-class covariance."""
FLOOR = 1e-7
"""ε added to the normalised spectrum of `lidar`."""


def measure(moments: Moments, context: Context) -> Measurement:
    """Measures the keys above; `metrics/base.py` states the contract."""
    return merged(
        [
            jackknifed("lidar", moments, lidar, spectral=True),
            jackknifed("lidar_signal", moments, lidar_signal, spectral=True),
        ]
    )


def lidar(pooled: PooledMoments) -> float:
    """Computes exp of the entropy of the discriminant spectrum, with δ = RIDGE and ε = FLOOR.

    Returns:
        A number of directions, from 1 to d.

    Raises:
        IllConditioned: S_W + δI is not positive definite.
    """
    within = pooled.cov_residual + RIDGE * np.eye(pooled.moments.d)
    spectrum = generalised_eigenvalues(pooled.cov_between / pooled.moments.views, within)
    return entropy_rank(np.maximum(spectrum, 0), FLOOR)


def lidar_signal(pooled: PooledMoments) -> float:
    """Computes the same for the positive eigenvalues of S_W⁻¹Σ̂s, without δ and ε.

    Returns:
        A number of directions, from 1 to d.

    Raises:
        EstimationError: No eigenvalue is above 0, or S_W is singular.
    """
    spectrum = np.maximum(pooled.fisher_eigenvalues, 0)
    if not spectrum.any():
        raise EstimationError("0 directions with a positive signal, expected at least one; take more images")
    return entropy_rank(spectrum)
