"""Keyed randomness: (seed, stream, image, view) → random numbers.

Every draw comes from NumPy's counter-based Philox generator, whose key is the seed and whose counter starts at the
stream, the image and the view. Draws therefore do not change with batch size, workers, devices or resumption, and all
layers, noise levels and checkpoints get the same draws (common random numbers). Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3", SC 2011, https://doi.org/10.1145/2063384.2063405.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

GENERATOR = "numpy-philox4x64-1"
"""Named in every protocol: a change of the scheme below changes the number behind the dash."""


class Stream(IntEnum):
    """What random numbers are for; streams never overlap."""

    SUBSET = 1
    AUGMENT = 2
    NOISE = 3
    LATENT = 4
    SYNTHETIC = 5
    SAMPLE = 6
    PIXEL = 7


def generator(seed: int, stream: Stream, image: int = 0, view: int = 0) -> np.random.Generator:
    """Returns a generator that is independent of all others.

    Args:
        seed: At least 0, below 2^64, as are the next three.
        stream: What the numbers are for.
        image: Number of the image in its source.
        view: Number of the view.
    """
    # The lowest 64-bit word of the counter is left to Philox itself, which counts there as it draws.
    counter = np.array([0, view, image, int(stream)], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=np.array([seed, 0], dtype=np.uint64), counter=counter))


def permutation(seed: int, count: int) -> np.ndarray:
    """Returns the seeded order of all images; a subset of N images is its first N.

    Args:
        seed: At least 0.
        count: Number of images.

    Returns:
        int64 [count].
    """
    return generator(seed, Stream.SUBSET).permutation(count)


def noise(seed: int, stream: Stream, image: int, view: int, shape: tuple[int, ...]) -> np.ndarray:
    """Draws standard normal numbers for one view of one image.

    Args:
        seed: At least 0.
        stream: What the numbers are for.
        image: Number of the image in its source.
        view: Number of the view.
        shape: Of the result.

    Returns:
        float32 of that shape.
    """
    return generator(seed, stream, image, view).standard_normal(shape, dtype=np.float32)


def uniforms(seed: int, stream: Stream, image: int, view: int, count: int) -> np.ndarray:
    """Draws uniform numbers for one view of one image.

    Args:
        seed: At least 0.
        stream: What the numbers are for.
        image: Number of the image in its source.
        view: Number of the view.
        count: How many.

    Returns:
        float64 [count] on [0, 1).
    """
    return generator(seed, stream, image, view).random(count)
