"""Groups of perturbed views of each image → moments, in blocks of images, from which all numbers are read.

Image i has features z_iv, v = 1…V. What is summed per block of images, with nothing centred:

    b_i = √V · mean_v z_iv        B = Σ_i b_i b_iᵀ         (V = 2: z+ = (z1 + z2)/√2)
    r_iv = z_iv − mean_v z_iv     W = Σ_i Σ_v r_iv r_ivᵀ   (V = 2: z− z−ᵀ)

and from sums over N images, with ν = N(V − 1):

    S_B = (B − s sᵀ/N)/(N − 1), s = Σ b_i     expectation VΣs + Σξ
    S_W = W/ν                                 expectation Σξ
    Σ̂s = (S_B − S_W)/V                        unbiased, may be indefinite

This is the one-way random-effects decomposition, at V = 2 that of Li et al. 2026, https://arxiv.org/abs/2606.09718,
appendix B.6. b and r are formed before any product, in float64, because products of the views themselves lose a small
residual covariance to cancellation. Images are summed in the same groups of 64, however they arrive. Features are not
kept (but for such a group, and 256 images of the block in work for the pairs of `uniformity`): blocks give the
jackknife its errors, and stacking blocks is the one operation behind streaming, several devices and resumption.
"""

from __future__ import annotations

from diffscope.moments.blocks import (
    GROUP,
    PAIR_IMAGES,
    BlockAccumulator,
    BlockMoments,
    NonFiniteFeature,
    accumulator_nbytes,
    nbytes,
)
from diffscope.moments.guards import guarded, size_problem
from diffscope.moments.pooled import Moments, PooledMoments

__all__ = [
    "GROUP",
    "PAIR_IMAGES",
    "BlockAccumulator",
    "BlockMoments",
    "Moments",
    "NonFiniteFeature",
    "PooledMoments",
    "accumulator_nbytes",
    "guarded",
    "nbytes",
    "size_problem",
]
