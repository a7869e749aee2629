"""REPA checkpoints: SiT's transformer trained beside a projection onto another network's features.

Yu et al., "Representation Alignment for Generation: Training Diffusion Transformers Is Easier Than You Think", 2024,
https://arxiv.org/abs/2410.06940. Time runs from data (0) to noise (1), against SiT's direction. The projectors serve
training alone and are left out, iREPA's too. REPA-E trains the VAE as well and normalises its latents by a batch norm
in the network's file: Leng et al., "REPA-E: Unlocking VAE for End-to-End Tuning with Latent Diffusion Transformers",
2025, https://arxiv.org/abs/2504.10483.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from diffscope.checkpoints.base import Checkpoint
from diffscope.errors import CheckpointError
from diffscope.families._conventions import unit_time
from diffscope.families._interpolants import SETTINGS, Interpolant, InterpolantDenoiser, build_interpolant
from diffscope.families._latents import scale_of
from diffscope.families._transformers import VAE, block_numbers, facts_of, is_transformer, output_ratio, usual_vae
from diffscope.families.base import Match


class linear(Interpolant):
    """The linear path: alpha = 1 - t, beta = t, sigma = t/(1 - t)."""

    native = "t in [0, 1], 0 = data (linear path)"

    def to_native(self, sigma: float) -> float:
        """Gives sigma/(1 + sigma)."""
        return sigma / (1 + sigma)

    def to_sigma(self, t: float) -> float:
        """Gives t/(1 - t); NoiseLevelError outside of [0, 1]."""
        return unit_time(t) / (1 - t) if t < 1 else math.inf

    def input_scale(self, sigma: float) -> float:
        """Gives alpha = 1/(1 + sigma)."""
        return 1 / (1 + sigma)

    def velocity(self, t: float) -> tuple[float, float]:
        """Gives (-1, 1)."""
        return -1.0, 1.0


class cosine(Interpolant):
    """The path of cosine and sine: alpha = cos(πt/2), beta = sin(πt/2), sigma = tan(πt/2)."""

    native = "t in [0, 1], 0 = data (cosine path)"

    def to_native(self, sigma: float) -> float:
        """Gives 2/π · arctan(sigma)."""
        return 2 / math.pi * math.atan(sigma)

    def to_sigma(self, t: float) -> float:
        """Gives tan(πt/2); NoiseLevelError outside of [0, 1]."""
        return math.tan(math.pi / 2 * unit_time(t)) if t < 1 else math.inf

    def input_scale(self, sigma: float) -> float:
        """Gives alpha = 1/√(1 + sigma²)."""
        return 1 / math.hypot(1, sigma)

    def velocity(self, t: float) -> tuple[float, float]:
        """Gives (-π/2 · sin(πt/2), π/2 · cos(πt/2))."""
        return -math.pi / 2 * math.sin(math.pi / 2 * t), math.pi / 2 * math.cos(math.pi / 2 * t)


PATHS: dict[str, type[Interpolant]] = {path.__name__: path for path in (linear, cosine)}
_OF_CLASS_TOKENS = ("cls_projectors2.weight", "wg_norm.weight", "final_layer.linear_cls.weight")
"""What REG adds: Wu et al., "Representation Entanglement for Generation", 2025, https://arxiv.org/abs/2507.01467."""


@dataclass
class REPADenoiser(InterpolantDenoiser):
    """A REPA checkpoint as a denoiser."""

    family: ClassVar[str] = "repa"
    paths: ClassVar[Mapping[str, type[Interpolant]]] = PATHS
    predicts: ClassVar[str] = "v"


def recognise(checkpoint: Checkpoint) -> Match | None:
    """Claims transformers with REPA's projectors, blocks or training arguments, and those that may have lost them."""
    if not is_transformer(checkpoint):
        return None
    if any(n.startswith("projectors.") for n in checkpoint.tensors):
        return Match(True, "the file holds REPA's projectors")
    if "bn.running_mean" in checkpoint.tensors:
        return Match(True, "the file holds REPA-E's batch norm of the latents")
    if any(n in checkpoint.tensors for n in _OF_CLASS_TOKENS):
        return Match(True, "the file holds REG's class token")
    if any(n.startswith("decoder_blocks.") for n in checkpoint.tensors):
        return Match(True, "the file holds REPA's older decoder_blocks")
    if checkpoint.training_args:
        named = next((key for key in ("encoder_depth", "projection_layer_type") if key in checkpoint.training_args), "")
        return Match(True, f"the training arguments have REPA's {named}") if named else None
    if output_ratio(checkpoint) != 1 or "SiT" in checkpoint.name:
        return None  # REPA never learns the variance
    return Match(False, "the weights fit, stripped of projectors")


def build(checkpoint: Checkpoint, config: Mapping[str, str], match: Match) -> REPADenoiser:
    """Builds the transformer on its path, without projectors.

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
    tensors = _native_names(checkpoint.tensors)
    if odd := next((name for name in _OF_CLASS_TOKENS if name in tensors), None):
        raise CheckpointError(
            f"{checkpoint.path}: a REG network ({odd}), which is fed the noised class token of a DINOv2 beside each "
            "image and was never trained without; no such token is made here: give a REPA or SiT checkpoint"
        )
    vae = _vae(checkpoint, {name: tensors.pop(name) for name in [*tensors] if name.startswith("bn.")})
    facts = facts_of(checkpoint, config, SETTINGS)
    denoiser = build_interpolant(REPADenoiser, checkpoint, tensors, facts, match, vae=vae)
    if "bn.running_mean" in checkpoint.tensors:
        denoiser.warnings += (
            "latents must be those of REPA-E's own VAE, which was trained with the network, not of the original one",
        )
    return denoiser


def _vae(checkpoint: Checkpoint, norm: Mapping[str, Tensor]) -> VAE | None:
    """What the file says of its VAE: REPA-E's batch norm of the latents, and the side of images in training."""
    patches, positions = checkpoint.tensors["x_embedder.proj.weight"], checkpoint.tensors["pos_embed"]
    if patches.dim() != 4 or positions.dim() != 3:
        return None  # refused where the network's shape is read
    channels, side = patches.shape[1], math.isqrt(positions.shape[1]) * patches.shape[2]
    vae = usual_vae(channels)
    resolution = checkpoint.training_args.get("resolution")
    if type(resolution) is int and side and resolution >= side and resolution % side == 0:
        vae = replace(vae, factor=resolution // side)
    if not norm:
        return vae
    mean, variance = (norm.get(f"bn.running_{name}") for name in ("mean", "var"))
    if mean is None or variance is None or not mean.shape == variance.shape == (channels,):
        raise CheckpointError(
            f"{checkpoint.path}: a batch norm of the latents that is not whole; expected bn.running_mean and "
            f"bn.running_var of {channels} numbers, as the network takes {channels} channels"
        )
    factor = variance.double().rsqrt().nan_to_num(math.inf).tolist()
    return replace(vae, scale=scale_of(checkpoint.path, mean.double().tolist(), factor))


def _native_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gives tensors the names of SiT's transformer, without projectors.

    Older files count the blocks behind the aligned one separately, from 0.

    Args:
        tensors: As the file names them.

    Returns:
        The same tensors under the transformer's own names, in their order.
    """
    numbers = block_numbers(tensors)

    def name(old: str) -> str:
        later = re.fullmatch(r"decoder_blocks\.([0-9]{1,5})\.(.*)", old)
        return f"blocks.{len(numbers) + int(later[1])}.{later[2]}" if later else old

    return {name(n): tensor for n, tensor in tensors.items() if not n.startswith("projectors.")}
