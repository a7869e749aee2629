"""What to extract, and the records that pass through this folder."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffscope.errors import NonFinite
from diffscope.families.base import Layer
from diffscope.views import Augmentation

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SPACING = {"fp32": 2.0**-23, "tf32": 2.0**-10, "bf16": 2.0**-7, "fp16": 2.0**-10}
"""Distance of neighbouring numbers at 1, by the precision that the network computes in."""


def not_finite(what: str, precision: str) -> NonFinite:
    """Makes the error for numbers of a network that are NaN or infinite.

    Args:
        what: Subject and verb of its sentence, such as "features of mid are".
        precision: A key of DTYPES; where it is wide enough already, another checkpoint is advised.
    """
    if precision in ("fp32", "tf32"):
        advice = "its weights have diverged or the file is damaged: take another checkpoint"
    else:
        advice = "use `precision=fp32`"
    return NonFinite(f"{what} not finite in {precision}; {advice}")


@dataclass(frozen=True)
class Plan:
    """What to extract; all but the last four fields are part of the protocol."""

    layers: tuple[Layer, ...]
    """In the order of execution."""
    sigmas: tuple[float, ...]
    """Noise levels σ."""
    views: int
    """V, of each image."""
    augmentation: Augmentation
    """How views are made."""
    input: str
    """`noisy`, or `clean`: the clean image with the noise level's conditioning."""
    pool: str
    """`mean` over positions, or `flatten`."""
    normalize: bool
    """Whether features are divided by their norm."""
    class_label: str
    """`null`, `label` (the image's own) or a class index."""
    seed: int
    """Of views and noise."""
    precision: str
    """A key of DTYPES."""
    device: str
    """By torch's name."""
    batch_size: int
    """Images per batch; a forward pass holds batch_size × views."""
    workers: int
    """Threads that decode the next batch; 0 decodes between batches."""
    compile: bool = False
    """Whether the network's blocks are compiled first."""

    def width(self, layer: Layer) -> int:
        """Returns the number of features of a layer, pooled."""
        return layer.width if self.pool == "mean" else math.prod(layer.shape)


@dataclass(frozen=True)
class Features:
    """One layer at one noise level for one batch."""

    indices: tuple[int, ...]
    """Of the images in their source, B of them."""
    level: int
    """Number of the noise level, from 0 in the plan's order."""
    layer: int
    """Number of the layer, from 0 in the plan's order."""
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
        """Adds noise of one level.

        Args:
            sigma: σ.

        Returns:
            signal + σ · noise, (B·V, C, S, S); the signal alone for clean input.
        """
        return self.signal if self.noise is None else torch.add(self.signal, self.noise, alpha=sigma)

    def split(self, most: int | None, views: int) -> list[Batch]:
        """Cuts the batch into parts.

        Args:
            most: Images in a part; None leaves it whole.
            views: V.

        Returns:
            Parts in order, which share the batch's memory.
        """
        if most is None or len(self.indices) <= most:
            return [self]
        parts = []
        for start in range(0, len(self.indices), most):
            rows = slice(start * views, (start + most) * views)
            noise = None if self.noise is None else self.noise[rows]
            parts.append(Batch(self.indices[start : start + most], self.signal[rows], noise))
        return parts
