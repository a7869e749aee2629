"""DDPM++ and NCSN++ in the form of EDM's checkpoints, class name `SongUNet`.

Song et al., "Score-Based Generative Modeling through SDEs", 2021, https://arxiv.org/abs/2011.13456.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffscope.families.networks.unet_blocks import (
    Conv2d,
    FourierEmbedding,
    PositionalEmbedding,
    Resample,
    UNetBlock,
    group_norm,
)
from diffscope.families.networks.walk import OUTPUT, Walk, WalkedNetwork


class SongUNet(WalkedNetwork):
    """Song et al.'s U-Net.

    Argument names and defaults are those of the checkpoints; dropout is for training alone and left out.
    Layers: `enc.{r}x{r}_{conv,down,blockN,aux_residual,aux_down,aux_skip}`,
    `dec.{r}x{r}_{in0,in1,up,blockN,aux_up,aux_norm,aux_conv}`.

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
        embedding_type: "positional" (DDPM++) or "fourier" (NCSN++).
        channel_mult_noise: Width of the noise level's features, in base widths.
        encoder_type: "standard" (DDPM++), "residual" (NCSN++) or "skip".
        decoder_type: "standard" or "skip".
        resample_filter: Taps of the resampling filter, (1, 1) or (1, 3, 3, 1).
    """

    layout = torch.channels_last  # no reordering around convolutions
    trunk = ("enc", "dec")

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[float] = (1, 2, 2, 2),
        channel_mult_emb: float = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        embedding_type: str = "positional",
        channel_mult_noise: float = 1,
        encoder_type: str = "standard",
        decoder_type: str = "standard",
        resample_filter: Sequence[int] = (1, 1),
    ) -> None:
        super().__init__()
        noise, embedding = round(model_channels * channel_mult_noise), round(model_channels * channel_mult_emb)
        self.label_dim = label_dim
        self.map_noise = (
            PositionalEmbedding(noise, endpoint=True) if embedding_type == "positional" else FourierEmbedding(noise)
        )
        self.map_label = nn.Linear(label_dim, noise) if label_dim else None
        # Only read from the file: augmentation labels are all zero when a trained model is used.
        self.map_augment = nn.Linear(augment_dim, noise, bias=False) if augment_dim else None
        self.map_layer0 = nn.Linear(noise, embedding)
        self.map_layer1 = nn.Linear(embedding, embedding)

        widths = [round(model_channels * m) for m in channel_mult]
        taps = tuple(resample_filter)

        def block(i: int, o: int, attention: bool = False, resample: Resample = None) -> UNetBlock:
            return UNetBlock(i, o, embedding, heads=int(attention), resample=resample, taps=taps)

        levels = [(img_resolution >> level, width) for level, width in enumerate(widths)]
        attends = set(attn_resolutions)
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        skips = self._add_encoder(levels, num_blocks, attends, in_channels, model_channels, encoder_type, taps, block)
        self._add_decoder(levels, num_blocks, attends, out_channels, decoder_type, taps, skips, block)

    def _add_encoder(
        self,
        levels: list[tuple[int, int]],
        num_blocks: int,
        attends: set[int],
        in_channels: int,
        width: int,
        kind: str,
        taps: tuple[int, ...],
        block: Callable[..., UNetBlock],
    ) -> list[int]:
        """Layers from the image down; levels are (resolution, width). Returns the widths that the decoder takes up."""
        aux, skips = in_channels, []
        for level, (r, out) in enumerate(levels):
            if level == 0:
                self.enc[f"{r}x{r}_conv"] = Conv2d(in_channels, width, 3)
            else:
                self.enc[f"{r}x{r}_down"] = block(width, width, resample="down")
                if kind == "residual":
                    self.enc[f"{r}x{r}_aux_residual"] = Conv2d(aux, width, 3, "down", taps, fused_down=True)
                    aux = width
                elif kind == "skip":
                    self.enc[f"{r}x{r}_aux_down"] = Conv2d(aux, aux, 0, "down", taps)
                    self.enc[f"{r}x{r}_aux_skip"] = Conv2d(aux, width, 1)
            skips.append(width)
            for i in range(num_blocks):
                self.enc[f"{r}x{r}_block{i}"] = block(width, out, attention=r in attends)
                width = out
                skips.append(width)
        return skips

    def _add_decoder(
        self,
        levels: list[tuple[int, int]],
        num_blocks: int,
        attends: set[int],
        out_channels: int,
        kind: str,
        taps: tuple[int, ...],
        skips: list[int],
        block: Callable[..., UNetBlock],
    ) -> None:
        """Layers back up to the image; only the last block of a level attends."""
        width = skips[-1]
        for level, (r, out) in reversed(list(enumerate(levels))):
            lowest = level == len(levels) - 1
            if lowest:
                self.dec[f"{r}x{r}_in0"] = block(width, width, attention=True)
                self.dec[f"{r}x{r}_in1"] = block(width, width)
            else:
                self.dec[f"{r}x{r}_up"] = block(width, width, resample="up")
            for i in range(num_blocks + 1):
                self.dec[f"{r}x{r}_block{i}"] = block(width + skips.pop(), out, i == num_blocks and r in attends)
                width = out
            if kind == "skip" or level == 0:
                if kind == "skip" and not lowest:
                    self.dec[f"{r}x{r}_aux_up"] = Conv2d(out_channels, out_channels, 0, "up", taps)
                self.dec[f"{r}x{r}_aux_norm"] = group_norm(width, 1e-6)
                self.dec[f"{r}x{r}_aux_conv"] = Conv2d(width, out_channels, 3)

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

        aux = x
        skips: list[Tensor] = []
        for name, layer in self.enc.items():
            if name.endswith("aux_down"):
                aux = layer(aux)
                yield f"enc.{name}", aux
            elif name.endswith("aux_residual"):
                side = layer(aux)
                x = aux = skips[-1] = (x + side) / 2**0.5
                yield f"enc.{name}", side
            elif name.endswith("aux_skip"):
                side = layer(aux)
                x = skips[-1] = x + side
                yield f"enc.{name}", side
            else:
                x = layer(x, embedding) if isinstance(layer, UNetBlock) else layer(x)
                skips.append(x)
                yield f"enc.{name}", x

        image: Tensor | None = None
        for name, layer in self.dec.items():
            if name.endswith("aux_up"):
                image = layer(image)
                yield f"dec.{name}", image
            elif name.endswith("aux_norm"):
                normed = layer(x)
                yield f"dec.{name}", normed
            elif name.endswith("aux_conv"):
                side = layer(F.silu(normed))
                image = side if image is None else image + side
                yield f"dec.{name}", side
            else:
                if "_block" in name:
                    x = torch.cat([x, skips.pop()], dim=1)
                x = layer(x, embedding)
                yield f"dec.{name}", x
        assert image is not None
        yield OUTPUT, image

    def _embed(self, time: Tensor, label: Tensor | None) -> Tensor:
        cosines, sines = self.map_noise(time.float()).chunk(2, dim=1)
        embedding = torch.cat([sines, cosines], dim=1)  # the layers behind were trained with sines first
        if self.map_label is not None:
            label = torch.zeros(1, self.label_dim, device=time.device) if label is None else label
            embedding = embedding + self.map_label(label * self.label_dim**0.5)
        embedding = F.silu(self.map_layer0(embedding))
        return F.silu(self.map_layer1(embedding))
