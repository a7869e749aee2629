"""Which samples are copies of training images, and how large their share is.

By pixels: with d1 the Euclidean distance from a sample to the nearest training image and d2 that to the second nearest,
a sample is a copy where d1/d2 < 1/3, and by a looser measure where d1/d2 < 1/2. The ratio and its third are those of
Yoon et al., "Diffusion Probabilistic Models Generalize when They Fail to Memorize", 2023; mirror images, equal images
and the half are ours: training flips, so that an image and its mirror image count as one, at the smaller of their two
distances, and images that agree in every pixel count once.

How often that errs: of 1,000 test images of Fashion-MNIST at 16×16 that no network has seen, 0, 0 and 1 count as copies
of 64, 128 and 60,000 training images by the third, 7, 5 and 4 by the half.

By descriptors: a sample is a copy where the cosine of its descriptor with that of some training image, mirrored or not,
is above a threshold.

A share has the interval of Clopper and Pearson (1934), exact for independent samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

THIRD, HALF = 1 / 3, 1 / 2
CHUNK_BYTES = 32_000_000
"""Of training images compared at a time, and of samples, as float64."""
ROWS = 1024
"""Samples compared at a time."""


@dataclass(frozen=True)
class Criterion:
    """What makes a sample a copy."""

    kind: str
    """ratio (of pixel distances, below the threshold) or cosine (of descriptors, above it)."""
    threshold: float

    def __str__(self) -> str:
        if self.kind == "cosine":
            return f"cosine>{self.threshold:g}"
        named = {THIRD: "1/3", HALF: "1/2"}
        return f"ratio<{named.get(self.threshold, f'{self.threshold:g}')}"


@dataclass(frozen=True)
class Found:
    """The training image nearest to each of n samples."""

    image: np.ndarray
    """int64 [n], its index in the source."""
    mirrored: np.ndarray
    """bool [n], whether its mirror image is the nearer."""

    @property
    def score(self) -> np.ndarray:
        """The smaller, the more a sample looks like a copy: float64 [n]."""
        raise NotImplementedError

    def copies(self, threshold: float) -> np.ndarray:
        """Which samples count as copies, bool [n]."""
        raise NotImplementedError


@dataclass(frozen=True)
class Distances(Found):
    """Those to the two nearest training images, of pixels."""

    d1: np.ndarray
    """float64 [n], distance of the nearest, over values in [-1, 1]."""
    d2: np.ndarray
    """float64 [n], distance of the second nearest."""

    @property
    def ratio(self) -> np.ndarray:
        """d1/d2, float64 [n] in [0, 1]."""
        return np.asarray(self.d1 / self.d2)

    @property
    def score(self) -> np.ndarray:
        """The ratio of the two distances."""
        return self.ratio

    def copies(self, threshold: float) -> np.ndarray:
        """Samples whose ratio is below the threshold."""
        return np.asarray(self.ratio < threshold)


@dataclass(frozen=True)
class Similarities(Found):
    """Those of descriptors."""

    similarity: np.ndarray
    """float64 [n], cosine with the nearest."""

    @property
    def score(self) -> np.ndarray:
        """The similarity, negative."""
        return -self.similarity

    def copies(self, threshold: float) -> np.ndarray:
        """Samples whose similarity is above the threshold."""
        return np.asarray(self.similarity > threshold)


class DistanceSearch:
    """The two nearest of all training images, which come in parts and are all distinct; for samples in parts, too.

    uint8 images are compared as whole numbers in float64, which holds every sum of theirs exactly: distances are the
    same whatever the parts, threads and device. Of floats, a square loses 1e-13 to cancellation in
    |a - b|² = |a|² + |b|² - 2ab.

    Args:
        count: How many samples there are.
        mirror: Whether a training image and its mirror image are the same.
        device: Where distances are computed.
    """

    def __init__(self, count: int, mirror: bool, device: str = "cpu") -> None:
        self.mirror = mirror
        self.device = "cpu" if device.startswith("mps") else device  # which has no float64
        self._best = torch.full((count, 2), torch.inf, dtype=torch.float64, device=self.device)
        self._image = torch.zeros(count, dtype=torch.int64, device=self.device)
        self._mirrored = torch.zeros(count, dtype=torch.bool, device=self.device)
        self._scale = 1.0

    def update(self, start: int, samples: np.ndarray, indices: np.ndarray, images: np.ndarray) -> None:
        """Compares some samples with some training images.

        Args:
            start: Number of the first of these samples.
            samples: [n, C, S, S].
            indices: Of the training images in their source, int64 [m].
            images: [m, C, S, S], of the dtype of the samples.
        """
        self._scale = 1 / 127.5 if images.dtype == np.uint8 else 1.0
        ours = self._flat(samples)
        squares = _squares(ours, self._flat(images))
        mirrored = torch.zeros_like(squares, dtype=torch.bool)
        if self.mirror:
            flipped = _squares(ours, self._flat(images[..., ::-1]))
            mirrored, squares = flipped < squares, torch.minimum(squares, flipped)
        nearest, at = squares.topk(min(2, len(images)), dim=1, largest=False)
        rows, first = slice(start, start + len(samples)), at[:, :1]
        closer = nearest[:, 0] < self._best[rows, 0]
        which = torch.from_numpy(indices).to(self.device)[first[:, 0]]
        self._image[rows] = torch.where(closer, which, self._image[rows])
        self._mirrored[rows] = torch.where(closer, mirrored.gather(1, first)[:, 0], self._mirrored[rows])
        self._best[rows] = torch.cat([self._best[rows], nearest], 1).sort(1).values[:, :2]

    def found(self) -> Distances:
        """Of all samples."""
        d1, d2 = (self._best.clamp(min=0).sqrt() * self._scale).cpu().numpy().T
        return Distances(self._image.cpu().numpy(), self._mirrored.cpu().numpy(), d1, d2)

    def _flat(self, images: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(images)).to(self.device).flatten(1).double()


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (n, m) of rows (n, d) and (m, d)."""
    return torch.addmm(a.square().sum(1, keepdim=True) + b.square().sum(1), a, b.T, alpha=-2)


