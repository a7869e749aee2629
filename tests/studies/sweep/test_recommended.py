"""The recommended level: curves of known minimum and measured ones, thinned out and with noise; its window."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from commands import DATA

from diffscope.numerics import FloatArray, jackknife_se, student_quantile
from diffscope.studies.sweep.recommended import (
    ALPHA,
    grid_error,
    grid_step,
    minimum,
    natural_spline,
    recommend,
    scatter_of_minimum,
)
from diffscope.studies.sweep.window import semantic_window

MEASURED = json.loads((DATA / "measured_curves.json").read_text())
"""Five layers of two networks at 34 noise levels: x = log10 σ, log ICR, 16 replicates of it."""
BLOCKS = 16


def measured(number: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """x [34], log ICR [34] and replicates [16, 34]."""
    curve = MEASURED[number]
    return np.array(curve["log10_sigma"]), np.array(curve["log_icr"]), np.array(curve["replicates"])


def steep(x: FloatArray) -> FloatArray:
    """Log ICR with its minimum at x = −1.2: nearly flat to the left, nine times as curved to the right, 0 beyond."""
    right = np.maximum(x + 1.2, 0)
    return np.where(x < -1.2, -0.7 + 0.03 * (x + 1.2) ** 2, np.minimum(0, -0.7 + 0.27 * right**2 + 0.01 * right**3))


def draws(
    curve: Callable[[FloatArray], FloatArray], scatter: FloatArray, x: FloatArray, levels: int, count: int
) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
    """Sweeps of `levels` over a part of x that is drawn anew each time; errors with the covariance of `scatter`, the
    replicates' deviations [16, K] at x."""
    rng = np.random.default_rng(levels)
    found = []
    for _ in range(count):
        at = np.linspace(x[0] + rng.uniform(0, 0.3), x[-1] - rng.uniform(0, 0.3), levels)
        error = np.sqrt((BLOCKS - 1) / BLOCKS) * rng.standard_normal(BLOCKS) @ scatter
        spread = natural_spline(x, np.column_stack([error, (scatter + error).T]))(at)
        found.append((at, curve(at) + spread[:, 0], curve(at) + spread[:, 1:].T))
    return found


@pytest.mark.parametrize("levels", [12, 8, 6])
@pytest.mark.parametrize("number", [*range(5), None])
def test_two_errors_hold_the_true_minimum(number: int | None, levels: int) -> None:
    """Nominal 95 %; of 60 draws at least nine in ten, on measured curves and on one with a kink in its curvature."""
    x, log_icr, replicates = measured(number or 0)
    scatter = replicates - replicates.mean(0)
    curve, truth = (natural_spline(x, log_icr), minimum(x, log_icr)) if number is not None else (steep, -1.2)
    held, inside = [], []
    for at, values, y in draws(curve, scatter, x, levels, 60):
        best = int(np.argmin(values))
        if 0 < best < levels - 1:
            found = recommend(at, values, y, best)
            held.append(abs(found.x - truth) <= 2 * found.se)
            inside.append(found.low <= found.x <= found.high)
    assert len(held) >= 50
    assert np.mean(held) >= 0.9
    assert all(inside)


@pytest.mark.parametrize(("levels", "bias", "worst"), [(12, 0.05, 0.08), (8, 0.05, 0.13), (6, 0.15, 0.35)])
def test_thinned_curves_keep_their_minimum(levels: int, bias: float, worst: float) -> None:
    """Without noise, at every offset of the grid. A parabola through five points is off by 0.3 to 0.7 decades here."""
    for number in range(5):
        x, log_icr, _ = measured(number)
        fine, truth = natural_spline(x, log_icr), minimum(x, log_icr)
        step = (x[-1] - x[0]) / levels
        errors = []
        for offset in np.linspace(0, step, 9):
            at = x[0] + offset + step * np.arange(levels)
            errors.append(minimum(at, fine(at)) - truth)
        assert abs(np.mean(errors)) <= bias
        assert np.max(np.abs(errors)) <= worst


