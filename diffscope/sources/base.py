"""Where images come from: the contract of every source, and `open_source`, which finds the one that fits.

A source is one module of this folder with two functions beside its class:

    def accepts(path: str) -> bool: ...   # cheap, never raises: is this path mine?
    def open(path: str) -> Source: ...    # raises DataError where the path is mine but unusable

Used from outside:

    source = open_source("photos.zip")
    target = Target(side=32, channels=3, resize="lanczos")
    pixels = source.read(0, target)                      # uint8 [3, 32, 32]
    protocol_field = source.fingerprint(range(len(source)))
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from diffscope import hub, registry
from diffscope.errors import DataError
from diffscope.formats import CHECKPOINT_ENDINGS, PICTURE_ENDINGS
from diffscope.sources import _labels
from diffscope.textfile import irregular

MAX_PIXELS = 178_956_970  # 2 · Image.MAX_IMAGE_PIXELS of Pillow, beyond which it takes a file for a bomb
"""Of a stored picture, where the user does not say otherwise."""


@dataclass(frozen=True)
class Target:
    """What a network takes."""

    side: int
    """Height and width in pixels."""
    channels: int
    """1 or 3 for pictures; any number for sources of kind "floats"."""
    resize: Literal["lanczos", "adm", "bilinear"] = "lanczos"
    """How pictures are fitted: "lanczos" cuts the central square and resizes it with Lanczos, as EDM's data preparation
    does; "adm" halves with a box filter, then resizes bicubically, then cuts (ADM, DiT, SiT); "bilinear" resizes
    bilinearly, then cuts (torchvision's Resize and CenterCrop)."""


class Source(ABC):
    """Indexed images. Reading is thread-safe; the order is that of the sorted names."""

    path: str
    """As the user gave it."""
    revision: str | None = None
    """The commit that it was taken from, where `path` is a Hub reference."""
    kind: Literal["images", "floats", "latents"]
    """What `read` returns."""
    labels: np.ndarray | None = None
    """int64 [count], or None where neither the source nor a labels file says, or not of every image."""
    class_names: list[str] | None = None
    """What the labels count, where the classes have names (folders, a labels file)."""
    lacking: str | None = None
    """Where some images have a class and others none: how many are without."""
    statistics: str | None = None
    """Of latents: the file beside them with the mean and deviation of each channel."""
    max_pixels: int = MAX_PIXELS
    """Of a stored picture; a larger one is unreadable."""
    data_range: tuple[float, ...] = ()
    """Of an array whose own numbers `read` brings to [-1, 1]: what is black in it, and what is white."""

    @property
    def are_pictures(self) -> bool:
        """Whether what `read` returns can be augmented and shown: uint8, or floats in [-1, 1]."""
        return self.kind == "images" or len(self.data_range) == 2

    def admit(self, max_pixels: int) -> None:
        """Sets the number of pixels above which a stored picture is unreadable.

        Args:
            max_pixels: At least 1.
        """
        self.max_pixels = max_pixels

    def use_range(self, data_range: tuple[float, ...]) -> None:
        """Takes what is black and what is white in an array whose numbers do not say so by their type.

        Args:
            data_range: Both of them, the lower first; or nothing.

        Raises:
            DataError: It is missing, is not asked for, or a number lies outside of it.
        """
        if data_range:
            ends = ",".join(f"{end:g}" for end in data_range)
            raise DataError(
                f"`data_range={ends}` is for arrays of floats or uint16, and {self.path} holds {self.kind} that need "
                "none; leave it out"
            )

    def use_labels(self, path: str) -> None:
        """Takes the classes of all images from a labels file, in place of the source's own.

        Args:
            path: A CSV with the columns `file` and `class` (`_labels.py`).

        Raises:
            DataError: It cannot be read, a line is wrong, or an image has no line.
        """
        names = [self.name(index) for index in range(len(self))]
        self.labels, self.class_names, self.lacking = _labels.of(names, path, self.path)

    def without_classes(self) -> str:
        """Says why `labels` is None, and what would mend it: for the error of who needs them."""
        if self.lacking is not None:
            return f"in {self.path} {self.lacking}; complete them, or say all of them by `labels=`"
        return (
            f"{self.path} has none; expected class folders, a dataset.json, or in an .npz whole numbers [N] as y, "
            "arr_1 or labels"
        )

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of images, at least 1."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Returns an image's name inside the source, with forward slashes.

        Args:
            index: Of the image, from 0.
        """

    @abstractmethod
    def read(self, index: int, target: Target) -> np.ndarray:
        """Reads one image.

        Args:
            index: Of the image, from 0.
            target: What pictures are cropped and resized to; latents are left as they are.

        Returns:
            kind "images":  uint8 [channels, side, side].
            kind "floats":  float32 [channels, side, side], in the network's own data units; of pictures in [-1, 1].
            kind "latents": float32 [2, C, h, w], mean and standard deviation, unscaled (zero where unknown).

        Raises:
            DataError: The image cannot be read; the message names it.
            Exhausted: Memory or file handles ran out, which is no fault of the image.
        """

    @abstractmethod
    def size(self, index: int) -> int:
        """Returns the bytes of the stored image, for the fingerprint; 0 where nothing is stored.

        Args:
            index: Of the image, from 0.
        """

    @abstractmethod
    def checksum(self, index: int) -> int:
        """Returns the CRC-32 of the stored image, for the fingerprint.

        Args:
            index: Of the image, from 0.

        Raises:
            DataError: The image cannot be read.
        """

    def picture(self, index: int, target: Target) -> np.ndarray:
        """Reads one picture as it is shown: uint8 [side, side], or [side, side, 3].

        Args:
            index: Of the image, from 0.
            target: What it is cropped and resized to.

        Raises:
            DataError: The image cannot be read.
        """
        drawn: np.ndarray = np.squeeze(eight_bit(self.read(index, target)).transpose(1, 2, 0))
        return drawn

    def stored_size(self, index: int) -> tuple[int, int] | None:
        """Returns the height and width of the stored picture, upright; None where the source does not tell them.

        Args:
            index: Of the image, from 0.

        Raises:
            DataError: The image cannot be read.
        """
        return None

    def _known(self, index: int) -> str:
        """The checksum, or "unreadable": such an image is skipped, not the end of the run."""
        try:
            return f"{self.checksum(index):08x}"
        except DataError:
            return "unreadable"

    def fingerprint(self, indices: Iterable[int]) -> str:
        """Hashes all names and sizes, and the contents and labels of some images.

        Where the source lies does not enter. Names and sizes of all images do, because they decide which images a
        seeded subset takes. The result is remembered, as all snapshots of a run ask for it.

        Args:
            indices: Of the images whose contents and labels enter, in any order.

        Returns:
            SHA-256, hex.
        """
        chosen = tuple(sorted({int(index) for index in indices}))
        remembered: dict[tuple[int, ...], str] = self.__dict__.setdefault("_fingerprints", {})
        if chosen not in remembered:
            remembered[chosen] = self._fingerprint(chosen)
        return remembered[chosen]

    def _fingerprint(self, chosen: tuple[int, ...]) -> str:
        digest = hashlib.sha256(f"{self.kind} {len(self)}\n".encode())
        for index in range(len(self)):
            digest.update(f"{self.name(index)}\0{self.size(index)}\n".encode(errors="surrogateescape"))
        for index in chosen:
            label = "" if self.labels is None else int(self.labels[index])
            digest.update(f"{index} {self._known(index)} {label}\n".encode())
        return digest.hexdigest()


def eight_bit(images: np.ndarray) -> np.ndarray:
    """Rounds pictures, uint8 or floats in [-1, 1], to uint8."""
    return images if images.dtype == np.uint8 else np.clip(np.rint((images + 1) * 127.5), 0, 255).astype(np.uint8)


def open_source(path: str, max_pixels: int = MAX_PIXELS, data_range: tuple[float, ...] = ()) -> Source:
    """Opens images with the one module of this folder that accepts the path.

    Args:
        path: A file, a folder, a Hub reference, or the spelling of generated images.
        max_pixels: Of a stored picture; a larger one is unreadable. Reading takes up to 16 bytes for each, and 1 GB.
        data_range: What is black and what is white in an array of floats or uint16.

    Returns:
        A source of at least one image.

    Raises:
        DataError: Nothing is there, nothing accepts it, no images are inside, or the range does not fit them.
        UsageError: Generated images are spelled wrongly.
    """
    source = found(path)
    source.admit(max_pixels)
    source.use_range(data_range)
    return source


def found(path: str) -> Source:
    """Opens images as `open_source` does, before it is said how they are read."""
    expanded = os.path.expanduser(path)
    for module in registry.load("diffscope.sources").values():
        if module.accepts(expanded):
            source: Source = module.open(expanded)
            return source
    raise DataError(_why_nothing_opens(path, expanded))


_EXPECTED = (
    "a folder of images, a .zip, a .tar or several as {000..099}.tar, a .npy or .npz of uint8 [N, H, W, C], "
    "a .parquet or .arrow, hf://datasets/OWNER/NAME"
)
_HERE = f"Expected {_EXPECTED}."


def _why_nothing_opens(path: str, expanded: str) -> str:
    """One line on what lies at a path that no source accepts."""
    if not os.path.exists(expanded):
        if advice := hub.hint(path, "dataset"):
            return f"`data={path}`: {advice}"
        return f"Nothing at {path!r}. Expected {_EXPECTED}. Check the spelling of `data=`."
    if (kind := irregular(expanded)) is not None:
        return f"{path!r} is {kind}, which is never opened. {_HERE}"
    suffix = os.path.splitext(expanded)[1].lower()
    found = f"Cannot take images from {path!r} ({suffix or 'no extension'})"
    if suffix in CHECKPOINT_ENDINGS:
        return f"{found}: a checkpoint stands before `data=`, as in diffscope sweep CKPT --data IMAGES. {_HERE}"
    if suffix in PICTURE_ENDINGS:
        return f"{found}: a single picture says nothing of a model. {_HERE} Give the folder of many."
    return f"{found}. {_HERE} Put the images into one of these."
