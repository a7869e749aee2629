"""What an encoder is: images → features, with its own preparation of images and a fingerprint of all that it is.

An encoder is one file in this folder with two functions beside its class:

    def accepts(spec: str) -> bool: ...                     # cheap, never raises: is this spelling mine?
    def open(spec: str, setting: Setting) -> Encoder: ...   # ready to run, or one line on why not

It is given the images that the network beside it is given, at that network's size, and brings them to its own.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffscope.errors import DataError
from diffscope.extraction import Plan
from diffscope.families.base import Denoiser
from diffscope.sources.base import Source, Target, eight_bit

EXPECTED = (
    "pixels, random, a .safetensors file of features, a TorchScript file (.pt, .pth, .ts, .jit, .torchscript), a "
    "folder or hf://OWNER/NAME of a transformers vision model, or timm:NAME"
)


@dataclass(frozen=True)
class Network:
    """The network beside which encoders stand."""

    denoiser: Denoiser
    plan: Plan
    source: Source
    """Of the images that are encoded."""


@dataclass(frozen=True)
class Setting:
    """Where and how an encoder is run."""

    device: str = "cpu"
    batch_size: int = 32
    allow_torchscript: bool = False
    """Whether a TorchScript program may be run."""
    network: Network | None = None
    """For those that depend on it."""
    option: str = "beside"
    """The option that named the encoder, for messages."""


class Encoder(ABC):
    """Images → features."""

    name: str
    """As the user spelled it."""
    kind: str
    """The file of this folder that it is of."""
    dims: int
    """d, the number of features."""
    takes: Literal["images", "data", "anything"] = "images"
    """What it is given: pictures; pictures or floats; or anything, for it does not look at them."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Returns a sha256 (hex) of its weights, file or definition."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Returns what else its features depend on, such as the preparation of images, as plain JSON."""

    @abstractmethod
    def features(self, images: np.ndarray, indices: Sequence[int] | None = None) -> Tensor:
        """Encodes images.

        Args:
            images: uint8 [n, C, S, S], or float32 [n, C, S, S] in [-1, 1].
            indices: Of the images in their source, for encoders that know images by their number.

        Returns:
            float32 [n, d], on the CPU.

        Raises:
            DataError: If the encoder takes no such images, or gives numbers that are not finite.
        """

    def protocol(self) -> dict[str, Any]:
        """Returns all that its features depend on, as plain JSON."""
        return {"encoder": self.kind, "sha256": self.fingerprint(), "dims": self.dims, **self.facts()}

    def check_source(self, source: Source, option: str = "beside") -> None:
        """Raises DataError where it cannot be given what a source holds."""
        taken = {"images": ("images",), "data": ("images", "floats")}.get(self.takes)
        if taken is not None and not source.are_pictures and source.kind not in taken:
            raise DataError(f"`{option}={self.name}`: takes {taken[-1]}, and {source.path} holds {source.kind}")


def finite(features: Tensor, name: str, option: str = "beside") -> Tensor:
    """Passes features on, float32 on the CPU; DataError where they are not finite."""
    if not bool(features.isfinite().all()):
        raise DataError(f"`{option}={name}`: gives features that are not finite; nothing can be compared")
    return features.float().cpu()


def hash_of_file(path: str) -> str:
    """Computes the sha256 of a file.

    Raises:
        DataError: If it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; expected the descriptors or the encoder there") from None
    return digest.hexdigest()


def hash_of_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Computes the sha256 of tensors, by their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


# --- preparing images as vision networks were trained on them


@dataclass(frozen=True)
class Preparation:
    """How a square picture is brought to what a network takes: resized by Pillow, cut in its middle, normalised."""

    resize: int | None
    """Side to which it is resized first; None leaves it."""
    crop: int | None
    """Side of the square cut from its middle; None leaves it."""
    resample: int
    """Pillow's filter: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming."""
    scale: float
    """Of pixels, 0 to 255."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    start: int | None = None
    """Where the square begins; None is half of what is cut, rounded down."""

    def __call__(self, images: np.ndarray) -> Tensor:
        """Prepares images uint8 [n, 1 or 3, S, S], or float32 in [-1, 1], as float32 [n, 3, side, side]."""
        pixels = as_pixels(images)
        prepared = np.stack([self._cut(self._resized(image)) for image in pixels.transpose(0, 2, 3, 1)])
        x = torch.from_numpy(prepared.transpose(0, 3, 1, 2).astype(np.float32)) * self.scale
        mean, std = (torch.tensor(part)[:, None, None] for part in (self.mean, self.std))
        return (x - mean) / std

    def _resized(self, image: np.ndarray) -> np.ndarray:
        if self.resize is None or self.resize == len(image):
            return image
        size = (self.resize, self.resize)
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling(self.resample)))

    def _cut(self, image: np.ndarray) -> np.ndarray:
        side = len(image)
        if self.crop is None or self.crop == side:
            return image
        start = (side - self.crop) // 2 if self.start is None else self.start
        return image[start : start + self.crop, start : start + self.crop]

    def facts(self) -> dict[str, Any]:
        """Returns the preparation as plain JSON."""
        return {
            "resize": self.resize,
            "crop": self.crop,
            **({} if self.start is None else {"start": self.start}),
            "resample": Image.Resampling(self.resample).name.lower(),
            "scale": self.scale,
            "mean": list(self.mean),
            "std": list(self.std),
        }


def as_pixels(images: np.ndarray) -> np.ndarray:
    """Brings images of one or three channels, uint8 or floats in [-1, 1], to uint8 [n, 3, S, S].

    Raises:
        DataError: If they have other channels.
    """
    images = eight_bit(images)
    if images.shape[1] not in (1, 3):
        raise DataError(f"images of {images.shape[1]} channels; an encoder of pictures takes 1 or 3")
    return np.broadcast_to(images, (len(images), 3, *images.shape[2:])) if images.shape[1] == 1 else images


# --- what is already at the size of the network beside


class HeldImages(Source):
    """Images at a network's size, in memory.

    Args:
        origin: Where they come from, for messages.
        images: uint8 or float32 [n, C, S, S].
        labels: int64 [n], or None.
    """

    def __init__(self, origin: Source, images: np.ndarray, labels: np.ndarray | None) -> None:
        self.path, self.images, self.labels = origin.path, images, labels
        self.kind = "images" if images.dtype == np.uint8 else "floats"

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        """Returns its number."""
        return str(index)

    def read(self, index: int, target: Target) -> np.ndarray:
        """Returns the image as it is."""
        image: np.ndarray = self.images[index]
        return image

    def size(self, index: int) -> int:
        """Returns its bytes in memory."""
        return int(self.images[index].nbytes)

    def checksum(self, index: int) -> int:
        """Raises NotImplementedError: no result names these images."""
        raise NotImplementedError("no result names these images")
