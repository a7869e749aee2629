"""The rules that give a curve its shape, one at a time: what counts as a rise, and where the minimum may lie."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import hadamard

from diffscope.studies.window import Window, semantic_window

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
