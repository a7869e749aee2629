"""SiT checkpoints: transformers on interpolants, on VAE latents or on pixels.

Ma et al., "SiT: Exploring Flow and Diffusion-based Generative Models with Scalable Interpolant Transformers", 2024,
https://arxiv.org/abs/2401.08740. Time runs from noise (0) to data (1): x_t = alpha(t)·data + beta(t)·noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from diffscope.checkpoints.base import Checkpoint
from diffscope.families._facts import text_of
from diffscope.families._transformers import (
    Interpolant,
    InterpolantDenoiser,
    build_interpolant,
    is_transformer,
)
from diffscope.families.base import Match


class Linear(Interpolant):
    """The linear path: alpha = t, beta = 1 - t, sigma = (1 - t)/t."""

    native = "t in [0, 1], 1 = data (linear path)"

    def to_native(self, sigma: float) -> float:
        """Gives 1/(1 + sigma)."""
        return 1 / (1 + sigma)

    def to_sigma(self, t: float) -> float:
        """Gives (1 - t)/t; NoiseLevelError outside of [0, 1]."""
        return (1 - self._checked(t)) / t if t else math.inf

    def input_scale(self, sigma: float) -> float:
        """Gives alpha = 1/(1 + sigma)."""
        return 1 / (1 + sigma)

    def velocity(self, t: float) -> tuple[float, float]:
        """Gives (1, -1)."""
        return 1.0, -1.0


class GVP(Interpolant):
    """The variance-preserving path of sine and cosine: alpha = sin(πt/2), beta = cos(πt/2), sigma = cot(πt/2)."""

    native = "t in [0, 1], 1 = data (GVP path)"

    def to_native(self, sigma: float) -> float:
        """Gives 2/π · arccot(sigma)."""
        return 2 / math.pi * math.atan2(1, sigma)

    def to_sigma(self, t: float) -> float:
        """Gives tan(π/2 · (1 - t)); NoiseLevelError outside of [0, 1]."""
        return math.tan(math.pi / 2 * (1 - self._checked(t))) if t else math.inf

    def input_scale(self, sigma: float) -> float:
        """Gives alpha = 1/√(1 + sigma²)."""
        return 1 / math.hypot(1, sigma)

    def velocity(self, t: float) -> tuple[float, float]:
        """Gives (π/2 · cos(πt/2), -π/2 · sin(πt/2))."""
        return math.pi / 2 * math.cos(math.pi / 2 * t), -math.pi / 2 * math.sin(math.pi / 2 * t)


class VP(Interpolant):
    """The VP diffusion with beta from 0.1 to 20, in u = 1 - t."""

    native = "t in [0, 1], 1 = data (VP path)"

    def __init__(self) -> None:
        self.sigma_max = self.to_sigma(0.0)

    def to_native(self, sigma: float) -> float:
        """Gives the t at which ln(1 + sigma²) = ½·19.9·u² + 0.1·u."""
        half_log = 0.5 * math.log1p(sigma**2)
        return 1 - (-0.05 + math.sqrt(0.0025 + 19.9 * half_log)) / 9.95

    def to_sigma(self, t: float) -> float:
        """Gives √(exp(½·19.9·u² + 0.1·u) - 1); NoiseLevelError outside of [0, 1]."""
        u = 1 - self._checked(t)
        return math.sqrt(math.expm1(0.5 * 19.9 * u**2 + 0.1 * u))

    def input_scale(self, sigma: float) -> float:
        """Gives alpha = 1/√(1 + sigma²)."""
        return 1 / math.hypot(1, sigma)

    def velocity(self, t: float) -> tuple[float, float]:
        """Gives the slopes of alpha and beta = √(1 - alpha²); that of beta is infinite at t = 1."""
        alpha = self.input_scale(sigma := self.to_sigma(t))
        slope = alpha * (0.5 * 19.9 * (1 - t) + 0.05)
        return slope, -slope / sigma if sigma else -math.inf


PATHS: dict[str, type[Interpolant]] = {path.__name__: path for path in (Linear, GVP, VP)}


@dataclass
class SiTDenoiser(InterpolantDenoiser):
    """A SiT checkpoint as a denoiser."""

    family: ClassVar[str] = "sit"


def recognise(checkpoint: Checkpoint) -> Match | None:
    """Claims transformers whose training arguments name a SiT path, whose name says SiT, or that are no DiT by name."""
    if not is_transformer(checkpoint) or any(
        n.startswith(("projectors.", "decoder_blocks.")) for n in checkpoint.tensors
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
    return build_interpolant(SiTDenoiser, PATHS, "Linear", "velocity", checkpoint, checkpoint.tensors, config, match)
