"""Augmented views and noise, each a pure function of (seed, image index, view).

A view is made in the order crop, flip, jitter, rotate, center; an augmentation is how far along that chain it goes.
The default, "crop+flip+jitter", is level 3 of the five in Li et al. 2026, https://arxiv.org/abs/2606.09718, appendix
B.6. Every parameter of a view has its own place in one vector of uniform numbers, so that a longer chain starts with
exactly what the shorter one does.
All steps are batched and run on the images' device; on CPU, a view does not depend on its batch by a single bit.
Colours follow Pillow's ImageEnhance, but in floats: nothing is rounded to 8 bits in between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffscope import seeding
from diffscope.errors import UsageError
from diffscope.options.settings import AUGMENTATIONS, DEFAULT_AUGMENTATION
from diffscope.seeding import Stream

MAX_STRENGTH = 2.5
"""At 2.5 the colour factors span 0 … 2; beyond, they would turn negative."""


class Draw(IntEnum):
    """The place of each parameter in a view's uniform numbers. Append only: a moved place changes every figure."""

    TOP = 0
    LEFT = 1
    FLIP = 2
    BRIGHTNESS = 3
    CONTRAST = 4
    SATURATION = 5
    HUE = 6
    ANGLE = 7


@dataclass(frozen=True)
class Augmentation:
    """How views are made.

    Raises:
        UsageError: The name is unknown, or the strength out of range.
    """

    name: str = DEFAULT_AUGMENTATION
    """One of AUGMENTATIONS."""
    strength: float = 1.0
    """Multiplies all ranges (padding, colour factors, hue, angle, margin), from 0 to 2.5; flips keep their ½."""

    def __post_init__(self) -> None:
        """Checks both fields."""
        if self.name not in AUGMENTATIONS:
            raise UsageError(f"No augmentation {self.name!r}. Choose `augment=` from: {', '.join(AUGMENTATIONS)}.")
        if not 0 <= self.strength <= MAX_STRENGTH:
            raise UsageError(f"`augment_strength=` is {self.strength}. Expected a number from 0 to {MAX_STRENGTH}.")

    @property
    def steps(self) -> frozenset[str]:
        """Which of crop, flip, jitter, rotate and center are taken."""
        return frozenset(self.name.split("+")) - {"none"}


def augmented_view(
    images: Tensor, indices: Sequence[int], view: int, augmentation: Augmentation, seed: int, pictures: bool = False
) -> Tensor:
    """Makes one view of every image.

    Args:
        images: uint8 (B, C, H, W), C of 1 or 3; unchanged. Floats in data units pass through as they are without
            augmentation, and generated ones take none.
        indices: Numbers of the images in their source, B of them; they key the draws together with `view` and `seed`.
        view: Number of the view, from 0.
        augmentation: The steps and their strength.
        seed: At least 0.
        pictures: Whether floats are pictures, in [-1, 1].

    Returns:
        float32 (B, C, H, W) in [-1, 1], on the device of `images`.

    Raises:
        UsageError: Floats, or images of other than 1 or 3 channels, should be augmented.
    """
    steps, strength = augmentation.steps, augmentation.strength
    if not steps:
        return images.float() if images.is_floating_point() else _in_data_units(images)
    floats = images.is_floating_point()
    if (floats and not pictures) or images.shape[1] not in (1, 3):
        found = f"{str(images.dtype).removeprefix('torch.')} images of {images.shape[1]} channels"
        raise UsageError(
            f"Cannot apply {augmentation.name} to {found}. Augmentation takes pictures; use `augment=none`."
        )
    draws = _draws(seed, indices, view)
    images = (images + 1) * 127.5 if floats else images
    images = _crop_and_flip(images, draws, strength, flip="flip" in steps)
    if "jitter" not in steps:
        return _in_data_units(images)
    pixels = _jitter(images.float() / images.new_full((), 255, dtype=torch.float32), draws, strength)
    if "rotate" in steps:
        pixels = _rotate(pixels, draws, strength)
    if "center" in steps:
        pixels = _center(pixels, strength)
    return 2 * pixels - 1


