"""Spikiness: how unevenly a sample's features are spread over the channels, the standard deviation of its entries.

Zhang et al., "Generalization of diffusion models arises with a balanced representation space", 2025,
https://arxiv.org/abs/2512.20963: a sample that was memorized excites few units strongly, one that is generalised many a
little. Here it is the root mean square over samples of Std² = mean_j z_j² − (mean_j z_j)², which needs no more than
second moments. It follows the scale of the features, as theirs does.
"""

from __future__ import annotations

import math

import numpy as np

from diffscope.metrics.base import Context, Measurement, jackknifed, with_errors
from diffscope.moments import Moments, PooledMoments

KEYS = with_errors(
    {"spikiness": "standard deviation of a sample's feature entries, root mean square over samples [feature units]"}
)


def measure(moments: Moments, context: Context) -> Measurement:
    """Measures the keys above; `metrics/base.py` states the contract."""
    return jackknifed("spikiness", moments, spikiness)


def spikiness(pooled: PooledMoments) -> float:
    """Computes the standard deviation over the channels of one sample, as a root mean square over samples.

    Returns:
        sqrt(mean ‖z‖²/d − mean (Σ_j z_j)²/d²), at least 0, in feature units.
    """
    second = pooled.second_moment
    d = len(second)
    return math.sqrt(max(0.0, float(np.trace(second)) / d - float(second.sum()) / d**2))
