"""What labels say of features: cases on paper, laws, and scikit-learn's own where it has the same."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from diffscope.errors import EstimationError
from diffscope.studies.probe.class_metrics import (
    ClassSubspaces,
    blocks_se,
    class_separation,
    csnr,
    csnr_se,
    nc1,
    silhouette,
)


def classes(spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """300 points around three far ones in eight dimensions."""
    rng = np.random.default_rng(seed)
    labels = np.arange(300) % 3
    return 5 + 4 * np.eye(8)[labels] + spread * rng.standard_normal((300, 8)), labels


def test_csnr_on_paper() -> None:
    # Class 0: 4 own, 1 and 3 elsewhere; class 1: 6 own, 2 and 4; class 2: 1, 1 and 1.
    energies = np.array([[4.0, 1, 3], [2, 6, 4], [1, 1, 1]])
    labels = np.arange(3)
    assert csnr(energies, labels) == pytest.approx((4 / 2 + 6 / 3 + 1) / 3)
    assert csnr(7 * energies, labels) == pytest.approx(csnr(energies, labels))


def test_csnr_is_of_means_over_images_not_of_ratios() -> None:
    energies = np.array([[1.0, 1], [5, 1], [1, 2]])
    assert csnr(energies, np.array([0, 0, 1])) == pytest.approx((3 + 2) / 2)


def test_csnr_without_an_image_of_a_class() -> None:
    with pytest.raises(EstimationError, match="class 1 has none"):
        csnr(np.ones((2, 2)), np.zeros(2, dtype=int))


def test_subspaces_are_those_that_the_data_lie_in() -> None:
    """Two planes of R^6; the mean of all is zero by symmetry, so that the energies are those of the planes."""
    rng = np.random.default_rng(0)
    planes = np.linalg.qr(rng.standard_normal((6, 4)))[0]
    plane_of = [planes[:, :2], planes[:, 2:]]
    a = rng.standard_normal((50, 2))
    half = np.concatenate([a, -a])
    z = np.concatenate([half @ plane.T for plane in plane_of])
    labels = np.repeat([0, 1], 100)
    energies = ClassSubspaces(z, labels, 2).energies(z)
    expected = np.stack([((z @ plane) ** 2).sum(1) for plane in plane_of], 1)
    np.testing.assert_allclose(energies, expected, atol=1e-9)


@pytest.mark.parametrize("d", [5, 80])
def test_subspaces_are_singular_vectors(d: int) -> None:
    """Of wide classes and of narrow ones, whose other Gram matrix is taken."""
    rng = np.random.default_rng(1)
    z, labels = rng.standard_normal((60, d)) * np.linspace(3, 0.1, d), np.arange(60) % 2
    energies = ClassSubspaces(z, labels, 3).energies(z)
    centred = z - z.mean(0)
    for k in (0, 1):
        rows = np.linalg.svd(centred[labels == k])[2][:3]
        np.testing.assert_allclose(energies[:, k], ((centred @ rows.T) ** 2).sum(1), rtol=1e-9)


def test_pure_noise_has_no_csnr_and_its_error_says_so() -> None:
    """On images that made the bases it would have; 4 standard errors."""
    rng = np.random.default_rng(2)
    z, other = rng.standard_normal((2, 2000, 20))
    labels = np.arange(2000) % 4
    subspaces = ClassSubspaces(z, labels, 5)
    energies = subspaces.energies(other)
    assert abs(csnr(energies, labels) - 1) < 4 * csnr_se(energies, labels)
    assert csnr(subspaces.energies(z), labels) - 1 > 4 * csnr_se(energies, labels)


def test_separation_on_paper() -> None:
    # Two classes at right angles, each one direction: within 0, total 1/2. All of one direction are refused.
    z, labels = np.array([[1.0, 0], [3, 0], [0, 2], [0, 5]]), np.array([0, 0, 1, 1])
    assert class_separation(z, labels) == pytest.approx(1)
    # The same points in both classes.
    assert class_separation(z, np.array([0, 1, 0, 1])) == pytest.approx(0)
    with pytest.raises(EstimationError, match="same direction"):
        class_separation(np.ones((4, 2)), labels)
    with pytest.raises(EstimationError, match="zero"):
        class_separation(np.zeros((4, 2)), labels)


def test_separation_is_that_of_all_pairs() -> None:
    z, labels = classes(2.0)
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    distance = 1 - unit @ unit.T
    blocks = np.array([[distance[labels == a][:, labels == b].mean() for b in range(3)] for a in range(3)])
    assert class_separation(z, labels) == pytest.approx(1 - np.trace(blocks) / 3 / blocks.mean())


def test_nc1_on_paper() -> None:
    """One dimension, means ±2 and variance 1 within: 1/4 by two classes; collapsed classes have 0."""
    z, labels = np.array([[1.0], [3], [-1], [-3]]), np.array([0, 0, 1, 1])
    assert nc1(z, labels) == pytest.approx(1 / 4 / 2)
    assert nc1(np.array([[2.0], [2], [-2], [-2]]), labels) == pytest.approx(0)


def test_nc1_is_that_of_whole_matrices_and_affine_invariant() -> None:
    z, labels = classes(1.0)
    means = np.stack([z[labels == k].mean(0) for k in range(3)])
    within = sum(np.cov(z[labels == k].T, bias=True) for k in range(3)) / 3
    between = np.cov(means.T, bias=True)
    expected = np.trace(within @ np.linalg.pinv(between, rcond=1e-9)) / 3
    assert nc1(z, labels) == pytest.approx(expected, rel=1e-6)
    assert nc1(3 * z - 2, labels) == pytest.approx(expected, rel=1e-6)
    assert nc1(z.astype(np.float32), labels) == pytest.approx(expected, rel=1e-4)  # of float32's rounding


def test_nc1_without_means_is_refused() -> None:
    with pytest.raises(EstimationError, match="do not span"):
        nc1(np.array([[1.0], [-1], [1], [-1]]), np.array([0, 0, 1, 1]))


def test_silhouette_on_paper() -> None:
    # Cosine: own distance 0 and other 1 for both classes.
    z, labels = np.array([[1.0, 0], [3, 0], [0, 2], [0, 5]]), np.array([0, 0, 1, 1])
    assert silhouette(z, labels) == pytest.approx(1)
    with pytest.raises(EstimationError, match="1 classes"):
        silhouette(z, np.zeros(4, dtype=int))


def test_all_fall_as_classes_blur() -> None:
    near, far = (classes(spread) for spread in (0.5, 4.0))
    for measure in (class_separation, silhouette):
        assert measure(*near) > measure(*far)
    assert nc1(*near) < nc1(*far)


def test_errors_on_paper() -> None:
    """Eight images make eight blocks of one. Of a mean, the jackknife's error is s/√n, whatever the order."""
    z, labels = np.array([[1.0], [2], [3], [4], [5], [6], [7], [8]]), np.array([0, 1] * 4)
    for order in (slice(None), slice(None, None, -1)):
        found = blocks_se(lambda z, _: float(z.mean()), z[order], labels[order])
        assert found == pytest.approx(6**0.5 / 8**0.5)


