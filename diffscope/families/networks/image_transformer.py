"""JiT's transformer: patches through a bottleneck, rotary attention, and class tokens that join within the depth.

Li & He, "Back to Basics: Let Denoising Generative Models Denoise", 2025, https://arxiv.org/abs/2511.13720. Parameter
names and shapes are those of the published checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffscope.families.networks.transformer import (
    FinalLayer,
    LabelEmbedding,
    TimeEmbedding,
    position_table,
    unpatchify,
)
from diffscope.families.networks.transformer_blocks import Block, Rotary, rotary_table
from diffscope.families.networks.walk import OUTPUT, Walk, WalkedNetwork


class ImageTransformer(WalkedNetwork):
    """Layers: `x_embedder`, `blocks.N`, `final_layer`; all of them the image's tokens (B, T, width), row by row.

    From block `in_context_start` on the sequence is led by tokens of the class; they stay inside the network.

    Args:
        input_size: Side of the image, in pixels.
        patch_size: Side of a patch, which becomes one token.
        in_channels: Channels of the image.
        bottleneck_dim: Width that patches pass through.
        hidden_size: Width of a token.
        depth: Number of blocks.
        num_heads: Attention heads; `hidden_size` is a multiple of it.
        mlp_hidden: Width inside the MLPs.
        label_rows: Rows of the class table, the null row included.
        in_context_len: Number of class tokens; may be 0.
        in_context_start: The block before which they join.
        frequency_size: Number of sines and cosines that embed the time.
    """

    trunk = ("x_embedder", "blocks", "final_layer")

    def __init__(
        self,
        input_size: int,
        patch_size: int,
        in_channels: int,
        bottleneck_dim: int,
        hidden_size: int,
        depth: int,
        num_heads: int,
        mlp_hidden: int,
        label_rows: int,
        in_context_len: int,
        in_context_start: int,
        frequency_size: int = 256,
    ) -> None:
        super().__init__()
        self.patch_size, self.channels, self.in_context_start = patch_size, in_channels, in_context_start
        grid = input_size // patch_size
        self.rotary = rotary_table(grid, hidden_size // num_heads)
        self.x_embedder = BottleneckEmbedding(in_channels, bottleneck_dim, hidden_size, patch_size)
        self.t_embedder = TimeEmbedding(frequency_size, hidden_size)
        self.y_embedder = LabelEmbedding(label_rows, hidden_size)
        self.pos_embed = nn.Parameter(position_table(hidden_size, grid), requires_grad=False)
        if in_context_len:
            self.in_context_posemb = nn.Parameter(torch.empty(1, in_context_len, hidden_size))
        self.in_context_len = in_context_len
        self.blocks = nn.ModuleList(
            Block(hidden_size, num_heads, mlp_hidden, qk_norm=True, rms_norm=True, swiglu=True, shift=True)
            for _ in range(depth)
        )
        self.final_layer = FinalLayer(hidden_size, patch_size * patch_size * in_channels, rms_norm=True)

    def walk(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Walk:
        """Yields the layers.

        Args:
            x: (B, C, S, S), scaled as the family does.
            time: (B,) or (1,), unscaled.
            label: Index into the class table, (B,) or (1,) int64; required.

        Yields:
            (name, tokens of the image (B, T, width)), then the output (B, C, S, S).
        """
        assert label is not None
        row = self.y_embedder(label)
        tokens = self.x_embedder(x.to(self.x_embedder.proj1.weight.dtype))
        yield "x_embedder", tokens
        tokens = tokens + self.pos_embed.to(tokens.dtype)
        condition = F.silu((self.t_embedder(time) + row).to(tokens.dtype))
        rotary, image = self._turns(x.device, 0), tokens.shape[1]
        for i, block in enumerate(self.blocks):
            if self.in_context_len and i == self.in_context_start:
                context = (row[:, None] + self.in_context_posemb).to(tokens.dtype)
                tokens = torch.cat([context.expand(len(tokens), -1, -1), tokens], dim=1)
                rotary = self._turns(x.device, self.in_context_len)
            tokens = block(tokens, condition, rotary)
            yield f"blocks.{i}", tokens[:, -image:]
        tokens = self.final_layer(tokens[:, -image:], condition)
        yield "final_layer", tokens
        yield OUTPUT, unpatchify(tokens, self.patch_size, self.channels)

    def _turns(self, device: torch.device, context: int) -> Rotary:
        """The angles of all tokens; those of the class are not turned."""
        cos, sin = self.rotary
        cos, sin = F.pad(cos, (0, 0, context, 0), value=1.0), F.pad(sin, (0, 0, context, 0))
        return cos.to(device), sin.to(device)


class BottleneckEmbedding(nn.Module):
    """A linear map of each patch to few numbers, and of these to a token.

    Args:
        in_channels: Channels of the image.
        bottleneck_dim: Numbers between.
        hidden_size: Width of a token.
        patch_size: Side of a patch.
    """

    def __init__(self, in_channels: int, bottleneck_dim: int, hidden_size: int, patch_size: int) -> None:
        super().__init__()
        self.proj1 = nn.Conv2d(in_channels, bottleneck_dim, patch_size, stride=patch_size, bias=False)
        self.proj2 = nn.Conv2d(bottleneck_dim, hidden_size, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Turns images into tokens, row by row.

        Args:
            x: (B, C, S, S).

        Returns:
            (B, T, hidden_size), with T = (S / patch_size)².
        """
        tokens: Tensor = self.proj2(self.proj1(x)).flatten(2).transpose(1, 2)
        return tokens
