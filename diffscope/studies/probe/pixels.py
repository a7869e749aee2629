"""Features of single pixels: maps of several layers at the image's size, where they are asked for, and nowhere else.

Every layer is brought to the image's size by bilinear interpolation, as torch's `interpolate(mode="bilinear")` does,
and all are concatenated. Only the pixels asked for are interpolated: whole images of 256² pixels and 8,448 features, as
Baranchuk et al. have them, are 2.2 GB each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffscope import seeding
from diffscope.errors import UsageError
from diffscope.extraction import Extractor, Skipped, not_finite
from diffscope.families.base import Layer
from diffscope.seeding import Stream
from diffscope.studies.probe.masks import VOID, Mask

CHUNK = 8192
"""Pixels that are interpolated and classified at a time."""


@dataclass(frozen=True)
class Grid:
    """A layer as a map."""

    channels: int
    height: int
    width: int
    tokens: bool
    """Whether its activation is (T, D) rather than (C, H, W)."""

    def of(self, z: Tensor) -> Tensor:
        """A flattened activation (B, …) as maps (B, C, H·W)."""
        if self.tokens:
            return z.view(len(z), self.height * self.width, self.channels).transpose(1, 2)
        return z.view(len(z), self.channels, self.height * self.width)


def grid_of(layer: Layer, side: int) -> Grid:
    """How a layer lies over the image.

    Args:
        layer: Of a network.
        side: Of the network's input.

    Raises:
        UsageError: It has no places that lie over the image.
    """
    if len(layer.shape) == 3:
        return Grid(*layer.shape, tokens=False)
    if len(layer.shape) == 2:
        tokens, channels = layer.shape
        along = round(tokens**0.5)
        # Anything but whole patches of the image has tokens of another kind among them.
        if along**2 == tokens and side % along == 0:
            return Grid(channels, along, along, tokens=True)
        what = f"{tokens} tokens, which are no square of patches of an input of {side} × {side}"
    else:
        what = "one vector for the whole image"
    raise UsageError(f"`layer={layer.name}`: {what}; `masks=` needs layers that are maps (diffscope inspect CKPT)")


def at_pixels(maps: Sequence[Tensor], grids: Sequence[Grid], side: int, positions: Tensor) -> Tensor:
    """Features of some pixels of one image.

    Args:
        maps: Of each layer, (C, H·W).
        grids: Of each layer.
        side: Of the image.
        positions: y · side + x of P pixels, int64.

    Returns:
        (P, ΣC), layers in their order.
    """
    found: list[Any] = []
    for values, grid in zip(maps, grids, strict=True):
        top, bottom, down = _between(positions // side, side, grid.height)
        left, right, across = _between(positions % side, side, grid.width)
        corners = (
            (top, left, (1 - down) * (1 - across)),
            (top, right, (1 - down) * across),
            (bottom, left, down * (1 - across)),
            (bottom, right, down * across),
        )
        found.append(sum(weight * values[:, y * grid.width + x] for y, x, weight in corners))
    return torch.cat(found).T


def _between(at: Tensor, side: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of pixels along one axis: the map's places before and after, and how far from the first to the second."""
    place = ((at.double() + 0.5) * length / side - 0.5).clamp(min=0)
    before = place.long()
    return before, (before + 1).clamp(max=length - 1), (place - before).float()


def drawn(mask: Mask, count: int, seed: int, image: int) -> NDArray[np.int64]:
    """Positions of `count` pixels of one image that are not void, all if it has fewer; a function of (seed, image).

    A smaller number's are among those of a larger one.
    """
    known = np.flatnonzero(mask.ravel() != VOID)
    order = seeding.generator(seed, Stream.PIXEL, image).permutation(len(known))
    return np.sort(known[order[:count]])


def shared_out(pixels: int, images: int) -> list[int]:
    """How many pixels each image gives: as evenly as can be, `pixels` together."""
    each, left = divmod(pixels, images)
    return [each + (number < left) for number in range(images)]


def maps_of(
    extractor: Extractor, images: Sequence[int], grids: Sequence[Grid], skipped: Skipped
) -> Iterator[tuple[int, list[Tensor]]]:
    """(index, maps (C, H·W) of all layers) of each image that can be read.

    Args:
        extractor: Of one view at one noise level, flattened.
        images: Indices in their source.
        grids: Of the extractor's layers.
        skipped: Takes {file, why} of the others.

    Raises:
        NonFinite: A feature is no number.
    """
    together: list[Tensor] = []
    for features in extractor.run(images, skipped):
        layer = extractor.plan.layers[features.layer]
        z = features.z[:, 0]
        if not torch.isfinite(z).all():
            bad = int(torch.nonzero(~torch.isfinite(z))[0, 0])
            name = extractor.inputs.source.name(features.indices[bad])
            raise not_finite(f"image {name}: features of {layer.name} are", extractor.plan.precision)
        together.append(grids[features.layer].of(z))
        if len(together) == len(grids):
            for number, index in enumerate(features.indices):
                yield index, [values[number] for values in together]
            together = []
