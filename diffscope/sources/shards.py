"""Latents in shards, as LightningDiT's extraction writes them: `latents_rank00_shard000.safetensors` and on.

Each holds `latents` [n, C, h, w], one draw of the VAE's posterior and unscaled, `latents_flip`, those of the mirrored
images, which are left out here, and `labels` [n]. `latents_stats.pt` beside them has the mean and deviation of each
channel.
"""

from __future__ import annotations

import os
import zlib
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import safetensors

from diffscope.errors import DataError, Exhausted
from diffscope.sources import _files, _listing
from diffscope.sources.base import Source, Target

STATISTICS = "latents_stats.pt"
DTYPES = ("F32", "F16", "F64")


def accepts(path: str) -> bool:
    """Says whether `path` is a shard, or a folder that has one."""
    return _listing.has_shards(path) or (os.path.isfile(path) and _listing.is_shard(os.path.basename(path)))


def open(path: str) -> Source:
    """Opens one shard, or all of a folder.

    Raises:
        DataError: One is damaged, or its latents have another shape than the first one's.
    """
    return ShardSource(path)


@dataclass(frozen=True)
class Shard:
    """What the header of a file says."""

    path: str
    shape: tuple[int, ...]
    dtype: str


class ShardSource(Source):
    """Latents of a folder's shards, in the order of the files' names; only those asked for are read.

    Args:
        path: Of a shard, or of their folder.

    Raises:
        DataError: One is damaged, or its latents have another shape than the first one's.
    """

    kind = "latents"

    def __init__(self, path: str) -> None:
        self.path = path
        folder, names = os.path.split(path) if os.path.isfile(path) else (path, None)
        files = [names] if names else sorted(filter(_listing.is_shard, os.listdir(path)))
        read = [_opened(os.path.join(folder, name)) for name in files]
        self._shards = [shard for shard, _ in read]
        odd = next((shard for shard in self._shards if shard.shape[1:] != self._shards[0].shape[1:]), None)
        if odd is not None:
            raise DataError(
                f"{odd.path} has latents of {list(odd.shape[1:])}, {self._shards[0].path} of "
                f"{list(self._shards[0].shape[1:])}. Give the shards of one extraction."
            )
        self._ends = list(accumulate(shard.shape[0] for shard in self._shards))
        self.labels = np.concatenate([labels for _, labels in read if labels is not None]) if _all(read) else None
        beside = os.path.join(folder, STATISTICS)
        self.statistics = beside if os.path.isfile(beside) else None

    def __len__(self) -> int:
        """Returns the number of latents."""
        return self._ends[-1]

    def name(self, index: int) -> str:
        """Returns the shard's name and the latent's row in it."""
        shard, row = self._place(index)
        return f"{os.path.basename(shard.path)}/{row:08d}"

    def read(self, index: int, target: Target) -> np.ndarray:
        """Reads one latent.

        Args:
            index: Of the latent, from 0.
            target: Does not apply: latents cannot be cropped or resized.

        Returns:
            float32 [2, C, h, w]: the latent as drawn, and zeros, since its deviation is not stored.

        Raises:
            DataError: It cannot be read, or a value is not finite.
        """
        latent = self._stored(index).astype(np.float32)
        if not np.isfinite(latent).all():
            raise DataError(f"Latent {self.name(index)} is not finite. Encode the image anew.")
        return np.stack([latent, np.zeros_like(latent)])

    def size(self, index: int) -> int:
        """Returns the bytes of one latent as stored."""
        shard, _ = self._place(index)
        return int(np.prod(shard.shape[1:])) * int(shard.dtype[1:]) // 8

    def checksum(self, index: int) -> int:
        """Returns the CRC-32 of the latent as stored; DataError where it cannot be read."""
        return zlib.crc32(self._stored(index).tobytes())

    def _stored(self, index: int) -> np.ndarray:
        shard, row = self._place(index)
        try:
            with safetensors.safe_open(shard.path, framework="np") as file:
                latent: np.ndarray = file.get_slice("latents")[row : row + 1][0]
                return latent
        except (OSError, safetensors.SafetensorError) as error:
            raise _damaged(shard.path, error) from error

    def _place(self, index: int) -> tuple[Shard, int]:
        """The shard of a latent and the row in it."""
        number = bisect_right(self._ends, index)
        return self._shards[number], index - (self._ends[number - 1] if number else 0)


def _all(read: list[tuple[Shard, np.ndarray | None]]) -> bool:
    return all(labels is not None for _, labels in read)


def _opened(path: str) -> tuple[Shard, np.ndarray | None]:
    """A shard's header and labels."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            names = set(file.keys())
            if "latents" not in names:
                raise DataError(f"{path} holds {', '.join(sorted(names)[:4])}. Expected `latents` [n, C, h, w].")
            part = file.get_slice("latents")
            shard = Shard(path, tuple(part.get_shape()), part.get_dtype())
            labels = file.get_tensor("labels") if "labels" in names else None
    except (OSError, safetensors.SafetensorError) as error:
        raise _damaged(path, error) from error
    if len(shard.shape) != 4 or 0 in shard.shape or shard.dtype not in DTYPES:
        raise DataError(f"{path} has {shard.dtype} {list(shard.shape)} as latents. Expected floats [n, C, h, w].")
    if labels is None:
        return shard, None
    if labels.shape != shard.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(f"{path} has {labels.dtype} {list(labels.shape)} as labels. Expected whole numbers [n].")
    _listing.check_range(int(labels.min()), int(labels.max()), path)
    return shard, labels.astype(np.int64)


def _damaged(path: str, error: Exception) -> DataError | Exhausted:
    if isinstance(error, OSError) and error.errno is not None:
        return _files.unreadable(path, error)
    return DataError(f"Cannot read {path}: {' '.join(str(error).split())[:200]}. Fetch or copy it again.")
