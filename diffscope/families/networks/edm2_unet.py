"""The U-Net of EDM2: weights, activations and sums that keep their magnitude, no group norm, no biases.

Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", 2024,
https://arxiv.org/abs/2312.02696. Parameter names and shapes are those of the published checkpoints, class name `UNet`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffscope.families.networks.walk import OUTPUT, Walk, WalkedNetwork

CLIP = 256.0
"""Activations are clamped to ± this after every block."""


class EDM2UNet(WalkedNetwork):
    """EDM2's U-Net.

    Widths are given outright, since a file stores only products of its multipliers.
    Layers: `enc.{r}x{r}_{conv,down,blockN}`, `dec.{r}x{r}_{in0,in1,up,blockN}`, `out_conv`.

    Args:
        img_resolution: Side of the input, in pixels or latents.
        img_channels: Channels of input and output.
        label_dim: Number of classes, 0 for none.
        widths: Channels at each resolution, the highest first.
        noise_width: Number of Fourier features of the noise level.
        embedding_width: Width of the embedding.
        num_blocks: Residual blocks at each resolution of the encoder; the decoder has one more.
        attn_resolutions: Sides at which blocks attend.
        channels_per_head: Width of one attention head.
        label_balance: Share of the class in its sum with the noise level, in [0, 1].
        concat_balance: Share of the skip connection where it is concatenated, in [0, 1].
        res_balance: Share of the residual branch, in [0, 1].
        attn_balance: Share of the attention, in [0, 1].
    """

    trunk = ("enc", "dec", "out_conv")

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int,
        widths: Sequence[int],
        noise_width: int,
        embedding_width: int,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (16, 8),
        channels_per_head: int = 64,
        label_balance: float = 0.5,
        concat_balance: float = 0.5,
        res_balance: float = 0.3,
        attn_balance: float = 0.3,
    ) -> None:
        super().__init__()
        self.label_dim, self.label_balance, self.concat_balance = label_dim, label_balance, concat_balance
        self.out_gain = nn.Parameter(torch.zeros([]))
        self.emb_fourier = MPFourier(noise_width)
        self.emb_noise = MPConv(noise_width, embedding_width)
        self.emb_label = MPConv(label_dim, embedding_width) if label_dim else None
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()

        def block(i: int, o: int, decoder: bool, attention: bool = False, resample: str = "keep") -> Block:
            heads = o // channels_per_head if attention else 0
            return Block(i, o, embedding_width, decoder, resample, heads, res_balance, attn_balance)

        width, skips = img_channels + 1, []
        for level, out in enumerate(widths):
            r = img_resolution >> level
            if level == 0:
                self.enc[f"{r}x{r}_conv"] = MPConv(width, out, 3)
                width = out
            else:
                self.enc[f"{r}x{r}_down"] = block(width, width, False, resample="down")
            skips.append(width)
            for i in range(num_blocks):
                self.enc[f"{r}x{r}_block{i}"] = block(width, out, False, r in attn_resolutions)
                width = out
                skips.append(width)
        for level, out in reversed(list(enumerate(widths))):
            r = img_resolution >> level
            if level == len(widths) - 1:
                self.dec[f"{r}x{r}_in0"] = block(width, width, True, attention=True)
                self.dec[f"{r}x{r}_in1"] = block(width, width, True)
            else:
                self.dec[f"{r}x{r}_up"] = block(width, width, True, resample="up")
            for i in range(num_blocks + 1):
                self.dec[f"{r}x{r}_block{i}"] = block(width + skips.pop(), out, True, r in attn_resolutions)
                width = out
        self.out_conv = MPConv(width, img_channels, 3)

    def walk(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Walk:
        """Yields the layers.

        Args:
            x: (B, C, S, S), scaled by c_in.
            time: c_noise, (B,) or (1,).
            label: (B or 1, label_dim), one-hot or all zero; None is all zero.

        Yields:
            (name, activation (B, C', H, W)), then the output (B, C, S, S).
        """
        embedding = self._embed(time, label)
        dtype = next(self.enc.parameters()).dtype
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1).to(dtype)
        embedding = embedding.to(dtype)
        skips: list[Tensor] = []
        for name, layer in self.enc.items():
            x = layer(x, embedding) if isinstance(layer, Block) else layer(x)
            skips.append(x)
            yield f"enc.{name}", x
        for name, layer in self.dec.items():
            if "_block" in name:
                x = mp_cat(x, skips.pop(), self.concat_balance)
            x = layer(x, embedding)
            yield f"dec.{name}", x
        x = self.out_conv(x, gain=self.out_gain)
        yield "out_conv", x
        yield OUTPUT, x

    def _embed(self, time: Tensor, label: Tensor | None) -> Tensor:
        embedding = self.emb_noise(self.emb_fourier(time.float()))
        if self.emb_label is not None:
            label = torch.zeros(1, self.label_dim, device=time.device) if label is None else label
            embedding = mp_sum(embedding, self.emb_label(label * self.label_dim**0.5), self.label_balance)
        return mp_silu(embedding)


class Block(nn.Module):
    """Residual block; encoder blocks normalise every pixel's channels first, decoder blocks do not.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        embedding: Width of the embedding.
        decoder: Whether it stands in the decoder.
        resample: "keep", or "up" or "down" by a factor of two before all else.
        heads: Number of attention heads, 0 for none.
        res_balance: Share of the residual branch, in [0, 1].
        attn_balance: Share of the attention, in [0, 1].
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding: int,
        decoder: bool,
        resample: str,
        heads: int,
        res_balance: float,
        attn_balance: float,
    ) -> None:
        super().__init__()
        self.decoder, self.resample, self.heads = decoder, resample, heads
        self.res_balance, self.attn_balance = res_balance, attn_balance
        self.emb_gain = nn.Parameter(torch.zeros([]))
        self.conv_res0 = MPConv(in_channels if decoder else out_channels, out_channels, 3)
        self.emb_linear = MPConv(embedding, out_channels)
        self.conv_res1 = MPConv(out_channels, out_channels, 3)
        self.conv_skip = MPConv(in_channels, out_channels, 1) if in_channels != out_channels else None
        if heads:
            self.attn_qkv = MPConv(out_channels, 3 * out_channels, 1)
            self.attn_proj = MPConv(out_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Applies the block.

        Args:
            x: (B, C, H, W).
            embedding: (B or 1, E).

        Returns:
            (B, C', H', W'), within ± CLIP.
        """
        if self.resample == "down":
            x = F.avg_pool2d(x, 2)
        elif self.resample == "up":
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        if not self.decoder:
            x = normalize(x if self.conv_skip is None else self.conv_skip(x), dims=(1,))
        y = self.conv_res0(mp_silu(x))
        scale = self.emb_linear(embedding, gain=self.emb_gain) + 1
        y = self.conv_res1(mp_silu(y * scale[:, :, None, None].to(y.dtype)))
        if self.decoder and self.conv_skip is not None:
            x = self.conv_skip(x)
        x = mp_sum(x, y, self.res_balance)
        if self.heads:
            x = mp_sum(x, self.attn_proj(self._attend(x)), self.attn_balance)
        return x.clamp(-CLIP, CLIP)

    def _attend(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.attn_qkv(x).view(batch, self.heads, channels // self.heads, 3, height * width)
        q, k, v = (part.transpose(2, 3) for part in normalize(qkv, dims=(2,)).unbind(3))
        return F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(x.shape)


class MPConv(nn.Module):
    """Convolution (kernel 3, 1) or linear layer (kernel 0) whose weights are normalised before every use.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: 3, 1, or 0 for a linear layer.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 0) -> None:
        super().__init__()
        shape = (out_channels, in_channels, kernel, kernel) if kernel else (out_channels, in_channels)
        self.weight = nn.Parameter(torch.empty(shape))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """Applies the layer.

        Args:
            x: (B, C, H, W), or (B, C) for a linear layer.
            gain: Factor on the weights.

        Returns:
            (B, C', H, W) or (B, C').
        """
        weight = self.weight.float()
        weight = normalize(weight, dims=tuple(range(1, weight.dim())))
        weight = (weight * (gain / math.sqrt(weight[0].numel()))).to(x.dtype)
        if weight.dim() == 2:
            return x @ weight.T
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)


class MPFourier(nn.Module):
    """√2·cos(x·freqs + phases), with frequencies and phases from the checkpoint.

    Args:
        width: Number of features.
    """

    freqs: Tensor
    phases: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.zeros(width))
        self.register_buffer("phases", torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Gives the features of numbers (B,), float32 (B, width)."""
        return (x.outer(self.freqs.float()) + self.phases.float()).cos() * math.sqrt(2)


def normalize(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Divides by the root mean square; the small constant is added to the root, not under it.

    Args:
        x: Any shape.
        dims: What the mean is taken over.

    Returns:
        Of the shape and precision of `x`.
    """
    rms = x.float().square().mean(dims, keepdim=True).sqrt()
    return x / (rms + 1e-4).to(x.dtype)


def mp_silu(x: Tensor) -> Tensor:
    """Computes SiLU over its root mean square on standard normal input, 0.596.

    Args:
        x: Any shape.

    Returns:
        Of the shape of `x`.
    """
    return F.silu(x) / 0.596


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Mixes two tensors so that independent ones of unit variance stay so.

    Args:
        a: Any shape.
        b: Of the same shape.
        t: Share of `b`, in [0, 1].

    Returns:
        ((1 - t)·a + t·b) / √((1 - t)² + t²).
    """
    return torch.lerp(a, b, t) / math.hypot(1 - t, t)


def mp_cat(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Concatenates along channels, each side scaled to its share.

    Args:
        a: (B, C, H, W).
        b: (B, C', H, W).
        t: Share of `b`, in [0, 1].

    Returns:
        (B, C + C', H, W), of the magnitude of its parts.
    """
    total = math.sqrt((a.shape[1] + b.shape[1]) / ((1 - t) ** 2 + t**2))
    return torch.cat([a * (total * (1 - t) / math.sqrt(a.shape[1])), b * (total * t / math.sqrt(b.shape[1]))], dim=1)
