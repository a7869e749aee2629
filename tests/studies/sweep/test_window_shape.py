"""The rules that give a curve its shape, one at a time: what counts as a rise, and where the minimum may lie."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import hadamard

from diffscope.errors import EstimationError
from diffscope.studies.sweep.recommended import recommend
from diffscope.studies.sweep.window import Window, semantic_window

G = 16
WAVES = hadamard(G)[1:] / np.sqrt(G - 1)
"""Replicates, a row each, whose jackknife SE is 1 (Σ z² = G/(G−1)) and whose errors have nothing in common."""


def window(rises: list[float], errors: list[float] | float, shared: float = 0.0) -> Window:
    """Of log ICR above log 0.4 by level, with standard errors that are each level's own, and one common to all."""
    own = np.broadcast_to(errors, (len(rises),))
    y = np.log(0.4) + np.array(rises) + (own[:, None] * WAVES[: len(rises)] + shared * WAVES[-1]).T
    return semantic_window(np.geomspace(0.01, 10, len(rises)), 0.4 * np.exp(rises), y)


def code(found: Window) -> set[str]:
    return {note.split(":")[0] for note in found.notes}


QUANTILE = 2.1314495
"""t_15(.975): an end is above the minimum at 5 %, two-sided, whatever the number of levels."""


@pytest.mark.parametrize(("factor", "risen"), [(0.999, False), (1.001, True)])
def test_an_end_is_tested_at_five_per_cent_in_pairs(factor: float, risen: bool) -> None:
    """Errors of .04 in the end alone; the .3 that all levels share cancels."""
    rise = factor * QUANTILE * 0.04
    middle = [0.02] * 3
    assert window([0.0, *middle, rise], [0, 0, 0, 0, 0.04], 0.3).shape == ("rising" if risen else "flat")
    assert window([rise, *middle, 0.0], [0.04, 0, 0, 0, 0], 0.3).shape == ("falling" if risen else "flat")
    both = window([rise, 0.01, 0.0, 0.01, 0.5], [0.04, 0, 0, 0, 0.01], 0.3)
    assert both.shape == ("u" if risen else None)


@pytest.mark.parametrize(("rise", "risen"), [(0.0199, False), (0.0201, True)])
def test_two_per_cent_are_the_least_rise(rise: float, risen: bool) -> None:
    """log 1.0199 and log 1.0201, both far beyond any error; 2 % of log ICR (1.0199 = e^.0197) are not asked for."""
    up = float(np.log1p(rise))
    assert window([0.0, 0.01, 0.01, 0.01, up], 1e-6).shape == ("rising" if risen else "flat")
    assert window([up, 0.01, 0.01, 0.01, 0.0], 1e-6).shape == ("falling" if risen else "flat")


@pytest.mark.parametrize(
    ("rises", "shape"),
    [
        # The lowest level is the end or next to it: a curve that rises, or falls, but for one level.
        ([0.0, 0.1, 0.2, 0.3, 0.4], "rising"),
        ([0.01, 0.0, 0.2, 0.3, 0.4], "rising"),
        ([0.01, 0.2, 0.0, 0.3, 0.4], None),
        ([0.01, 0.2, 0.3, 0.0, 0.4], None),
        ([0.4, 0.3, 0.2, 0.1, 0.0], "falling"),
        ([0.4, 0.3, 0.2, 0.0, 0.01], "falling"),
        ([0.4, 0.3, 0.0, 0.2, 0.01], None),
        ([0.4, 0.0, 0.3, 0.2, 0.01], None),
        # Wherever the lowest level lies, two ends that rise are a U, and none that does is flat.
        ([0.1, 0.0, 0.2, 0.3, 0.4], "u"),
        ([0.4, 0.3, 0.2, 0.0, 0.1], "u"),
        ([0.01, 0.3, 0.0, 0.3, 0.01], "flat"),
    ],
)
def test_where_the_lowest_level_may_lie(rises: list[float], shape: str | None) -> None:
    found = window(rises, 1e-4)
    assert found.shape == shape
    assert ("window_unclear" in code(found)) is (shape is None)


def test_a_fall_that_is_not_significant_is_flat() -> None:
    """As is a rise: 20 % with a standard error of 10 %."""
    fall = [0.2, 0.15, 0.1, 0.05, 0.0]
    assert window(fall, [0.1, 0.0, 0.0, 0.0, 0.0]).shape == "flat"
    assert window(fall, [0.09, 0.0, 0.0, 0.0, 0.0]).shape == "falling"
    assert window(fall[::-1], [0.0, 0.0, 0.0, 0.0, 0.1]).shape == "flat"
    assert window(fall[::-1], [0.0, 0.0, 0.0, 0.0, 0.09]).shape == "rising"


def test_t_is_the_paired_difference_from_the_lowest_over_its_error() -> None:
    """Where the lowest has an error of its own it counts, and adds in square."""
    found = window([0.3, 0.0, 0.1, 0.2, 0.4], [0.03, 0.04, 0.03, 0.0, 0.03], 0.5)
    assert found.t == pytest.approx((0.3 / 0.05, 0, 0.1 / 0.05, 0.2 / 0.04, 0.4 / 0.05))
    # Without any scatter there is nothing to test against.
    assert window([0.3, 0.0, 0.1, 0.2, 0.4], 0.0).t == (0, 0, 0, 0, 0)


