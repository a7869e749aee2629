"""The images that a model was trained on, all of them, as often as a search goes through them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from diffscope.errors import DataError
from diffscope.extraction import Skipped
from diffscope.sources.base import Source, Target
from diffscope.studies.memorization.copies import CHUNK_BYTES, SeenImages, pieces

CHUNK = 2048
"""Images in a part, where these are small."""
KEEP = 200_000_000
"""Bytes of decoded images that are kept for the next time, and of what is computed of them."""


class TrainingImages:
    """Distinct training images at the model's size, in parts and in order, again and again.

    Unreadable ones are left out and collected in `skipped` as {file, why}. The first `KEEP` bytes are decoded once.
    """

    def __init__(self, source: Source, target: Target, mirror: bool, strict: bool, workers: int) -> None:
        self.source, self.target, self.strict, self.workers = source, target, strict, workers
        self.skipped = Skipped()
        self.distinct = 0
        self._seen: SeenImages | None = SeenImages(mirror)
        self._chosen: list[np.ndarray] = []
        """Of each part, the indices of images that are readable and new."""
        self._kept: dict[int, np.ndarray] = {}
        self._room = KEEP

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Indices int64 [n] in the source and images uint8 or float32 [n, C, S, S]."""
        row = 8 * self.target.channels * self.target.side**2
        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            for number, rows in enumerate(pieces(len(self.source), row, CHUNK_BYTES, CHUNK)):
                if number == len(self._chosen):
                    images = self._choose(pool, np.arange(rows.start, rows.stop))
                elif number in self._kept:
                    images = self._kept[number]
                else:
                    images = self._read(pool, self._chosen[number], [])[1]
                if len(images):
                    yield self._chosen[number], images
        self._seen = None

    def _choose(self, pool: ThreadPoolExecutor, indices: np.ndarray) -> np.ndarray:
        """Read a part for the first time."""
        assert self._seen is not None
        readable, images = self._read(pool, indices, self.skipped)
        new = [self._seen.is_new(image) for image in images]
        images = images[new]
        self._chosen.append(readable[new])
        self.distinct += len(images)
        self._room -= images.nbytes
        if self._room >= 0:
            self._kept[len(self._chosen) - 1] = images
        return images

    def at(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Some images, of which the unreadable are left out in silence: `parts` tells of them."""
        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            return self._read(pool, indices, [])

    def _read(self, pool: ThreadPoolExecutor, indices: np.ndarray, skipped: Skipped) -> tuple[np.ndarray, np.ndarray]:
        kept, images = [], []
        for index, image in zip(indices, pool.map(self._read_one, indices.tolist()), strict=True):
            if isinstance(image, DataError):
                if self.strict:
                    raise image
                skipped.append({"file": self.source.name(int(index)), "why": str(image)})
            else:
                kept.append(int(index))
                images.append(image)
        shape = (self.target.channels, self.target.side, self.target.side)
        return np.array(kept, np.int64), np.stack(images) if images else np.zeros((0, *shape), np.uint8)

    def _read_one(self, index: int) -> np.ndarray | DataError:
        try:
            return self.source.read(index, self.target)
        except DataError as error:
            return error
