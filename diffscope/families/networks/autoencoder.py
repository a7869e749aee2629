"""The image encoder of latent models: diffusers' AutoencoderKL or AutoencoderDC, from a local folder or the Hub.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022,
https://arxiv.org/abs/2112.10752; Chen et al., "Deep Compression Autoencoder for Efficient High-Resolution Diffusion
Models", 2024, https://arxiv.org/abs/2410.10733, which gives latents without a posterior.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffscope import hub
from diffscope.errors import CheckpointError
from diffscope.families.networks.library import diffusers_class

# As diffusers names them; a .bin is read as weights only, never as code.
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
KINDS = ("AutoencoderKL", "AutoencoderDC")
MAX_BLOCKS = 12  # of published ones six; each halves the side


class Autoencoder:
    """Images (B, C, S, S) in [-1, 1] → mean and standard deviation of the latent's posterior, and back to images.

    Args:
        path: A diffusers folder or Hub reference of an AutoencoderKL or AutoencoderDC.
        model: One of these, where it was made of another kind of file.

    Raises:
        CheckpointError: If it is none of these, or its weights do not fit its config.json.
    """

    def __init__(self, path: str, model: Any = None) -> None:
        model = _from_folder(path) if model is None else model
        self.path, self.draws = path, type(model).__name__ == "AutoencoderKL"
        self.factor = factor_of(model.config)
        self.image_channels, self.latent_channels = int(model.config.in_channels), int(model.config.latent_channels)
        self.model = model.eval().requires_grad_(False)

    def to(self, device: torch.device) -> None:
        """Moves the weights to a device."""
        self.model.to(device)

    def fingerprint(self) -> str:
        """Gives the sha256 (hex) of the weights in use, by name."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes images.

        Args:
            images: (B, C, S, S) in [-1, 1]; S is a multiple of `factor`.

        Returns:
            Mean and standard deviation, each (B, latent channels, S / factor, S / factor), unscaled; a deviation of 0
                where there is no posterior.
        """
        if not self.draws:
            latent = self.model.encode(images).latent
            return latent, torch.zeros_like(latent)
        distribution = self.model.encode(images).latent_dist
        return distribution.mean, distribution.std

    def decode(self, latents: Tensor) -> Tensor:
        """Decodes latents.

        Args:
            latents: (B, latent channels, s, s), unscaled.

        Returns:
            Images (B, C, s · factor, s · factor), meant to lie in [-1, 1] but not cut to it.
        """
        images: Tensor = self.model.decode(latents).sample
        return images


def _from_folder(path: str) -> Any:
    """Reads a diffusers folder by the library, which is held to what it only logs."""
    folder, kind = _folder(path)
    library = diffusers_class(kind)
    try:
        loaded = library.from_pretrained(
            folder,
            output_loading_info=True,
            low_cpu_mem_usage=False,
            local_files_only=True,
            torch_dtype=torch.float32,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: cannot be read as an {kind}: {' '.join(str(error).split())}") from None
    model, info = loaded
    # diffusers only logs these, and leaves missing weights uninitialised.
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if info.get(fault):
            raise CheckpointError(
                f"{path}: the VAE's weights do not fit its config.json: {fault} {list(info[fault])[:3]}"
            )
    return model


def factor_of(config: Mapping[str, Any]) -> int:
    """Reads how many pixels of a side make one latent, from an encoder's config.

    Args:
        config: Of an AutoencoderKL or AutoencoderDC.

    Returns:
        Two to the number of downsamplings.

    Raises:
        CheckpointError: If the config has no list of blocks.
    """
    blocks = config.get("block_out_channels", config.get("encoder_block_out_channels"))
    if not isinstance(blocks, (list, tuple)) or not 1 <= len(blocks) <= MAX_BLOCKS:
        raise CheckpointError(
            f"an image encoder whose block_out_channels are {blocks!r:.60}; expected a list of 1 to {MAX_BLOCKS}"
        )
    return int(2 ** (len(blocks) - 1))


def _folder(path: str) -> tuple[Path, str]:
    """The local folder of an encoder, and its class; of a Hub reference, what was downloaded of it."""
    if hub.is_reference(path):
        return _downloaded(path)
    return Path(path), _kind_of(Path(path) / "config.json", path)


def _downloaded(path: str) -> tuple[Path, str]:
    """From the Hub: config.json, and one file of weights once that is the right one; safetensors first."""
    repository = hub.open(path, "model")
    prefix = repository.reference.path + "/" if repository.reference.path else ""
    names = repository.files(complete=False)
    weights = next((prefix + name for name in WEIGHTS if prefix + name in names), None)
    config = repository.find(prefix + "config.json") if prefix + "config.json" in names else None
    if config is None or weights is None:
        hint = f"; try {repository.reference.at(prefix + 'vae')}" if f"{prefix}vae/config.json" in names else ""
        raise repository.reference.failure(
            f"expected an AutoencoderKL of diffusers, config.json beside {' or '.join(WEIGHTS)}{hint}"
        )
    kind = _kind_of(config, path)
    return repository.fetch([prefix + "config.json", weights]) / repository.reference.path, kind


def _kind_of(config: Path, path: str) -> str:
    if not config.is_file():
        raise CheckpointError(f"{path}: expected a diffusers folder of an AutoencoderKL (config.json and weights)")
    try:
        name = json.loads(config.read_text(encoding="utf-8")).get("_class_name")
    except (ValueError, AttributeError, OSError):
        raise CheckpointError(f"{config}: not a readable JSON object") from None
    if name not in KINDS:
        raise CheckpointError(f"{path}: its config.json is that of {name}, expected {' or '.join(KINDS)}")
    return str(name)
