"""The transformer of DiT, SiT and REPA: patches, blocks modulated by time and class (adaLN-Zero), a linear head.

Peebles & Xie, "Scalable Diffusion Models with Transformers", 2023, https://arxiv.org/abs/2212.09748; Ma et al., "SiT",
2024, https://arxiv.org/abs/2401.08740. Parameter names and shapes are those of the published checkpoints.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffscope.families.networks.attention import attend
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
    ) -> None:
        super().__init__()
        self.patch_size, self.out_channels, self.grid = patch_size, out_channels, input_size // patch_size
        self.x_embedder = PatchEmbedding(in_channels, hidden_size, patch_size)
        self.t_embedder = TimeEmbedding(frequency_size, hidden_size)
        self.y_embedder = LabelEmbedding(label_rows, hidden_size)
        self.pos_embed = nn.Parameter(position_table(hidden_size, self.grid), requires_grad=False)
        self.blocks = nn.ModuleList(Block(hidden_size, num_heads, mlp_ratio, qk_norm) for _ in range(depth))
        self.final_layer = FinalLayer(hidden_size, patch_size * patch_size * out_channels)

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
        modulation = F.silu(condition.to(tokens.dtype))
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, modulation)
            yield f"blocks.{i}", tokens
        tokens = self.final_layer(tokens, modulation)
        yield "final_layer", tokens
        yield OUTPUT, self._unpatchify(tokens)

    def _unpatchify(self, tokens: Tensor) -> Tensor:
        p, g, c = self.patch_size, self.grid, self.out_channels
        patches = tokens.view(tokens.shape[0], g, g, p, p, c)  # (grid row, grid column, row, column, channel)
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(tokens.shape[0], c, g * p, g * p)


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


class Attention(nn.Module):
    """Self-attention over all tokens of an image.

    Args:
        width: Of a token.
        num_heads: Attention heads; `width` is a multiple of it.
        qk_norm: Whether queries and keys are normalised.
    """

    def __init__(self, width: int, num_heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(width // num_heads, eps=1e-5) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(width // num_heads, eps=1e-5) if qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Mixes tokens (B, T, D) to tokens of the same shape."""
        batch, count, width = tokens.shape
        qkv = self.qkv(tokens).view(batch, count, 3, self.num_heads, width // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = attend(self.q_norm(q), self.k_norm(k), v)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(tokens.shape))
        return out


class Mlp(nn.Module):
    """Two linear layers with a GELU, in its tanh form, between them.

    Args:
        width: Of a token.
        hidden: Of the layer between.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps tokens (B, T, D) to tokens of the same shape."""
        out: Tensor = self.fc2(F.gelu(self.fc1(tokens), approximate="tanh"))
        return out


class Block(nn.Module):
    """Attention and MLP on normalised tokens, each shifted, scaled and gated by the condition.

    Args:
        width: Of a token.
        num_heads: Attention heads.
        mlp_ratio: Hidden width of the MLP, in token widths.
        qk_norm: Whether queries and keys are normalised.
    """

    def __init__(self, width: int, num_heads: int, mlp_ratio: float, qk_norm: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attn = Attention(width, num_heads, qk_norm)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = Mlp(width, round(width * mlp_ratio))
        self.adaLN_modulation = _modulation(width, 6)

    def forward(self, tokens: Tensor, modulation: Tensor) -> Tensor:
        """Applies the block.

        Args:
            tokens: (B, T, D).
            modulation: SiLU of the condition, (B or 1, D).

        Returns:
            (B, T, D).
        """
        parts = self.adaLN_modulation(modulation)[:, None].chunk(6, dim=-1)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = parts
        tokens = tokens + gate_a * self.attn(torch.addcmul(shift_a, self.norm1(tokens), 1 + scale_a))
        out: Tensor = tokens + gate_m * self.mlp(torch.addcmul(shift_m, self.norm2(tokens), 1 + scale_m))
        return out


class FinalLayer(nn.Module):
    """A linear map of normalised tokens, shifted and scaled by the condition.

    Args:
        width: Of a token.
        out_features: Numbers of one patch of the output.
    """

    def __init__(self, width: int, out_features: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.linear = nn.Linear(width, out_features)
        self.adaLN_modulation = _modulation(width, 2)

    def forward(self, tokens: Tensor, modulation: Tensor) -> Tensor:
        """Applies the layer.

        Args:
            tokens: (B, T, D).
            modulation: SiLU of the condition, (B or 1, D).

        Returns:
            (B, T, out_features).
        """
        shift, scale = self.adaLN_modulation(modulation)[:, None].chunk(2, dim=-1)
        out: Tensor = self.linear(torch.addcmul(shift, self.norm_final(tokens), 1 + scale))
        return out


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


def _modulation(width: int, parts: int) -> nn.Sequential:
    # The checkpoints name the linear layer `adaLN_modulation.1`; the SiLU before it is applied once for all blocks.
    return nn.Sequential(nn.Identity(), nn.Linear(width, parts * width))
