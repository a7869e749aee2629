"""The noise level to recommend, and the window around it, read off a curve through the levels that were measured.

The curve S is the natural cubic spline through log ICR over x = log10 σ, all levels of one layer. Recommended is its
minimum x* between the two neighbours of the lowest level. To the right of its minimum ICR rises steeply to 1, to the
left it is nearly flat: a parabola, which is symmetric, is pulled to the left by the steep arm, and on a coarse grid
out of its own window.

The error of x* is that of the images (jackknife of the minimum of each replicate's curve) and that of the grid, a
quarter of the step around the lowest level. On each of five measured curves two such errors held the truth in all of
150 draws at 12, 8, 7 and 6 levels, and in 89 to 100 % on curves whose curvature jumps at the minimum, by up to 14
times; an eighth of the step would do for the former (88 % and more), but not for the latter (45 %). With five levels or
fewer no curve helps: the lowest level itself is recommended, give or take a step. `scripts/simulate_window.py` remakes
this.

`low` and `high` bound all x around x* whose difference S(x) − S(x*) is not significant: at most t_{1−α/(K−1)} times its
paired jackknife error, on G − 1 degrees of freedom. That speaks of the images alone, and on a coarse grid, where the
curve itself is off by more, they may miss the truth: the window (`window.py`) holds the levels as well that
cannot be told from the lowest one.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from diffscope.numerics import FloatArray, jackknife_se, student_quantile

if TYPE_CHECKING:
    from scipy.interpolate import CubicSpline

ALPHA = 0.05
"""Error of all comparisons with the minimum together; each has its share of it."""
FINE_STEP, COARSE_STEP = 0.36, 0.45
"""Decades between levels: of a sweep by default, and above which a minimum is poorly placed."""
FEWEST_LEVELS = 7
"""Below which a minimum is poorly placed, too."""
NO_CURVE = 5
"""Levels up to which the minimum of the curve errs by as much as the lowest level."""
POINTS_A_DECADE = 20
"""At which the curve's difference from its minimum is tested before the ends are bisected."""
HALVINGS = 30


@dataclass(frozen=True)
class Recommendation:
    """x* and its window, in decades (log10 σ)."""

    x: float
    se: float
    """Standard error of `x`."""
    low: float
    """Lower end of the window."""
    high: float
    """Upper end."""
    low_is_open: bool
    """Whether the window goes on at the first level measured, beyond which nothing is known."""
    high_is_open: bool
    """The same at the last level."""
    levels_wanted: int | None
    """Levels over the same range that would place the minimum well; None where these do."""


def recommend(x: FloatArray, log_icr: FloatArray, y: FloatArray, best: int) -> Recommendation:
    """Of rising x = log10 σ [K], log ICR [K] and its block replicates y [G, K]; `best` is the lowest level, inside."""
    curve = natural_spline(x, np.column_stack([log_icr, y.T]))
    step, levels = grid_step(x, best), len(x)
    if levels <= NO_CURVE:
        at, scatter = float(x[best]), 0.0
    else:
        at, scatter = minimum(x, log_icr, best), scatter_of_minimum(x, y)
    quantile = student_quantile(1 - ALPHA / (levels - 1), len(y) - 1)
    low, low_is_open = _end_of_window(curve, at, float(x[0]), quantile)
    high, high_is_open = _end_of_window(curve, at, float(x[-1]), quantile)
    coarse = levels < FEWEST_LEVELS or step > COARSE_STEP
    return Recommendation(
        x=at,
        se=float(np.hypot(scatter, grid_error(step, levels))),
        low=low,
        high=high,
        low_is_open=low_is_open,
        high_is_open=high_is_open,
        levels_wanted=max(FEWEST_LEVELS, round((x[-1] - x[0]) / FINE_STEP) + 1) if coarse else None,
    )


def natural_spline(x: FloatArray, curves: FloatArray) -> CubicSpline:
    """Through `curves`, [K] or [K, M], over rising x [K]."""
    from scipy.interpolate import CubicSpline  # half a second to import, for commands that find no window as well

    return CubicSpline(x, curves, bc_type="natural")


def minimum(x: FloatArray, log_icr: FloatArray, best: int | None = None) -> float:
    """Lowest point of the natural cubic spline between the neighbours of level `best`.

    That is the level of the lowest ICR unless another rule settled on one; an end of x is its own minimum.
    """
    best = int(np.argmin(log_icr)) if best is None else best
    if best in (0, len(x) - 1):
        return float(x[best])
    curve = natural_spline(x, log_icr)
    turning = curve.derivative().roots(extrapolate=False)
    near = x[best - 1 : best + 2]
    candidates = np.concatenate([near, turning[(turning > near[0]) & (turning < near[-1])]])
    return float(candidates[np.argmin(curve(candidates))])


def scatter_of_minimum(x: FloatArray, y: FloatArray) -> float:
    """Standard error of `minimum` in decades, as far as it comes from the images: from replicates [G, K] of log ICR."""
    return float(jackknife_se([minimum(x, replicate) for replicate in y]))


def grid_step(x: FloatArray, best: int) -> float:
    """Half the distance between the neighbours of a level inside of x, in decades."""
    return float(x[best + 1] - x[best - 1]) / 2


def grid_error(step: float, levels: int) -> float:
    """Standard error of the minimum, in decades, that comes of measuring at so many levels, a `step` apart."""
    return step if levels <= NO_CURVE else step / 4


def _end_of_window(curve: CubicSpline, at: float, end: float, quantile: float) -> tuple[float, bool]:
    """How far from `at` towards `end` no point is significantly higher, and whether that holds up to `end`."""

    def is_higher(points: FloatArray) -> FloatArray:
        values = curve(points) - curve(at)
        return np.asarray(values[:, 0] > quantile * np.asarray(jackknife_se(values[:, 1:].T)))

    points = np.linspace(at, end, 1 + ceil(POINTS_A_DECADE * abs(end - at)))
    higher = is_higher(points)
    if not higher.any():
        return end, True
    first = int(np.argmax(higher))
    inside, outside = points[first - 1], points[first]
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if is_higher(np.array([middle]))[0] else (middle, outside)
    return float(inside), False
