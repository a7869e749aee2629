"""Latents made beforehand: `.npz` with `mean` [N, C, h, w], if known `std` of the same shape, and labels as `y`.

Both are the VAE's posterior as it stands, unscaled: the family multiplies by its own factor.
"""

from __future__ import annotations

import os
import zlib

import numpy as np

from diffscope.errors import DataError
from diffscope.sources import _npz
from diffscope.sources.base import Source, Target


def accepts(path: str) -> bool:
    """Says whether `path` is a .npz that has `mean`."""
    return path.lower().endswith(".npz") and os.path.isfile(path) and "mean" in _npz.keys(path)


def open(path: str) -> Source:
    """Opens latents.

    Raises:
        DataError: The file is damaged, or `mean` or `std` has another shape or dtype.
    """
    return LatentSource(path)


class LatentSource(Source):
    """The latents of one file, which is read when opened, or mapped where its arrays are large.

    Args:
        path: Of the .npz.

    Raises:
        DataError: The file is damaged, or `mean` or `std` has another shape or dtype.
    """

    kind = "latents"
    has_std: bool
    """Whether the file knows the posterior's standard deviation; without it, `read` gives zeros there."""

    def __init__(self, path: str) -> None:
        self.path = path
        mean = _npz.member(path, "mean")
        if mean is None or len(mean.shape) != 4 or mean.dtype.kind != "f":
            found = "nothing" if mean is None else f"{mean.dtype} {list(mean.shape)}"
            raise DataError(f"{path} has {found} as mean. Expected floats [N, C, h, w], unscaled; save them so.")
        std = _npz.member(path, "std")
        if std is not None and (std.shape != mean.shape or std.dtype.kind != "f"):
            raise DataError(
                f"{path} has {std.dtype} {list(std.shape)} as std. Expected floats {list(mean.shape)}, as mean has."
            )
        self._mean, self._std = mean.read(), None if std is None else std.read()
        self.has_std = std is not None
        self.labels, self.class_names, self.lacking = _npz.classes(path, len(self._mean), "y", "labels")

    def __len__(self) -> int:
        """Returns the number of latents."""
        return len(self._mean)

    def name(self, index: int) -> str:
        """Returns the index as eight digits."""
        return f"{index:08d}"

    def read(self, index: int, target: Target) -> np.ndarray:
        """Returns one latent.

        Args:
            index: Of the latent, from 0.
            target: Does not apply: latents cannot be cropped or resized.

        Returns:
            float32 [2, C, h, w], mean and standard deviation, unscaled; the latter zero where the file has no `std`.

        Raises:
            DataError: A value is not finite, or a standard deviation is below 0.
        """
        mean = self._mean[index]
        std = np.zeros_like(mean) if self._std is None else self._std[index]
        with np.errstate(over="ignore"):  # it is then not finite
            latent = np.stack([mean, std]).astype(np.float32)
        if not np.isfinite(latent).all() or (latent[1] < 0).any():
            raise DataError(f"Latent {index} of {self.path} is not finite or has std below 0. Encode the image anew.")
        return latent

    def size(self, index: int) -> int:
        """Returns the bytes of one latent as stored."""
        return int(self._mean[0].nbytes) * (1 if self._std is None else 2)

    def checksum(self, index: int) -> int:
        """Returns the CRC-32 of the mean, and of the standard deviation where there is one."""
        checksum = zlib.crc32(self._mean[index].tobytes())
        return checksum if self._std is None else zlib.crc32(self._std[index].tobytes(), checksum)
