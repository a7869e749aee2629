"""Alignment: mean squared distance between the unit features of two views of one image, E‖f(x) − f(x′)‖².

Wang & Isola, "Understanding contrastive representation learning through alignment and uniformity on the hypersphere",
2020, https://arxiv.org/abs/2005.10242, section 4.1 with α = 2. Equal to twice the residual trace, also in the sample:
the mean over all pairs of views is 2/(V − 1)·Σ_v ‖f_v − f̄‖².
"""

from __future__ import annotations

from diffscope.metrics.base import Context, Measurement, jackknifed
from diffscope.moments import Moments, PooledMoments

KEYS = {"alignment": "mean squared distance of two views of one image, on unit features; 0 best, at most 4 [1]"}


def measure(moments: Moments, context: Context) -> Measurement:
    return jackknifed("alignment", moments, alignment)


def alignment(pooled: PooledMoments) -> float:
    return float(2 * pooled.sum("l2_within") / pooled.nu)
