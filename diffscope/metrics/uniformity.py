"""Uniformity: log mean of exp(−2‖f_i − f_j‖²) over pairs of different images, f the unit features of one view.

Wang & Isola, "Understanding contrastive representation learning through alignment and uniformity on the hypersphere",
2020, https://arxiv.org/abs/2005.10242, section 4.1 with t = 2; averaged over views. Pairs are taken within blocks, up
to 256 images of each: which images share a block is random, so that the mean is unbiased.
"""

from __future__ import annotations

import numpy as np

from diffscope.errors import EstimationError
from diffscope.metrics.base import Context, Measurement, jackknifed, with_errors
from diffscope.moments import Moments, PooledMoments

KEYS = with_errors(
    {"uniformity": "log mean Gaussian kernel between images, on unit features; −4 spread out … 0 collapsed [nats]"}
)


def measure(moments: Moments, context: Context) -> Measurement:
    """Measures the key above; `metrics/base.py` states the contract."""
    return jackknifed("uniformity", moments, uniformity)


def uniformity(pooled: PooledMoments) -> float:
    """Computes the log mean Gaussian kernel over pairs of images, averaged over views.

    Returns:
        Nats, at most 0: about −4 where features are spread out, 0 where all are alike; equation 7 of arXiv 2606.09718.

    Raises:
        EstimationError: No block holds two images.
    """
    pairs = float(pooled.sum("pairs"))
    if pairs <= 0:
        raise EstimationError("0 pairs of images within blocks, expected at least one; take more images")
    # A kernel of exactly 0 needs features further apart than the sphere allows.
    return float(np.log(pooled.sum("pair_kernel") / pairs).mean())
