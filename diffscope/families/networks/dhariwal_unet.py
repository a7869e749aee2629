"""ADM in the form of EDM's checkpoints, class name `DhariwalUNet`.

Dhariwal & Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021, https://arxiv.org/abs/2105.05233.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffscope.families.networks.unet_blocks import Conv2d, PositionalEmbedding, Resample, UNetBlock, group_norm
from diffscope.families.networks.walk import OUTPUT, Walk, WalkedNetwork

CHANNELS_PER_HEAD = 64


class DhariwalUNet(WalkedNetwork):
    """Dhariwal and Nichol's U-Net.

    Argument names and defaults are those of the checkpoints; dropout is for training alone and left out.
    Layers: `enc.{r}x{r}_{conv,down,blockN}`, `dec.{r}x{r}_{in0,in1,up,blockN}`, `out_norm`, `out_conv`.

    Args:
        img_resolution: Side of the input, in pixels.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        label_dim: Number of classes, 0 for none.
        augment_dim: Length of the augmentation label, which only training uses.
        model_channels: Base width.
        channel_mult: Width of each resolution, in base widths.
        channel_mult_emb: Width of the embedding, in base widths.
        num_blocks: Residual blocks at each resolution of the encoder; the decoder has one more.
        attn_resolutions: Sides at which blocks attend.
    """

    layout = torch.channels_last  # no reordering around convolutions
    trunk = ("enc", "dec", "out_norm", "out_conv")

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 192,
        channel_mult: Sequence[float] = (1, 2, 3, 4),
        channel_mult_emb: float = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
    ) -> None:
        super().__init__()
        embedding = round(model_channels * channel_mult_emb)
        self.map_noise = PositionalEmbedding(model_channels, endpoint=False)
        # Only read from the file: augmentation labels are all zero when a trained model is used.
        self.map_augment = nn.Linear(augment_dim, model_channels, bias=False) if augment_dim else None
        self.map_layer0 = nn.Linear(model_channels, embedding)
        self.map_layer1 = nn.Linear(embedding, embedding)
        self.map_label = nn.Linear(label_dim, embedding, bias=False) if label_dim else None

        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        widths = [round(model_channels * m) for m in channel_mult]

        def block(i: int, o: int, attention: bool = False, resample: Resample = None) -> UNetBlock:
            heads = o // CHANNELS_PER_HEAD if attention else 0  # below 64 channels attention silently disappears
            return UNetBlock(i, o, embedding, heads, resample, scale_shift=True)

        width, skips = widths[0], []
        for level, out in enumerate(widths):
            r = img_resolution >> level
            if level == 0:
                self.enc[f"{r}x{r}_conv"] = Conv2d(in_channels, width, 3)
            else:
                self.enc[f"{r}x{r}_down"] = block(width, width, resample="down")
            skips.append(width)
            for i in range(num_blocks):
                self.enc[f"{r}x{r}_block{i}"] = block(width, out, attention=r in attn_resolutions)
                width = out
                skips.append(width)

        for level, out in reversed(list(enumerate(widths))):
            r = img_resolution >> level
            if level == len(widths) - 1:
                self.dec[f"{r}x{r}_in0"] = block(width, width, attention=True)
                self.dec[f"{r}x{r}_in1"] = block(width, width)
            else:
                self.dec[f"{r}x{r}_up"] = block(width, width, resample="up")
            for i in range(num_blocks + 1):
                self.dec[f"{r}x{r}_block{i}"] = block(width + skips.pop(), out, attention=r in attn_resolutions)
                width = out
        self.out_norm = group_norm(width, 1e-5)
        self.out_conv = Conv2d(width, out_channels, 3)

    def walk(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Walk:
        """Yields the layers.

        Args:
            x: (B, C, S, S), scaled by c_in.
            time: c_noise, (B,) or (1,).
            label: (B or 1, label_dim), one-hot or all zero; None is all zero.

        Yields:
            (name, activation (B, C', H, W)), then the output (B, out_channels, S, S).
        """
        embedding = self._embed(time, label)
        x = x.to(next(self.enc.parameters()).dtype)
        embedding = embedding.to(x.dtype)
        skips: list[Tensor] = []
        for name, layer in self.enc.items():
            x = layer(x, embedding) if isinstance(layer, UNetBlock) else layer(x)
            skips.append(x)
            yield f"enc.{name}", x
        for name, layer in self.dec.items():
            if "_block" in name:
                x = torch.cat([x, skips.pop()], dim=1)
            x = layer(x, embedding)
            yield f"dec.{name}", x
        x = self.out_norm(x)
        yield "out_norm", x
        x = self.out_conv(F.silu(x))
        yield "out_conv", x
        yield OUTPUT, x

    def _embed(self, time: Tensor, label: Tensor | None) -> Tensor:
        embedding = F.silu(self.map_layer0(self.map_noise(time.float())))
        embedding = self.map_layer1(embedding)
        if self.map_label is not None and label is not None:
            embedding = embedding + self.map_label(label)
        return F.silu(embedding)
