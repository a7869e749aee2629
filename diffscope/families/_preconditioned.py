"""What EDM's and EDM2's denoisers share: preconditioning, and classes as one-hot rows.

Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
https://arxiv.org/abs/2206.00364: D(x; σ) = c_skip·x + c_out·F(c_in·x; c_noise), table 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffscope.families.base import Classes, Denoiser, Layer, NoiseConvention


class Preconditioner(NoiseConvention):
    """A convention with c_noise, c_in and, for the posterior mean, c_skip and c_out."""

    def c_skip_out(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Gives the two factors of D(x; σ) = c_skip·x + c_out·F(…).

        Args:
            sigma: Noise-to-signal ratio, any shape.

        Returns:
            (c_skip, c_out), each of the shape of `sigma`; here (1, -σ), of networks that predict the noise of x.
        """
        return torch.ones_like(sigma), -sigma


class EDMPrecond(Preconditioner):
    """EDM's own preconditioner: c_noise = ln(σ)/4, c_in = 1/√(σ_data² + σ²).

    Args:
        sigma_min: Smallest noise-to-signal ratio.
        sigma_max: Largest noise-to-signal ratio.
        sigma_data: Standard deviation of the data.
    """

    native = "c_noise = ln(sigma)/4, rising with noise"
    trained = (0.002, 80.0)  # where samples are drawn, four standard deviations of ln sigma in training (table 1)

    def __init__(self, sigma_min: float = 0.0, sigma_max: float = math.inf, sigma_data: float = 0.5) -> None:
        self.sigma_min, self.sigma_max, self.sigma_data = sigma_min, sigma_max, sigma_data

    def to_native(self, sigma: float) -> float:
        """Gives ln(σ)/4."""
        return math.log(sigma) / 4

    def to_sigma(self, t: float) -> float:
        """Gives exp(4t)."""
        return math.exp(4 * t)

    def input_scale(self, sigma: float) -> float:
        """Gives c_in = 1/√(σ_data² + σ²)."""
        return 1 / math.hypot(self.sigma_data, sigma)

    def c_skip_out(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Gives (σ_data²/(σ² + σ_data²), σ·σ_data/√(σ² + σ_data²))."""
        total = sigma**2 + self.sigma_data**2
        return self.sigma_data**2 / total, sigma * self.sigma_data / total.sqrt()


@dataclass
class PreconditionedDenoiser(Denoiser):
    """A network behind a preconditioner, with classes as one-hot rows."""

    def label(self, classes: Tensor | None, device: torch.device) -> Tensor | None:
        """Gives one-hot rows (B, count); None, which the network reads as all zero, for the null class."""
        if not self.classes.count or classes is None:
            return None
        return torch.nn.functional.one_hot(classes, self.classes.count).float().to(device)

    def denoise(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """Computes c_skip·x + c_out·F(c_in·x; c_noise)."""
        assert isinstance(self.noise, Preconditioner)
        c_skip, c_out = (c[:, None, None, None] for c in self.noise.c_skip_out(sigma.flatten().to(x)))
        data: Tensor = c_skip * x + c_out * self.predict(x, sigma, label)
        return data


def mid_of_unet(layers: Sequence[Layer]) -> str:
    """Chooses a U-Net's default layer.

    Args:
        layers: All layers in order.

    Returns:
        Name of the last encoder block at the lowest resolution.
    """
    encoder = [layer for layer in layers if layer.name.startswith("enc.")]
    lowest = min(layer.shape[-1] for layer in encoder)
    return [layer.name for layer in encoder if layer.shape[-1] == lowest][-1]


def null_class_warnings(classes: Classes) -> tuple[str, ...]:
    """Warns of a class-conditional model that never saw the null label in training.

    Args:
        classes: The model's classes.

    Returns:
        No or one sentence.
    """
    if not classes.count or classes.null_trained:
        return ()
    return (
        "the model is class-conditional and was never trained on the null label; "
        "--class label uses the images' own labels",
    )
