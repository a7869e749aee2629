"""Blocks of diffusion transformers: attention and an MLP, modulated by time and class (adaLN-Zero).

Peebles & Xie, "Scalable Diffusion Models with Transformers", 2023, https://arxiv.org/abs/2212.09748. Parameter names
and shapes are those of the published checkpoints. Later transformers take parts from language models: Zhang & Sennrich,
"Root Mean Square Layer Normalization", 2019, https://arxiv.org/abs/1910.07467; Shazeer, "GLU Variants Improve
Transformer", 2020, https://arxiv.org/abs/2002.05202; Su et al., "RoFormer: Enhanced Transformer with Rotary Position
Embedding", 2021, https://arxiv.org/abs/2104.09864.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffscope.families.networks.attention import attend

Rotary = tuple[Tensor, Tensor]
"""Cosine and sine of the angle of each token and each feature of a head, (T, d) each."""


class Block(nn.Module):
    """Attention and MLP on normalised tokens, each shifted, scaled and gated by the condition.

    Args:
        width: Of a token.
        num_heads: Attention heads.
        hidden: Width inside the MLP.
        qk_norm: Whether queries and keys are normalised.
        rms_norm: Whether norms divide by the root mean square and multiply by weights, rather than LayerNorm's.
        swiglu: Whether the MLP is gated.
        shift: Whether normalised tokens are shifted, rather than scaled alone.
    """

    def __init__(
        self, width: int, num_heads: int, hidden: int, qk_norm: bool, rms_norm: bool, swiglu: bool, shift: bool
    ) -> None:
        super().__init__()
        self.shift = shift
        self.norm1 = token_norm(width, rms_norm)
        self.attn = Attention(width, num_heads, qk_norm, rms_norm)
        self.norm2 = token_norm(width, rms_norm)
        self.mlp = SwiGLU(width, hidden) if swiglu else Mlp(width, hidden)
        self.adaLN_modulation = modulation(width, 6 if shift else 4)

    def forward(self, tokens: Tensor, condition: Tensor, rotary: Rotary | None = None) -> Tensor:
        """Applies the block.

        Args:
            tokens: (B, T, D).
            condition: SiLU of the condition, (B or 1, D).
            rotary: Angles of the tokens' positions, where attention is told of them.

        Returns:
            (B, T, D).
        """
        parts = self.adaLN_modulation(condition)[:, None].chunk(6 if self.shift else 4, dim=-1)
        if self.shift:
            shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = parts
            tokens = tokens + gate_a * self.attn(torch.addcmul(shift_a, self.norm1(tokens), 1 + scale_a), rotary)
            out: Tensor = tokens + gate_m * self.mlp(torch.addcmul(shift_m, self.norm2(tokens), 1 + scale_m))
            return out
        scale_a, gate_a, scale_m, gate_m = parts
        tokens = tokens + gate_a * self.attn(self.norm1(tokens) * (1 + scale_a), rotary)
        out = tokens + gate_m * self.mlp(self.norm2(tokens) * (1 + scale_m))
        return out


class Attention(nn.Module):
    """Self-attention over all tokens of an image.

    Args:
        width: Of a token.
        num_heads: Attention heads; `width` is a multiple of it.
        qk_norm: Whether queries and keys are normalised.
        rms_norm: Whether by their root mean square, rather than by a LayerNorm with weights.
    """

    def __init__(self, width: int, num_heads: int, qk_norm: bool, rms_norm: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm, self.k_norm = (_head_norm(width // num_heads, qk_norm, rms_norm) for _ in range(2))
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, rotary: Rotary | None = None) -> Tensor:
        """Mixes tokens.

        Args:
            tokens: (B, T, D).
            rotary: Angles by which queries and keys are turned, once they are normalised.

        Returns:
            (B, T, D).
        """
        batch, count, width = tokens.shape
        qkv = self.qkv(tokens).view(batch, count, 3, self.num_heads, width // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotary is not None:
            q, k = turned(q, rotary), turned(k, rotary)
        mixed = attend(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(tokens.shape))
        return out


def _head_norm(width: int, qk_norm: bool, rms_norm: bool) -> nn.Module:
    if not qk_norm:
        return nn.Identity()
    return RMSNorm(width) if rms_norm else nn.LayerNorm(width, eps=1e-5)


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


class SwiGLU(nn.Module):
    """A gated MLP: silu(a) · b of the two halves of the first layer's output, then a linear layer.

    Args:
        width: Of a token.
        hidden: Of each half.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps tokens (B, T, D) to tokens of the same shape."""
        gate, value = self.w12(tokens).chunk(2, dim=-1)
        out: Tensor = self.w3(F.silu(gate) * value)
        return out


class RMSNorm(nn.Module):
    """weight · x/√(mean x² + 1e-6) over the last dimension, in float32.

    Args:
        width: Of the last dimension.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalises x (…, D)."""
        whole = x.float()
        return (self.weight * (whole * torch.rsqrt(whole.square().mean(-1, keepdim=True) + 1e-6))).to(x.dtype)


def token_norm(width: int, rms_norm: bool) -> nn.Module:
    """Makes the norm before a modulation.

    Args:
        width: Of a token.
        rms_norm: Whether by the root mean square, with weights, rather than a LayerNorm without.

    Returns:
        The module.
    """
    return RMSNorm(width) if rms_norm else nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


def modulation(width: int, parts: int) -> nn.Sequential:
    """Makes the linear map from the condition to shifts, scales and gates.

    The checkpoints name it `adaLN_modulation.1`; the SiLU before it is applied once for all blocks.

    Args:
        width: Of a token.
        parts: How many it gives.

    Returns:
        The module.
    """
    return nn.Sequential(nn.Identity(), nn.Linear(width, parts * width))


def rotary_table(grid: int, width: int) -> Rotary:
    """Computes the angles of a square of positions: its rows turn a head's first half, its columns the second.

    Each frequency 10000^(-2j/half), j = 0 … half/2 - 1, turns two neighbouring features.

    Args:
        grid: Patches along one side.
        width: Of a head, a multiple of 4.

    Returns:
        Float32 (grid², width) each.
    """
    half = width // 2
    frequencies = (10000.0 ** (-np.arange(0, half, 2) / half)).astype(np.float32)
    axes = np.divmod(np.arange(grid * grid), grid)
    angles = np.concatenate([np.outer(axis.astype(np.float32), frequencies).repeat(2, axis=1) for axis in axes], axis=1)
    cos, sin = (torch.from_numpy(f(angles.astype(np.float64))).float() for f in (np.cos, np.sin))
    return cos, sin


def turned(x: Tensor, rotary: Rotary) -> Tensor:
    """Turns pairs of neighbouring features by the angles of their positions, in float32.

    Args:
        x: Queries or keys (B, heads, T, d).
        rotary: Angles of the T positions.

    Returns:
        (B, heads, T, d), in the precision of `x`.
    """
    cos, sin = rotary
    whole = x.float()
    first, second = whole.reshape(*whole.shape[:-1], -1, 2).unbind(-1)
    return (whole * cos + torch.stack([-second, first], dim=-1).flatten(-2) * sin).to(x.dtype)
