"""Alignment: mean squared distance between the unit features of two views of one image, E‖f(x) − f(x′)‖².

Wang & Isola, "Understanding contrastive representation learning through alignment and uniformity on the hypersphere",
2020, https://arxiv.org/abs/2005.10242, section 4.1 with α = 2. Equal to twice the residual trace, also in the sample:
the mean over all pairs of views is 2/(V − 1)·Σ_v ‖f_v − f̄‖². `alignment_raw` is the same on features as they are, twice
the trace of Σξ: Li et al., 2026, https://arxiv.org/abs/2606.09718, figure 11, where it grows with memorization.
"""

from __future__ import annotations

from diffscope.metrics.base import Context, Measurement, jackknifed, merged, with_errors
from diffscope.moments import Moments, PooledMoments

KEYS = with_errors(
    {
        "alignment": "mean squared distance of two views of one image, on unit features; 0 best, at most 4 [1]",
        "alignment_raw": "the same on features as they are, 2 · trace_xi [feature units²]",
    }
)


def measure(moments: Moments, context: Context) -> Measurement:
    """Measures the keys above; `metrics/base.py` states the contract."""
    return merged([jackknifed("alignment", moments, alignment), jackknifed("alignment_raw", moments, alignment_raw)])


def alignment(pooled: PooledMoments) -> float:
    """Computes the mean squared distance of two views of one image on unit features.

    Returns:
        2 tr S_W of z/‖z‖, from 0 (all views alike) to 4; equation 6 of arXiv 2606.09718.
    """
    return float(2 * pooled.sum("l2_within") / pooled.nu)


def alignment_raw(pooled: PooledMoments) -> float:
    """Computes the same on features as they are.

    Returns:
        2 tr S_W, at least 0, in squared feature units.
    """
    return float(2 * pooled.variance_residual.sum())
