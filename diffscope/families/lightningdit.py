"""LightningDiT checkpoints: SiT's linear path, a transformer with parts of language models, latents of a VA-VAE.

Yao et al., "Reconstruction vs. Generation: Taming Optimization Dilemma in Latent Diffusion Models", 2025,
https://arxiv.org/abs/2501.01423. Its latents are normalised channel by channel; the statistics lie beside the VAE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from diffscope.checkpoints.base import Checkpoint
from diffscope.families._facts import Facts, file_arguments
from diffscope.families._interpolants import PATHS, SETTINGS, Interpolant, InterpolantDenoiser, build_interpolant
from diffscope.families._latents import NORMALISED, LatentScale
from diffscope.families._transformers import HEADS, VAE, is_trunk, later_part, output_ratio
from diffscope.families.base import Match

_SIZES = {**HEADS, (24, 1536): 24, (28, 1792): 28}
_FACTOR = 16
"""Of the published VA-VAE, f16d32."""
_PLACES = {
    "path_type": "transport",
    "prediction": "transport",
    "num_classes": "data",
    "latent_norm": "data",
    "latent_multiplier": "data",
    "downsample_ratio": "vae",
}
"""Fact → the part of the training script's configuration that it stands in."""
_UNSAID_MULTIPLIER = 0.18215
"""The training script's own default; the published configurations say 1."""


@dataclass
class LightningDiTDenoiser(InterpolantDenoiser):
    """A LightningDiT checkpoint as a denoiser."""

    family: ClassVar[str] = "lightningdit"
    paths: ClassVar[Mapping[str, type[Interpolant]]] = PATHS

    def use_statistics(self, path: str) -> None:
        """Reads the statistics of the latents; normalised ones are multiplied by what training multiplied them with.

        Args:
            path: As for `read_statistics`.

        Raises:
            CheckpointError: As `Denoiser.use_statistics`.
        """
        super().use_statistics(path)
        if path != NORMALISED and self.latent_scale is not None:
            factor, multiplier = self.latent_scale.factor, self.constructor["latent_multiplier"]
            self.latent_scale = replace(self.latent_scale, factor=tuple(multiplier * number for number in factor))


def recognise(checkpoint: Checkpoint) -> Match | None:
    """Claims transformers with a part that SiT has not, or a configuration of this training script."""
    if not is_trunk(checkpoint):
        return None
    if (part := later_part(checkpoint)) is not None:
        return Match(True, f"a transformer as SiT's with {part}")
    if checkpoint.training_args:
        is_own = isinstance(checkpoint.training_args.get("transport"), Mapping)
        return Match(True, "the training configuration has LightningDiT's transport") if is_own else None
    if "LightningDiT" in checkpoint.name:
        return Match(False, "the file's name says LightningDiT, the weights are those of a SiT")
    if output_ratio(checkpoint) != 1 or "SiT" in checkpoint.name or _has_training_parts(checkpoint):
        return None
    return Match(False, "the weights fit")


def _has_training_parts(checkpoint: Checkpoint) -> bool:
    return any(name.startswith(("projectors.", "decoder_blocks.", "bn.")) for name in checkpoint.tensors)


def build(checkpoint: Checkpoint, config: Mapping[str, str], match: Match) -> LightningDiTDenoiser:
    """Builds the transformer on its path.

    Args:
        checkpoint: One that `recognise` claims.
        config: The user's `--config`: path_type, prediction, num_classes, num_heads, latent_norm, latent_multiplier.
        match: From `recognise`.

    Returns:
        The denoiser, its network on the CPU.

    Raises:
        CheckpointError: If the weights are not whole or do not say enough.
        WeightsMismatch: If they do not fit the network.
        UsageError: If `config` has an unknown key or value.
    """
    said = {**_configured(checkpoint.training_args), **file_arguments(checkpoint)}
    facts = Facts(checkpoint.path, said, config, (*SETTINGS, "latent_norm", "latent_multiplier"))
    of_script = bool(checkpoint.training_args)
    normalised = facts.choice("latent_norm", "false" if of_script else "true", ("true", "false")) == "true"
    multiplier = facts.number("latent_multiplier", _UNSAID_MULTIPLIER if of_script else 1.0, 0, 1e6)
    factor = facts.integer("downsample_ratio", _FACTOR, high=1024)
    vae = VAE(None if normalised else LatentScale((multiplier,)), factor)
    denoiser = build_interpolant(LightningDiTDenoiser, checkpoint, checkpoint.tensors, facts, match, _SIZES, vae)
    if denoiser.space.kind == "latents":
        latents = {"latent_norm": str(normalised).lower(), "latent_multiplier": multiplier, "downsample_ratio": factor}
        denoiser.constructor |= latents
    return denoiser


def _configured(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The facts in a training script's configuration, whose parts are mappings."""
    found = {}
    for key, part in _PLACES.items():
        values = arguments.get(part)
        value = values.get(key) if isinstance(values, Mapping) else None
        found[key] = str(value).lower() if isinstance(value, bool) else value
    return found
