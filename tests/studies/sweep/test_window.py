"""The semantic window: the vectors, the five shapes, and curves with gaps."""

from __future__ import annotations

import numpy as np
import pytest
from vectors import expected, moments_of

from diffscope.errors import EstimationError
from diffscope.metrics.icr import estimate
from diffscope.numerics import FloatArray
from diffscope.studies.sweep.window import semantic_window

SIGMA = np.logspace(-2, 1, 7)


def codes(notes: tuple[str, ...]) -> set[str]:
    return {note.split(":")[0] for note in notes}


@pytest.fixture(scope="module")
def curve() -> tuple[FloatArray, FloatArray, FloatArray]:
    """Case F: σ [7], ICR [7], replicates [16, 7]."""
    rng = np.random.default_rng(1)
    x = np.linspace(-2, 1, 7)
    m = 1 / (0.35 + 0.10 * ((x + 0.5) / 1.5) ** 2) - 1
    s, xi = rng.standard_normal((480, 6)), rng.standard_normal((480, 2, 6))
    found = []
    for k in range(7):
        if k:
            xi = 0.9 * xi + np.sqrt(0.19) * rng.standard_normal((480, 2, 6))
        found.append(estimate(moments_of(np.sqrt(m[k]) * s[:, None, :] + xi, 16)))
    np.testing.assert_allclose([e.se_log for e in found], expected("F_curve")["se_logT"], rtol=1e-6)
    return 10**x, np.array([e.icr for e in found]), np.stack([e.replicates for e in found], axis=1)


def made(levels: list[float], noise: float = 1e-3) -> tuple[FloatArray, FloatArray, FloatArray]:
    """A curve of these ICRs with replicates that scatter independently by `noise`."""
    icr = np.array(levels)
    scatter = noise * np.random.default_rng(0).standard_normal((16, len(icr)))
    return np.logspace(-2, 1, len(icr)), icr, np.log(icr) + scatter


def test_vectors(curve: tuple[FloatArray, FloatArray, FloatArray]) -> None:
    sigma, icr, replicates = curve
    vector = expected("F_curve")
    np.testing.assert_allclose(icr, vector["icr"], rtol=1e-6)
    found = semantic_window(sigma, icr, replicates)
    assert found.shape == "u"
    np.testing.assert_allclose(found.t, vector["t"], rtol=1e-6)
    assert found.minimum == sigma[3]
    assert found.near == (sigma[3],)
    assert found.low < found.sigma < found.high
    assert found.icr == icr[3]
    assert found.practical == (sigma[3], sigma[3])
    assert found.contiguous
    assert codes(found.notes) == {"coarse_grid"}


def test_vectors_of_the_rising_half(curve: tuple[FloatArray, FloatArray, FloatArray]) -> None:
    sigma, icr, replicates = (values[..., 3:] for values in curve)
    vector = expected("F_curve_monotone")
    found = semantic_window(sigma, icr, replicates)
    assert found.shape == "rising"
    assert found.sigma is None
    assert found.minimum == sigma[0]
    np.testing.assert_allclose(found.t, vector["t"], rtol=1e-6)
    assert codes(found.notes) == {"few_levels"}


@pytest.mark.parametrize(
    ("levels", "shape"),
    [
        ([0.5, 0.45, 0.42, 0.4, 0.42, 0.45, 0.5], "u"),
        ([0.40, 0.42, 0.44, 0.46, 0.48, 0.50, 0.52], "rising"),
        ([0.52, 0.50, 0.48, 0.46, 0.44, 0.42, 0.40], "falling"),
        # Ends less than 2 % above the minimum are flat however small the error.
        ([0.402, 0.401, 0.4, 0.4, 0.4, 0.401, 0.402], "flat"),
        # The minimum lies inside, and one end is as low.
        ([0.401, 0.42, 0.42, 0.4, 0.42, 0.45, 0.5], None),
    ],
)
def test_shapes(levels: list[float], shape: str | None) -> None:
    found = semantic_window(*made(levels))
    assert found.shape == shape
    assert (found.sigma is not None) is (shape == "u")
    assert ("window_unclear" in codes(found.notes)) is (shape is None)


def test_scatter_turns_a_u_into_a_flat_curve() -> None:
    sigma, icr, y = made([0.5, 0.45, 0.42, 0.4, 0.42, 0.45, 0.5], noise=0.3)
    found = semantic_window(sigma, icr, y)
    assert found.shape == "flat"
    assert (found.low, found.high) == (sigma[0], sigma[-1])


def test_a_window_holds_the_lowest_level_and_those_that_are_as_low() -> None:
    """Between levels 2 and 3 the curve dips: it can be told from both, but neither level from the other."""
    sigma, icr, y = made([0.6, 0.5, 0.4, 0.4001, 0.5, 0.6, 0.7], noise=2e-3)
    found = semantic_window(sigma, icr, y)
    assert found.minimum == sigma[2]
    assert sigma[2] < found.sigma < sigma[3]
    assert found.low <= sigma[2]
    assert found.high >= sigma[3]
    assert found.near == (sigma[2], sigma[3])


def test_practical_levels_are_within_a_tenth_of_the_depth() -> None:
    found = semantic_window(*made([0.50, 0.45, 0.409, 0.40, 0.409, 0.411, 0.50]))
    assert found.practical == pytest.approx((SIGMA[2], SIGMA[4]))


def test_two_minima_are_not_contiguous() -> None:
    found = semantic_window(*made([0.5, 0.4, 0.45, 0.4001, 0.45, 0.47, 0.5]))
    assert found.near == pytest.approx((SIGMA[1], SIGMA[3]))
    assert SIGMA[0] < found.low < found.sigma < found.high < SIGMA[2]
    assert not found.contiguous
    assert "not_contiguous" in codes(found.notes)


def test_levels_without_icr_are_skipped_by_name() -> None:
    sigma, icr, y = made([0.5, 0.45, 0.42, 0.4, 0.42, 0.45, 0.5, 0.6])
    gaps: list[float | None] = [*icr[:-1], None]
    y[:, 0] = np.nan
    found = semantic_window(sigma, gaps, y)
    assert codes(found.notes) == {"levels_skipped", "coarse_grid"}
    assert "0.01, 10" in found.notes[0]
    kept = semantic_window(sigma[1:-1], icr[1:-1], y[:, 1:-1])
    assert (found.shape, found.sigma, found.t) == (kept.shape, kept.sigma, kept.t)


def test_order_does_not_matter(curve: tuple[FloatArray, FloatArray, FloatArray]) -> None:
    sigma, icr, replicates = curve
    order = np.array([3, 0, 6, 1, 5, 2, 4])
    assert semantic_window(sigma[order], icr[order], replicates[:, order]) == semantic_window(sigma, icr, replicates)


@pytest.mark.parametrize("count", [0, 1])
def test_one_level_has_no_shape(count: int) -> None:
    sigma, icr, y = (values[..., :count] for values in made([0.5, 0.4]))
    found = semantic_window(sigma, icr, y)
    assert found.shape is None
    assert found.sigma is None
    assert found.minimum == (sigma[0] if count else None)
    assert codes(found.notes) == {"few_levels"}


def test_shapes_that_do_not_fit_are_refused() -> None:
    sigma, icr, y = made([0.5, 0.4, 0.5])
    for wrong in ((sigma, icr, y.T), (sigma, icr[:2], y), (sigma - 1, icr, y)):
        with pytest.raises(EstimationError, match="expected"):
            semantic_window(*wrong)
