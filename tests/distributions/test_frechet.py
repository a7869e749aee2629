"""Fréchet distance against scipy's root of a matrix and closed forms, and what few samples do to it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from diffscope.distributions import FrechetReference, TooFew, paired_distances
from diffscope.numerics import FloatArray


def gaussian(count: int, d: int, seed: int = 0, scale: float = 1.0, shift: float = 0.0) -> FloatArray:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(seed + 100).standard_normal((d, d)) / np.sqrt(d)
    return np.asarray(scale * rng.standard_normal((count, d)) @ mixing + shift)


def by_scipy(samples: FloatArray, references: FloatArray) -> float:
    """As published: the trace of the root of the product of both covariances."""
    a, b = np.cov(samples, rowvar=False), np.cov(references, rowvar=False)
    apart = ((samples.mean(0) - references.mean(0)) ** 2).sum()
    return float(apart + np.trace(a) + np.trace(b) - 2 * np.trace(sqrtm(a @ b)).real)


@pytest.mark.parametrize(("count", "d"), [(200, 5), (40, 20), (12, 20)])
def test_it_is_that_of_scipy(count: int, d: int) -> None:
    """Also of fewer samples than features, whose covariance is singular: there sqrtm itself is right to 1e-6."""
    references, samples = gaussian(300, d), gaussian(count, d, seed=1, scale=1.3, shift=0.2)
    found = FrechetReference(references).distance(samples).distance.value
    assert found == pytest.approx(by_scipy(samples, references), rel=1e-9 if count > d else 1e-6)


def test_references_in_few_directions() -> None:
    """64 images in 100 features have 63 directions, and nothing is said of the others but their variance."""
    references, samples = gaussian(64, 100), gaussian(300, 100, seed=1)
    reference = FrechetReference(references)
    assert reference.directions == 63
    assert reference.distance(samples).distance.value == pytest.approx(by_scipy(samples, references), rel=1e-6)


def whitened(samples: FloatArray) -> FloatArray:
    """The same with mean 0 and covariance 1, to rounding."""
    samples = samples - samples.mean(0)
    return np.asarray(samples @ np.linalg.inv(np.linalg.cholesky(np.cov(samples, rowvar=False))).T)


def test_closed_forms() -> None:
    """Of covariances s²I and t²I a shift m apart: |m|² + d (s - t)². And nothing lies between equal sets."""
    d, unit = 6, whitened(gaussian(50, 6))
    reference = FrechetReference(2 * unit)
    other = whitened(gaussian(80, d, seed=1))
    assert reference.distance(3 * other + 0.5).distance.value == pytest.approx(d * 0.25 + d * 1.0)
    # Covariances that commute: Σ (√a - √b)² over the variances.
    spread = np.arange(1.0, d + 1)
    assert reference.distance(other * spread).distance.value == pytest.approx(((spread - 2) ** 2).sum())
    assert reference.distance(2 * unit).distance.value == pytest.approx(0, abs=1e-12)


def drawn(count: int, seed: int, d: int = 32) -> FloatArray:
    """Of variances that fall as 1/j."""
    return np.asarray(np.random.default_rng(seed).standard_normal((count, d)) / np.sqrt(np.arange(1, d + 1)))


@pytest.fixture(scope="module")
def known() -> FrechetReference:
    """Its moments are the very ones of what is drawn, so that the true distance is 0 but for a scale."""
    d = 32
    return FrechetReference(whitened(gaussian(100, d)) / np.sqrt(np.arange(1, d + 1)))


@pytest.mark.parametrize(("count", "off"), [(128, 0.06), (512, 0.01)])
def test_few_samples_raise_it_and_the_line_takes_that_away(known: FrechetReference, count: int, off: float) -> None:
    """Samples 1.5 times as wide: the distance is 0.25 tr Σ."""
    truth = 0.25 * known.trace
    found = [known.distance(1.5 * drawn(count, seed)) for seed in range(20)]
    plain = np.mean([one.distance.value for one in found])
    infinite = [one.infinite.value for one in found if one.infinite is not None]
    assert len(infinite) == 20
    assert plain - truth > 3 * abs(np.mean(infinite) - truth)
    # What is left of the bias, and of the mean of twenty.
    assert np.mean(infinite) == pytest.approx(truth, rel=off + 3 * float(np.std(infinite)) / truth / np.sqrt(20))
    # The jackknife's errors are those that repetition shows, of which twenty know a sixth.
    errors = [one.infinite.error for one in found if one.infinite is not None]
    assert np.mean([error for error in errors if error is not None]) == pytest.approx(np.std(infinite), rel=0.5)


def test_nothing_is_extrapolated_from_fewer_samples_than_directions(known: FrechetReference) -> None:
    assert known.distance(drawn(63, 0)).infinite is None
    assert known.distance(drawn(64, 0)).infinite is not None


def test_errors_need_sixteen_samples(known: FrechetReference) -> None:
    assert known.distance(drawn(15, 0)).distance.error is None
    assert known.distance(drawn(16, 0)).distance.error is not None
    with pytest.raises(TooFew, match="1 samples"):
        known.distance(drawn(1, 0))
    with pytest.raises(TooFew, match="1 references"):
        FrechetReference(drawn(1, 0))


def test_pairs_leave_out_blocks_of_both_sides() -> None:
    """Each sample a scaled reference: the distance is (1 - s)² tr Σ, and scatters as tr Σ does over other images."""
    references = drawn(96, 0)
    same, half = paired_distances(references, [references, references / 2])
    assert same.value == pytest.approx(0, abs=1e-12)
    centred = references - references.mean(0)
    spread = (centred**2).sum() / 95
    assert half.value == pytest.approx(0.25 * (spread + (references.mean(0) ** 2).sum()), rel=1e-9)
    left_out = [np.arange(96) % 16 != block for block in range(16)]
    values = np.array([FrechetReference(references[rows]).value(references[rows] / 2) for rows in left_out])
    expected = np.sqrt(15 / 16 * ((values - values.mean()) ** 2).sum())
    assert half.error == pytest.approx(expected, rel=1e-9)
    with pytest.raises(TooFew, match="1 references"):
        paired_distances(references[:1], [references[:1]])