def view_noise(
    indices: Sequence[int], view: int, shape: tuple[int, ...], seed: int, stream: Stream = Stream.NOISE
) -> Tensor:
    """Draws the noise of one view of every image, independent for each (seed, stream, index, view).

    Args:
        indices: Numbers of the images in their source, B of them.
        view: Number of the view, from 0.
        shape: Of one image in the network's input space.
        seed: At least 0.
        stream: What the noise is for.

    Returns:
        Standard normal float32 (B, *shape) on the CPU.
    """
    noise = np.empty((len(indices), *shape), dtype=np.float32)
    for row, index in enumerate(indices):
        noise[row] = seeding.noise(seed, stream, int(index), view, shape)
    return torch.from_numpy(noise)


def _in_data_units(images: Tensor) -> Tensor:
    """uint8 (B, C, H, W) as float32 in [-1, 1]."""
    # A tensor as divisor: by a plain number, CUDA multiplies with the rounded reciprocal and is off by one bit.
    return images.float() / images.new_full((), 127.5, dtype=torch.float32) - 1


def _draws(seed: int, indices: Sequence[int], view: int) -> np.ndarray:
    """float64 (B, 8), uniform on [0, 1); columns as in Draw."""
    draws = np.empty((len(indices), len(Draw)))
    for row, index in enumerate(indices):
        draws[row] = seeding.uniforms(seed, Stream.AUGMENT, int(index), view, len(Draw))
    return draws


def _spread(draws: np.ndarray, which: Draw, reach: float, like: Tensor) -> Tensor:
    """One parameter, uniform on [-reach, reach), as (B, 1, 1, 1) with the dtype and device of `like`."""
    values = (2 * draws[:, which] - 1) * reach
    return torch.from_numpy(values).to(like).reshape(-1, 1, 1, 1)


def _crop_and_flip(images: Tensor, draws: np.ndarray, strength: float, *, flip: bool) -> Tensor:
    """Black margins of side/8, cut back to size at a uniform integer offset, then mirrored with probability ½."""
    batch, channels, height, width = images.shape
    rows, inside_rows = _window(draws[:, Draw.TOP], height, strength)
    columns, inside_columns = _window(draws[:, Draw.LEFT], width, strength)
    if flip:
        mirrored = draws[:, Draw.FLIP] < 0.5
        columns[mirrored] = columns[mirrored, ::-1]
        inside_columns[mirrored] = inside_columns[mirrored, ::-1]
    # Gathers rows, then columns: moves whole rows of memory first.
    device = images.device
    row_index = torch.from_numpy(rows).to(device)[:, None, :, None].expand(batch, channels, height, width)
    column_index = torch.from_numpy(columns).to(device)[:, None, None, :].expand(batch, channels, height, width)
    inside = torch.from_numpy(inside_rows[:, None, :, None] & inside_columns[:, None, None, :]).to(device)
    return images.gather(2, row_index).gather(3, column_index) * inside


