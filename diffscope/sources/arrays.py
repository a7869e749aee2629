"""Images in one array: `.npy` (memory-mapped) or `.npz`, uint8 [N, H, W, C] or [N, H, W].

Floats and uint16 need it said what is black and what is white in them (`--data-range 0,1`). They are brought to the
network's own units without being rounded to 8 bits: of k/255, to the very numbers that uint8 k gives.

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
from diffscope.sources._decode import check_size, fit, fit_floats
from diffscope.sources._room import DECODED
from diffscope.sources.base import Source, Target

IMAGE_KEYS = ("x", "arr_0", "images")
LABEL_KEYS = ("y", "arr_1", "labels")
AT_ONCE = 64 << 20
"""Bytes of an array that are looked through at a time."""


def accepts(path: str) -> bool:
    """Says whether `path` is a .npy, or a .npz without `mean` (which has latents)."""
    if not os.path.isfile(path):
        return False
    lower = path.lower()
    return lower.endswith(".npy") or (lower.endswith(".npz") and "mean" not in _npz.keys(path))


def open(path: str) -> Source:
    """Opens an array of images.

    Raises:
        DataError: The file is damaged, or its array is not of images [N, H, W, C] or [N, H, W].
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


def in_memory(images: np.ndarray, data_range: tuple[float, ...] = ()) -> Source:
    """Makes a source of images that are in memory already.

    Args:
        images: uint8 [N, H, W, C] with C of 1, 3 or 4 (alpha), or [N, H, W], or floats or uint16 of C of 1 or 3; not
            copied.
        data_range: What is black and what is white in the latter.

    Raises:
        DataError: The array is anything else, or does not fit the range.
    """
    _check(images.dtype, images.shape, "the array")
    source = ArraySource(images[..., None] if images.ndim == 3 else images, "array")
    source.use_range(data_range)
    return source


class ArraySource(Source):
    """The images of one array.

    Args:
        images: uint8 [N, H, W, C] with C of 1, 3 or 4 (alpha); floats or uint16 with C of 1 or 3.
        path: What messages call it.
        labels: int64 [N], or None.
        class_names: By label, or None.
    """

    def __init__(
        self,
        images: np.ndarray,
        path: str,
        labels: np.ndarray | None = None,
        class_names: list[str] | None = None,
    ) -> None:
        self._images, self.path = images, path
        self.labels, self.class_names = labels, class_names
        self.kind = "images" if images.dtype == np.uint8 else "floats"

    def use_range(self, data_range: tuple[float, ...]) -> None:
        """Takes what is black and what is white in floats or uint16, and looks through all of them.

        Raises:
            DataError: It is missing, is given of uint8, or a number lies outside of it.
        """
        if self.kind == "images":
            super().use_range(data_range)
            return
        if not data_range:
            raise DataError(
                f"{self.path} holds {self._images.dtype} {list(self._images.shape)}. Expected uint8 [N, H, W, C]; or "
                "say what is black and what is white in it, such as `data_range=0,1` or `data_range=-1,1`."
            )
        _check_values(self._images, data_range, self.path)
        self.data_range = data_range

    def __len__(self) -> int:
        """Returns N."""
        return len(self._images)

    def name(self, index: int) -> str:
        """Returns the index as eight digits."""
        return f"{index:08d}"

    def read(self, index: int, target: Target) -> np.ndarray:
        """Crops and resizes one image to uint8 [channels, side, side]; of floats and uint16, to float32 in [-1, 1].

        Raises:
            DataError: It cannot be read; the message names it.
        """
        try:
            height, width = self._images.shape[1:3]
            check_size(width, height, self.max_pixels)
            with DECODED.of(width * height):
                pixels = np.ascontiguousarray(self._images[index])
                if self.data_range:
                    low, high = self.data_range
                    grey_levels = (pixels.astype(np.float64) - low) * (255 / (high - low))
                    return fit_floats(grey_levels.astype(np.float32), target, self.max_pixels)
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
        """Returns the CRC-32 of the image in the array, and of its range."""
        checksum = zlib.crc32(self._images[index].tobytes())
        return zlib.crc32(repr(self.data_range).encode(), checksum) if self.data_range else checksum


def _images(stored: _npz.Stored) -> np.ndarray:
    """The array as [N, H, W, C]; DataError where it is none of images."""
    _check(stored.dtype, stored.shape, stored.path)
    array = stored.read()
    return array[..., None] if array.ndim == 3 else array


def _check(dtype: np.dtype, stored: tuple[int, ...], path: str) -> None:
    """DataError where an array is not of images, [N, H, W, C] or [N, H, W]."""
    shape = (*stored, 1) if len(stored) == 3 else stored
    what = f"{path} holds {dtype} {list(stored)}"
    if dtype != np.uint8 and dtype.kind != "f" and dtype.newbyteorder("=") != np.uint16:
        raise DataError(f"{what}. Expected uint8 [N, H, W, C]; scale to 0…255 and save as uint8.")
    if len(shape) == 4 and shape[-1] not in (1, 3, 4) and shape[1] in (1, 3):
        raise DataError(f"{what}. Expected uint8 [N, H, W, C]; move the channels last: a.transpose(0, 2, 3, 1).")
    if len(shape) != 4 or shape[-1] not in (1, 3, 4):
        raise DataError(f"{what}. Expected uint8 [N, H, W, C] with C of 1, 3 or 4, or [N, H, W].")
    if shape[-1] == 4 and dtype != np.uint8:
        raise DataError(f"{what}. Expected C of 1 or 3, or uint8 with alpha; lay it over white first.")
    if 0 in shape:
        raise DataError(f"No images in {what}. Expected uint8 [N, H, W, C] with N of at least 1.")


def _check_values(images: np.ndarray, data_range: tuple[float, ...], path: str) -> None:
    """DataError where a number of an array lies outside of its range, or is none."""
    low, high = data_range
    least, most, first = np.inf, -np.inf, None
    step = max(1, AT_ONCE // max(1, images[0].nbytes))
    for start in range(0, len(images), step):
        part = images[start : start + step].reshape(len(images[start : start + step]), -1)
        lows, highs = part.min(1), part.max(1)
        wrong = np.flatnonzero(~((lows >= low) & (highs <= high)))  # a NaN is neither
        if len(wrong) and first is None:
            first = start + int(wrong[0])
        least, most = np.fmin(least, np.fmin.reduce(lows)), np.fmax(most, np.fmax.reduce(highs))
    if first is not None:
        number = "is NaN in" if np.isnan(images[first]).any() else "lies outside in"
        raise DataError(
            f"`data_range={low:g},{high:g}`: the numbers of {path} span {least:g} to {most:g}, and one {number} image "
            f"{first}. Expected all of them in the range; give the array's own."
        )
