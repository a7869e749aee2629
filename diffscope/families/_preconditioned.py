"""What EDM's and EDM2's denoisers share: preconditioning, and classes as one-hot rows.

Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
https://arxiv.org/abs/2206.00364: D(x; σ) = c_skip·x + c_out·F(c_in·x; c_noise), table 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffscope.families.base import Denoiser, NoiseConvention


class Preconditioner(NoiseConvention):
    """c_noise, c_in and, for the posterior mean, c_skip and c_out."""

    def c_skip_out(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(1, -σ), of the preconditioners that predict the noise of x."""
        return torch.ones_like(sigma), -sigma


class EDMPrecond(Preconditioner):
    native = "c_noise = ln(sigma)/4, rising with noise"

    def __init__(self, sigma_min: float = 0.0, sigma_max: float = math.inf, sigma_data: float = 0.5) -> None:
        self.sigma_min, self.sigma_max, self.sigma_data = sigma_min, sigma_max, sigma_data

    def to_native(self, sigma: float) -> float:
        return math.log(sigma) / 4

    def to_sigma(self, t: float) -> float:
        return math.exp(4 * t)

    def input_scale(self, sigma: float) -> float:
        return 1 / math.hypot(self.sigma_data, sigma)

    def c_skip_out(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        total = sigma**2 + self.sigma_data**2
        return self.sigma_data**2 / total, sigma * self.sigma_data / total.sqrt()


@dataclass
class PreconditionedDenoiser(Denoiser):
    def label(self, classes: Tensor | None, device: torch.device) -> Tensor | None:
        """One-hot rows (B, count); None, the null class, is all zero."""
        if not self.classes.count or classes is None:
            return None
        return torch.nn.functional.one_hot(classes, self.classes.count).float().to(device)

    def denoise(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        assert isinstance(self.noise, Preconditioner)
        levels = sigma.flatten().double().tolist()
        scale = x.new_tensor([self.noise.input_scale(s) for s in levels])[:, None, None, None]
        time = x.new_tensor([self.noise.to_native(s) for s in levels])
        c_skip, c_out = (c[:, None, None, None] for c in self.noise.c_skip_out(sigma.flatten().to(x)))
        data: Tensor = c_skip * x + c_out * self.network(scale * x, time, label)[:, : x.shape[1]].to(x.dtype)
        return data
