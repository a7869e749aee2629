"""The transformer of DiT, SiT, REPA and LightningDiT: patches, blocks modulated by time and class, a linear head.

Peebles & Xie, "Scalable Diffusion Models with Transformers", 2023, https://arxiv.org/abs/2212.09748; Ma et al., "SiT",
2024, https://arxiv.org/abs/2401.08740. Parameter names and shapes are those of the published checkpoints.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffscope.families.networks.transformer_blocks import Block, modulation, rotary_table, token_norm
from diffscope.families.networks.walk import OUTPUT, Walk, WalkedNetwork


class DiffusionTransformer(WalkedNetwork):
    """Layers: `x_embedder`, `blocks.N` (the residual stream after block N), `final_layer`; tokens (B, T, width).

    Args:
        input_size: Side of the input, in pixels or latents.
        patch_size: Side of a patch, which becomes one token.
        in_channels: Channels of the input.
        out_channels: Channels of the output: twice `in_channels` where the variance is learned; `output` has all of
            them.
        hidden_size: Width of a token.
        depth: Number of blocks.
        num_heads: Attention heads; `hidden_size` is a multiple of it.
        label_rows: Rows of the class table, the null row included.
        mlp_ratio: Hidden width of the MLPs, in token widths.
        qk_norm: Whether queries and keys are normalised.
        frequency_size: Number of sines and cosines that embed the time.
        rms_norm: Whether norms divide by the root mean square and multiply by weights, rather than LayerNorm's.
        swiglu: Whether the MLPs are gated.
        rotary: Whether queries and keys are turned by their positions, by tables that are stored with the weights.
        shift: Whether the blocks shift normalised tokens, rather than scale them alone.
    """

    trunk = ("x_embedder", "blocks", "final_layer")

    def __init__(
        self,
        input_size: int,
        patch_size: int,
        in_channels: int,
        out_channels: int,
        hidden_size: int,
        depth: int,
        num_heads: int,
        label_rows: int,
        mlp_ratio: float = 4.0,
        qk_norm: bool = False,
        frequency_size: int = 256,
        rms_norm: bool = False,
        swiglu: bool = False,
        rotary: bool = False,
        shift: bool = True,
    ) -> None:
        super().__init__()
        self.patch_size, self.out_channels, self.grid = patch_size, out_channels, input_size // patch_size
        self.x_embedder = PatchEmbedding(in_channels, hidden_size, patch_size)
        self.t_embedder = TimeEmbedding(frequency_size, hidden_size)
        self.y_embedder = LabelEmbedding(label_rows, hidden_size)
        self.pos_embed = nn.Parameter(position_table(hidden_size, self.grid), requires_grad=False)
        self.feat_rope = RotaryTable(self.grid, hidden_size // num_heads) if rotary else None
        hidden = round(hidden_size * mlp_ratio)
        self.blocks = nn.ModuleList(
            Block(hidden_size, num_heads, hidden, qk_norm, rms_norm, swiglu, shift) for _ in range(depth)
        )
        self.final_layer = FinalLayer(hidden_size, patch_size * patch_size * out_channels, rms_norm)

    def walk(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Walk:
        """Yields the layers.

        Args:
            x: (B, C, S, S), scaled as the family does.
            time: (B,) or (1,), unscaled.
            label: Index into the class table, (B,) or (1,) int64; required.

        Yields:
            (name, tokens (B, T, width)), then the output (B, out_channels, S, S).
        """
        assert label is not None
        condition = self.t_embedder(time) + self.y_embedder(label)
        tokens = self.x_embedder(x.to(self.x_embedder.proj.weight.dtype))
        yield "x_embedder", tokens
        tokens = tokens + self.pos_embed.to(tokens.dtype)
        condition = F.silu(condition.to(tokens.dtype))
        rotary = None if self.feat_rope is None else (self.feat_rope.freqs_cos, self.feat_rope.freqs_sin)
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, condition, rotary)
            yield f"blocks.{i}", tokens
        tokens = self.final_layer(tokens, condition)
        yield "final_layer", tokens
        yield OUTPUT, unpatchify(tokens, self.patch_size, self.out_channels)


class PatchEmbedding(nn.Module):
    """A linear map of each patch.

    Args:
        in_channels: Channels of the input.
        hidden_size: Width of a token.
        patch_size: Side of a patch.
    """

    def __init__(self, in_channels: int, hidden_size: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, hidden_size, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Turns images into tokens, row by row.

        Args:
            x: (B, C, S, S).

        Returns:
            (B, T, hidden_size), with T = (S / patch_size)².
        """
        tokens: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return tokens


