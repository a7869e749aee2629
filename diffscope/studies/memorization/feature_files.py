"""Features of images on disk, computed once: a file for each part, whole or not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from diffscope.cache.store import Damaged, opened_part, write_part


class FeatureFiles:
    """Parts of the features of one set of images.

    Args:
        folder: Where they lie; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def part(self, start: int, count: int, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """Reads a part, or computes and keeps it.

        Args:
            start: Number of its first image in the set.
            count: Images.
            compute: Gives float32 [count, d].
        """
        if self.folder is None:
            return compute()
        path = self.folder / f"{start:09d}-{count}.safetensors"
        try:
            with opened_part(path) as part:
                return part.array("features")
        except Damaged:  # or not there
            features = compute()
            write_part(path, {"features": features}, {})
            return features
