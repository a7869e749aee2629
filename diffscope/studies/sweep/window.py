"""The semantic window: at which noise levels a layer's features depend least on what is not the image.

Over noise levels ICR often falls and rises again: Li et al., "Evaluating the representation space of diffusion models
via self-supervised principles", 2026, https://arxiv.org/abs/2606.09718.
All levels come from the same images and draws, so that differences from the lowest level k* are tested in pairs:
D_k = log icr_k − log icr_k*, t_k = D_k/SE_k on G − 1 degrees of freedom. From them come the curve's shape and the
levels that cannot be told from the best; for a `u` the level to recommend and the window around it are read off a curve
through the levels (`recommended.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffscope.errors import EstimationError
from diffscope.numerics import FloatArray, jackknife_se, student_quantile
from diffscope.studies.sweep.recommended import ALPHA, Recommendation, recommend

LEAST_RISE = 0.02
"""Relative rise from the minimum to an end that is worth calling one; a convention, like the next."""
PRACTICAL_SHARE = 0.10
"""Share of the curve's depth within which a level is as good as the best in practice."""
FEW_LEVELS = 5
"""Levels below which the shape rests on single points."""


@dataclass(frozen=True)
class Window:
    """What one layer's curve of ICR over noise levels says. Levels are `sigma`, the noise-to-signal ratio."""

    shape: str | None
    """`u`, `rising` (best at the smallest noise), `falling`, `flat`, or None where the curve does not decide."""
    sigma: float | None
    """Recommended level; of a `u` only."""
    sigma_se: float | None
    """Its standard error in decades (log10 σ): that of the images and that of the grid's step."""
    minimum: float | None
    """Level of the grid with the lowest ICR."""
    icr: float | None
    """ICR there."""
    low: float | None
    """Lower end of the window: the lowest level of the run around the minimum that cannot be told from it, at α divided
    by the comparisons; of a `u` as low as the curve cannot be told from its value at the recommended level, if that is
    lower. So the window holds the minimum, the recommended level, and all that cannot be told from either."""
    high: float | None
    """Its upper end."""
    near: tuple[float, ...]
    """Levels in the window, and others that cannot be told from the minimum, in the order of σ."""
    practical: tuple[float, float] | None
    """Run around the minimum with ICR within a tenth of the curve's depth."""
    contiguous: bool
    """Whether all levels that cannot be told from the minimum form that run."""
    t: tuple[float, ...]
    """t_k of every level that was used, in the order of σ; 0 at the minimum."""
    notes: tuple[str, ...]


def semantic_window(sigma: ArrayLike, icr: ArrayLike, replicates: ArrayLike, minimum: int | None = None) -> Window:
    """The window of one layer from σ [K] > 0, ICR [K] and its block replicates y [G, K] of log ICR.

    A level without ICR or replicates (None or NaN) is left out with a note. Levels may come in any order. `minimum`
    says which is to count as the lowest, where another rule has settled that; else it is the one of lowest ICR.
    """
    sigma, icr, y = (np.asarray(values, dtype=np.float64) for values in (sigma, icr, replicates))
    if sigma.ndim != 1 or icr.shape != sigma.shape or y.ndim != 2 or y.shape[1] != len(sigma) or np.any(sigma <= 0):
        raise EstimationError(
            f"σ {sigma.shape}, icr {icr.shape}, replicates {y.shape}; expected [K] above 0, [K] and [G, K]"
        )
    usable = np.isfinite(icr) & np.all(np.isfinite(y), axis=0)
    notes = []
    if not usable.all():
        skipped = ", ".join(f"{level:.4g}" for level in sigma[~usable])
        notes.append(f"levels_skipped: no ICR with replicates at σ = {skipped}; the window is that of the others")
    order = np.flatnonzero(usable)[np.argsort(sigma[usable], kind="stable")]
    sigma, icr, y = sigma[order], icr[order], y[:, order]
    if np.any(np.diff(sigma) == 0):
        raise EstimationError(f"σ {sigma.tolist()}: expected each level once")
    if len(sigma) < 2:
        return _undecided(sigma, icr, notes)
    if len(sigma) < FEW_LEVELS:
        notes.append(
            f"few_levels: {len(sigma)} levels (limit {FEW_LEVELS}): the shape rests on single points; sweep more levels"
        )
    best = int(np.argmin(icr)) if minimum is None else int(np.flatnonzero(order == minimum)[0])
    return _window(sigma, icr, y, best, notes)


