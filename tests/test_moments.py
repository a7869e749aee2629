"""Moments: sums on paper, batches of any size, merging, files, and what must be refused."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from vectors import case_moments, expected, features, moments_of

from diffscope.errors import EstimationError, NeedTwoViews, NonFinite
from diffscope.moments import (
    PAIR_IMAGES,
    BlockAccumulator,
    BlockMoments,
    Moments,
    NonFiniteFeature,
    accumulator_nbytes,
    nbytes,
)


def accumulated(z: torch.Tensor, batch: int) -> BlockAccumulator:
    accumulator = BlockAccumulator(z.shape[1], z.shape[2])
    for part in z.split(batch):
        accumulator.update(part)
    return accumulator


def assert_equal(a: BlockMoments, b: BlockMoments, rtol: float) -> None:
    for name, value in vars(a).items():
        # Entries near zero are sums that cancel: their error is that of the largest entry.
        scale = np.abs(value).max()
        np.testing.assert_allclose(value, getattr(b, name), rtol=rtol, atol=rtol * scale, err_msg=name)


@pytest.fixture
def z() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((300, 3, 5)) + 2)


def test_two_images_by_hand() -> None:
    # z1 = (1, 0), z2 = (3, 0) and twice (0, 2): b = (4, 0)/√2 and (0, 4)/√2, r = ±(1, 0) and 0.
    z = torch.tensor([[[1.0, 0.0], [3.0, 0.0]], [[0.0, 2.0], [0.0, 2.0]]])
    block = accumulated(z, 2).finish()
    assert block.n == 2
    np.testing.assert_allclose(block.view_sum, [[1, 2], [3, 2]])
    np.testing.assert_allclose(block.between, [[8, 0], [0, 8]], atol=1e-14)
    np.testing.assert_allclose(block.within, [[2, 0], [0, 0]], atol=1e-14)
    np.testing.assert_allclose(block.l2_sum, [2**0.5, 2**0.5])
    assert block.l2_between == pytest.approx(4)
    assert block.l2_within == pytest.approx(0)
    # Unit features (1, 0) and (0, 1) are √2 apart: two ordered pairs of exp(−4).
    np.testing.assert_allclose(block.pair_kernel, [2 * np.exp(-4)] * 2)
    assert block.pairs == 2


@pytest.mark.parametrize("batch", [1, 7, 64, 128, 129])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_give_the_same_bytes(batch: int, dtype: torch.dtype) -> None:
    """41 features: rows that lie at odd places in memory, and products that other sizes would round otherwise."""
    z = torch.from_numpy(np.random.default_rng(1).standard_normal((300, 3, 41)) + 2).to(dtype)
    assert_equal(accumulated(z, batch).finish(), accumulated(z, len(z)).finish(), rtol=0)


def test_what_is_held_is_no_view_of_the_batch() -> None:
    z = torch.ones(10, 3, 5)
    accumulator = accumulated(z, 10)
    z.fill_(torch.nan)
    np.testing.assert_array_equal(accumulator.finish().view_sum, np.full((3, 5), 10.0))


@pytest.mark.parametrize("cut", [1, 100, 290])
def test_merged_equals_whole(z: torch.Tensor, cut: int) -> None:
    first, second = accumulated(z[:cut], 32), accumulated(z[cut:], 32)
    first.merge(second)
    assert_equal(first.finish(), accumulated(z, 300).finish(), rtol=1e-12)
    assert first.finish().pairs == PAIR_IMAGES * (PAIR_IMAGES - 1)


def test_merging_with_nothing_changes_nothing(z: torch.Tensor) -> None:
    empty = BlockAccumulator(3, 5)
    empty.merge(accumulated(z, 300))
    empty.merge(BlockAccumulator(3, 5))
    assert_equal(empty.finish(), accumulated(z, 300).finish(), rtol=0)


def test_inputs_are_unchanged_and_need_no_gradient(z: torch.Tensor) -> None:
    kept = z.clone()
    z.requires_grad_()
    accumulated(z, 50).finish()
    assert torch.equal(z.detach(), kept)


def test_updates_inside_and_outside_of_inference_mode_mix(z: torch.Tensor) -> None:
    accumulator = BlockAccumulator(3, 5)
    with torch.inference_mode():
        accumulator.update(z[:100] * 1.0)
    accumulator.update(z[100:])
    assert_equal(accumulator.finish(), accumulated(z, 300).finish(), rtol=1e-12)


def test_float32_features_are_summed_in_float64() -> None:
    # A mean of 300 standard deviations: sums in float32 would lose the residual covariance.
    z = (np.random.default_rng(0).standard_normal((2000, 2, 4)) * 0.1 + 30).astype(np.float32)
    single, double = (moments_of(np.asarray(z, dtype), 4).total.cov_residual for dtype in (np.float32, np.float64))
    np.testing.assert_array_equal(single, double)


def test_a_bad_feature_is_named_and_not_added(z: torch.Tensor) -> None:
    accumulator = accumulated(z[:10], 10)
    for value in (float("nan"), float("inf")):
        bad = z[10:20].clone()
        bad[3, 1, 2] = value
        with pytest.raises(NonFinite, match="image 13") as caught:
            accumulator.update(bad)
        assert isinstance(caught.value, NonFiniteFeature)
        assert caught.value.position == 13
    assert_equal(accumulator.finish(), accumulated(z[:10], 10).finish(), rtol=0)


def test_refusals(z: torch.Tensor) -> None:
    with pytest.raises(NeedTwoViews):
        BlockAccumulator(1, 5)
    with pytest.raises(EstimationError, match="without images"):
        BlockAccumulator(3, 5).finish()
    with pytest.raises(EstimationError, match=r"\(300, 2, 5\)"):
        BlockAccumulator(3, 5).update(z[:, :2])
    with pytest.raises(EstimationError, match="2 views"):
        BlockAccumulator(3, 5).merge(BlockAccumulator(2, 5))
    with pytest.raises(EstimationError, match="one shape"):
        Moments.from_blocks([accumulated(z, 300).finish(), accumulated(z[:, :2], 300).finish()])


def test_a_zero_feature_has_a_zero_unit_feature() -> None:
    block = accumulated(torch.zeros(4, 2, 3), 4).finish()
    assert block.l2_between == 0
    np.testing.assert_allclose(block.pair_kernel, [12, 12])


def test_files_keep_every_bit(z: torch.Tensor) -> None:
    block = accumulated(z, 300).finish()
    arrays = block.to_arrays()
    assert all(array.dtype == np.float64 for array in arrays.values())
    assert_equal(BlockMoments.from_arrays(arrays), block, rtol=0)
    assert nbytes(3, 5) == sum(np.asarray(value).nbytes for value in vars(block).values())
    assert accumulator_nbytes(3, 5) - nbytes(3, 5) == (8 * 256 + 4 * 64) * 3 * 5


@pytest.mark.parametrize("case", ["A", "D"])
def test_covariances_of_the_vectors(case: str) -> None:
    total, vector = case_moments(case).total, expected(case)
    np.testing.assert_allclose(total.cov_between, vector["S_B"], rtol=1e-6)
    np.testing.assert_allclose(total.cov_residual, vector["S_W"], rtol=1e-6)
    np.testing.assert_allclose(total.fisher_eigenvalues, vector["eigs"], rtol=1e-6)
    np.testing.assert_allclose(features(case)[0], vector["z_first_image"], rtol=1e-6)


def test_covariances_are_those_of_numpy() -> None:
    z = features("C")
    total = moments_of(z, 8).total
    np.testing.assert_allclose(total.mean, z.mean((0, 1)))
    np.testing.assert_allclose(total.cov_between, 4 * np.cov(z.mean(1).T), rtol=1e-10)
    within = sum(np.cov(image.T) for image in z) / len(z)
    np.testing.assert_allclose(total.cov_residual, within, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(total.cov_invariant + total.cov_residual, total.cov_view)
    np.testing.assert_allclose(total.second_moment, np.einsum("nvi,nvj->ij", z, z) / (96 * 4))
    for covariance, variance in (("cov_between", "variance_between"), ("cov_residual", "variance_residual")):
        np.testing.assert_allclose(np.diagonal(getattr(total, covariance)), getattr(total, variance))


def test_leaving_out_a_block_is_never_having_had_it() -> None:
    z = features("C")
    left_out = moments_of(z, 8).without(3)
    kept = moments_of(z[np.arange(96) % 8 != 3], 7).total
    assert (left_out.n, left_out.nu) == (kept.n, kept.nu) == (84, 252)
    np.testing.assert_allclose(left_out.cov_between, kept.cov_between, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(left_out.variance_between, kept.variance_between)
    np.testing.assert_allclose(left_out.cov_residual, kept.cov_residual, rtol=1e-10, atol=1e-12)


def test_selecting_and_projecting_channels_agree() -> None:
    moments = case_moments("C")
    channels = np.array([0, 2, 5])
    selected, projected = moments.selected(channels).total, moments.projected(np.eye(8)[:, channels]).total
    assert selected.moments.d == projected.moments.d == 3
    np.testing.assert_allclose(selected.cov_between, projected.cov_between)
    np.testing.assert_allclose(selected.mean, projected.mean)


def test_moments_are_freed_without_the_garbage_collector() -> None:
    # At d = 1152 they are 340 MB a level: waiting for a collection would multiply the memory of a sweep.
    moments = case_moments("B")
    assert len(moments.without(0).fisher_eigenvalues) == len(moments.total.view_eigenvalues) == 16
    watched = weakref.ref(moments)
    gc.disable()
    try:
        del moments
        assert watched() is None
    finally:
        gc.enable()


def test_the_kernel_is_that_of_every_pair() -> None:
    """exp(−2‖f_i − f_j‖²) of unit features, pair by pair."""
    z = np.random.default_rng(0).standard_normal((5, 2, 3)) + 1
    found = accumulated(torch.from_numpy(z), 5).finish()
    unit = z / np.linalg.norm(z, axis=2, keepdims=True)
    for view in range(2):
        pairs = [
            np.exp(-2 * np.sum((unit[i, view] - unit[j, view]) ** 2)) for i in range(5) for j in range(5) if i != j
        ]
        assert found.pair_kernel[view] == pytest.approx(sum(pairs), rel=1e-12)


def test_the_mean_square_is_over_images_and_views() -> None:
    z = np.random.default_rng(0).standard_normal((40, 3, 4)) + 2
    np.testing.assert_allclose(moments_of(z, 4).total.mean_square, (z**2).mean((0, 1)), rtol=1e-12)


def test_deferred_a_feature_that_is_not_finite_is_found_at_the_end() -> None:
    z = torch.zeros(6, 2, 3)
    z[4, 1, 2] = float("nan")
    accumulator = BlockAccumulator(2, 3, deferred=True)
    accumulator.update(z[:3])
    accumulator.update(z[3:])
    with pytest.raises(NonFiniteFeature) as caught:
        accumulator.finish()
    assert caught.value.position == 4
