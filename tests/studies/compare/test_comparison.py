"""Two results row by row: what is significant among many rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from diffscope.results import Result, Row
from diffscope.studies.compare.compare import EACH_TWO, compare, compare_each_two

ZIGZAG = np.where(np.arange(16) % 2, 1.0, -1.0) / np.sqrt(15)
"""Replicates whose jackknife SE is 1: Σ z² = G/(G−1)."""


def row(level: int, rise: float, se: float, **changed: Any) -> Row:
    icr = 0.4 * float(np.exp(rise))
    values = {"icr": icr, "replicates": (np.log(icr) + se * ZIGZAG).tolist(), **changed}
    return Row(layer="mid", sigma=0.1 * (level + 1), t=0.0, n=1000, d=8, **values)


def result(rows: list[Row]) -> Result:
    return Result("0", "sweep", {}, {"skipped": []}, {}, tuple(rows))


def compared(t: list[float | None]) -> list[dict[str, Any]]:
    """Rises by t standard errors of 1 %; None for a row without an ICR."""
    old = [row(level, 0.0, 0.0) for level in range(len(t))]
    new = [
        row(level, 0.0, 0.01, icr=None) if rise is None else row(level, 0.01 * rise, 0.01)
        for level, rise in enumerate(t)
    ]
    return list(compare(result(old), result(new))["rows"])


def test_a_row_among_many_must_be_clearer_than_one_alone() -> None:
    """t_15 = 2.5 is p = .0245: significant alone, and not of ten rows; t = 4 is .0012, of ten rows .012."""
    (alone,) = compared([2.5])
    assert alone["p"] == alone["p_corrected"] == pytest.approx(0.0245, abs=1e-4)
    assert alone["significant"] is True
    first, second, *others = compared([2.5, 4.0] + [0.0] * 8)
    assert first["p"] == alone["p"]
    assert (first["p_corrected"], first["significant"]) == (pytest.approx(9 * alone["p"]), False)
    assert (second["p_corrected"], second["significant"]) == (pytest.approx(0.0116, abs=1e-4), True)
    assert {(other["p_corrected"], other["significant"]) for other in others} == {(1.0, False)}


def test_rows_that_cannot_be_compared_are_not_counted() -> None:
    found = compared([2.5, None, None])
    assert found[0]["significant"] is True
    assert [(one["p"], one["p_corrected"], one["significant"]) for one in found[1:]] == [(None, None, None)] * 2


def test_rows_that_are_the_same_are_counted() -> None:
    """A test that cannot fail is a test: at two rows .0245 is .049, at three no longer significant."""
    for same, significant in ((1, True), (2, False)):
        old, new = (
            [row(0, rise, se), *(row(level, 0, 0) for level in range(1, 1 + same))]
            for rise, se in ((0, 0), (0.025, 0.01))
        )
        found = compare(result(old), result(new))["rows"]
        assert [one["p_corrected"] for one in found[1:]] == [1.0] * same
        assert found[0]["significant"] is significant


@pytest.mark.parametrize(("count", "pairs"), [(2, 1), (3, 3), (6, 15), (7, 6)])
def test_of_few_results_each_two_are_compared_and_of_many_each_with_the_first(count: int, pairs: int) -> None:
    found = compare_each_two([result([row(0, 0.0, 0.1)])] * count)
    assert len(found) == pairs
    assert all(old < new for old, new in found)
    if count > EACH_TWO:
        assert {old for old, _ in found} == {0}