def _undecided(sigma: FloatArray, icr: FloatArray, notes: list[str]) -> Window:
    notes.append(f"few_levels: {len(sigma)} level (limit 2): a curve has no shape; sweep more levels")
    only, value = (float(sigma[0]), float(icr[0])) if len(sigma) else (None, None)
    near = () if only is None else (only,)
    return Window(None, None, None, only, value, only, only, near, None, True, (0.0,) * len(sigma), tuple(notes))


def _window(sigma: FloatArray, icr: FloatArray, y: FloatArray, best: int, notes: list[str]) -> Window:
    rise, t = _against_minimum(icr, y, best)
    shape = _shape(rise, t, best, len(y) - 1)
    if shape is None:
        notes.append(
            "window_unclear: one end of the curve cannot be told from its minimum (or lies beyond a minimum that is "
            "not at the other end); sweep a wider range of σ, or take more images"
        )
    inside = t <= student_quantile(1 - ALPHA / (len(sigma) - 1), len(y) - 1)
    low, high = _run(inside, best)
    contiguous = int(inside.sum()) == high - low + 1
    if not contiguous:
        notes.append(
            f"not_contiguous: {inside.sum() - (high - low + 1)} levels apart from those around the minimum cannot be "
            "told from it either; take more images"
        )
    depth = max(0.0, float(min(icr[0], icr[-1]) - icr[best]))
    first, last = _run(icr <= icr[best] + PRACTICAL_SHARE * depth, best)
    found = recommend(np.log10(sigma), np.log(icr), y, best) if shape == "u" else None
    window = float(sigma[low]), float(sigma[high])
    if found is not None:
        notes += _read_with_care(found, sigma)
        window = min(window[0], float(10**found.low)), max(window[1], float(10**found.high))
    inside |= (sigma >= window[0]) & (sigma <= window[1])
    return Window(
        shape=shape,
        sigma=float(10**found.x) if found else None,
        sigma_se=found.se if found else None,
        minimum=float(sigma[best]),
        icr=float(icr[best]),
        low=window[0],
        high=window[1],
        near=tuple(sigma[inside].tolist()),
        practical=(float(sigma[first]), float(sigma[last])),
        contiguous=contiguous,
        t=tuple(t.tolist()),
        notes=tuple(notes),
    )


def _read_with_care(found: Recommendation, sigma: FloatArray) -> list[str]:
    """Notes on a recommended level among levels σ [K]."""
    notes = []
    if found.levels_wanted is not None:
        notes.append(
            f"coarse_grid: {len(sigma)} levels from σ = {sigma[0]:.4g} to {sigma[-1]:.4g} place the minimum poorly; "
            f"take `num_levels={found.levels_wanted}`"
        )
    ends = (("lowest", sigma[0], "smaller"), ("highest", sigma[-1], "larger"))
    for (which, level, beyond), is_open in zip(ends, (found.low_is_open, found.high_is_open), strict=True):
        if is_open:
            notes.append(
                f"window_open: the window reaches the {which} level measured, σ = {level:.4g}; what lies beyond is not "
                f"known: sweep {beyond} levels, or take more images"
            )
    return notes


def _against_minimum(icr: FloatArray, y: FloatArray, best: int) -> tuple[FloatArray, FloatArray]:
    """D [K] and t [K] of every level against the minimum; t is 0 where there is no scatter to test against."""
    rise = np.log(icr / icr[best])
    se = jackknife_se(y - y[:, best : best + 1])
    return np.asarray(rise), np.divide(rise, se, out=np.zeros_like(rise), where=se > 0)


def _shape(rise: FloatArray, t: FloatArray, best: int, dof: int) -> str | None:
    end = len(rise) - 1
    significant = (t > student_quantile(1 - ALPHA / 2, dof)) & (rise > np.log1p(LEAST_RISE))
    rises_low, rises_high = best > 0 and bool(significant[0]), best < end and bool(significant[-1])
    if rises_low and rises_high:
        return "u"
    if rises_low:
        return "falling" if best >= end - 1 else None
    if rises_high:
        return "rising" if best <= 1 else None
    return "flat"


def _run(inside: NDArray[np.bool_], best: int) -> tuple[int, int]:
    """First and last index of the unbroken run of true values that holds `best`."""
    low = high = best
    while low > 0 and inside[low - 1]:
        low -= 1
    while high < len(inside) - 1 and inside[high + 1]:
        high += 1
    return low, high
