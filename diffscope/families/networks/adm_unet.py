"""The U-Net of improved-diffusion and guided-diffusion (ADM), class name `UNetModel` in both.

Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, https://arxiv.org/abs/2102.09672; Dhariwal
& Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021, https://arxiv.org/abs/2105.05233. Parameter names and
shapes are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffscope.families.networks.attention import attend
from diffscope.families.networks.transformer import sinusoids
from diffscope.families.networks.unet_blocks import GroupNorm, Resample
from diffscope.families.networks.walk import OUTPUT, Walk, WalkedNetwork

GROUPS = 32
EPSILON = 1e-5


class ADMUNet(WalkedNetwork):
    """Dhariwal and Nichol's U-Net under its own names.

    Argument names are those of the original constructor; dropout is for training alone and left out.
    Layers: `input_blocks.N`, `middle_block`, `output_blocks.N`; each is what its block gives on, after attention and
    resampling.

    Args:
        in_channels: Channels of the input.
        model_channels: Base width, even.
        out_channels: Channels of the output: twice `in_channels` where the variance is learned; `output` has all of
            them.
        num_res_blocks: Residual blocks at each resolution of the encoder; the decoder has one more.
        attention_resolutions: Factors of downsampling at which blocks attend; the middle always does.
        channel_mult: Width of each resolution, in base widths.
        num_classes: Number of classes; None for none.
        use_scale_shift_norm: Whether the embedding enters as scale and shift, rather than as a shift.
        resblock_updown: Whether residual blocks resample, rather than convolutions.
        num_heads: Attention heads; None where `num_head_channels` says it.
        num_head_channels: Width of a head; None where `num_heads` says it.
        use_new_attention_order: Whether queries, keys and values are divided first and then the heads, rather than the
            heads first.
    """

    layout = torch.channels_last  # no reordering around convolutions
    trunk = ("input_blocks", "middle_block", "output_blocks", "out")

    def __init__(
        self,
        in_channels: int,
        model_channels: int,
        out_channels: int,
        num_res_blocks: int,
        attention_resolutions: Sequence[int],
        channel_mult: Sequence[float],
        num_classes: int | None = None,
        use_scale_shift_norm: bool = False,
        resblock_updown: bool = False,
        num_heads: int | None = None,
        num_head_channels: int | None = None,
        use_new_attention_order: bool = False,
    ) -> None:
        super().__init__()
        self.model_channels = model_channels
        embedding = 4 * model_channels
        widths = [round(model_channels * m) for m in channel_mult]

        def block(i: int, o: int, resample: Resample = None) -> ResBlock:
            return ResBlock(i, o, embedding, use_scale_shift_norm, resample)

        def attention(width: int) -> AttentionBlock:
            heads = num_heads or width // (num_head_channels or width)
            return AttentionBlock(width, heads, use_new_attention_order)

        def resampled(width: int, resample: Resample) -> nn.Module:
            if resblock_updown:
                return block(width, width, resample)
            return Downsample(width) if resample == "down" else Upsample(width)

        def attended(level: int, width: int) -> list[nn.Module]:
            return [attention(width)] if 2**level in attention_resolutions else []

        self.time_embed = nn.ModuleDict(
            {"0": nn.Linear(model_channels, embedding), "2": nn.Linear(embedding, embedding)}
        )
        self.label_emb = nn.Embedding(num_classes, embedding) if num_classes else None

        width = widths[0]
        entries: list[list[nn.Module]] = [[nn.Conv2d(in_channels, width, 3, padding=1)]]
        skips = [width]
        for level, out in enumerate(widths):
            if level:
                entries.append([resampled(width, "down")])
                skips.append(width)
            for _ in range(num_res_blocks):
                entries.append([block(width, out), *attended(level, out)])
                width = out
                skips.append(width)
        self.input_blocks = nn.ModuleList(map(Block, entries))
        self.middle_block = Block([block(width, width), attention(width), block(width, width)])

        entries = []
        for level, out in reversed(list(enumerate(widths))):
            for _ in range(num_res_blocks + 1):
                entries.append([block(width + skips.pop(), out), *attended(level, out)])
                width = out
            if level:
                entries[-1].append(resampled(width, "up"))
        self.output_blocks = nn.ModuleList(map(Block, entries))
        self.out = Block([_norm(width), nn.SiLU(), nn.Conv2d(width, out_channels, 3, padding=1)])

    def walk(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Walk:
        """Yields the layers.

        Args:
            x: (B, C, S, S), scaled to unit variance.
            time: Step, (B,) or (1,).
            label: Class, (B,) or (1,) int64; required of a network with classes.

        Yields:
            (name, activation (B, C', H, W)), then the output (B, out_channels, S, S).
        """
        x = x.to(next(self.out.parameters()).dtype)
        condition = F.silu(self.embed(time, label)).to(x.dtype)
        skips: list[Tensor] = []
        for i, block in enumerate(self.input_blocks):
            x = block(x, condition)
            skips.append(x)
            yield f"input_blocks.{i}", x
        x = self.middle_block(x, condition)
        yield "middle_block", x
        for i, block in enumerate(self.output_blocks):
            x = block(torch.cat([x, skips.pop()], dim=1), condition)
            yield f"output_blocks.{i}", x
        yield OUTPUT, self.out(x, condition)

    def embed(self, time: Tensor, label: Tensor | None) -> Tensor:
        """Embeds step and class, in float32.

        Args:
            time: (B,) or (1,).
            label: (B,) or (1,) int64; required of a network with classes.

        Returns:
            (B or 1, 4 · model_channels).
        """
        features = self.time_embed["0"](sinusoids(time, self.model_channels))
        embedding: Tensor = self.time_embed["2"](F.silu(features))
        if self.label_emb is None:
            return embedding
        assert label is not None
        embedding = embedding + self.label_emb(label)
        return embedding


class Block(nn.ModuleList):
    """Modules run one after the other; residual blocks are given the embedding as well."""

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Runs them.

        Args:
            x: (B, C, H, W).
            condition: (B or 1, E), activated.

        Returns:
            (B, C', H', W').
        """
        for entry in self:
            x = entry(x, condition) if isinstance(entry, ResBlock) else entry(x)
        return x


class ResBlock(nn.Module):
    """Residual block; the embedding enters as a shift, or as scale and shift.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        embedding: Width of the embedding.
        scale_shift: Whether it enters as scale and shift.
        resample: "up", "down" or None.
    """

    def __init__(
        self, in_channels: int, out_channels: int, embedding: int, scale_shift: bool, resample: Resample = None
    ) -> None:
        super().__init__()
        self.scale_shift, self.resample = scale_shift, resample
        # Keyed as in the checkpoints, where activations and dropout have numbers of their own.
        self.in_layers = nn.ModuleDict(
            {"0": _norm(in_channels), "2": nn.Conv2d(in_channels, out_channels, 3, padding=1)}
        )
        self.emb_layers = nn.ModuleDict({"1": nn.Linear(embedding, out_channels * (2 if scale_shift else 1))})
        self.out_layers = nn.ModuleDict(
            {"0": _norm(out_channels), "3": nn.Conv2d(out_channels, out_channels, 3, padding=1)}
        )
        self.skip_connection = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Applies the block.

        Args:
            x: (B, C, H, W).
            condition: (B or 1, E), activated.

        Returns:
            (B, C', H', W').
        """
        h: Tensor = self.in_layers["0"](x, silu=True)
        if self.resample is not None:
            x, h = _resampled(x, self.resample), _resampled(h, self.resample)
        h = self.in_layers["2"](h)
        affine = self.emb_layers["1"](condition)[:, :, None, None]
        if self.scale_shift:
            scale, shift = affine.chunk(2, dim=1)
            h = F.silu(torch.addcmul(shift, self.out_layers["0"](h), scale + 1), inplace=True)
        else:
            h = self.out_layers["0"](h + affine, silu=True)
        h = self.out_layers["3"](h)
        h += x if self.skip_connection is None else self.skip_connection(x)
        return h


class AttentionBlock(nn.Module):
    """Self-attention over all positions.

    Args:
        channels: Of the input, a multiple of `heads`.
        heads: Number of heads.
        new_order: Whether the rows of `qkv` are all queries, all keys, all values, rather than these three for each
            head.
    """

    def __init__(self, channels: int, heads: int, new_order: bool) -> None:
        super().__init__()
        self.heads, self.new_order = heads, new_order
        self.norm = _norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the block.

        Args:
            x: (B, C, H, W).

        Returns:
            (B, C, H, W).
        """
        batch, channels, positions = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        rows = F.linear(tokens, self.qkv.weight[:, :, 0], self.qkv.bias)
        width = channels // self.heads
        if self.new_order:
            parts = rows.view(batch, positions, 3, self.heads, width).unbind(2)
        else:
            parts = rows.view(batch, positions, self.heads, 3, width).unbind(3)
        q, k, v = (part.transpose(1, 2) for part in parts)
        attended = attend(q, k, v).transpose(1, 2).reshape(batch, positions, channels)
        made = F.linear(attended, self.proj_out.weight[:, :, 0], self.proj_out.bias)
        return x + made.transpose(1, 2).view_as(x)


class Downsample(nn.Module):
    """A convolution of stride two.

    Args:
        channels: Of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Halves the side of (B, C, H, W)."""
        made: Tensor = self.op(x)
        return made


class Upsample(nn.Module):
    """A nearest-neighbour doubling, then a convolution.

    Args:
        channels: Of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Doubles the side of (B, C, H, W)."""
        made: Tensor = self.conv(_resampled(x, "up"))
        return made


def _norm(channels: int) -> GroupNorm:
    return GroupNorm(GROUPS, channels, eps=EPSILON)


def _resampled(x: Tensor, resample: Resample) -> Tensor:
    return F.avg_pool2d(x, 2) if resample == "down" else F.interpolate(x, scale_factor=2, mode="nearest")