def test_a_minimum_between_levels_in_closed_form() -> None:
    """Four levels, log ICR 3, 0, 0, 3: the natural spline is symmetric about the middle."""
    x, curve = np.array([0.0, 1.0, 2.0, 3.0]), np.array([3.0, 0.0, 0.0, 3.0])
    # Second derivatives M: 4M + M = 6 · 3 at both inner levels, so 18/5; the value there is −M/8.
    assert minimum(x, curve, 1) == pytest.approx(1.5)
    assert natural_spline(x, curve)(1.5) == pytest.approx(-18 / 5 / 8)
    # The neighbours bound it, and an end of the range is its own minimum.
    assert minimum(x, np.array([0.0, 1.0, 2.0, 3.0])) == 0.0
    assert minimum(x, np.array([3.0, 2.0, 1.0, 0.0])) == 3.0


def test_the_error_is_that_of_the_images_and_that_of_the_grid() -> None:
    x, log_icr, y = measured(0)
    x, log_icr, y = x[::3], log_icr[::3], y[:, ::3]
    best = int(np.argmin(log_icr))
    found = recommend(x, log_icr, y, best)
    minima = np.array([minimum(x, replicate) for replicate in y])
    images = np.sqrt(15 / 16 * np.sum((minima - minima.mean()) ** 2))
    assert scatter_of_minimum(x, y) == pytest.approx(images)
    step = (x[best + 1] - x[best - 1]) / 2
    assert grid_step(x, best) == pytest.approx(step)
    assert found.se == pytest.approx(np.hypot(images, step / 4))
    assert [grid_error(1.0, levels) for levels in (5, 6, 12)] == [1.0, 0.25, 0.25]


def test_five_levels_recommend_the_lowest_with_a_step_as_error() -> None:
    x = np.array([-3.0, -2.0, -1.0, 0.0, 1.0])
    log_icr = np.array([-0.5, -0.6, -0.7, -0.3, 0.0])
    y = np.tile(log_icr, (BLOCKS, 1)) + 1e-3 * np.random.default_rng(0).standard_normal((BLOCKS, 5))
    found = recommend(x, log_icr, y, 2)
    assert (found.x, found.se) == (-1.0, 1.0)
    assert found.levels_wanted == 12  # four decades at 0.36


@pytest.mark.parametrize(
    ("levels", "span", "wanted"), [(12, 4.0, None), (7, 2.5, None), (6, 2.0, 7), (7, 4.0, 12), (9, 4.0, 12)]
)
def test_a_coarse_grid_says_how_many_levels_would_do(levels: int, span: float, wanted: int | None) -> None:
    x = np.linspace(0, span, levels)
    middle = x[levels // 2]
    log_icr = (x - middle) ** 2 - 3
    y = np.tile(log_icr, (BLOCKS, 1)) + 1e-3 * np.random.default_rng(0).standard_normal((BLOCKS, levels))
    assert recommend(x, log_icr, y, levels // 2).levels_wanted == wanted
    # Of a range that is wider than its levels are dense, the note names the option and the number.
    found = semantic_window(10**x, np.exp(log_icr), y)
    assert any(f"`num_levels={wanted}`" in note for note in found.notes) is (wanted is not None)


def test_the_window_ends_where_the_paired_difference_becomes_significant() -> None:
    x, log_icr, y = measured(1)
    x, log_icr, y = x[::3], log_icr[::3], y[:, ::3]
    found = recommend(x, log_icr, y, int(np.argmin(log_icr)))
    whole, parts = natural_spline(x, log_icr), natural_spline(x, y.T)
    limit = student_quantile(1 - ALPHA / (len(x) - 1), BLOCKS - 1)

    def t(at: float) -> float:
        rise = float(whole(at) - whole(found.x))
        return rise / float(jackknife_se(parts(at) - parts(found.x)))

    assert x[0] < found.low < found.x < found.high < x[-1]
    assert (found.low_is_open, found.high_is_open) == (False, False)
    for end, outwards in ((found.low, -1), (found.high, 1)):
        assert t(end) == pytest.approx(limit, rel=1e-4)
        assert t(end + outwards * 1e-4) > limit
        assert t(end - outwards * 1e-4) < limit


def test_a_window_that_reaches_the_end_says_so() -> None:
    x = np.linspace(-2, 1, 8)
    log_icr = 0.05 * (x + 0.5) ** 2 - 0.7
    rng = np.random.default_rng(0)
    y = log_icr + np.outer(rng.standard_normal(BLOCKS), 0.3 * x)  # all of the scatter is a tilt
    found = recommend(x, log_icr, y, int(np.argmin(log_icr)))
    assert (found.low, found.low_is_open) == (x[0], True)
    assert (found.high, found.high_is_open) == (x[-1], True)
