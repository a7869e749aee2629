"""What `bench.py` compares: networks, images, and the files that both sides read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LEVELS = (0.1, 0.2, 0.4, 0.8, 1.6)
TEN_LEVELS = (0.05, 0.08, 0.13, 0.2, 0.32, 0.5, 0.8, 1.3, 2.0, 3.2)
TWELVE_LEVELS = (0.002, 0.0046, 0.011, 0.025, 0.057, 0.13, 0.3, 0.7, 1.6, 3.7, 8.7, 20.0)

DEMO_UNET = {
    "img_resolution": 32, "in_channels": 3, "out_channels": 3, "model_channels": 32,
    "channel_mult": [1, 2, 2], "num_blocks": 2, "attn_resolutions": [8],
}  # fmt: skip
FULL_UNET = {
    "img_resolution": 32, "in_channels": 3, "out_channels": 3, "model_channels": 128, "channel_mult": [2, 2, 2],
    "num_blocks": 4, "attn_resolutions": [16],
}  # fmt: skip
SMALL_UNET = {**DEMO_UNET, "model_channels": 16, "num_blocks": 1}
SIT_B: dict[str, Any] = {
    "input_size": 32, "patch_size": 2, "in_channels": 3, "out_channels": 3, "hidden_size": 768, "depth": 12,
    "num_heads": 12, "label_rows": 11,
}  # fmt: skip
SMALL_SIT = {**SIT_B, "hidden_size": 96, "depth": 4, "num_heads": 4}
LATENT_SIT = {
    "input_size": 16, "patch_size": 2, "in_channels": 4, "out_channels": 4, "hidden_size": 384, "depth": 12,
    "num_heads": 6, "label_rows": 11,
}  # fmt: skip
SMALL_LATENT_SIT = {**LATENT_SIT, "input_size": 8, "hidden_size": 96, "depth": 4, "num_heads": 4}


@dataclass(frozen=True)
class Case:
    """One ratio of the table: CPU time of the naive script over ours."""

    target: float
    network: dict[str, Any]
    small: dict[str, Any]
    """What --quick takes in its place."""
    layer: str
    images: int
    levels: tuple[float, ...] = LEVELS
    precision: str = "fp32"
    checkpoints: int = 1
    latent: bool = False
    views: int = 2

    def of(self, quick: bool) -> dict[str, Any]:
        return self.small if quick else self.network

    def layer_of(self, quick: bool) -> str:
        if not quick:
            return self.layer
        return "blocks.1" if "depth" in self.small else "enc.8x8_block0"


CASES = {
    "full-fp32": Case(3.3, FULL_UNET, SMALL_UNET, "enc.8x8_block3", 32),
    "full-bf16": Case(7.0, FULL_UNET, SMALL_UNET, "enc.8x8_block3", 32, precision="bf16"),
    "demo-fp32": Case(4.5, DEMO_UNET, SMALL_UNET, "enc.8x8_block1", 256),
    "demo-bf16": Case(6.0, DEMO_UNET, SMALL_UNET, "enc.8x8_block1", 256, precision="bf16"),
    "sit-fp32": Case(2.5, SIT_B, SMALL_SIT, "blocks.5", 32),
    "track": Case(4.0, DEMO_UNET, SMALL_UNET, "enc.8x8_block1", 256, checkpoints=10),
    "latent": Case(3.0, LATENT_SIT, SMALL_LATENT_SIT, "blocks.5", 32, TEN_LEVELS, latent=True),
}


def prepare(case: Case, folder: Path, quick: bool) -> None:
    """Pictures as JPEG files, checkpoints with random weights and, of a latent model, a small VAE."""
    arguments = case.of(quick)
    side = arguments["input_size"] * 8 if case.latent else 32
    count = min(case.images, 128 if not case.latent else 64) if quick else case.images
    write_pictures(folder / "images", count, side)
    for number in range(2 if quick and case.checkpoints > 1 else case.checkpoints):
        write_checkpoint(folder / f"{number:04d}.safetensors", arguments, number)
    if case.latent:
        write_vae(folder / "vae", quick)


def write_pictures(folder: Path, count: int, side: int = 32) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{number:05d}.jpg", quality=90)


def write_checkpoint(path: Path, arguments: dict[str, Any], seed: int = 0) -> None:
    """A network with random weights, of `seed`, with what diffscope must know of it in the file's metadata."""
    import torch
    from safetensors.torch import save_file

    from diffscope.families.networks.song_unet import SongUNet
    from diffscope.families.networks.transformer import DiffusionTransformer

    torch.manual_seed(seed)
    network = DiffusionTransformer(**arguments) if "depth" in arguments else SongUNet(**arguments)
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1 and name != "pos_embed":
            torch.nn.init.xavier_uniform_(parameter.view(parameter.shape[0], -1))
        elif name != "pos_embed":
            torch.nn.init.constant_(parameter, float("norm" in name and name.endswith("weight")))
    about = {"format": "pt", "step": str(seed + 1), "step_unit": "images", "weights": "ema"}
    if "depth" in arguments:
        constructor: dict[str, Any] = {"path_type": "Linear", "num_heads": arguments["num_heads"]}
        about |= {"family": "sit", "arguments": json.dumps(constructor)}
    else:
        constructor = {"precond": "EDMPrecond", "model_type": "SongUNet", **arguments}
        about |= {"family": "edm", "arguments": json.dumps(constructor)}
    save_file(dict(network.state_dict()), path, metadata=about)


def write_vae(folder: Path, quick: bool) -> None:
    """A VAE of diffusers' class with a quarter of the published one's channels."""
    import torch
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    widths = (32, 32, 32, 32) if quick else (32, 64, 128, 128)
    encoder: Any = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=widths,
        layers_per_block=1 if quick else 2,
        latent_channels=4,
        sample_size=256,
    )
    encoder.save_pretrained(folder)