def test_blocks_are_every_sixteenth_image_of_the_classes_in_order() -> None:
    labels = np.repeat([1, 0], [20, 12])
    left: list[tuple[int, ...]] = []

    def measure(z: np.ndarray, kept: np.ndarray) -> float:
        assert np.array_equal(labels[z[:, 0]], kept)
        left.append(tuple(sorted(set(range(32)) - set(z[:, 0].tolist()))))
        return 0.0

    assert blocks_se(measure, np.arange(32)[:, None], labels) == 0
    # Class 0 are images 20…31, then class 1 images 0…19: places 0 and 16, 1 and 17, …
    in_order = [*range(20, 32), *range(20)]
    assert left == [tuple(sorted((in_order[g], in_order[g + 16]))) for g in range(16)]


def test_a_class_of_one_image_has_no_error() -> None:
    with pytest.raises(EstimationError, match="class 1 has 1 image"):
        blocks_se(nc1, np.arange(6.0)[:, None], np.array([0, 1, 0, 0, 2, 2]))
    assert np.isfinite(blocks_se(nc1, np.random.default_rng(0).standard_normal((6, 4)), np.arange(6) % 3))


@pytest.mark.parametrize("measure", [nc1, class_separation])
def test_errors_are_the_scatter_of_other_draws(measure: Callable[[np.ndarray, np.ndarray], float]) -> None:
    """Of 200 draws the scatter is known to 5 %; the mean of their errors may be a tenth too large."""
    draws = [classes(3.0, seed) for seed in range(200)]
    scatter = np.std([measure(*draw) for draw in draws])
    assert np.mean([blocks_se(measure, *draw) for draw in draws[:40]]) == pytest.approx(scatter, rel=0.25)


def test_nc1_grows_and_separation_falls_with_the_images() -> None:
    """By more than their errors: numbers of unequal counts are not to be compared."""
    z, labels = classes(6.0)
    for measure, sign in ((nc1, 1), (class_separation, -1)):
        values = [measure(z[:count], labels[:count]) for count in (30, 100, 300)]
        assert sorted(values)[::sign] == values
        assert abs(values[2] - values[0]) > 3 * blocks_se(measure, z, labels)
