"""The image encoder of latent models: diffusers' AutoencoderKL, read from a local folder.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022,
https://arxiv.org/abs/2112.10752.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffscope.errors import CheckpointError


class Autoencoder:
    """Images (B, C, S, S) in [-1, 1] → mean and standard deviation of the latent's posterior."""

    def __init__(self, path: str) -> None:
        folder = _folder(path)
        kl = _autoencoder_class()
        try:
            loaded = kl.from_pretrained(
                folder,
                output_loading_info=True,
                low_cpu_mem_usage=False,
                local_files_only=True,
                torch_dtype=torch.float32,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{path}: cannot be read as an AutoencoderKL: {' '.join(str(error).split())}"
            ) from None
        model, info = loaded
        # diffusers only logs these, and leaves missing weights uninitialised.
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
            if info.get(kind):
                raise CheckpointError(
                    f"{path}: the VAE's weights do not fit its config.json: {kind} {list(info[kind])[:3]}"
                )
        self.path = path
        self.factor = 2 ** (len(model.config.block_out_channels) - 1)
        self.image_channels, self.latent_channels = int(model.config.in_channels), int(model.config.latent_channels)
        self.model = model.eval().requires_grad_(False)

    def to(self, device: torch.device) -> None:
        self.model.to(device)

    def fingerprint(self) -> str:
        """sha256 of the weights in use, by name."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each (B, latent channels, S / factor, S / factor), unscaled."""
        distribution = self.model.encode(images).latent_dist
        return distribution.mean, distribution.std


def _folder(path: str) -> Path:
    if path.startswith("hf://"):
        raise CheckpointError(
            f"{path}: Hub references come with a later version; download the VAE and give its folder with --vae PATH"
        )
    folder = Path(path)
    config = folder / "config.json"
    if not config.is_file():
        raise CheckpointError(f"{path}: expected a diffusers folder of an AutoencoderKL (config.json and weights)")
    try:
        name = json.loads(config.read_text(encoding="utf-8")).get("_class_name")
    except (ValueError, AttributeError, OSError):
        raise CheckpointError(f"{config}: not a readable JSON object") from None
    if name != "AutoencoderKL":
        raise CheckpointError(f"{path}: its config.json is that of {name}, expected AutoencoderKL")
    return folder


def _autoencoder_class() -> Any:
    try:
        from diffusers import AutoencoderKL
    except (ImportError, RuntimeError) as error:
        hint = "; uninstall torchvision or match it to torch" if "torchvision" in str(error) else ""
        raise CheckpointError(f"diffusers cannot be imported: {' '.join(str(error).split())[:200]}{hint}") from None
    return AutoencoderKL
