"""Keyed randomness: (seed, stream, image, view) → random numbers.

Every draw comes from NumPy's counter-based Philox generator, whose key is the seed and whose counter
starts at the stream, the image and the view. Draws therefore do not change with batch size,
workers, devices or resumption, and all layers, noise levels and checkpoints meet the same draws
(common random numbers). Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

GENERATOR = "numpy-philox4x64-1"
"""Named in every protocol: a change of the scheme below changes the number behind the dash."""


class Stream(IntEnum):
    """What the numbers are for; streams never overlap."""

    SUBSET = 1
    AUGMENT = 2
    NOISE = 3
    LATENT = 4
    SYNTHETIC = 5
    SAMPLE = 6


def generator(seed: int, stream: Stream, image: int = 0, view: int = 0) -> np.random.Generator:
    """An independent generator for one (seed, stream, image, view); all integers ≥ 0."""
    # The lowest 64-bit word of the counter is left to Philox itself, which counts there as it draws.
    counter = np.array([0, view, image, int(stream)], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=np.array([seed, 0], dtype=np.uint64), counter=counter))


def permutation(seed: int, count: int) -> np.ndarray:
    """The seeded order of all `count` images, int64 [count]: a subset of N images is its first N."""
    return generator(seed, Stream.SUBSET).permutation(count)


def noise(seed: int, stream: Stream, image: int, view: int, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal float32 of the given shape for one view of one image."""
    return generator(seed, stream, image, view).standard_normal(shape, dtype=np.float32)


def uniforms(seed: int, stream: Stream, image: int, view: int, count: int) -> np.ndarray:
    """`count` numbers, uniform on [0, 1), float64."""
    return generator(seed, stream, image, view).random(count)
