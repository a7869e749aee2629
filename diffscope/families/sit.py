"""SiT checkpoints: transformers on interpolants, on VAE latents or on pixels.

Ma et al., "SiT: Exploring Flow and Diffusion-based Generative Models with Scalable Interpolant Transformers", 2024,
https://arxiv.org/abs/2401.08740. Time runs from noise (0) to data (1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from diffscope.checkpoints.base import Checkpoint
from diffscope.families._facts import text_of
from diffscope.families._interpolants import PATHS, SETTINGS, Interpolant, InterpolantDenoiser, build_interpolant
from diffscope.families._transformers import facts_of, is_transformer
from diffscope.families.base import Match


@dataclass
class SiTDenoiser(InterpolantDenoiser):
    """A SiT checkpoint as a denoiser."""

    family: ClassVar[str] = "sit"
    paths: ClassVar[Mapping[str, type[Interpolant]]] = PATHS


def recognise(checkpoint: Checkpoint) -> Match | None:
    """Claims transformers whose training arguments name a SiT path, whose name says SiT, or that are no DiT by name."""
    if not is_transformer(checkpoint) or any(
        n.startswith(("projectors.", "decoder_blocks.", "bn.")) for n in checkpoint.tensors
    ):
        return None
    arguments = checkpoint.training_args
    if arguments:
        is_sit = text_of(arguments, "path_type") in PATHS and "encoder_depth" not in arguments
        return Match(True, "the training arguments name a SiT path") if is_sit else None
    if "SiT" in checkpoint.name:
        return Match(True, "the file's name says SiT")
    if "DiT" in checkpoint.name:
        return None
    return Match(False, "the weights fit")


def build(checkpoint: Checkpoint, config: Mapping[str, str], match: Match) -> SiTDenoiser:
    """Builds the transformer on its path.

    Args:
        checkpoint: One that `recognise` claims.
        config: The user's `--config`: path_type, prediction, num_classes, num_heads.
        match: From `recognise`.

    Returns:
        The denoiser, its network on the CPU.

    Raises:
        CheckpointError: If the weights are not whole or do not say enough.
        WeightsMismatch: If they do not fit the network.
        UsageError: If `config` has an unknown key or value.
    """
    facts = facts_of(checkpoint, config, SETTINGS)
    return build_interpolant(SiTDenoiser, checkpoint, checkpoint.tensors, facts, match)
