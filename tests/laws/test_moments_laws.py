"""Merged is whole: sums over images do not depend on how the images came, or in which order parts were merged."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffscope.moments import PAIR_IMAGES, BlockAccumulator, BlockMoments, Moments

PAIRS = ("pair_kernel", "pairs")
"""Counted within what was accumulated together, so that they depend on the cut."""


@st.composite
def features(draw: st.DrawFn, most: int = 200) -> torch.Tensor:
    """[images, V, d] with means and scales of their own for each channel."""
    shape = draw(st.integers(1, most)), draw(st.integers(2, 4)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = 10.0 ** rng.integers(-3, 4, shape[2])
    return torch.from_numpy((rng.standard_normal(shape) + rng.integers(-3, 4, shape[2])) * scale)


@st.composite
def cut(draw: st.DrawFn, z: torch.Tensor, most: int = 6) -> list[torch.Tensor]:
    """The images in order, in parts of any sizes."""
    at = sorted(draw(st.lists(st.integers(1, max(1, len(z) - 1)), max_size=most - 1, unique=True)))
    return [part for part in torch.tensor_split(z, at) if len(part)]


def accumulated(*parts: torch.Tensor) -> BlockAccumulator:
    accumulator = BlockAccumulator(*parts[0].shape[1:])
    for part in parts:
        accumulator.update(part)
    return accumulator


def assert_same(found: BlockMoments, expected: BlockMoments, but: tuple[str, ...] = ()) -> None:
    """To rounding, of the largest entry: sums may cancel."""
    for name, value in vars(expected).items():
        if name not in but:
            reach = 1e-12 * max(np.abs(np.asarray(value)).max(), np.abs(np.asarray(getattr(found, name))).max())
            np.testing.assert_allclose(getattr(found, name), value, rtol=1e-12, atol=reach, err_msg=name)


@given(st.data())
def test_the_same_bytes_whatever_the_batches(data: st.DataObject) -> None:
    z = data.draw(features())
    whole, parted = accumulated(z).finish(), accumulated(*data.draw(cut(z))).finish()
    for name, value in vars(whole).items():
        assert np.asarray(value).tobytes() == np.asarray(getattr(parted, name)).tobytes(), name


@given(st.data())
def test_accumulators_merge_to_the_whole_in_any_grouping(data: st.DataObject) -> None:
    z = data.draw(features(most=PAIR_IMAGES + 60))
    parts = [accumulated(part) for part in data.draw(cut(z))]
    while len(parts) > 1:
        at = data.draw(st.integers(0, len(parts) - 2))
        later = parts.pop(at + 1)
        parts[at].merge(later)
    assert_same(parts[0].finish(), accumulated(z).finish())


@given(st.data())
def test_blocks_add_to_the_whole_in_any_order_and_grouping(data: st.DataObject) -> None:
    z = data.draw(features())
    blocks = [accumulated(part).finish() for part in data.draw(cut(z))]
    expected = accumulated(z).finish()
    in_order = sum(blocks[1:], blocks[0])
    blocks = data.draw(st.permutations(blocks))
    while len(blocks) > 1:
        one = blocks.pop(data.draw(st.integers(0, len(blocks) - 1)))
        blocks[0] = blocks[0] + one
    assert_same(blocks[0], expected, but=PAIRS)
    assert_same(blocks[0], in_order)


@given(st.data())
def test_the_order_of_images_and_of_blocks_shows_in_no_total(data: st.DataObject) -> None:
    z = data.draw(features(most=60))
    order = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))).permutation(len(z))
    assert_same(accumulated(z[torch.from_numpy(order)]).finish(), accumulated(z).finish())
    blocks = [accumulated(part).finish() for part in data.draw(cut(z))]
    shuffled = data.draw(st.permutations(blocks))
    totals = [Moments.from_blocks(found).sums for found in (blocks, shuffled)]
    for name, value in totals[0].items():
        np.testing.assert_allclose(totals[1][name], value, rtol=1e-12, atol=1e-12 * np.abs(value).max())


@given(features(most=80))
def test_files_hold_every_bit(z: torch.Tensor) -> None:
    block = accumulated(z).finish()
    again = BlockMoments.from_arrays(block.to_arrays())
    for name, value in vars(block).items():
        assert np.asarray(value).tobytes() == np.asarray(getattr(again, name)).tobytes(), name
        assert type(value) is type(getattr(again, name)), name
