"""Keyed randomness: the same key gives the same numbers, any other key gives others."""

import itertools

import numpy as np
import pytest

from diffscope import seeding
from diffscope.seeding import Stream

FIRST_UNIFORMS = [0.5105378599792377, 0.5110037938249501]
FIRST_NORMALS = [-0.05643704906105995, -1.1066014766693115]


def test_first_numbers_are_those_of_generator_version_1() -> None:
    # If this fails, every published figure changes: raise the number in seeding.GENERATOR and say so in the changelog.
    assert seeding.GENERATOR == "numpy-philox4x64-1"
    assert seeding.uniforms(7, Stream.AUGMENT, 3, 1, 2).tolist() == FIRST_UNIFORMS
    assert seeding.noise(7, Stream.NOISE, 3, 1, (2,)).tolist() == FIRST_NORMALS


def test_every_part_of_the_key_counts() -> None:
    keys = itertools.product((0, 1, 2**63), Stream, (0, 1, 2**32), (0, 1, 2))
    first = [int(seeding.generator(*key).integers(2**63)) for key in keys]
    assert len(set(first)) == len(first)


def test_a_longer_draw_starts_with_the_shorter() -> None:
    long = seeding.uniforms(0, Stream.AUGMENT, 5, 1, 100)
    assert (seeding.uniforms(0, Stream.AUGMENT, 5, 1, 8) == long[:8]).all()


def test_order_of_calls_does_not_matter() -> None:
    forward = [seeding.noise(1, Stream.NOISE, image, 0, (4,)) for image in range(5)]
    backward = [seeding.noise(1, Stream.NOISE, image, 0, (4,)) for image in reversed(range(5))]
    assert np.array_equal(forward, backward[::-1])


@pytest.mark.parametrize("neighbour", [(0, 1, 0), (0, 0, 1), (1, 0, 0)])
def test_noise_of_neighbouring_keys_is_uncorrelated(neighbour: tuple[int, int, int]) -> None:
    seed, image, view = neighbour
    ours = seeding.noise(0, Stream.NOISE, 0, 0, (10_000,)).astype(np.float64)
    theirs = seeding.noise(seed, Stream.NOISE, image, view, (10_000,)).astype(np.float64)
    # The correlation of 10 000 independent pairs has standard deviation 0.01.
    assert abs(np.corrcoef(ours, theirs)[0, 1]) < 0.05
    assert abs(ours.mean()) < 0.05
    assert abs(ours.std() - 1) < 0.04


def test_noise_is_float32_of_the_shape_asked_for() -> None:
    noise = seeding.noise(0, Stream.LATENT, 0, 0, (4, 2, 3))
    assert noise.shape == (4, 2, 3)
    assert noise.dtype == np.float32


def test_permutation_is_seeded_and_complete() -> None:
    order = seeding.permutation(0, 1000)
    assert sorted(order.tolist()) == list(range(1000))
    assert np.array_equal(order, seeding.permutation(0, 1000))
    assert not np.array_equal(order, seeding.permutation(1, 1000))


@pytest.mark.parametrize(
    ("seed", "order"), [(0, [3, 7, 9, 2, 10, 11, 1, 5, 0, 4, 8, 6]), (7, [5, 10, 7, 2, 4, 0, 6, 9, 11, 1, 8, 3])]
)
def test_the_order_of_images_is_that_of_generator_version_1(seed: int, order: list[int]) -> None:
    """Which images `--num-images` takes, and their blocks: another order is another number in every result."""
    assert seeding.permutation(seed, 12).tolist() == order
