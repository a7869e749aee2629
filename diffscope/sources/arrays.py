"""Images in one array: `.npy` (memory-mapped) or `.npz` (read whole), uint8 [N, H, W, C] or [N, H, W].

An `.npz` keeps images as `x`, `arr_0` or `images`, and labels, if any, as `y`, `arr_1` or `labels`.
"""

from __future__ import annotations

import os
import zlib

import numpy as np
from PIL import Image

from diffscope.errors import DataError
from diffscope.sources import _npz
from diffscope.sources._decode import check_size, fit
from diffscope.sources._room import DECODED
from diffscope.sources.base import Source, Target

IMAGE_KEYS = ("x", "arr_0", "images")
LABEL_KEYS = ("y", "arr_1", "labels")


def accepts(path: str) -> bool:
    if not os.path.isfile(path):
        return False
    lower = path.lower()
    return lower.endswith(".npy") or (lower.endswith(".npz") and "mean" not in _npz.keys(path))


def open(path: str) -> Source:
    images = _images(path)
    labels = _npz.load(path, *LABEL_KEYS) if path.lower().endswith(".npz") else None
    return ArraySource(images, path, _npz.labels(labels, len(images), path))


def in_memory(images: np.ndarray) -> Source:
    """uint8 [N, H, W, C] or [N, H, W] that somebody holds already; DataError where it is anything else."""
    return ArraySource(_checked(images, "the array"), "array")


class ArraySource(Source):
    kind = "images"

    def __init__(self, images: np.ndarray, path: str, labels: np.ndarray | None = None) -> None:
        self._images, self.path, self.labels = images, path, labels

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        return f"{index:08d}"

    def read(self, index: int, target: Target) -> np.ndarray:
        try:
            height, width = self._images.shape[1:3]
            check_size(width, height, self.max_pixels)
            with DECODED.of(width * height):
                pixels = np.ascontiguousarray(self._images[index])
                picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
                return fit(picture, target, self.max_pixels)
        except DataError as error:
            raise DataError(f"Cannot read image {index} of {self.path}: {error}") from None

    def size(self, index: int) -> int:
        return int(self._images[0].nbytes)

    def checksum(self, index: int) -> int:
        return zlib.crc32(self._images[index].tobytes())


def _images(path: str) -> np.ndarray:
    """The array as uint8 [N, H, W, C] with C of 1, 3 or 4 (alpha); raises DataError where it is anything else."""
    if path.lower().endswith(".npy"):
        array = _npz.mapped(path)
    else:
        found = _npz.load(path, *IMAGE_KEYS)
        if found is None:
            present = ", ".join(_npz.keys(path)) or "nothing"
            raise DataError(f"{path} has {present}. Expected images as {', '.join(IMAGE_KEYS)}; rename the array.")
        array = found
    return _checked(array, path)


def _checked(array: np.ndarray, path: str) -> np.ndarray:
    images = array[..., None] if array.ndim == 3 else array
    what = f"{path} holds {array.dtype} {list(array.shape)}"
    if array.dtype != np.uint8:
        raise DataError(f"{what}. Expected uint8 [N, H, W, C]; scale to 0…255 and save as uint8.")
    if images.ndim == 4 and images.shape[-1] not in (1, 3, 4) and images.shape[1] in (1, 3):
        raise DataError(f"{what}. Expected uint8 [N, H, W, C]; move the channels last: a.transpose(0, 2, 3, 1).")
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4):
        raise DataError(f"{what}. Expected uint8 [N, H, W, C] with C of 1, 3 or 4, or [N, H, W].")
    if 0 in images.shape:
        raise DataError(f"No images in {what}. Expected uint8 [N, H, W, C] with N of at least 1.")
    return images