def _window(uniform: np.ndarray, side: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """(Source positions (B, side) held within the image, whether each was inside it) of a cut along one axis."""
    margin = math.floor(side * strength / 8 + 0.5)
    offset = np.floor(uniform * (2 * margin + 1)).astype(np.int64) - margin
    positions = offset[:, None] + np.arange(side)
    held = positions.clip(0, side - 1)
    return held, held == positions


def _jitter(pixels: Tensor, draws: np.ndarray, strength: float) -> Tensor:
    """Brightness, contrast, saturation by 1 ± 0.4, hue by ± 0.1 turn; one-channel images: the first two."""
    pixels = (pixels * (1 + _spread(draws, Draw.BRIGHTNESS, 0.4 * strength, pixels))).clamp(0, 1)
    pixels = _blend(pixels, _mean(_grey(pixels)), 1 + _spread(draws, Draw.CONTRAST, 0.4 * strength, pixels))
    if pixels.shape[1] == 1:
        return pixels
    pixels = _blend(pixels, _grey(pixels), 1 + _spread(draws, Draw.SATURATION, 0.4 * strength, pixels))
    return _turn_hue(pixels, _spread(draws, Draw.HUE, 0.1 * strength, pixels))


def _blend(pixels: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """`other` where factor is 0, `pixels` where it is 1, beyond them elsewhere; held in [0, 1]."""
    # Written out: torch.lerp rounds differently in the vectorised part and the rest of a batch.
    return (other + (pixels - other) * factor).clamp(0, 1)


def _grey(pixels: Tensor) -> Tensor:
    """(B, 1, H, W): ITU-R 601-2 luma, Pillow's "L"."""
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = pixels[:, 0:1], pixels[:, 1:2], pixels[:, 2:3]
    grey: Tensor = 0.299 * red + 0.587 * green + 0.114 * blue
    return grey


def _mean(grey: Tensor) -> Tensor:
    """(B, 1, 1, 1). Summed in integers of 2^-24: exact, so that no order of summation shows."""
    counts = (grey * 2**24).round().to(torch.int64).sum(dim=(2, 3), keepdim=True)
    return (counts.double() / (2**24 * grey.shape[2] * grey.shape[3])).to(grey.dtype)


def _turn_hue(pixels: Tensor, turn: Tensor) -> Tensor:
    """Hue moved by `turn` (1 is the whole circle), value and chroma kept.

    With h in sixths of a turn, back from HSV is f(n) = V − C · clamp(min(k, 4 − k), 0, 1), k = (n + h) mod 6,
    and n = 5, 3, 1 for red, green, blue.
    """
    red, green, blue = pixels[:, 0:1], pixels[:, 1:2], pixels[:, 2:3]
    value = pixels.amax(dim=1, keepdim=True)
    chroma = value - pixels.amin(dim=1, keepdim=True)
    divisor = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    from_green = torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4)
    hue = torch.where(value == red, (green - blue) / divisor, from_green) + 6 * turn
    peaks = torch.tensor([5.0, 3.0, 1.0], device=pixels.device).reshape(1, 3, 1, 1)
    k = torch.remainder(peaks + hue, 6)
    return (value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)).clamp(0, 1)


def _rotate(pixels: Tensor, draws: np.ndarray, strength: float) -> Tensor:
    """Counter-clockwise about the centre, uniform in ± 15°, bilinear, black outside."""
    height, width = pixels.shape[2:]
    angle = (2 * draws[:, Draw.ANGLE] - 1) * math.radians(15) * strength
    cos = torch.from_numpy(np.cos(angle)).to(pixels).reshape(-1, 1, 1)
    sin = torch.from_numpy(np.sin(angle)).to(pixels).reshape(-1, 1, 1)
    y = (torch.arange(height, device=pixels.device) + 0.5 - height / 2).reshape(1, -1, 1)
    x = (torch.arange(width, device=pixels.device) + 0.5 - width / 2).reshape(1, 1, -1)
    # Where each pixel of the result comes from, in grid_sample's units: ± 1 are the outer edges of the image.
    grid = torch.stack([(cos * x - sin * y) * (2 / width), (sin * x + cos * y) * (2 / height)], dim=-1)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _center(pixels: Tensor, strength: float) -> Tensor:
    """The middle 7/8 of each side, back to full size, bilinear."""
    return _stretch_middle(_stretch_middle(pixels, 2, strength), 3, strength)


def _stretch_middle(pixels: Tensor, dim: int, strength: float) -> Tensor:
    """The middle 7/8 of one dimension at strength 1, back to full size, bilinear."""
    # Written out: torch's interpolate differs in the last bit with the number of threads.
    side = pixels.shape[dim]
    middle = math.floor(side * (1 - strength / 8) + 0.5)
    position = ((np.arange(side) + 0.5) * middle / side - 0.5).clip(0, middle - 1)
    low = np.floor(position).astype(np.int64)
    high = (low + 1).clip(max=middle - 1)
    first = (side - middle) // 2
    shape = (-1, 1) if dim == 2 else (-1,)
    weight = torch.from_numpy(position - low).to(pixels).reshape(shape)
    below, above = (
        pixels.index_select(dim, torch.from_numpy(first + index).to(pixels.device)) for index in (low, high)
    )
    return below * (1 - weight) + above * weight
