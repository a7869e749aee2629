"""Building blocks of the U-Nets of EDM (Karras et al., "Elucidating the Design Space of Diffusion-Based Generative
Models", 2022, https://arxiv.org/abs/2206.00364): resampling convolutions, residual blocks with attention, embeddings.

Parameter names and shapes are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Resample = Literal["up", "down"] | None


def group_norm(channels: int, eps: float) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, channels // 4), channels, eps=eps)


class Conv2d(nn.Module):
    """Convolution with optional resampling by a factor of two, before it (default) or after it (`fused_down`).

    kernel 3 or 1 convolves; kernel 0 only resamples. The filter is the outer product of `taps` with itself.
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
        line = torch.as_tensor(taps, dtype=torch.float32)
        self.register_buffer("resample_filter", (line.outer(line) / line.sum() ** 2)[None, None] if resample else None)

    def forward(self, x: Tensor) -> Tensor:
        if self.fused_down:
            return self._convolve_then_filter(x)
        if self.resample is not None:
            x = self._resample(x)
        return x if self.weight is None else F.conv2d(x, self.weight, self.bias, padding=self.padding)

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
    """Residual block; the embedding enters as a shift (DDPM++, NCSN++) or as scale and shift (ADM)."""

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
        """x (B, C, H, W), embedding (B or 1, E) → (B, C', H', W')."""
        h = self.conv0(F.silu(self.norm0(x)))
        affine = self.affine(embedding)[:, :, None, None]
        if self.scale_shift:
            scale, shift = affine.chunk(2, dim=1)
            h = F.silu(torch.addcmul(shift, self.norm1(h), scale + 1))
        else:
            h = F.silu(self.norm1(h + affine))
        h = self.conv1(h)
        x = (h + (x if self.skip is None else self.skip(x))) * self.gain
        return (x + self.proj(self._attend(x))) * self.gain if self.heads else x

    def _attend(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(self.norm2(x)).view(batch, self.heads, channels // self.heads, 3, height * width)
        q, k, v = (part.transpose(2, 3) for part in qkv.unbind(3))
        return F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(x.shape)


class FourierEmbedding(nn.Module):
    """Random frequencies kept in the checkpoint (NCSN++); → (B, 2·half), cosines first."""

    freqs: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.randn(channels // 2) * 16)

    def forward(self, noise: Tensor) -> Tensor:
        angles = noise.outer(2 * torch.pi * self.freqs)
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class PositionalEmbedding(nn.Module):
    """Geometric frequencies from 1 down to 1/10000, with (`endpoint`) or without the last; cosines first."""

    def __init__(self, channels: int, endpoint: bool) -> None:
        super().__init__()
        self.frequencies, self.endpoint = channels // 2, endpoint

    def forward(self, noise: Tensor) -> Tensor:
        steps = torch.arange(self.frequencies, dtype=torch.float32, device=noise.device)
        # A float32 power, as the checkpoints were trained with: other roundings show at noise values near 1,000.
        angles = noise.outer((1 / 10000) ** (steps / (self.frequencies - (1 if self.endpoint else 0))))
        return torch.cat([angles.cos(), angles.sin()], dim=1)
