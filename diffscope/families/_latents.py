"""Between the VAE's latents and what a latent model takes: a shift and a factor, the same for all channels or not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffscope.checkpoints import read
from diffscope.errors import CheckpointError

NORMALISED = "none"
"""Said in place of a file of statistics: the latents are what the network takes already."""


@dataclass(frozen=True)
class LatentScale:
    """factor · (latents - mean), each one number or one for each channel."""

    factor: tuple[float, ...]
    mean: tuple[float, ...] = (0.0,)

    def apply(self, latents: Tensor) -> Tensor:
        """Turns latents (B, C, h, w) as the VAE gives them into what the network takes."""
        return self._like(latents, self.factor) * (latents - self._like(latents, self.mean))

    def undo(self, x: Tensor) -> Tensor:
        """Turns what the network takes, (B, C, h, w), back into latents as the VAE gives them."""
        return x / self._like(x, self.factor) + self._like(x, self.mean)

    def to_json(self) -> Any:
        """Gives the factor alone where it is one number and nothing is taken off, else both."""
        plain = len(self.factor) == 1 and self.mean == (0.0,)
        return self.factor[0] if plain else {"factor": list(self.factor), "mean": list(self.mean)}

    @staticmethod
    def _like(latents: Tensor, values: Sequence[float]) -> Tensor:
        return latents.new_tensor(values)[:, None, None]


def read_statistics(path: str, channels: int) -> LatentScale:
    """Reads the statistics of latents, as training codes keep them in a file beside the latents or the VAE.

    Args:
        path: Of a file with `mean` and `std`, as LightningDiT writes it, or `latents_bias` and `latents_scale`, as
            REPA-E does; or `none`.
        channels: Of the latents.

    Returns:
        (latents - mean)/std; for `none` the latents as they are.

    Raises:
        CheckpointError: If it cannot be read as data, or holds no such statistics.
    """
    if path == NORMALISED:
        return LatentScale((1.0,))
    tensors = read(path).tensors
    if {"mean", "std"} <= tensors.keys():
        mean, std = (_numbers(path, tensors, name, channels) for name in ("mean", "std"))
        return scale_of(path, mean, [1 / value if value else math.inf for value in std])
    if {"latents_bias", "latents_scale"} <= tensors.keys():
        mean, factor = (_numbers(path, tensors, name, channels) for name in ("latents_bias", "latents_scale"))
        return scale_of(path, mean, factor)
    raise CheckpointError(
        f"{path}: holds {', '.join(list(tensors)[:4])}; expected the statistics of latents, `mean` and `std` or "
        "`latents_bias` and `latents_scale`"
    )


def scale_of(path: str, mean: Sequence[float], factor: Sequence[float]) -> LatentScale:
    """Checks statistics from a file.

    Args:
        path: Of the file, for the message.
        mean: Of each channel.
        factor: Of each channel, one over its deviation.

    Returns:
        The shift and factor that they mean.

    Raises:
        CheckpointError: If a mean is not finite, or a factor not finite and above 0.
    """
    if not all(map(math.isfinite, mean)) or not all(0 < value < math.inf for value in factor):
        raise CheckpointError(
            f"{path}: statistics of latents that are not finite, or a deviation that is not above 0; compute them anew"
        )
    return LatentScale(tuple(factor), tuple(mean))


def _numbers(path: str, tensors: Mapping[str, Tensor], name: str, channels: int) -> list[float]:
    """One number for each channel, or one for all."""
    tensor = tensors[name]
    shape = list(tensor.shape)
    if tensor.numel() not in (1, channels) or max(shape, default=1) != tensor.numel() or not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{path}: {name} is {kind} {shape}; the model takes {channels} channels, expected [1, {channels}, 1, 1]"
        )
    numbers: list[float] = tensor.to(torch.float64).reshape(-1).tolist()
    return numbers
