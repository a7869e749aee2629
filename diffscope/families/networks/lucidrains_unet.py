"""The U-Net of the denoising-diffusion-pytorch package: releases 1.9 and later, attention with memories.

Ho et al., "Denoising Diffusion Probabilistic Models", 2020, https://arxiv.org/abs/2006.11239; linear attention: Shen et
al., "Efficient Attention: Attention with Linear Complexities", 2021, https://arxiv.org/abs/1812.01243. Parameter names
and shapes are those of the Trainer's files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffscope.families.networks.attention import attend
from diffscope.families.networks.unet_blocks import GroupNorm
from diffscope.families.networks.walk import OUTPUT, Walk, WalkedNetwork


@dataclass(frozen=True)
class AttentionShape:
    """Of the attention at one resolution."""

    kind: Literal["linear", "full"]
    heads: int
    head_width: int
    memories: int
    """Learned keys and values that every image has beside its own positions."""


class LucidrainsUNet(WalkedNetwork):
    """The U-Net; a self-conditioned one is given zeros for its estimate.

    Layers: `init_conv`, `downs.N.{0,1,2,3}`, `mid_block1`, `mid_attn`, `mid_block2`, `ups.N.{0,1,2,3}`,
    `final_res_block`. Those of attention (`.2`, `mid_attn`) are the branch alone, before it is added.

    Args:
        channels: Of the images.
        out_channels: Of the output.
        self_condition: Whether the input has the network's estimate before the image.
        init_width: Channels after the first convolution.
        time_width: Number of sines and cosines of the step, even and at least 4.
        embedding_width: Of the step's embedding.
        widths: Channels after each level, the highest resolution first.
        final_width: Channels before the last convolution.
        attentions: Of each level, and last of the middle.
        groups: Of the group norms; 0 where blocks normalise the channels of each position instead.
    """

    trunk = ("init_conv", "downs", "mid_block1", "mid_attn", "mid_block2", "ups", "final_res_block", "final_conv")

    def __init__(
        self,
        channels: int,
        out_channels: int,
        self_condition: bool,
        init_width: int,
        time_width: int,
        embedding_width: int,
        widths: Sequence[int],
        final_width: int,
        attentions: Sequence[AttentionShape],
        groups: int,
    ) -> None:
        super().__init__()
        self.self_condition = self_condition

        def block(i: int, o: int) -> ResnetBlock:
            return ResnetBlock(i, o, embedding_width, groups)

        self.init_conv = nn.Conv2d(channels * (2 if self_condition else 1), init_width, 7, padding=3)
        self.time_mlp = nn.Sequential(
            StepEmbedding(time_width),
            nn.Linear(time_width, embedding_width),
            nn.GELU(),
            nn.Linear(embedding_width, embedding_width),
        )
        levels = list(zip([init_width, *widths[:-1]], widths, attentions, strict=False))
        lowest = len(levels) - 1
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for level, (width, out, attention) in enumerate(levels):
            resample = nn.Conv2d(width, out, 3, padding=1) if level == lowest else down(width, out)
            parts = [block(width, width), block(width, width), attention_of(width, attention), resample]
            self.downs.append(nn.ModuleList(parts))
        self.mid_block1 = block(widths[-1], widths[-1])
        self.mid_attn = attention_of(widths[-1], attentions[-1])
        self.mid_block2 = block(widths[-1], widths[-1])
        for level, (out, width, attention) in reversed(list(enumerate(levels))):
            resample = nn.Conv2d(width, out, 3, padding=1) if level == 0 else up(width, out)
            parts = [block(width + out, width), block(width + out, width), attention_of(width, attention), resample]
            self.ups.append(nn.ModuleList(parts))
        self.final_res_block = block(2 * init_width, final_width)
        self.final_conv = nn.Conv2d(final_width, out_channels, 1)

    def walk(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Walk:
        """Yields the layers.

        Args:
            x: (B, C, S, S), of variance 1.
            time: Whole step from 0, (B,) or (1,).
            label: Unused; the network takes no classes.

        Yields:
            (name, activation (B, C', H, W)), then the output (B, C, S, S).
        """
        dtype = self.init_conv.weight.dtype
        embedding = self.time_mlp(time.float()).to(dtype)
        x = x.to(dtype)
        if self.self_condition:
            x = torch.cat([torch.zeros_like(x), x], dim=1)
        x = first = self.init_conv(x)
        yield "init_conv", x
        skips: list[Tensor] = []
        for level, parts in enumerate(self.downs):
            block0, block1, attention, resample = parts.children()
            x = block0(x, embedding)
            yield f"downs.{level}.0", x
            skips.append(x)
            x = block1(x, embedding)
            yield f"downs.{level}.1", x
            branch = attention(x)
            yield f"downs.{level}.2", branch
            x = x + branch
            skips.append(x)
            x = resample(x)
            yield f"downs.{level}.3", x
        x = self.mid_block1(x, embedding)
        yield "mid_block1", x
        branch = self.mid_attn(x)
        yield "mid_attn", branch
        x = self.mid_block2(x + branch, embedding)
        yield "mid_block2", x
        for level, parts in enumerate(self.ups):
            block0, block1, attention, resample = parts.children()
            x = block0(torch.cat([x, skips.pop()], dim=1), embedding)
            yield f"ups.{level}.0", x
            x = block1(torch.cat([x, skips.pop()], dim=1), embedding)
            yield f"ups.{level}.1", x
            branch = attention(x)
            yield f"ups.{level}.2", branch
            x = resample(x + branch)
            yield f"ups.{level}.3", x
        x = self.final_res_block(torch.cat([x, first], dim=1), embedding)
        yield "final_res_block", x
        yield OUTPUT, self.final_conv(x)


def down(width: int, out: int) -> nn.Module:
    """Makes the halving of a map: each 2 × 2 positions as channels (c, dy, dx), then a projection."""
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * width, out, 1))


def up(width: int, out: int) -> nn.Module:
    """Makes the doubling of a map: nearest neighbours, then a convolution."""
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(width, out, 3, padding=1))


class StepEmbedding(nn.Module):
    """Geometric frequencies from 1 down to 1/10000 itself.

    Args:
        width: Number of features, even and at least 4.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.frequencies = width // 2

    def forward(self, step: Tensor) -> Tensor:
        """Embeds steps (B,): sines, then cosines, (B, width)."""
        exponents = torch.arange(self.frequencies, dtype=torch.float32, device=step.device)
        angles = step.outer(torch.exp(exponents * (-math.log(10000) / (self.frequencies - 1))))
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class RMSNorm(nn.Module):
    """Each position's channels, brought to the same root mean square.

    Args:
        channels: Of the input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.empty(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Gives x / ‖x‖ · g · √C, of the shape and precision of `x`."""
        normed: Tensor = F.normalize(x.float(), dim=1) * self.g.float() * x.shape[1] ** 0.5
        return normed.to(x.dtype)


class Block(nn.Module):
    """Convolution, normalisation, scale and shift, activation.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        groups: Of the group norm; 0 for RMSNorm.
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = GroupNorm(groups, out_channels, eps=1e-5) if groups else RMSNorm(out_channels)

    def forward(self, x: Tensor, scale_shift: Tensor | None = None) -> Tensor:
        """Applies the block.

        Args:
            x: (B, C, H, W).
            scale_shift: Scale and shift, (B or 1, 2·C', 1, 1); None for none.

        Returns:
            (B, C', H, W).
        """
        x = self.norm(self.proj(x))
        if scale_shift is not None:
            scale, shift = scale_shift.chunk(2, dim=1)
            x = torch.addcmul(shift, x, scale + 1)
        return F.silu(x)


class ResnetBlock(nn.Module):
    """Residual block; the embedding enters as scale and shift of its first half.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        embedding: Width of the embedding.
        groups: Of the group norms; 0 for RMSNorm.
    """

    def __init__(self, in_channels: int, out_channels: int, embedding: int, groups: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * out_channels))
        self.block1 = Block(in_channels, out_channels, groups)
        self.block2 = Block(out_channels, out_channels, groups)
        self.res_conv = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Applies the block.

        Args:
            x: (B, C, H, W).
            embedding: (B or 1, E).

        Returns:
            (B, C', H, W).
        """
        h = self.block1(x, self.mlp(embedding)[:, :, None, None])
        out: Tensor = self.block2(h) + self.res_conv(x)
        return out


class FullAttention(nn.Module):
    """Every position attends to all and to the memories.

    Args:
        channels: Of input and output.
        shape: Heads, their width, memories.
    """

    def __init__(self, channels: int, shape: AttentionShape) -> None:
        super().__init__()
        inner, self.heads = shape.heads * shape.head_width, shape.heads
        self.norm = RMSNorm(channels)
        self.mem_kv = nn.Parameter(torch.empty(2, shape.heads, shape.memories, shape.head_width))
        self.to_qkv = nn.Conv2d(channels, 3 * inner, 1, bias=False)
        self.to_out = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Gives the branch alone, (B, C, H, W) of the same shape."""
        batch, _, height, width = x.shape
        qkv = self.to_qkv(self.norm(x)).view(batch, 3, self.heads, -1, height * width).transpose(3, 4)
        memories = self.mem_kv.unsqueeze(1).expand(-1, batch, -1, -1, -1)
        q, (k, v) = qkv[:, 0], (torch.cat([m, qkv[:, i]], dim=2) for i, m in enumerate(memories, start=1))
        h = attend(q, k, v).transpose(2, 3).reshape(batch, -1, height, width)
        out: Tensor = self.to_out(h)
        return out


class LinearAttention(nn.Module):
    """All keys and values, memories too, are first summed to one matrix, which each position then asks.

    Args:
        channels: Of input and output.
        shape: Heads, their width, memories.
    """

    def __init__(self, channels: int, shape: AttentionShape) -> None:
        super().__init__()
        inner, self.heads = shape.heads * shape.head_width, shape.heads
        self.norm = RMSNorm(channels)
        self.mem_kv = nn.Parameter(torch.empty(2, shape.heads, shape.head_width, shape.memories))
        self.to_qkv = nn.Conv2d(channels, 3 * inner, 1, bias=False)
        self.to_out = nn.Sequential(nn.Conv2d(inner, channels, 1), RMSNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Gives the branch alone, (B, C, H, W) of the same shape."""
        batch, _, height, width = x.shape
        qkv = self.to_qkv(self.norm(x)).view(batch, 3, self.heads, -1, height * width)
        memories = self.mem_kv.unsqueeze(1).expand(-1, batch, -1, -1, -1)
        q, (k, v) = qkv[:, 0], (torch.cat([m, qkv[:, i]], dim=3) for i, m in enumerate(memories, start=1))
        q = q.softmax(dim=2) * q.shape[2] ** -0.5
        context = k.softmax(dim=3) @ v.transpose(2, 3)
        h = (context.transpose(2, 3) @ q).reshape(batch, -1, height, width)
        out: Tensor = self.to_out(h)
        return out


def attention_of(channels: int, shape: AttentionShape) -> nn.Module:
    """Makes the attention of a level.

    Args:
        channels: Of input and output.
        shape: Its kind, heads and memories.

    Returns:
        The module.
    """
    return FullAttention(channels, shape) if shape.kind == "full" else LinearAttention(channels, shape)