@pytest.mark.parametrize(("levels", "quantile"), [(2, 1.7531), (3, 2.1314), (5, 2.4899), (9, 2.8366)])
def test_the_window_is_corrected_for_the_levels_that_are_compared(levels: int, quantile: float) -> None:
    """t_15(1 − .05/(K − 1)), on either side of it; one-sided, as no level can be lower than the lowest."""
    sigma = np.geomspace(0.01, 10, levels)
    for factor, inside in ((0.999, True), (1.001, False)):
        rises = [0.0, factor * quantile * 0.01, *[0.5] * (levels - 2)]
        errors = [0.0, *[0.01] * (levels - 1)]
        rising, falling = window(rises, errors, 0.3), window(rises[::-1], errors[::-1], 0.3)
        assert (rising.low, rising.high) == pytest.approx((sigma[0], sigma[1 if inside else 0]))
        assert (falling.low, falling.high) == pytest.approx((sigma[-2 if inside else -1], sigma[-1]))
        assert rising.contiguous
        assert falling.contiguous


def test_the_window_is_the_unbroken_run_around_the_lowest() -> None:
    """Level 3 is as low as the lowest, but level 1 is not."""
    found = window([0.0, 0.1, 0.001, 0.2, 0.3, 0.4], 0.01)
    assert (found.low, found.high, found.contiguous) == (0.01, 0.01, False)
    assert "not_contiguous: 1 levels" in next(note for note in found.notes if note.startswith("not_contiguous"))
    found = window([0.4, 0.001, 0.001, 0.0, 0.1, 0.001], 0.01)
    sigma = np.geomspace(0.01, 10, 6)
    assert (found.low, found.high, found.contiguous) == (pytest.approx(sigma[1]), pytest.approx(sigma[3]), False)
    assert "not_contiguous: 1 levels" in next(note for note in found.notes if note.startswith("not_contiguous"))


def test_the_window_of_a_u_is_that_of_the_levels_and_that_of_the_curve() -> None:
    """Level 4 can be told from the lowest, 3, by ten errors, but lies where the curve is as good as known: what the
    errors of .2 at levels 2 and 5 leave of the difference from the recommended level, between 3 and 4, hides it."""
    rises, errors = [0.5, 0.25, 0.05, 0.0, 0.005, 0.06, 0.5], [0.01, 0.01, 0.2, 5e-4, 5e-4, 0.2, 0.01]
    found = window(rises, errors)
    sigma = np.geomspace(0.01, 10, 7)
    y = np.log(0.4) + np.array(rises) + (np.array(errors)[:, None] * WAVES[:7]).T
    curve = recommend(np.log10(sigma), np.log(0.4) + np.array(rises), y, 3)
    assert found.shape == "u"
    assert found.t[4] > 7
    assert found.low == pytest.approx(min(sigma[2], 10**curve.low))
    assert found.high == pytest.approx(max(sigma[3], 10**curve.high))
    assert found.high > sigma[4]
    assert found.near == pytest.approx(sigma[(sigma >= found.low) & (sigma <= found.high)])
    assert (found.sigma, found.sigma_se) == pytest.approx((10**curve.x, curve.se))


def test_one_level_or_none_is_what_is_near() -> None:
    assert semantic_window([], [], np.zeros((G, 0))).near == ()
    assert semantic_window([0.3], [0.4], np.zeros((G, 1))).near == (0.3,)


@pytest.mark.parametrize("shape", [(2,), (G, 2, 1), (2, G)])
def test_replicates_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(EstimationError, match=r"expected \[K\] above 0, \[K\] and \[G, K\]"):
        semantic_window([0.1, 1.0], [0.4, 0.5], np.zeros(shape))


@pytest.mark.parametrize(("share", "last"), [(0.099, 2), (0.101, 1)])
def test_practical_is_a_tenth_of_the_depth_to_the_lower_end(share: float, last: int) -> None:
    """Ends at .5 and .6 about a lowest ICR of .4: a depth of .1."""
    icr = np.array([0.5, 0.4, 0.4 + share * 0.1, 0.55, 0.6])
    found = window(np.log(icr / 0.4).tolist(), 1e-3)
    sigma = np.geomspace(0.01, 10, 5)
    assert found.practical == pytest.approx((sigma[1], sigma[last]))
    # A curve without depth has one practical level; none is below the lowest.
    flat = window([0.0, 0.05, 0.1, 0.05, 0.0], 1e-3)
    assert flat.practical == pytest.approx((sigma[0], sigma[0]))


@pytest.mark.parametrize(("levels", "few"), [(2, True), (4, True), (5, False)])
def test_few_levels_are_noted(levels: int, few: bool) -> None:
    found = window([0.1 * level for level in range(levels)], 1e-3)
    assert ("few_levels" in code(found)) is few
    assert not few or f"{levels} levels (limit 5)" in found.notes[0]


def test_another_rule_may_settle_the_lowest_level() -> None:
    """Here the second, which is not that of the lowest ICR: differences are from it, and negative where lower."""
    y = np.log([0.5, 0.41, 0.4, 0.6])[:, None] + 0.01 * WAVES[:4]
    order = [2, 0, 3, 1]
    sigma = np.array([0.01, 0.1, 1.0, 10.0])
    found = semantic_window(sigma[order], np.array([0.5, 0.41, 0.4, 0.6])[order], y[order].T, minimum=3)
    assert (found.minimum, found.icr) == (0.1, 0.41)
    assert found.t[1] == 0
    assert found.t[2] == pytest.approx(np.log(0.4 / 0.41) / (0.01 * 2**0.5))
