"""Paired and unpaired differences: the vectors, what pairing gains, and what must be refused."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import numpy as np
import pytest
from vectors import expected, features, moments_of

from diffscope.errors import EstimationError, ProtocolMismatch
from diffscope.measure.difference import corrected, paired_difference, unpaired_difference
from diffscope.metrics.icr import IcrEstimate, estimate


def result(noise: float) -> IcrEstimate:
    return estimate(moments_of(features("B", noise), 16))


def test_vectors() -> None:
    a, b, vector = result(1.0), result(1.1), expected("E")
    assert (a.icr, b.icr) == pytest.approx((vector["icr_a"], vector["icr_b"]), rel=1e-6)
    found = paired_difference(a.icr, a.replicates, b.icr, b.replicates)
    assert found.log_ratio == pytest.approx(vector["D"], rel=1e-6)
    assert found.se == pytest.approx(vector["se"], rel=1e-6)
    assert found.t == pytest.approx(vector["t"], rel=1e-6)
    # A tail of 4e-20 magnifies the printed precision of t.
    assert found.p == pytest.approx(vector["p"], rel=1e-5, abs=0)
    assert found.change == pytest.approx(vector["icr_b"] / vector["icr_a"] - 1, rel=1e-6)
    assert found.change_low < found.change < found.change_high


def test_two_blocks_on_paper() -> None:
    """Of two differences the jackknife's error is half their distance, and t on one degree of freedom is Cauchy's.

    What both replicates share, 7 and 5, cancels. P(|T| ≥ 1) = 1/2, and the quantile of .975 is tan(.475π) = 12.7.
    """
    found = paired_difference(0.4, [7.0, 5.0], 0.4 * np.exp(0.1), [7.3, 5.1])
    assert (found.log_ratio, found.se, found.t, found.p) == pytest.approx((0.1, 0.1, 1, 0.5))
    reach = 0.1 * np.tan(0.475 * np.pi)
    assert found.change == pytest.approx(np.exp(0.1) - 1)
    assert (found.change_low, found.change_high) == pytest.approx((np.exp(0.1 - reach) - 1, np.exp(0.1 + reach) - 1))


def test_unpaired_errors_add_in_square_on_the_fewer_degrees_of_freedom() -> None:
    """Errors .3 (of x, 0, −x with three blocks: x·√(4/3)) and .4 (half the distance of two) are .5 together."""
    x = 0.3 * 0.75**0.5
    a, b = (0.4, [x, 0.0, -x]), (0.4 * np.exp(0.5), [1.0, 1.8])
    there, back = unpaired_difference(*a, *b), unpaired_difference(*b, *a)
    assert (there.log_ratio, there.se, there.t, there.p) == pytest.approx((0.5, 0.5, 1, 0.5))
    assert (back.log_ratio, back.se, back.t, back.p) == pytest.approx((-0.5, 0.5, -1, 0.5))


@pytest.mark.parametrize(
    ("alone", "together"),
    [
        ([], []),
        ([0.03], [0.03]),
        # 3 · .01, 2 · .02, 1 · .04; in any order.
        ([0.01, 0.02, 0.04], [0.03, 0.04, 0.04]),
        ([0.04, 0.01, 0.02], [0.04, 0.03, 0.04]),
        # 2 · .02 is below 3 · .015, and none is less than one before it; none is above 1.
        ([0.015, 0.02, 0.9], [0.045, 0.045, 0.9]),
        ([0.8, 0.9], [1.0, 1.0]),
        ([0.0, 0.01], [0.0, 0.01]),
        ([0.02, 0.02], [0.04, 0.04]),
    ],
)
def test_p_corrected_for_their_number(alone: list[float], together: list[float]) -> None:
    assert corrected(alone) == pytest.approx(together)


def test_equal_truths_differ_together_as_seldom_as_one_alone() -> None:
    """Twenty comparisons of nothing: some p is below .05 in 64 % of sweeps, some corrected p in 5 %."""
    p = np.random.default_rng(0).uniform(size=(1000, 20))
    assert np.mean([min(row) < 0.05 for row in p]) > 0.6
    # Four binomial standard deviations of 1000.
    assert abs(np.mean([min(corrected(row.tolist())) < 0.05 for row in p]) - 0.05) < 0.028


def test_exchanging_the_sides_changes_the_sign() -> None:
    a, b = result(1.0), result(1.1)
    there = paired_difference(a.icr, a.replicates, b.icr, b.replicates)
    back = paired_difference(b.icr, b.replicates, a.icr, a.replicates)
    assert (back.log_ratio, back.t) == pytest.approx((-there.log_ratio, -there.t))
    assert (back.se, back.p) == pytest.approx((there.se, there.p))
    assert (1 + back.change_low) * (1 + there.change_high) == pytest.approx(1)


def test_pairing_gains_what_is_shared() -> None:
    a, b = result(1.0), result(1.1)
    paired = paired_difference(a.icr, a.replicates, b.icr, b.replicates)
    unpaired = unpaired_difference(a.icr, a.replicates, b.icr, b.replicates)
    assert unpaired.log_ratio == paired.log_ratio
    assert unpaired.se > 10 * paired.se
    assert paired.p < 1e-10 < unpaired.p


def test_a_result_does_not_differ_from_itself() -> None:
    a = result(1.0)
    found = paired_difference(a.icr, a.replicates, a.icr, a.replicates)
    assert (found.log_ratio, found.se, found.t, found.p, found.change) == (0, 0, 0, 1, 0)


def test_a_difference_without_scatter_is_certain() -> None:
    found = paired_difference(0.2, [-1.0, -1.5], 0.4, [-0.5, -1.0])
    assert found.t is None
    assert found.p == 0


def test_equal_truths_differ_as_often_as_the_level_says() -> None:
    # The same λ on average but another spectrum, common images, correlated noise.
    p = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        s, xi = rng.standard_normal((128, 1, 8)), rng.standard_normal((128, 2, 8))
        other = 0.95**0.5 * xi + 0.05**0.5 * rng.standard_normal(xi.shape)
        a = estimate(moments_of(s + xi, 16))
        b = estimate(moments_of(s * np.sqrt(np.linspace(0.5, 1.5, 8)) + other, 16))
        p.append(paired_difference(a.icr, a.replicates, b.icr, b.replicates).p)
    # Nominal 5 of 100, and four binomial standard deviations.
    assert np.sum(np.array(p) < 0.05) <= 13


@pytest.mark.parametrize("replicates", [None, [None, -1.0], [-1.0], [float("nan"), -1.0]])
def test_a_result_without_replicates_is_refused(replicates: object) -> None:
    with pytest.raises(EstimationError, match="replicates"):
        paired_difference(0.2, [-1.0, -1.5], 0.4, replicates)


@pytest.mark.parametrize("icr", [0.0, -0.2, float("nan"), float("inf")])
def test_what_has_no_logarithm_is_refused_on_either_side(icr: float) -> None:
    for difference in (paired_difference, unpaired_difference):
        for a, b in ((0.2, icr), (icr, 0.2)):
            with pytest.raises(EstimationError, match=f"icr {icr} with 2 block replicates"):
                difference(a, [-1.0, -1.5], b, [-1.0, -1.5])


def test_other_numbers_of_blocks_are_refused() -> None:
    with pytest.raises(ProtocolMismatch, match="2 and 3 block replicates"):
        paired_difference(0.2, [-1.0, -1.5], 0.4, [-1.0, -1.5, -1.2])
