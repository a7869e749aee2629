"""Images in one array: `.npy` (memory-mapped) or `.npz`, uint8 [N, H, W, C] or [N, H, W].

An `.npz` keeps images as `x`, `arr_0` or `images`, and, if any, labels as `y`, `arr_1` or `labels` and the names of
classes as `class_names` or `label_names`.
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
    """Says whether `path` is a .npy, or a .npz without `mean` (which has latents)."""
    if not os.path.isfile(path):
        return False
    lower = path.lower()
    return lower.endswith(".npy") or (lower.endswith(".npz") and "mean" not in _npz.keys(path))


def open(path: str) -> Source:
    """Opens an array of images.

    Raises:
        DataError: The file is damaged, or its array is not uint8 [N, H, W, C] or [N, H, W].
    """
    if path.lower().endswith(".npy"):
        return ArraySource(_images(_npz.npy(path)), path)
    stored = _npz.member(path, *IMAGE_KEYS)
    if stored is None:
        present = ", ".join(_npz.keys(path)) or "nothing"
        raise DataError(f"{path} has {present}. Expected images as {', '.join(IMAGE_KEYS)}; rename the array.")
    images = _images(stored)
    classes = _npz.classes(path, len(images), *LABEL_KEYS)
    return ArraySource(images, path, classes.labels, classes.names)


def in_memory(images: np.ndarray) -> Source:
    """Makes a source of images that are in memory already.

    Args:
        images: uint8 [N, H, W, C] with C of 1, 3 or 4 (alpha), or [N, H, W]; not copied.

    Raises:
        DataError: The array is anything else.
    """
    _check(images.dtype, images.shape, "the array")
    return ArraySource(images[..., None] if images.ndim == 3 else images, "array")


class ArraySource(Source):
    """The images of one array.

    Args:
        images: uint8 [N, H, W, C] with C of 1, 3 or 4 (alpha).
        path: What messages call it.
        labels: int64 [N], or None.
        class_names: By label, or None.
    """

    kind = "images"

    def __init__(
        self,
        images: np.ndarray,
        path: str,
        labels: np.ndarray | None = None,
        class_names: list[str] | None = None,
    ) -> None:
        self._images, self.path = images, path
        self.labels, self.class_names = labels, class_names

    def __len__(self) -> int:
        """Returns N."""
        return len(self._images)

    def name(self, index: int) -> str:
        """Returns the index as eight digits."""
        return f"{index:08d}"

    def read(self, index: int, target: Target) -> np.ndarray:
        """Crops and resizes one image to uint8 [channels, side, side].

        Raises:
            DataError: It cannot be read; the message names it.
        """
        try:
            height, width = self._images.shape[1:3]
            check_size(width, height, self.max_pixels)
            with DECODED.of(width * height):
                pixels = np.ascontiguousarray(self._images[index])
                picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
                return fit(picture, target, self.max_pixels)
        except DataError as error:
            raise DataError(f"Cannot read image {index} of {self.path}: {error}") from None

    def stored_size(self, index: int) -> tuple[int, int]:
        """Returns H and W."""
        height, width = self._images.shape[1:3]
        return int(height), int(width)

    def size(self, index: int) -> int:
        """Returns the bytes of one image in the array."""
        return int(self._images[0].nbytes)

    def checksum(self, index: int) -> int:
        """Returns the CRC-32 of the image in the array."""
        return zlib.crc32(self._images[index].tobytes())


def _images(stored: _npz.Stored) -> np.ndarray:
    """The array as uint8 [N, H, W, C] with C of 1, 3 or 4 (alpha); raises DataError where it is anything else."""
    _check(stored.dtype, stored.shape, stored.path)
    array = stored.read()
    return array[..., None] if array.ndim == 3 else array


def _check(dtype: np.dtype, stored: tuple[int, ...], path: str) -> None:
    """DataError where an array is not uint8 [N, H, W, C] or [N, H, W]."""
    shape = (*stored, 1) if len(stored) == 3 else stored
    what = f"{path} holds {dtype} {list(stored)}"
    if dtype != np.uint8:
        raise DataError(f"{what}. Expected uint8 [N, H, W, C]; scale to 0…255 and save as uint8.")
    if len(shape) == 4 and shape[-1] not in (1, 3, 4) and shape[1] in (1, 3):
        raise DataError(f"{what}. Expected uint8 [N, H, W, C]; move the channels last: a.transpose(0, 2, 3, 1).")
    if len(shape) != 4 or shape[-1] not in (1, 3, 4):
        raise DataError(f"{what}. Expected uint8 [N, H, W, C] with C of 1, 3 or 4, or [N, H, W].")
    if 0 in shape:
        raise DataError(f"No images in {what}. Expected uint8 [N, H, W, C] with N of at least 1.")
