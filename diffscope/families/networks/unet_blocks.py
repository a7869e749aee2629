"""Building blocks of EDM's U-Nets: resampling convolutions, residual blocks with attention, embeddings.

Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
https://arxiv.org/abs/2206.00364. Parameter names and shapes are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffscope.families.networks.attention import attend

Resample = Literal["up", "down"] | None


SMALL_MAP = 1024
"""Below this many positions torch's group norm on a CPU is slow where channels come last: up to 7 times in bfloat16."""


class GroupNorm(nn.GroupNorm):
    """Group norm over (B, C, H, W), fast on a CPU as well."""

    def forward(self, x: Tensor, silu: bool = False) -> Tensor:
        """Normalises the groups.

        Args:
            x: (B, C, H, W).
            silu: Apply the activation that follows in the U-Nets, in the same pass.

        Returns:
            Of the shape and precision of `x`.
        """
        if x.device.type == "cpu" and x.stride(1) == 1 and x[0, 0].numel() < SMALL_MAP:
            h = self._by_channel_sums(x)
        else:
            h = super().forward(x)
        return (F.silu(h, inplace=True) if silu else h).to(x.dtype)

    def _by_channel_sums(self, x: Tensor) -> Tensor:
        """Normalises in float32, from sums that run along the channels, as they lie in memory."""
        x = x.float()
        parts = (len(x), self.num_groups, x.shape[1] // self.num_groups)
        count = parts[2] * x.shape[2] * x.shape[3]
        mean = x.sum((2, 3)).view(parts).sum(2, keepdim=True) / count
        power = x.square().sum((2, 3)).view(parts).sum(2, keepdim=True) / count
        deviation = (power - mean.square()).clamp(min=0).add(self.eps).rsqrt()
        scale = deviation * self.weight.float().view(parts[1:])
        shift = self.bias.float().view(parts[1:]) - mean * scale
        rows = (*x.shape[:2], 1, 1)
        return torch.addcmul(shift.view(rows), x, scale.view(rows))


def group_norm(channels: int, eps: float) -> GroupNorm:
    """Makes a group norm of at most 32 groups with at least four channels each.

    Args:
        channels: Of the input.
        eps: Added to the variance.

    Returns:
        The module.
    """
    return GroupNorm(min(32, channels // 4), channels, eps=eps)


class Conv2d(nn.Module):
    """Convolution with optional resampling by a factor of two, before it (default) or after it (`fused_down`).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: 3 or 1; 0 only resamples.
        resample: "up", "down" or None.
        taps: The filter is the outer product of these numbers with themselves, over its sum.
        fused_down: Convolve first, then filter and halve.
    """

    resample_filter: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        resample: Resample = None,
        taps: Sequence[int] = (1, 1),
        fused_down: bool = False,
    ) -> None:
        super().__init__()
        self.resample, self.taps, self.fused_down = resample, len(taps), fused_down
        self.padding = kernel // 2
        if kernel:
            self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel))
            self.bias = nn.Parameter(torch.empty(out_channels))
        else:
            self.register_parameter("weight", None)
            self.register_parameter("bias", None)
        line = np.asarray(taps, np.float32)  # of torch on the meta device, products import its compiler: seconds
        filtering = torch.tensor(np.outer(line, line) / line.sum() ** 2)
        self.register_buffer("resample_filter", filtering[None, None] if resample else None)

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """Applies resampling and convolution.

        Args:
            x: (B, C, H, W).
            shift: Added to every position, (B or 1, C'): as part of the bias, where one serves the whole batch.

        Returns:
            (B, C', H', W').
        """
        if self.fused_down:
            return self._convolve_then_filter(x)
        if self.resample is not None:
            x = self._resample(x)
        if self.weight is None:
            return x
        if shift is None or len(shift) == 1:
            bias = self.bias if shift is None else self.bias + shift[0]
            return F.conv2d(x, self.weight, bias, padding=self.padding)
        return F.conv2d(x, self.weight, self.bias, padding=self.padding).add_(shift[:, :, None, None])

    def _resample(self, x: Tensor) -> Tensor:
        if self.taps == 2:  # a 2×2 mean and a nearest-neighbour doubling, several times faster than the filter
            return F.avg_pool2d(x, 2) if self.resample == "down" else F.interpolate(x, scale_factor=2, mode="nearest")
        assert self.resample_filter is not None
        channels, padding = x.shape[1], (self.taps - 1) // 2
        kernel = self.resample_filter.expand(channels, 1, -1, -1)
        if self.resample == "down":
            return F.conv2d(x, kernel, stride=2, padding=padding, groups=channels)
        return F.conv_transpose2d(x, 4 * kernel, stride=2, padding=padding, groups=channels)

    def _convolve_then_filter(self, x: Tensor) -> Tensor:
        assert self.resample_filter is not None
        h = F.conv2d(x, self.weight, padding=self.padding + (self.taps - 1) // 2)
        kernel = self.resample_filter.expand(h.shape[1], 1, -1, -1)
        h = F.conv2d(h, kernel, stride=2, groups=h.shape[1])
        return h + self.bias[:, None, None]


class UNetBlock(nn.Module):
    """Residual block; the embedding enters as a shift (DDPM++, NCSN++) or as scale and shift (ADM).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        embedding: Width of the embedding.
        heads: Number of attention heads, 0 for none.
        resample: "up", "down" or None.
        taps: Of the resampling filter.
        scale_shift: Whether it is ADM's form.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding: int,
        heads: int = 0,
        resample: Resample = None,
        taps: Sequence[int] = (1, 1),
        scale_shift: bool = False,
    ) -> None:
        super().__init__()
        eps = 1e-5 if scale_shift else 1e-6
        self.scale_shift, self.heads = scale_shift, heads
        self.gain = 1.0 if scale_shift else 0.5**0.5
        self.norm0 = group_norm(in_channels, eps)
        self.conv0 = Conv2d(in_channels, out_channels, 3, resample, taps)
        self.affine = nn.Linear(embedding, out_channels * (2 if scale_shift else 1))
        self.norm1 = group_norm(out_channels, eps)
        self.conv1 = Conv2d(out_channels, out_channels, 3)
        project = in_channels != out_channels or (resample is not None and not scale_shift)
        self.skip = (
            Conv2d(in_channels, out_channels, 1 if project else 0, resample, taps) if project or resample else None
        )
        if heads:
            self.norm2 = group_norm(out_channels, eps)
            self.qkv = Conv2d(out_channels, 3 * out_channels, 1)
            self.proj = Conv2d(out_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Applies the block, in place on what it made itself, never on `x`.

        Args:
            x: (B, C, H, W).
            embedding: (B or 1, E).

        Returns:
            (B, C', H', W').
        """
        h = self.norm0(x, silu=True)
        affine = self.affine(embedding)
        if self.scale_shift:
            scale, shift = affine[:, :, None, None].chunk(2, dim=1)
            h = F.silu(torch.addcmul(shift, self.norm1(self.conv0(h)), scale + 1), inplace=True)
        else:
            h = self.norm1(self.conv0(h, affine), silu=True)
        h = self._sum(self.conv1(h), x if self.skip is None else self.skip(x))
        return self._sum(self.proj(self._attend(h)), h) if self.heads else h

    def _sum(self, made: Tensor, x: Tensor) -> Tensor:
        made += x
        return made if self.gain == 1 else made.mul_(self.gain)

    def _attend(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        # The checkpoints' rows run (head, channel, part); put as (part, head, channel) no part has to be copied.
        weight = self.qkv.weight.view(channels, 3, channels, 1, 1).transpose(0, 1).reshape(self.qkv.weight.shape)
        bias = self.qkv.bias.view(channels, 3).T.reshape(-1)
        qkv = F.conv2d(self.norm2(x), weight, bias)
        parts = qkv.view(batch, 3, self.heads, channels // self.heads, height * width).transpose(3, 4)
        return attend(*parts.unbind(1)).transpose(2, 3).reshape(x.shape)


class FourierEmbedding(nn.Module):
    """Random frequencies kept in the checkpoint (NCSN++).

    Args:
        channels: Number of features, even.
    """

    freqs: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.randn(channels // 2).mul_(16))

    def forward(self, noise: Tensor) -> Tensor:
        """Embeds noise values.

        Args:
            noise: c_noise, (B,).

        Returns:
            Cosines, then sines, (B, channels).
        """
        angles = noise.outer(2 * torch.pi * self.freqs)
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class PositionalEmbedding(nn.Module):
    """Geometric frequencies from 1 down to 1/10000.

    Args:
        channels: Number of features, even.
        endpoint: Whether the last frequency is 1/10000 itself.
    """

    def __init__(self, channels: int, endpoint: bool) -> None:
        super().__init__()
        self.frequencies, self.endpoint = channels // 2, endpoint

    def forward(self, noise: Tensor) -> Tensor:
        """Embeds noise values.

        Args:
            noise: c_noise, (B,).

        Returns:
            Cosines, then sines, (B, channels).
        """
        steps = torch.arange(self.frequencies, dtype=torch.float32, device=noise.device)
        # A float32 power, as the checkpoints were trained with: other roundings show at noise values near 1,000.
        angles = noise.outer((1 / 10000) ** (steps / (self.frequencies - (1 if self.endpoint else 0))))
        return torch.cat([angles.cos(), angles.sin()], dim=1)
