"""Generated images of a mixture of low-rank Gaussians, spelled `mixture:count=600,classes=3,rank=4,delta=0.2,seed=0`.

x = U_k a + δ Ũ_k e, a and e standard normal (`families/mixture.py`, whose spelling must say the same, also of `noise=`
and `bases=`). The classes take turns and are the labels. Assumption 1 and equation 3 of "Understanding Representation
Dynamics of Diffusion Models via Low-Dimensional Modeling", 2025, https://arxiv.org/abs/2502.05743, with equal weights
and orthogonal subspaces.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Any

import numpy as np

from diffscope import numerics, seeding
from diffscope.errors import DataError, UsageError
from diffscope.sources.base import Source, Target

_PREFIX = "mixture"


def accepts(path: str) -> bool:
    """Says whether `path` is `mixture`, alone or with settings."""
    return path == _PREFIX or path.startswith(f"{_PREFIX}:")


def open(path: str) -> Source:
    """Opens generated images of a mixture.

    Raises:
        UsageError: The spelling is wrong or out of range. Not a DataError: the command line alone shows it.
    """
    settings: dict[str, Any] = {
        "count": 1000, "classes": 3, "rank": 4, "delta": 0.2, "seed": 0, "noise": "complement", "bases": "random",
    }  # fmt: skip
    for part in filter(None, path[len(_PREFIX) + 1 :].split(",")):
        key, _, value = part.partition("=")
        try:
            settings[key] = type(settings[key])(value)
        except (KeyError, ValueError):
            example = "mixture:count=600,classes=3,rank=4,delta=0.2,seed=0"
            raise UsageError(f"Cannot read {part!r} in {path!r}. Expected e.g. {example}.") from None
    count, classes, rank, delta, seed, noise, bases = settings.values()
    if count < 1 or classes < 2 or rank < 1 or not 0 < delta < 1 or not 0 <= seed < 2**64:
        raise UsageError(
            f"{path!r} is out of range. Expected count and rank of at least 1, two or more classes, delta between 0 "
            "and 1, seed below 2^64."
        )
    for key, value, choices in (("noise", noise, ("complement", "others")), ("bases", bases, ("random", "aligned"))):
        if value not in choices:
            raise UsageError(f"{path!r}: {key}={value}. Expected {' or '.join(choices)}.")
    return MixtureSource(path, count, classes, rank, delta, seed, noise, bases)


class MixtureSource(Source):
    """Images of K classes, each on a subspace of its own, generated as they are read.

    Args:
        path: The spelling.
        count: Number of images.
        classes: Number of subspaces, K.
        rank: Directions of each subspace; classes · rank directions must fit into an image.
        delta: δ, standard deviation outside the subspace, above 0 and below 1.
        seed: At least 0, below 2^64.
        noise: Where δ e lies: "complement", everywhere but on the own subspace; "others", on those of other classes.
        bases: How the subspaces lie: "random", or "aligned" with the axes.
    """

    kind = "floats"

    def __init__(
        self, path: str, count: int, classes: int, rank: int, delta: float, seed: int, noise: str, bases: str
    ) -> None:
        self.path = path
        self.labels = np.arange(count, dtype=np.int64) % classes
        self._classes, self._rank, self._delta, self._seed = classes, rank, delta, seed
        self._noise, self._bases = noise, bases

    def __len__(self) -> int:
        """Returns the number of images."""
        assert self.labels is not None
        return len(self.labels)

    def name(self, index: int) -> str:
        """Returns the index as eight digits."""
        return f"{index:08d}"

    def read(self, index: int, target: Target) -> np.ndarray:
        """Generates one image.

        Args:
            index: Of the image, from 0; index % classes is its class.
            target: Its shape; `resize` does not apply.

        Returns:
            float32 [channels, side, side].

        Raises:
            DataError: The image has fewer values than the subspaces have directions.
        """
        shape = (target.channels, target.side, target.side)
        d = int(np.prod(shape))
        if self._classes * self._rank > d:
            raise DataError(
                f"{self.path}: {self._classes} subspaces of {self._rank} directions have no room in {d} pixels; "
                "take a larger side"
            )
        bases = _bases(self._classes, self._rank, d, self._bases == "aligned")
        e = seeding.noise(self._seed, seeding.Stream.SYNTHETIC, index, 0, (d,)).astype(np.float64)
        inside = bases[index % self._classes] @ (bases[index % self._classes].T @ e)
        if self._noise == "others":
            directions = np.concatenate(bases, 1)
            e = directions @ (directions.T @ e)
        image: np.ndarray = (inside + self._delta * (e - inside)).astype(np.float32).reshape(shape)
        return image

    def size(self, index: int) -> int:
        """Returns 0: nothing is stored."""
        return 0

    def checksum(self, index: int) -> int:
        """Returns the CRC-32 of all that the image depends on."""
        facts = f"classes={self._classes} rank={self._rank} delta={self._delta!r} seed={self._seed}"
        facts += "" if self._noise == "complement" else f" noise={self._noise}"
        facts += "" if self._bases == "random" else f" bases={self._bases}"
        return zlib.crc32(f"{seeding.GENERATOR} {facts} image={index}".encode())


@lru_cache(maxsize=8)
def _bases(classes: int, rank: int, d: int, aligned: bool) -> np.ndarray:
    return numerics.orthogonal_bases(classes, rank, d, aligned)
