"""What SiT, LightningDiT and REPA share: transformers that predict the velocity of an interpolant.

Ma et al., "SiT: Exploring Flow and Diffusion-based Generative Models with Scalable Interpolant Transformers", 2024,
https://arxiv.org/abs/2401.08740. `PATHS` are SiT's, whose time runs from noise (0) to data (1).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from torch import Tensor

from diffscope.checkpoints.base import Checkpoint
from diffscope.errors import CheckpointError
from diffscope.families._conventions import unit_time
from diffscope.families._facts import Facts
from diffscope.families._transformers import HEADS, VAE, TransformerDenoiser, build_transformer, early_average
from diffscope.families.base import Match, NoiseConvention


class Interpolant(NoiseConvention):
    """Noisy data x_t = alpha(t)·data + beta(t)·noise, with beta = sigma·alpha; the network is fed t as it is."""

    sigma_min = 0.0
    sigma_max = math.inf

    @abstractmethod
    def velocity(self, t: float) -> tuple[float, float]:
        """Gives the slopes of the path, for the posterior mean.

        Args:
            t: Time, in [0, 1].

        Returns:
            (d alpha/dt, d beta/dt) at time t.
        """


@dataclass
class InterpolantDenoiser(TransformerDenoiser):
    """A transformer on an interpolant, which predicts the velocity d x_t/dt."""

    paths: ClassVar[Mapping[str, type[Interpolant]]]
    """Name → noise convention."""
    predicts: ClassVar[str] = "velocity"
    """What the network predicts where nobody says it."""

    def denoise(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """Solves x and the predicted velocity, two linear equations, for the data.

        Args:
            x: (B, C, H, W), in the network's input space.
            sigma: Noise-to-signal ratio, (B,) or (1,).
            label: From `label`.

        Returns:
            The posterior mean, (B, C, H, W).

        Raises:
            CheckpointError: If the network predicts something else than the velocity.
        """
        prediction = self.constructor["prediction"]
        if prediction not in ("velocity", "v"):
            raise CheckpointError(f"denoising from a {prediction} model is not supported, only from velocity")
        assert isinstance(self.noise, Interpolant)
        levels = sigma.flatten().double().tolist()
        slopes = [self.noise.velocity(self.noise.to_native(s)) for s in levels]
        signal, noise, level = (
            x.new_tensor(values)[:, None, None, None] for values in (*map(list, zip(*slopes, strict=True)), levels)
        )
        velocity = self.predict(x, sigma, label)
        # x = data + sigma·noise and velocity = signal·data + noise'·noise are two equations for the data.
        data: Tensor = (velocity * level - noise * x) / (signal * level - noise)
        return data


InterpolantDenoiserT = TypeVar("InterpolantDenoiserT", bound=InterpolantDenoiser)


class Linear(Interpolant):
    """The linear path: alpha = t, beta = 1 - t, sigma = (1 - t)/t."""

    native = "t in [0, 1], 1 = data (linear path)"

    def to_native(self, sigma: float) -> float:
        """Gives 1/(1 + sigma)."""
        return 1 / (1 + sigma)

    def to_sigma(self, t: float) -> float:
        """Gives (1 - t)/t; NoiseLevelError outside of [0, 1]."""
        return (1 - unit_time(t)) / t if t else math.inf

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
        return math.tan(math.pi / 2 * (1 - unit_time(t))) if t else math.inf

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
        u = 1 - unit_time(t)
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


SETTINGS = ("path_type", "prediction", "num_classes", "num_heads")
"""Facts of an interpolant's transformer."""
PREDICTIONS = ("velocity", "v", "noise", "score")
"""What the network predicts, as training codes spell it; only the first two give the posterior mean."""


def build_interpolant(
    make: type[InterpolantDenoiserT],
    checkpoint: Checkpoint,
    tensors: Mapping[str, Tensor],
    facts: Facts,
    match: Match,
    sizes: Mapping[tuple[int, int], int] = HEADS,
    vae: VAE | None = None,
) -> InterpolantDenoiserT:
    """Builds a denoiser on one of a family's paths; a path that nobody names is assumed, with a warning.

    Args:
        make: The family's denoiser class; the first of its paths is assumed where nobody names one.
        checkpoint: As it was read.
        tensors: Its tensors, under the transformer's own names.
        facts: Those of SETTINGS, and the family's own.
        match: The family's claim, for the evidence.
        sizes: Heads of the family's published sizes, by (depth, width).
        vae: Of a model on latents; if None, that of the published models.

    Returns:
        The denoiser, its network on the CPU.

    Raises:
        CheckpointError: If the weights are not whole or do not say enough.
    """
    default, *others = make.paths
    path_type = facts.choice("path_type", default, make.paths)
    prediction = facts.choice("prediction", make.predicts, PREDICTIONS)
    built = build_transformer(tensors, facts, sizes, vae)
    assumed = not facts.says("path_type")
    warnings = [f"the path is assumed to be {default} (`config=path_type={' or '.join(others)}`)"] if assumed else []
    return make(
        network_class=f"{make.__name__.removesuffix('Denoiser')}({path_type}, {prediction})",
        noise=make.paths[path_type](),
        evidence="; ".join([match.why, *built.evidence]),
        constructor={**built.constructor, "path_type": path_type, "prediction": prediction},
        warnings=(*warnings, *early_average(checkpoint)),
        **built.fields(),
    )
