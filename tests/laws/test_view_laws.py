"""A view is a function of (seed, image, view): not of its batch, the order of calls, or what was drawn before."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffscope.options.settings import AUGMENTATIONS
from diffscope.seeding import Stream
from diffscope.views import MAX_STRENGTH, Augmentation, augmented_view, view_noise

seeds = st.integers(0, 2**64 - 1)
indices = st.lists(st.integers(0, 2**40), min_size=1, max_size=7, unique=True)
views = st.integers(0, 2**20)


@st.composite
def batches(draw: st.DrawFn, count: int) -> list[list[int]]:
    """All positions in any order, in batches of any sizes."""
    order = draw(st.permutations(range(count)))
    at = sorted(draw(st.sets(st.integers(1, count), max_size=count)))
    return [order[a:b] for a, b in zip([0, *at], [*at, count], strict=True) if a < b]


@given(st.data(), seeds, indices, views, st.sampled_from(AUGMENTATIONS), st.floats(0, MAX_STRENGTH))
def test_views(data: st.DataObject, seed: int, images: list[int], view: int, name: str, strength: float) -> None:
    channels, side = data.draw(st.sampled_from([1, 3])), data.draw(st.integers(4, 9))
    pixels = np.random.default_rng(0).integers(0, 256, (len(images), channels, side, side), dtype=np.uint8)
    pictures = torch.from_numpy(pixels)
    augmentation = Augmentation(name, strength)
    whole = augmented_view(pictures, images, view, augmentation, seed)
    assert whole.shape == pictures.shape
    assert float(whole.abs().max()) <= 1
    for batch in data.draw(batches(len(images))):
        part = augmented_view(pictures[batch], [images[at] for at in batch], view, augmentation, seed)
        assert torch.equal(part, whole[batch])
    assert np.array_equal(pictures.numpy(), pixels)


@given(st.data(), seeds, indices, views, st.sampled_from(Stream))
def test_noise(data: st.DataObject, seed: int, images: list[int], view: int, stream: Stream) -> None:
    whole = view_noise(images, view, (2, 3), seed, stream)
    for batch in data.draw(batches(len(images))):
        assert torch.equal(view_noise([images[at] for at in batch], view, (2, 3), seed, stream), whole[batch])


@given(seeds, st.integers(0, 2**40), views, st.sampled_from(Stream))
def test_whatever_is_changed_gives_other_noise(seed: int, image: int, view: int, stream: Stream) -> None:
    others = [
        view_noise([image], view, (4,), (seed + 1) % 2**64, stream),
        view_noise([image + 1], view, (4,), seed, stream),
        view_noise([image], view + 1, (4,), seed, stream),
        *(view_noise([image], view, (4,), seed, other) for other in Stream if other is not stream),
    ]
    drawn = [view_noise([image], view, (4,), seed, stream), *others]
    assert len({tuple(found[0].tolist()) for found in drawn}) == len(drawn)


@given(seeds, indices, views)
def test_a_longer_chain_begins_as_the_shorter_one(seed: int, images: list[int], view: int) -> None:
    """Where it is no chain at all, at strength 0 and without a flip, all of them are the image."""
    pictures = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (len(images), 3, 6, 6), dtype=np.uint8))
    expected = augmented_view(pictures, images, view, Augmentation("none"), seed)
    cropped = augmented_view(pictures, images, view, Augmentation("crop", 0.0), seed)
    assert torch.equal(cropped, expected)
    flipped = augmented_view(pictures, images, view, Augmentation("crop+flip", 0.0), seed)
    for name in AUGMENTATIONS[3:]:
        longer = augmented_view(pictures, images, view, Augmentation(name, 0.0), seed)
        torch.testing.assert_close(longer, flipped, rtol=0, atol=1e-5)
