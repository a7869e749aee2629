"""The kernel distance against scikit-learn's kernel, pair by pair, and against its expectation."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics.pairwise import polynomial_kernel

from diffscope.distributions import Estimate, KernelReference, TooFew, samples
from diffscope.numerics import FloatArray


def by_sklearn(x: FloatArray, r: FloatArray) -> float:
    xx, rr, xr = (polynomial_kernel(a, b, degree=3, coef0=1) for a, b in ((x, x), (r, r), (x, r)))
    n, m = len(x), len(r)
    among = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (rr.sum() - np.trace(rr)) / (m * (m - 1))
    return float(among - 2 * xr.mean())


def features(count: int, seed: int, d: int = 7) -> FloatArray:
    return np.asarray(np.random.default_rng(seed).standard_normal((count, d)))


@pytest.mark.parametrize("count", [2, 20, 70])
@pytest.mark.parametrize("chunk", [8, 1000, samples.CHUNK])
def test_it_is_that_of_scikit_learn(count: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "CHUNK", chunk)
    x, r = features(count, 0) + 0.3, features(33, 1)
    assert KernelReference(r).distance(x).value == pytest.approx(by_sklearn(x, r), rel=1e-10)


def test_its_error_is_that_of_leaving_blocks_out() -> None:
    """Done again for each of the 16 blocks."""
    x, r = features(70, 0), features(33, 1)
    left = [by_sklearn(x[np.arange(70) % 16 != block], r) for block in range(16)]
    error = np.sqrt(15 / 16 * ((np.array(left) - np.mean(left)) ** 2).sum())
    assert KernelReference(r).distance(x).error == pytest.approx(error)


def test_it_is_unbiased_and_its_errors_are_right() -> None:
    """In one dimension, of N(1, 1) and N(0, 1): E k(x, x') - 2 E k(x, r) + E k(r, r') by the moments of a product.

    E (ab + 1)³ = E a³ E b³ + 3 E a² E b² + 3 E a E b + 1; of N(1, 1) the moments are 1, 2, 4, of N(0, 1) 0, 1, 0.
    """
    truth = (16 + 3 * 4 + 3 + 1) - 2 * (0 + 3 * 2 + 0 + 1) + (0 + 3 + 0 + 1)
    rng = np.random.default_rng(0)
    reference = KernelReference(rng.standard_normal((3000, 1)))
    found: list[Estimate] = [reference.distance(rng.standard_normal((48, 1)) + 1) for _ in range(200)]
    values, errors = [one.value for one in found], [one.error or 0.0 for one in found]
    # Four standard errors of the mean of 200; 3,000 references scatter by far less.
    assert np.mean(values) == pytest.approx(truth, abs=4 * float(np.std(values)) / np.sqrt(200) + 0.3)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values), rel=0.25)


def test_of_the_same_distribution_it_lies_around_zero() -> None:
    reference = KernelReference(features(400, 0))
    found = [reference.distance(features(64, seed)) for seed in range(1, 30)]
    assert min(one.value for one in found) < 0 < max(one.value for one in found)
    with pytest.raises(TooFew):
        reference.distance(features(1, 0))
    with pytest.raises(TooFew):
        KernelReference(features(1, 0))