class CosineSearch:
    """The most similar of all training images, by descriptors of length 1.

    Args:
        descriptors: Of the samples, float32 (n, d).
    """

    def __init__(self, descriptors: Tensor) -> None:
        self.descriptors = descriptors
        count, device = len(descriptors), descriptors.device
        self._best = torch.full((count,), -torch.inf, device=device)
        self._image = torch.zeros(count, dtype=torch.int64, device=device)
        self._mirrored = torch.zeros(count, dtype=torch.bool, device=device)

    def update(self, indices: np.ndarray, descriptors: Tensor, mirrored: bool = False) -> None:
        """Those of some training images, (m, d), or of their mirror images."""
        which = torch.from_numpy(indices).to(descriptors.device)
        for start in range(0, len(self._best), ROWS):
            rows = slice(start, start + ROWS)
            nearest, at = (self.descriptors[rows] @ descriptors.T).max(1)
            closer = nearest > self._best[rows]
            self._image[rows] = torch.where(closer, which[at], self._image[rows])
            self._mirrored[rows] = torch.where(closer, mirrored, self._mirrored[rows])
            self._best[rows] = torch.maximum(nearest, self._best[rows])

    def found(self) -> Similarities:
        """Of all samples."""
        similarity = self._best.clamp(-1, 1).double().cpu().numpy()
        return Similarities(self._image.cpu().numpy(), self._mirrored.cpu().numpy(), similarity)


class SeenImages:
    """Knows images that it has been shown, and, if so told, their mirror images."""

    def __init__(self, mirror: bool) -> None:
        self.mirror = mirror
        self._seen: set[bytes] = set()

    def is_new(self, image: np.ndarray) -> bool:
        """Whether no equal image (C, S, S) came before."""
        key = image.tobytes()
        if self.mirror:
            key = min(key, np.ascontiguousarray(image[..., ::-1]).tobytes())
        digest = hashlib.blake2b(key, digest_size=16).digest()  # 60,000 whole images would not stay small
        if digest in self._seen:
            return False
        self._seen.add(digest)
        return True


def measures(found: Found, criterion: Criterion) -> dict[str, Any]:
    """Shares of copies with their 95 % intervals, and medians, by the keys of `result.json`."""
    row = _share("copies", "share", found.copies(criterion.threshold))
    row |= {"criterion": str(criterion), "generalization": 1 - row["share"]}
    if isinstance(found, Distances):
        row |= _share("copies_half", "share_half", found.copies(HALF))
        row |= {"median_d1": float(np.median(found.d1)), "median_ratio": float(np.median(found.ratio))}
    if isinstance(found, Similarities):
        row |= {"median_similarity": float(np.median(found.similarity))}
    return row


def measure_keys(criterion: Criterion) -> list[str]:
    """Those of `measures` that are numbers."""
    one, halves = np.ones(1), Distances(np.zeros(1), np.zeros(1), np.ones(1), np.ones(1))
    example = halves if criterion.kind == "ratio" else Similarities(np.zeros(1), np.zeros(1), one)
    return [key for key, value in measures(example, criterion).items() if not isinstance(value, str)]


def _share(count_key: str, key: str, copies: np.ndarray) -> dict[str, Any]:
    hits, count = int(copies.sum()), len(copies)
    low, high = clopper_pearson(hits, count)
    return {count_key: hits, key: hits / count, f"{key}_low": low, f"{key}_high": high}


def clopper_pearson(hits: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of a share: its ends leave (1 - level)/2 of the binomial's probability to either side of `hits`."""
    tail = (1 - level) / 2
    low = betaincinv(hits, count - hits + 1, tail) if hits else 0.0
    high = betaincinv(hits + 1, count - hits, 1 - tail) if hits < count else 1.0
    return float(low), float(high)


def pieces(count: int, row_bytes: int, limit: int, most: int) -> Iterator[slice]:
    """`count` rows in pieces of at most `limit` bytes and `most` rows, of one row at least."""
    size = max(1, min(most, limit // row_bytes))
    for start in range(0, count, size):
        yield slice(start, min(count, start + size))
