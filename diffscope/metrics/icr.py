"""Invariant Contamination Ratio, ICR = 1/(1 + mean λ), λ the eigenvalues of Σξ⁻¹Σs.

The share of a feature's variation that changes with noise and augmentation, in units of that variation: 0 for a
feature that depends on the image alone, 1 for one in which nothing is common to the views.
Li et al., "Evaluating the representation space of diffusion models via self-supervised principles", 2026,
https://arxiv.org/abs/2606.09718, equation 5; the two-view estimate of its appendix B.6 is `icr_raw`.

All estimates go through one statistic, with V views, N images, ν = N(V − 1):

    T = tr(S_W⁻¹ S_B)/d,   E[T] = κ(1 + V·mean λ),   ICR = V/(V − 1 + T/κ)

    icr_raw     κ = 1, the plug-in of the paper: too small by as much as half where N is a few d
    icr_gauss   κ = c = ν/(ν − d − 1), exact for Gaussian residuals (mean of an inverse Wishart matrix)
    icr_cf      κ measured by cross-fitting: S_W⁻¹ of all blocks but one meets S_B and S_W of that block (R1)
    icr         R1 and R2, the same with half the blocks, extrapolated to infinite training size:
                X = R1 + G/(G − 2)·(R1 − R2)

The interval is the delete-a-block jackknife of log(T/c), with Student's t on G − 1 degrees of freedom. Nothing is
clamped: without a common signal ICR falls on either side of 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import numpy as np
from scipy.linalg import hadamard

from diffscope.errors import EstimationError, TooFewImages
from diffscope.metrics.base import Context, Measurement, Value, with_errors
from diffscope.moments import Moments, size_problem
from diffscope.numerics import (
    FloatArray,
    jackknife_se,
    spd_inverse,
    student_quantile,
    symmetric_product,
    trace_of_product,
)

__all__ = ["KEYS", "IcrEstimate", "estimate", "measure"]

KEYS = {
    **with_errors(
        {"icr": "Invariant Contamination Ratio, cross-fitted and extrapolated to infinitely many images [share]"}
    ),
    "icr_low": "lower end of the 95 % interval of icr [share]",
    "icr_high": "upper end of the 95 % interval of icr [share]",
    **with_errors(
        {
            "icr_raw": "plug-in ICR as in the paper; comparable only at equal n, views and d [share]",
            "icr_gauss": "ICR debiased for Gaussian residuals [share]",
            "icr_cf": "ICR cross-fitted, not extrapolated [share]",
            "nc1_fisher": "icr/(1 − icr), within- over between-image variation with images as classes [ratio]",
        }
    ),
    "kappa_ratio": "measured inflation of S_W⁻¹ over its Gaussian value; above 1 where images differ in noise [ratio]",
    "se_ratio": "jackknife standard error over the Gaussian one; above 1 for heavy tails [ratio]",
    "replicates": "block replicates of log ICR, for paired comparisons [G numbers]",
    "n": "images [count]",
    "d": "channels that entered, after dead or dependent ones [count]",
}
LISTS = ("replicates",)

LEVEL = 0.95
EXTRAPOLATION_FREE_OF_BIAS, EXTRAPOLATION_POSSIBLE = 4.0, 2.5
"""ν/d from which the extrapolation is free of bias in all simulated models, and from which it is used."""
NON_GAUSSIAN = 1.05
"""kappa_ratio from which icr_gauss is off by at least 5 % in T."""


@dataclass(frozen=True)
class IcrEstimate:
    """All estimates of one layer at one noise level; None where there are too few images for one."""

    n: int
    """N, images."""
    views: int
    """V."""
    d: int
    """Channels."""
    trace_ratio: float
    """T = tr(S_W⁻¹S_B)/d."""
    inflation: float
    """c = ν/(ν − d − 1)."""
    cross_fitted: float | None
    """R1."""
    half_split: float | None
    """R2."""
    extrapolated: float | None
    """X."""
    kappa_ratio: float | None
    """Inflation of S_W⁻¹ as measured, over that of Gaussian residuals; above 1 where images differ in noise."""
    log_left_out: FloatArray | None
    """[G] L_g = log(T/c) without block g."""
    se_log: float | None
    """Jackknife standard error of log(T/c)."""
    se_log_gauss: float | None
    """Its value for Gaussian features."""
    theta: FloatArray | None
    """[G] block replicates of the debiased T, centred on the estimate."""
    icr_raw: float
    """From T."""
    icr_gauss: float
    """From T/c."""
    icr_cf: float | None
    """From R1."""
    icr: float
    """From X, R1 or T/c: the best that the number of images allows. Above 1 where sampling outweighs the signal."""
    low: float | None
    """Lower end of the 95 % interval of `icr`."""
    high: float | None
    """Upper end of the 95 % interval of `icr`."""
    se: float | None
    """Jackknife standard error of `icr`."""
    replicates: FloatArray | None
    """[G] y_g, block replicates of log ICR."""
    notes: tuple[str, ...]
    """Which estimate `icr` is where it is not the best one, and what would make it that; `code: sentence` each."""


def measure(moments: Moments, context: Context) -> Measurement:
    """Measures the keys above; `metrics/base.py` states the contract.

    Raises:
        TooFewImages: ν ≤ d + 1.
        IllConditioned: S_W is singular.
        EstimationError: The number of blocks is no power of two from 4.
    """
    found = estimate(moments)
    values: dict[str, Value] = {
        "icr": found.icr,
        "icr_se": found.se,
        "icr_low": found.low,
        "icr_high": found.high,
        "icr_raw": found.icr_raw,
        "icr_raw_se": _icr_se(found.trace_ratio, found.se_log, found.views),
        "icr_gauss": found.icr_gauss,
        "icr_gauss_se": _icr_se(found.trace_ratio / found.inflation, found.se_log, found.views),
        "icr_cf": found.icr_cf,
        "icr_cf_se": None if found.cross_fitted is None else _icr_se(found.cross_fitted, found.se_log, found.views),
        "nc1_fisher": None,
        "nc1_fisher_se": None,
        "kappa_ratio": found.kappa_ratio,
        "se_ratio": found.se_log / found.se_log_gauss if found.se_log and found.se_log_gauss else None,
        "replicates": None if found.replicates is None else found.replicates.tolist(),
        "n": found.n,
        "d": found.d,
    }
    notes = found.notes
    if found.icr < 1:
        values["nc1_fisher"] = found.icr / (1 - found.icr)
        values["nc1_fisher_se"] = None if found.se is None else found.se / (1 - found.icr) ** 2
    else:
        notes += (
            "icr_above_one: icr is above its limit of 1: no signal common to the views was found; the number stays as "
            "sampling gave it, since averages of clamped ones would be biased, and nc1_fisher has no value",
        )
    return Measurement(values, notes)


def estimate(moments: Moments) -> IcrEstimate:
    """Estimates ICR in all ways that the number of images allows.

    Args:
        moments: G blocks, a power of two from 4, that have passed `moments.guarded`.

    Returns:
        The estimates, each a share: near 0 for a feature that depends on the image alone, 1 for one in which nothing is
        common to the views. `icr` needs ν ≥ 2.5 d for its extrapolation, and 4 d to be free of bias.

    Raises:
        TooFewImages: ν ≤ d + 1.
        IllConditioned: S_W is singular, of all blocks or of those on one side of a split.
        EstimationError: G is no power of two from 4.
    """
    n, views, d, blocks = moments.total.n, moments.views, moments.d, moments.blocks
    problem = size_problem(n, views, d)
    if problem:
        raise TooFewImages(problem)
    if blocks < 4 or blocks & (blocks - 1):
        raise EstimationError(f"moments in {blocks} blocks; expected a power of two from 4, such as 16")
    nu = moments.total.nu
    # The smallest training sides: all blocks but the largest, and the smallest half.
    sizes = np.sort(moments.n) * (views - 1)
    if sizes[:-1].sum() < 1.05 * d + 2:
        return _assembled(moments, None, None)
    fit = _cross_fit(moments)
    if nu < EXTRAPOLATION_POSSIBLE * d or sizes[: blocks // 2].sum() <= d + 1:
        return _assembled(moments, fit, None)
    return _assembled(moments, fit, _half_splits(moments, min(8 if d <= 1024 else 4, blocks - 1)))


class _CrossFit(NamedTuple):
    ratio: float
    """R1."""
    kappa_ratio: float
    log_left_out: FloatArray


class _Block(NamedTuple):
    """Sums over the test side of a split."""

    n: float
    b_sum: FloatArray
    between: FloatArray
    within: FloatArray


def _cross_fit(moments: Moments) -> _CrossFit:
    """S_W⁻¹ without block g meets block g; the same inverses give the jackknife."""
    total, views, d = moments.total, moments.views, moments.d
    mean = total.b_sum / total.n
    signal = residual = 0.0
    inflations, log_left_out = [], []
    for g in range(moments.blocks):
        left = moments.without(g)
        inverse = spd_inverse(left.cov_residual)
        b_sum = moments.view_sum[g].sum(0) / np.sqrt(views)
        a, k = _signal_residual(inverse, _Block(moments.n[g], b_sum, moments.between[g], moments.within[g]), mean)
        signal, residual = signal + a, residual + k
        inflations.append(left.nu / (left.nu - d - 1))
        trace_ratio = trace_of_product(inverse, left.cov_between) / d
        log_left_out.append(np.log(trace_ratio / inflations[-1]))
    return _CrossFit(
        ratio=(signal / (total.n - 1)) / (residual / total.nu),
        kappa_ratio=float(residual / (total.nu * d) / np.mean(inflations)),
        log_left_out=np.array(log_left_out),
    )


def _half_splits(moments: Moments, splits: int) -> float:
    """R2: S_W⁻¹ of half of the blocks meets the other half, both ways, over balanced splits."""
    total, views, d = moments.total, moments.views, moments.d
    mean = total.b_sum / total.n
    b_sums = moments.view_sum.sum(1) / np.sqrt(views)
    between, within = (stack.reshape(moments.blocks, -1) for stack in (moments.between, moments.within))
    all_between, all_within = total.sum("between"), total.sum("within")
    signal = residual = 0.0
    # Rows of a Sylvester–Hadamard matrix: any two splits share exactly half of each side.
    for row in hadamard(moments.blocks)[1 : splits + 1]:
        chosen = (row > 0).astype(np.float64)
        sums = (chosen @ between).reshape(d, d), (chosen @ within).reshape(d, d)
        half = _Block(float(chosen @ moments.n), chosen @ b_sums, *sums)
        rest = _Block(total.n - half.n, total.b_sum - half.b_sum, all_between - half.between, all_within - half.within)
        for train, test in ((half, rest), (rest, half)):
            inverse = spd_inverse(train.within / (train.n * (views - 1)))
            a, k = _signal_residual(inverse, test, mean)
            signal, residual = signal + a, residual + k
    return (signal / (total.n - 1)) / (residual / total.nu)


def _signal_residual(inverse: FloatArray, test: _Block, mean: FloatArray) -> tuple[float, float]:
    """tr(P C) and tr(P W) of the test side, C its sum of b bᵀ centred at `mean`, that of b over all images."""
    columns = np.stack([mean, test.b_sum], axis=1)
    through = columns.T @ symmetric_product(inverse, columns)
    centring = float(test.n * through[0, 0] - 2 * through[0, 1])
    return trace_of_product(inverse, test.between) + centring, trace_of_product(inverse, test.within)


def _assembled(moments: Moments, fit: _CrossFit | None, half_split: float | None) -> IcrEstimate:
    """The estimates that the fits allow, the best of them as `icr`, and its interval."""
    total, views, d, blocks = moments.total, moments.views, moments.d, moments.blocks
    cov_between = total.cov_between
    trace_ratio = float(np.vdot(moments.inverse_residual, cov_between)) / d
    inflation = total.nu / (total.nu - d - 1)
    extrapolated = None
    if fit and half_split is not None:
        extrapolated = fit.ratio + blocks / (blocks - 2) * (fit.ratio - half_split)
    point = trace_ratio / inflation
    if fit:
        point = extrapolated if extrapolated is not None and extrapolated > 0 else fit.ratio
    theta = se_log = None
    low = high = None
    if fit:
        se_log = float(jackknife_se(fit.log_left_out))
        theta = point * np.exp(fit.log_left_out - fit.log_left_out.mean())
        reach = np.exp(student_quantile(0.5 + LEVEL / 2, blocks - 1) * se_log)
        low, high = _icr(point * reach, views), _icr(point / reach, views)
    return IcrEstimate(
        n=total.n,
        views=views,
        d=d,
        trace_ratio=trace_ratio,
        inflation=inflation,
        cross_fitted=fit.ratio if fit else None,
        half_split=half_split,
        extrapolated=extrapolated,
        kappa_ratio=fit.kappa_ratio if fit else None,
        log_left_out=fit.log_left_out if fit else None,
        se_log=se_log,
        se_log_gauss=_gaussian_se_log(moments.inverse_residual, cov_between, total.n - 1, total.nu),
        theta=theta,
        icr_raw=_icr(trace_ratio, views),
        icr_gauss=_icr(trace_ratio / inflation, views),
        icr_cf=_icr(fit.ratio, views) if fit else None,
        icr=_icr(point, views),
        low=low,
        high=high,
        se=_icr_se(point, se_log, views),
        replicates=None if theta is None else np.log(views / (views - 1 + theta)),
        notes=_notes(total.nu, views, d, fit, extrapolated),
    )


def _icr(t: float, views: int) -> float:
    """V/(V − 1 + t)."""
    return float(views / (views - 1 + t))


def _icr_se(t: float, se_log: float | None, views: int) -> float | None:
    """Standard error of V/(V − 1 + t) from that of log t."""
    return None if se_log is None else float(_icr(t, views) * t / (views - 1 + t) * se_log)


def _gaussian_se_log(inverse: FloatArray, cov_between: FloatArray, n: int, nu: int) -> float | None:
    """Standard error of log(T/c) for Gaussian features; None for ν ≤ d + 3, where the variance is infinite.

    With Λ the eigenvalues 1 + Vλ, (ΣΛ)² and ΣΛ² are estimated without bias from q1 = tr(PS_B) and q2 = tr(PS_BPS_B),
    P = S_W⁻¹, by the second moments of a Wishart and of an inverse Wishart matrix.
    """
    d = len(inverse)
    if nu <= d + 3:
        return None
    product = inverse @ cov_between
    q1, q2 = np.trace(product), np.vdot(product, product.T)
    c2 = 1 / ((nu - d) * (nu - d - 1) * (nu - d - 3))
    c1 = (nu - d - 2) * c2
    given_wishart = np.linalg.solve([[1 + 1 / n, 1 / n], [2 / n, 1]], [q2, q1**2])
    square_sum, sum_square = np.linalg.solve(nu**2 * np.array([[c1 + c2, c2], [2 * c2, c1]]), given_wishart)
    variance = 2 * n * ((c1 + c2) * square_sum + c2 * sum_square)
    variance += n**2 * (c1 * sum_square + 2 * c2 * square_sum - sum_square / (nu - d - 1) ** 2)
    variance *= (nu / n) ** 2 * ((nu - d - 1) / (nu * d)) ** 2
    debiased = q1 / d * (nu - d - 1) / nu
    return float(np.sqrt(variance) / debiased) if variance > 0 else None


def _notes(nu: int, views: int, d: int, fit: _CrossFit | None, extrapolated: float | None) -> tuple[str, ...]:
    """Which estimate `icr` is, where it is not the best, and what would make it that."""
    more = f"for {EXTRAPOLATION_FREE_OF_BIAS:g} per channel take {ceil(EXTRAPOLATION_FREE_OF_BIAS * d / (views - 1))} "
    more += "images, or more `views=`"
    found = f"{nu} residual degrees of freedom are {nu / d:.2g} per channel"
    if fit is None:
        return (
            f"gaussian_only: {found} (limit 1.05 without the largest block): icr is icr_gauss, right for Gaussian "
            f"residuals alone, and has no interval; {more}",
        )
    notes = []
    if extrapolated is None:
        notes.append(
            f"few_images_no_extrapolation: {found} (limit {EXTRAPOLATION_POSSIBLE:g}): icr is icr_cf, and its interval "
            f"is up to 2.5 times too wide; {more}"
        )
    elif extrapolated <= 0:
        notes.append(f"extrapolation_failed: the extrapolated T is {extrapolated:.3g} (limit 0): icr is icr_cf; {more}")
    elif nu < EXTRAPOLATION_FREE_OF_BIAS * d:
        notes.append(f"few_images: {found} (limit {EXTRAPOLATION_FREE_OF_BIAS:g}): 1/icr − 1 may be off by 5 %; {more}")
    if fit.kappa_ratio >= NON_GAUSSIAN:
        notes.append(
            f"non_gaussian_noise: kappa_ratio is {fit.kappa_ratio:.3g} (limit {NON_GAUSSIAN}), as where images differ "
            f"in noise: icr_gauss is too small by about {fit.kappa_ratio - 1:.0%} in T; use icr"
        )
    return tuple(notes)
