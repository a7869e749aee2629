"""What to extract, and what comes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffscope.families.base import Layer
from diffscope.views import Augmentation

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SPACING = {"fp32": 2.0**-23, "tf32": 2.0**-10, "bf16": 2.0**-7, "fp16": 2.0**-10}
"""Distance of neighbouring numbers at 1, of what the network computes in."""


def cure(precision: str) -> str:
    """What to do where a network's numbers are not finite."""
    if precision in ("fp32", "tf32"):
        return "its weights have diverged or the file is damaged: take another checkpoint"
    return "use --precision fp32"


@dataclass(frozen=True)
class Plan:
    """What to extract; part of the protocol but for the last three fields."""

    layers: tuple[Layer, ...]
    sigmas: tuple[float, ...]
    views: int
    augmentation: Augmentation
    input: str
    """noisy or clean."""
    pool: str
    """mean or flatten."""
    normalize: bool
    class_label: str
    seed: int
    precision: str
    """A key of DTYPES."""
    device: str
    batch_size: int
    """Images per batch; a forward pass holds batch_size × views."""
    workers: int
    """Threads that decode ahead; 0 decodes in between."""
    compile: bool = False
    """Whether the network's blocks are compiled first."""

    def width(self, layer: Layer) -> int:
        """Number of features of a layer, pooled."""
        return layer.width if self.pool == "mean" else math.prod(layer.shape)


@dataclass(frozen=True)
class Features:
    """One layer at one noise level for one batch."""

    indices: tuple[int, ...]
    """Of the images in their source."""
    level: int
    layer: int
    """Both count from 0 in the plan's order."""
    z: Tensor
    """float32 (B, V, d) on the device."""


@dataclass(frozen=True)
class Batch:
    """Views of some images and their noise, ready for the network."""

    indices: tuple[int, ...]
    """Of the images in their source, B of them."""
    signal: Tensor
    """(B·V, C, S, S) in the network's input space, the views of an image side by side."""
    noise: Tensor | None
    """The same shape, standard normal; None for clean input."""

    def at(self, sigma: float) -> Tensor:
        """data + sigma · noise."""
        return self.signal if self.noise is None else torch.add(self.signal, self.noise, alpha=sigma)

    def split(self, most: int | None, views: int) -> list[Batch]:
        """In order, in parts of at most so many images of V views."""
        if most is None or len(self.indices) <= most:
            return [self]
        parts = []
        for start in range(0, len(self.indices), most):
            rows = slice(start * views, (start + most) * views)
            noise = None if self.noise is None else self.noise[rows]
            parts.append(Batch(self.indices[start : start + most], self.signal[rows], noise))
        return parts
