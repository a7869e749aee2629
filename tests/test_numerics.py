"""Linear algebra and distributions against what NumPy and tables say."""

from __future__ import annotations

import numpy as np
import pytest

from diffscope import numerics
from diffscope.errors import IllConditioned


@pytest.fixture
def spd() -> numerics.FloatArray:
    x = np.random.default_rng(0).standard_normal((40, 7))
    return numerics.symmetrise(x.T @ x)


def test_the_inverse_is_one_triangle_of_the_inverse(spd: numerics.FloatArray) -> None:
    before = spd.copy()
    lower = numerics.spd_inverse(spd)
    np.testing.assert_array_equal(spd, before)
    assert not np.triu(lower, 1).any()
    np.testing.assert_allclose(numerics.mirrored(lower) @ spd, np.eye(7), atol=1e-12)


def test_products_need_one_triangle(spd: numerics.FloatArray) -> None:
    other = numerics.symmetrise(np.random.default_rng(1).standard_normal((7, 7)))
    lower, full = numerics.spd_inverse(spd), np.linalg.inv(spd)
    assert numerics.trace_of_product(lower, other) == pytest.approx(np.trace(full @ other), rel=1e-12)
    columns = np.random.default_rng(2).standard_normal((7, 2))
    np.testing.assert_allclose(numerics.symmetric_product(lower, columns), full @ columns, rtol=1e-10)


@pytest.mark.parametrize("diagonal", [[1.0, 0.0], [1.0, -1.0]])
def test_an_indefinite_matrix_has_no_inverse(diagonal: list[float]) -> None:
    with pytest.raises(IllConditioned, match="not positive definite"):
        numerics.spd_inverse(np.diag(diagonal))
    assert numerics.reciprocal_condition(np.diag(diagonal)) == 0


def test_packing_is_lossless(spd: numerics.FloatArray) -> None:
    packed = numerics.pack_lower(spd)
    assert packed.shape == (28,)
    np.testing.assert_array_equal(numerics.unpack_lower(packed), spd)


def test_reciprocal_condition_of_a_diagonal() -> None:
    assert numerics.reciprocal_condition(np.diag([1.0, 1e-6])) == pytest.approx(1e-6)


def test_eigenvalues_decrease(spd: numerics.FloatArray) -> None:
    np.testing.assert_allclose(numerics.eigenvalues(np.diag([1.0, 3.0, 2.0])), [3, 2, 1])
    np.testing.assert_allclose(numerics.generalised_eigenvalues(2 * spd, spd), 2 * np.ones(7))


def test_generalised_eigenvalues_need_a_definite_matrix(spd: numerics.FloatArray) -> None:
    with pytest.raises(IllConditioned):
        numerics.generalised_eigenvalues(spd, np.zeros((7, 7)))


def test_distributions_against_tables() -> None:
    # Printed tables of Student's t and of F.
    assert numerics.student_quantile(0.975, 15) == pytest.approx(2.1314, abs=1e-4)
    assert numerics.student_two_sided(-2.1314, 15) == pytest.approx(0.05, abs=1e-5)
    assert numerics.f_tail(3.4780, 4, 10) == pytest.approx(0.05, abs=1e-5)


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    x = np.random.default_rng(0).standard_normal(16)
    left_out = (x.sum() - x) / 15
    assert numerics.jackknife_se(left_out) == pytest.approx(x.std(ddof=1) / 4, rel=1e-12)


def test_entropy_rank_counts_equal_weights() -> None:
    assert numerics.entropy_rank(np.array([2.0, 2.0, 2.0, 0.0])) == pytest.approx(3)
    assert numerics.entropy_rank(np.array([1.0, 0.0]), floor=1e-7) > 1


def test_power_law() -> None:
    np.testing.assert_allclose(numerics.power_law(3, 2.0), [1, 1 / 4, 1 / 9])
