"""Neighbourhoods on paper, in one dimension; against whole matrices of distances; and what theory expects."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from diffscope.distributions import DENSITY_K, PRECISION_K, NeighborhoodReference, TooFew, samples
from diffscope.numerics import FloatArray


def naive(references: FloatArray, found: FloatArray) -> dict[str, float]:
    """The definitions as they stand in the papers, one after the other."""
    rr, xx, rx = cdist(references, references), cdist(found, found), cdist(references, found)
    of = {k: np.sort(rr, axis=1)[:, k] for k in (1, PRECISION_K, DENSITY_K)}  # 0 is the reference itself
    ours = np.sort(xx, axis=1)[:, PRECISION_K]
    nearest = rx.argmin(0)
    return {
        "precision": np.mean([any(rx[:, j] <= of[PRECISION_K]) for j in range(len(found))]),
        "recall": np.mean([any(rx[i] <= ours) for i in range(len(references))]),
        "density": (rx <= of[DENSITY_K][:, None]).sum() / (DENSITY_K * len(found)),
        "coverage": np.mean([rx[i].min() <= of[DENSITY_K][i] for i in range(len(references))]),
        "authenticity": np.mean([rx[nearest[j], j] > of[1][nearest[j]] for j in range(len(found))]),
    }


def features(count: int, seed: int, d: int = 3, scale: float = 1.0) -> FloatArray:
    return np.asarray(scale * np.random.default_rng(seed).standard_normal((count, d)))


@pytest.mark.parametrize("count", [4, 20, 75])
@pytest.mark.parametrize("chunk", [8, 3000, samples.CHUNK])
def test_they_are_what_the_definitions_say(count: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "CHUNK", chunk)
    references, found = features(50, 0), features(count, 1, scale=1.4)
    measured = NeighborhoodReference(references).measure(found)
    assert {key: one.value for key, one in vars(measured).items()} == pytest.approx(naive(references, found))


def test_errors_are_those_of_leaving_blocks_out() -> None:
    """Done again for each of 16 blocks; of what is a mean over samples, s/√n."""
    references, found = features(50, 0), features(75, 1, scale=1.4)
    measured = vars(NeighborhoodReference(references).measure(found))
    left = [naive(references, found[np.arange(75) % 16 != block]) for block in range(16)]
    for key in ("recall", "coverage"):
        values = np.array([one[key] for one in left])
        assert measured[key].error == pytest.approx(np.sqrt(15 / 16 * ((values - values.mean()) ** 2).sum()))
    for key in ("precision", "authenticity"):
        share = measured[key].value
        assert 0 < share < 1
        assert measured[key].error == pytest.approx(np.sqrt(share * (1 - share) / 74))


def test_on_paper() -> None:
    """References at 0, 1, 2, 3, 4, 5: nearest others 1 away; third nearest of 0 and 5 at 3, of others at 2 or 3."""
    reference = NeighborhoodReference(np.arange(6.0)[:, None])
    found = reference.measure(np.array([[-10.0], [0.25], [5.5], [2.0]]))
    # -10 lies beyond -3, where the neighbourhood of 0 ends.
    assert found.precision.value == 0.75
    # Of the four, 2 is a copy, 0.25 and 5.5 are nearer to a reference than its neighbour, -10 is 10 from 0.
    assert found.authenticity.value == 0.25
    # The fifth nearest of 0 and 5 is 5 away, of 1 and 4 it is 4, of 2 and 3 it is 3: 0.25 and 2 lie in all six
    # neighbourhoods, 5.5 in those of 3, 4 and 5, -10 in none.
    assert found.density.value == pytest.approx((6 + 3 + 6) / (DENSITY_K * 4))
    assert found.coverage.value == 1
    # Their own third nearest are at least 10.25 - 1.75 away: all references are within.
    assert found.recall.value == 1


def test_copies_are_precise_and_not_authentic() -> None:
    references = features(40, 0)
    found = NeighborhoodReference(references).measure(references[:20])
    assert (found.precision.value, found.authenticity.value) == (1, 0)
    assert found.precision.error is None  # every block says the same
    far = NeighborhoodReference(references).measure(features(20, 1) + 100)
    assert [one.value for one in vars(far).values()] == [0, 0, 0, 0, 1]


def test_what_is_expected_of_equal_distributions() -> None:
    """Naeem et al., 2020: density 1, coverage 1 - Π (M - i)/(M + N - i) over i < k, whatever the distribution.

    In other words: the sixth nearest point of a pool of both sets, less one sample, may be any.
    """
    n = m = 400
    found = [NeighborhoodReference(features(n, 2 * s)).measure(features(m, 2 * s + 1)) for s in range(5)]
    density, coverage = (np.mean([getattr(one, key).value for one in found]) for key in ("density", "coverage"))
    expected = 1 - np.prod([(n - 1 - i) / (m + n - 1 - i) for i in range(DENSITY_K)])
    # Of five sets of 400 each, four standard errors.
    assert coverage == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 2000))
    assert density == pytest.approx(1, abs=0.1)
    # A new point and the nearest other one are equally likely the nearer to a reference, up to which it is chosen by.
    assert 0.3 < np.mean([one.authenticity.value for one in found]) < 0.7


def test_too_few_are_refused() -> None:
    with pytest.raises(TooFew, match="5 references; neighbourhoods of 5 need 6"):
        NeighborhoodReference(features(5, 0))
    reference = NeighborhoodReference(features(6, 0))
    with pytest.raises(TooFew, match="3 samples; neighbourhoods of 3 need 4"):
        reference.measure(features(3, 0))
    assert reference.measure(features(4, 0)).recall.error is None
