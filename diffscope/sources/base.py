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
from diffscope.textfile import irregular

MAX_PIXELS = 178_956_970  # 2 · Image.MAX_IMAGE_PIXELS of Pillow, beyond which it takes a file for a bomb
"""Of a stored picture, where the user does not say otherwise."""


@dataclass(frozen=True)
class Target:
    """What a network takes.

    side: height and width in pixels.
    channels: 1 or 3 for pictures; any number for sources of kind "floats".
    resize: "lanczos" cuts the central square and resizes it with Lanczos, as EDM's data preparation does;
        "adm" halves with a box filter, then resizes bicubically, then cuts (ADM, DiT, SiT).
    """

    side: int
    channels: int
    resize: Literal["lanczos", "adm"] = "lanczos"


class Source(ABC):
    """Indexed images. Reading is thread-safe; the order is that of the sorted names."""

    path: str
    """As the user gave it."""
    revision: str | None = None
    """The commit that it was taken from, where `path` is a Hub reference."""
    kind: Literal["images", "floats", "latents"]
    labels: np.ndarray | None = None
    """int64 [count], or None where the source does not say."""
    class_names: list[str] | None = None
    """What the labels count, where the classes have names (folders)."""
    max_pixels: int = MAX_PIXELS
    """Of a stored picture; a larger one is unreadable."""

    def admit(self, max_pixels: int) -> None:
        """Set `max_pixels`."""
        self.max_pixels = max_pixels

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """The image's name inside the source, with forward slashes."""

    @abstractmethod
    def read(self, index: int, target: Target) -> np.ndarray:
        """One image; raises DataError, naming the image, where it cannot be read.

        kind "images":  uint8 [channels, side, side].
        kind "floats":  float32 [channels, side, side], in the network's own data units.
        kind "latents": float32 [2, 4, h, w], mean and standard deviation, unscaled (zero where unknown).
        """

    @abstractmethod
    def size(self, index: int) -> int:
        """Bytes of the stored image, for the fingerprint."""

    @abstractmethod
    def checksum(self, index: int) -> int:
        """CRC-32 of the stored image, for the fingerprint; raises DataError where it cannot be read."""

    def _known(self, index: int) -> str:
        """The checksum; of an image that cannot be read, that it cannot: it is skipped, not the end of the run."""
        try:
            return f"{self.checksum(index):08x}"
        except DataError:
            return "unreadable"

    def fingerprint(self, indices: Iterable[int]) -> str:
        """SHA-256 (hex) of all names and sizes, and of the contents and labels of the images at `indices`.

        Where the source lies does not enter, nor does the order of `indices`. Names and sizes of all images
        enter because they decide which images a seeded subset takes. Remembered: all snapshots of a run ask for it.
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


def open_source(path: str, max_pixels: int = MAX_PIXELS) -> Source:
    """The source at `path`, opened by the one module of this folder that accepts it.

    max_pixels: of a stored picture; a larger one is unreadable. Reading takes up to 16 bytes for each, and 1 GB.
    Raises DataError where nothing is there, nothing accepts it, or no images are inside.
    """
    expanded = os.path.expanduser(path)
    for module in registry.load("diffscope.sources").values():
        if module.accepts(expanded):
            source: Source = module.open(expanded)
            source.admit(max_pixels)
            return source
    raise DataError(_why_nothing_opens(path, expanded))


_EXPECTED = "a folder of images, a .zip, a .npy or .npz of uint8 [N, H, W, C], a .parquet, hf://datasets/OWNER/NAME"
_HERE = f"Expected {_EXPECTED}."


def _why_nothing_opens(path: str, expanded: str) -> str:
    if not os.path.exists(expanded):
        if advice := hub.hint(path, "dataset"):
            return f"--data {path}: {advice}"
        return f"Nothing at {path!r}. Expected {_EXPECTED}. Check the spelling of --data."
    if (kind := irregular(expanded)) is not None:
        return f"{path!r} is {kind}, which is never opened. {_HERE}"
    suffix = os.path.splitext(expanded)[1].lower()
    found = f"Cannot take images from {path!r} ({suffix or 'no extension'})"
    if suffix in CHECKPOINT_ENDINGS:
        return f"{found}: a checkpoint stands before --data, as in diffscope sweep CKPT --data IMAGES. {_HERE}"
    if suffix in PICTURE_ENDINGS:
        return f"{found}: a single picture says nothing of a model. {_HERE} Give the folder of many."
    return f"{found}. {_HERE} Put the images into one of these."
