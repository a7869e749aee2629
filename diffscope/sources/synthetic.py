"""Generated images with a known distribution, spelled `synthetic:count=1000,seed=0`: no download, closed forms.

Every value is independent N(0, v_j) with v_j = 1/j for j = 1 … C·side², in the row-major order of [C, H, W]: a
Gaussian whose covariance is diagonal and whose spectrum falls as a power law, as that of photographs does.
"""

from __future__ import annotations

import re
import zlib
from functools import lru_cache

import numpy as np

from diffscope import numerics, seeding
from diffscope.errors import UsageError
from diffscope.sources.base import Source, Target

_PREFIX = "synthetic"


def accepts(path: str) -> bool:
    """Says whether `path` is `synthetic`, alone or with settings."""
    return path == _PREFIX or path.startswith(f"{_PREFIX}:")


def open(path: str) -> Source:
    """Opens generated images of a diagonal Gaussian.

    Raises:
        UsageError: The spelling is wrong or out of range. Not a DataError: the command line alone shows it.
    """
    settings = {"count": 1000, "seed": 0}
    for part in filter(None, path[len(_PREFIX) + 1 :].split(",")):
        key, _, value = part.partition("=")
        if key not in settings or not re.fullmatch(r"\d{1,20}", value):
            raise UsageError(f"Cannot read {part!r} in {path!r}. Expected e.g. synthetic:count=1000,seed=0.")
        settings[key] = int(value)
    if settings["count"] < 1 or settings["seed"] >= 2**64:
        raise UsageError(f"{path!r} is out of range. Expected count of at least 1 and seed below 2^64.")
    return SyntheticSource(path, settings["count"], settings["seed"])


class SyntheticSource(Source):
    """Images of independent normal values, generated as they are read.

    Args:
        path: The spelling.
        count: Number of images.
        seed: At least 0, below 2^64.
    """

    kind = "floats"

    def __init__(self, path: str, count: int, seed: int) -> None:
        self.path = path
        self._count = count
        self._seed = seed

    def __len__(self) -> int:
        """Returns the number of images."""
        return self._count

    def name(self, index: int) -> str:
        """Returns the index as eight digits."""
        return f"{index:08d}"

    def read(self, index: int, target: Target) -> np.ndarray:
        """Generates one image.

        Args:
            index: Of the image, from 0.
            target: Its shape; `resize` does not apply.

        Returns:
            float32 [channels, side, side].
        """
        shape = (target.channels, target.side, target.side)
        image: np.ndarray = seeding.noise(self._seed, seeding.Stream.SYNTHETIC, index, 0, shape) * _deviations(shape)
        return image

    def size(self, index: int) -> int:
        """Returns 0: nothing is stored."""
        return 0

    def checksum(self, index: int) -> int:
        """Returns the CRC-32 of all that the image depends on."""
        return zlib.crc32(f"{seeding.GENERATOR} seed={self._seed} image={index}".encode())


@lru_cache(maxsize=8)
def _deviations(shape: tuple[int, int, int]) -> np.ndarray:
    """sqrt(v_j) as float32 in the image's shape."""
    variances = numerics.power_law(int(np.prod(shape)), 1.0)
    deviations: np.ndarray = np.sqrt(variances).astype(np.float32).reshape(shape)
    return deviations