class TimeEmbedding(nn.Module):
    """Cosines, then sines, of the time at geometric frequencies, then two linear layers; float32 throughout.

    Args:
        frequency_size: Number of sines and cosines.
        hidden_size: Width of the embedding.
    """

    def __init__(self, frequency_size: int, hidden_size: int) -> None:
        super().__init__()
        self.frequency_size = frequency_size
        self.mlp = nn.Sequential(nn.Linear(frequency_size, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size))

    def forward(self, time: Tensor) -> Tensor:
        """Embeds times.

        Args:
            time: (B,).

        Returns:
            (B, hidden_size), float32.
        """
        embedding: Tensor = self.mlp(sinusoids(time, self.frequency_size))
        return embedding


def sinusoids(time: Tensor, size: int) -> Tensor:
    """Computes cosines, then sines, of the time at geometric frequencies from 1 to almost 1/10000.

    Args:
        time: (B,).
        size: Number of both together, even.

    Returns:
        (B, size), float32.
    """
    half = size // 2
    steps = torch.arange(half, dtype=torch.float32)
    # Float32 at every step, as the checkpoints were trained: at times near 999 another rounding shows. The float32
    # exponential differs from processor to processor, so that it is rounded from the float64 one.
    frequencies = torch.exp((-math.log(10000) * steps / half).double()).float()
    angles = time.float()[:, None] * frequencies.to(time.device)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class LabelEmbedding(nn.Module):
    """A table of classes.

    Args:
        rows: Number of classes, the null class included.
        hidden_size: Width of the embedding.
    """

    def __init__(self, rows: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(rows, hidden_size)

    def forward(self, label: Tensor) -> Tensor:
        """Embeds classes.

        Args:
            label: Indices (B,) int64.

        Returns:
            (B, hidden_size).
        """
        embedding: Tensor = self.embedding_table(label)
        return embedding


class FinalLayer(nn.Module):
    """A linear map of normalised tokens, shifted and scaled by the condition.

    Args:
        width: Of a token.
        out_features: Numbers of one patch of the output.
        rms_norm: Whether its norm divides by the root mean square and multiplies by weights.
    """

    def __init__(self, width: int, out_features: int, rms_norm: bool = False) -> None:
        super().__init__()
        self.norm_final = token_norm(width, rms_norm)
        self.linear = nn.Linear(width, out_features)
        self.adaLN_modulation = modulation(width, 2)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Applies the layer.

        Args:
            tokens: (B, T, D).
            condition: SiLU of the condition, (B or 1, D).

        Returns:
            (B, T, out_features).
        """
        shift, scale = self.adaLN_modulation(condition)[:, None].chunk(2, dim=-1)
        out: Tensor = self.linear(torch.addcmul(shift, self.norm_final(tokens), 1 + scale))
        return out


class RotaryTable(nn.Module):
    """The tables of rotary positions, which such checkpoints store.

    Args:
        grid: Patches along one side.
        width: Of a head, a multiple of 4.
    """

    freqs_cos: Tensor
    freqs_sin: Tensor

    def __init__(self, grid: int, width: int) -> None:
        super().__init__()
        cos, sin = rotary_table(grid, width)
        self.register_buffer("freqs_cos", cos)
        self.register_buffer("freqs_sin", sin)


def unpatchify(tokens: Tensor, patch: int, channels: int) -> Tensor:
    """Puts the patches of a square image back in their places.

    Args:
        tokens: (B, T, patch² · channels), row by row; within a patch row, column, then channel.
        patch: Side of a patch.
        channels: Of the image.

    Returns:
        (B, channels, S, S), with S = √T · patch.
    """
    batch, grid = len(tokens), math.isqrt(tokens.shape[1])
    patches = tokens.view(batch, grid, grid, patch, patch, channels)
    return patches.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, grid * patch, grid * patch)


def position_table(width: int, grid: int) -> Tensor:
    """Computes the fixed sine-cosine table of positions, the column first, then the row; in float64, then cast.

    Args:
        width: Of a token, a multiple of 4.
        grid: Patches along one side.

    Returns:
        Float32 (1, grid², width).
    """
    quarter = width // 4
    frequencies = 10000.0 ** (-np.arange(quarter) / quarter)
    rows, columns = np.divmod(np.arange(grid * grid), grid)
    angles = [np.outer(axis, frequencies) for axis in (columns, rows)]
    table = np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1)
    return torch.from_numpy(table).float()[None]
