"""Sizes of the two parts of a feature: tr Σ̂s, common to the views of an image, and tr S_W, different between them.

Unbiased for any distribution, but Euclidean: other than ICR they change with the scale of single channels. Scalar
within- over between-class variation (NC1) with images as classes: Papyan, Han & Donoho, "Prevalence of neural collapse
during the terminal phase of deep learning training", 2020, https://arxiv.org/abs/2008.08186.
The `_l2` pair is taken on features divided by their norm.
"""

from __future__ import annotations

import numpy as np

from diffscope.errors import EstimationError
from diffscope.metrics.base import Context, Measurement, jackknifed, merged, with_errors
from diffscope.moments import Moments, PooledMoments

KEYS = with_errors(
    {
        "trace_s": "trace of the invariant covariance, (tr S_B − tr S_W)/V [feature units²]",
        "trace_xi": "trace of the residual covariance, tr S_W [feature units²]",
        "trace_icr": "trace_xi/(trace_s + trace_xi), the residual share of variance, not affine invariant [share]",
        "nc1_trace": "trace_xi/trace_s, within- over between-image variance [ratio]",
        "trace_s_l2": "trace_s of features divided by their norm [1]",
        "trace_xi_l2": "trace_xi of features divided by their norm [1]",
    }
)


def measure(moments: Moments, context: Context) -> Measurement:
    """Measures the keys above; `metrics/base.py` states the contract."""
    statistics = {
        "trace_s": trace_s,
        "trace_xi": trace_xi,
        "trace_icr": trace_icr,
        "nc1_trace": nc1_trace,
        "trace_s_l2": trace_s_l2,
        "trace_xi_l2": trace_xi_l2,
    }
    return merged([jackknifed(key, moments, statistic) for key, statistic in statistics.items()])


def trace_s(pooled: PooledMoments) -> float:
    """Computes the trace of Σ̂s, the covariance of what the views of an image share.

    Returns:
        (tr S_B − tr S_W)/V in squared feature units; unbiased, so that it may be negative.
    """
    return float((pooled.variance_between - pooled.variance_residual).sum() / pooled.moments.views)


def trace_xi(pooled: PooledMoments) -> float:
    """Computes the trace of S_W, the covariance of what differs between the views of an image.

    Returns:
        tr S_W in squared feature units, at least 0.
    """
    return float(pooled.variance_residual.sum())


def trace_icr(pooled: PooledMoments) -> float:
    """Computes the residual share of the variance of one view.

    Returns:
        tr S_W / tr(Σ̂s + S_W), above 0; the divisor is the variance of one view, always positive.
    """
    return trace_xi(pooled) / (trace_s(pooled) + trace_xi(pooled))


def nc1_trace(pooled: PooledMoments) -> float:
    """Computes within- over between-image variance.

    Returns:
        tr S_W / tr Σ̂s, at least 0.

    Raises:
        EstimationError: tr Σ̂s is not above 0.
    """
    signal = trace_s(pooled)
    if signal <= 0:
        raise EstimationError(f"trace_s is {signal:.3g}, expected above 0; take more images")
    return trace_xi(pooled) / signal


def trace_s_l2(pooled: PooledMoments) -> float:
    """Computes `trace_s` of features divided by their norm.

    Returns:
        A share of the unit norm; unbiased, so that it may be negative.
    """
    n, views = pooled.n, pooled.moments.views
    centred = float(pooled.sum("l2_between") - np.sum(pooled.sum("l2_sum") ** 2) / n)
    return (centred / (n - 1) - trace_xi_l2(pooled)) / views


def trace_xi_l2(pooled: PooledMoments) -> float:
    """Computes `trace_xi` of features divided by their norm.

    Returns:
        A share of the unit norm, from 0 to V/(V − 1).
    """
    return float(pooled.sum("l2_within") / pooled.nu)
