"""What must hold before any number is read from moments, in the order in which it is checked.

size · deterministic features · dead channels (dropped) · noiseless channels · rank (an error, or a reduction where one
is asked for) · conditioning · exchangeable views · quantisation.

Channels are brought to unit residual variance first (multiplied by 1/√diag S_W): the Invariant Contamination Ratio does
not change, conditioning is near the best that any scaling gives, and the limits are free of units.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh, qr

from diffscope.errors import IllConditioned, RankDeficient, TooFewImages, ZeroNoise
from diffscope.moments.pooled import Moments
from diffscope.numerics import FloatArray, eigenvalues, f_tail, reciprocal_condition

DEAD = 1e-6
"""Standard deviation over mean below which a channel counts as constant: some ten float32 spacings."""
IDENTICAL = 4 * 2.0**-23
"""Residual over feature below which views count as identical: four float32 spacings."""
RANK_TOLERANCE = 1e-10
"""Smallest over largest eigenvalue at an exact linear dependency in float32 or float64 features."""
ILL_CONDITIONED, SINGULAR = 1e-8, 1e-12
"""Reciprocal condition numbers: below the first results lose half their digits, below the second all."""
NOT_EXCHANGEABLE = 1e-6
"""p-value below which a difference between views is not put down to chance."""
QUANTISED = 0.01
"""Expected relative error of ICR from the rounding of features above which a note is given."""


def size_problem(images: int, views: int, d: int) -> str | None:
    """Says whether images and views are enough to determine the covariance of d channels, ν = N(V − 1) > d + 1.

    Args:
        images: N.
        views: V.
        d: Channels.

    Returns:
        None if they are; otherwise one line with the numbers found, those needed and recommended (ν ≥ 4d).
    """
    if views < 2:
        return f"{views} view per image; expected at least 2, as noise is what differs between views; use `views=2`"
    if images * (views - 1) > d + 1:
        return None
    need, recommended = ceil((d + 2) / (views - 1)), ceil(4 * d / (views - 1))
    return (
        f"{images} images × {views} views cannot determine {d} channels; expected at least {need} images "
        f"(recommended {recommended}); take more images, or `views={1 + ceil(4 * d / max(images, 1))}`"
    )


def guarded(
    moments: Moments, feature_eps: float, pooled_positions: int, reduce: bool
) -> tuple[Moments, tuple[str, ...]]:
    """Checks moments, and drops or projects away channels that no number can be read from.

    Args:
        moments: G blocks of one layer at one noise level; unchanged.
        feature_eps: Spacing at 1 of the coarsest dtype that the features passed through, such as 2⁻⁷ for bf16.
        pooled_positions: Positions that were averaged in float32 after that dtype.
        reduce: Whether linearly dependent channels are projected away instead of refused. d then becomes the rank, and
            the numbers are no longer those of all channels.

    Returns:
        (moments of the channels that remain, notes on what was found, each `code: sentence`)

    Raises:
        TooFewImages: ν ≤ d + 1.
        ZeroNoise: Views are identical, in all channels or in one, or all channels are constant.
        RankDeficient: Channels depend on each other linearly and `reduce` is not set.
        IllConditioned: The residual covariance is singular to working precision.
    """
    problem = size_problem(moments.total.n, moments.views, moments.d)
    if problem:
        raise TooFewImages(problem)
    _refuse_identical_views(moments)
    moments, notes = _without_dead_channels(moments)
    if reduce:
        moments, found = _reduced(moments, max(RANK_TOLERANCE, 4 * feature_eps**2))
        notes += found
    notes += _conditioning(moments, reduce)
    notes += _exchangeability(moments)
    notes += _quantisation(moments, feature_eps, pooled_positions)
    return moments, notes


def _refuse_identical_views(moments: Moments) -> None:
    total = moments.total
    if np.all(total.variance_residual <= IDENTICAL**2 * total.mean_square):
        raise ZeroNoise(
            "the views of every image have the same features; expected views that differ in noise or augmentation; "
            "raise `sigma=`, or use an `augment=` other than none"
        )


def _without_dead_channels(moments: Moments) -> tuple[Moments, tuple[str, ...]]:
    total = moments.total
    limit = DEAD**2 * total.mean**2
    # A channel without noise and of mean near zero has nothing but the rounding of its view mean left.
    silent = total.variance_residual <= np.maximum(limit, IDENTICAL**2 * total.mean_square)
    dead = (total.variance_residual <= limit) & (total.variance_between <= limit)
    noiseless = np.flatnonzero(silent & ~dead)
    if len(noiseless):
        raise ZeroNoise(
            f"channel {_listed(noiseless)} differs between images but not between views; expected noise in every "
            "channel, as its signal-to-noise ratio would be infinite; raise `sigma=`, or choose another `layer=`"
        )
    if not dead.any():
        return moments, ()
    alive = np.flatnonzero(~dead)
    if not len(alive):
        raise ZeroNoise("all channels are constant; expected features that vary; choose another `layer=`")
    return moments.selected(alive), (
        f"dead_channels: {dead.sum()} of {moments.d} channels are constant (limit: a standard deviation of {DEAD:g} of "
        f"the mean) and were dropped; the numbers are those of the other {len(alive)}",
    )


def _reduced(moments: Moments, tolerance: float) -> tuple[Moments, tuple[str, ...]]:
    """Projects onto the eigenvectors of the unit-diagonal S_B + S_W with eigenvalues above tolerance × the largest."""
    scale = _unit_scale(moments)
    values, vectors = eigh((moments.total.cov_between + moments.total.cov_residual) * np.outer(scale, scale))
    kept = values > tolerance * values[-1]
    if kept.all():
        return moments, ()
    # In coordinates that keep lengths (the R of a QR factorisation), so that traces and spectra stay those of the
    # features; ICR is the same in any coordinates.
    basis = vectors[:, kept]
    triangle = qr(basis / scale[:, None], mode="economic")[1]
    return moments.projected(scale[:, None] * (basis @ triangle.T)), (
        f"reduced: {moments.d} channels have rank {kept.sum()} (eigenvalues of the scaled covariance below "
        f"{tolerance:.1e} of the largest were dropped); d is {kept.sum()} in all numbers",
    )


def _conditioning(moments: Moments, reduced: bool) -> tuple[str, ...]:
    """Refuses a singular residual covariance, as one of dependent channels where these were not projected away."""
    scale = _unit_scale(moments)
    unit_residual = moments.total.cov_residual * np.outer(scale, scale)
    condition = reciprocal_condition(unit_residual)
    if condition >= ILL_CONDITIONED:
        return ()
    # Only now is it worth the eigenvalues to tell channels that depend on each other from residuals that do.
    values = eigenvalues(moments.total.cov_between * np.outer(scale, scale) + unit_residual)
    rank = int((values > RANK_TOLERANCE * values[0]).sum())
    if condition < SINGULAR and rank < moments.d and not reduced:
        raise RankDeficient(
            f"{moments.d} channels have rank {rank}: some are copies or combinations of others; expected independent "
            "channels; choose another `layer=`, or `reduce=` to go on with the independent ones"
        )
    if condition < SINGULAR:
        raise IllConditioned(
            f"reciprocal condition {condition:.1e} of the residual covariance; expected at least {SINGULAR:g}; take "
            "more images, or choose another `layer=`"
        )
    return (
        f"ill_conditioned: reciprocal condition {condition:.1e} of the residual covariance is below "
        f"{ILL_CONDITIONED:g}; compare with `precision=fp32` or another layer before relying on the numbers",
    )


def exchangeability(moments: Moments) -> tuple[FloatArray, FloatArray]:
    """Tests E[z_1 − z_v] = 0 for v = 2…V, which holds where all views have the same noise level and noise of their own.

    For y = √N·mean_i (z_i1 − z_iv)/√2, one of the ν residual directions that make up νS_W, h = yᵀ(νS_W)⁻¹y and
    F = (ν − d)/d · h/(1 − h) ~ F(d, ν − d) for Gaussian noise; at V = 2 this is Hotelling's paired test. It finds noise
    that is shared between images, and noise of another mean in one of the views.

    Args:
        moments: Of d channels, with ν > d.

    Returns:
        (F [V − 1], p [V − 1], not corrected for their number)

    Raises:
        IllConditioned: S_W is singular.
    """
    total, d = moments.total, moments.d
    views = total.sum("view_sum")
    y = (views[0] - views[1:]) / np.sqrt(2 * total.n)
    h = np.einsum("vj,jk,vk->v", y, moments.inverse_residual, y, optimize=True) / total.nu
    f = (total.nu - d) / d * h / np.maximum(1 - h, np.finfo(np.float64).tiny)
    return np.asarray(f), np.array([f_tail(value, d, total.nu - d) for value in f])


def _exchangeability(moments: Moments) -> tuple[str, ...]:
    _, p = exchangeability(moments)
    smallest = float(min(1.0, p.min() * len(p)))
    if smallest >= NOT_EXCHANGEABLE:
        return ()
    return (
        f"views_not_exchangeable: the mean difference between views 1 and {2 + int(p.argmin())} has p = {smallest:.1e} "
        f"(limit {NOT_EXCHANGEABLE:g}); all views need the same noise level and noise of their own for every image",
    )


def quantisation_share(moments: Moments, feature_eps: float, pooled_positions: int) -> float:
    """Estimates how much of the residual variance is rounding, ρ_q = (1/d) Σ_j P_jj (0.2 eps)² rms_j²/k with P = S_W⁻¹.

    0.2 is the measured ratio of the rounding error's standard deviation to eps · rms.

    Args:
        moments: Of d channels.
        feature_eps: Spacing at 1 of the coarsest dtype that the features passed through.
        pooled_positions: k, positions averaged in float32 after that dtype.

    Returns:
        ρ_q, a share of at least 0. ICR is too large by about ρ_q(1 − ICR), relatively.

    Raises:
        IllConditioned: S_W is singular.
    """
    rounding = (0.2 * feature_eps) ** 2 * moments.total.mean_square / pooled_positions
    return float(np.mean(np.diagonal(moments.inverse_residual) * rounding))


def _quantisation(moments: Moments, feature_eps: float, pooled_positions: int) -> tuple[str, ...]:
    share = quantisation_share(moments, feature_eps, pooled_positions)
    if share <= QUANTISED:
        return ()
    return (
        f"quantised_features: rounding makes up {share:.2g} of the residual variance (limit {QUANTISED}), and ICR is "
        "too large by about that share times 1 − ICR; use `precision=fp32`",
    )


def _unit_scale(moments: Moments) -> FloatArray:
    """1/√diag S_W [d]."""
    return np.asarray(1 / np.sqrt(moments.total.variance_residual))


def _listed(channels: NDArray[np.intp]) -> str:
    return ", ".join(map(str, channels[:5])) + (f" and {len(channels) - 5} more" if len(channels) > 5 else "")
