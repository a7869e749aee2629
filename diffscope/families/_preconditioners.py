"""The preconditioners of EDM's table 1, as noise conventions.

Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
https://arxiv.org/abs/2206.00364: D(x; σ) = c_skip·x + c_out·F(c_in·x; c_noise).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffscope.errors import UsageError
from diffscope.families.base import NoiseConvention


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


class VPPrecond(Preconditioner):
    """Variance-preserving diffusion (table 1): σ² + 1 = exp(½·β_d·t² + β_min·t), c_in = 1/√(1 + σ²), c_noise = (M-1)·t.

    Args:
        beta_d: β_d.
        beta_min: β_min.
        M: Number of steps in training.
        epsilon_t: The smallest time t, which gives the smallest noise level.
    """

    native = "c_noise = (M-1)·t of the VP diffusion, rising with noise"

    def __init__(self, beta_d: float = 19.9, beta_min: float = 0.1, M: int = 1000, epsilon_t: float = 1e-5) -> None:
        self.beta_d, self.beta_min, self.M = beta_d, beta_min, M
        self.sigma_min, self.sigma_max = self.to_sigma((M - 1) * epsilon_t), self.to_sigma(M - 1)

    def to_native(self, sigma: float) -> float:
        """Gives (M-1)·t of the time t at which the diffusion has this noise level."""
        root = math.sqrt(self.beta_min**2 + 2 * self.beta_d * math.log1p(sigma**2))
        return (self.M - 1) * (root - self.beta_min) / self.beta_d

    def to_sigma(self, t: float) -> float:
        """Gives √(exp(½·β_d·s² + β_min·s) - 1) with s = t/(M-1)."""
        time = t / (self.M - 1)
        return math.sqrt(math.expm1(0.5 * self.beta_d * time**2 + self.beta_min * time))

    def input_scale(self, sigma: float) -> float:
        """Gives c_in = 1/√(1 + σ²)."""
        return 1 / math.hypot(1, sigma)


class VEPrecond(Preconditioner):
    """Variance-exploding diffusion (table 1): c_in = 1, c_noise = ln(σ/2).

    Args:
        sigma_min: Smallest noise-to-signal ratio.
        sigma_max: Largest noise-to-signal ratio.
    """

    native = "c_noise = ln(sigma/2), rising with noise"

    def __init__(self, sigma_min: float = 0.02, sigma_max: float = 100.0) -> None:
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def to_native(self, sigma: float) -> float:
        """Gives ln(σ/2)."""
        return math.log(sigma / 2)

    def to_sigma(self, t: float) -> float:
        """Gives 2·exp(t)."""
        return 2 * math.exp(t)

    def input_scale(self, sigma: float) -> float:
        """Gives 1."""
        return 1.0

    def c_skip_out(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Gives (1, σ)."""
        return torch.ones_like(sigma), sigma


class iDDPMPrecond(Preconditioner):
    """Discrete: the network knows the M levels of the buffer `u`, which descends from u[0] to u[M] = 0.

    Args:
        u: The file's table, (M + 1,), descending to 0; if None, it is computed from the other arguments.
        C_1: See `iddpm_levels`.
        C_2: See `iddpm_levels`.
        M: Number of levels.
    """

    native = "c_noise = M-1-j, j the index of the noise level in the descending table u; rising with noise"
    discrete = True

    def __init__(self, u: Tensor | None = None, C_1: float = 0.001, C_2: float = 0.008, M: int = 1000) -> None:
        self.u = (iddpm_levels(C_1, C_2, M) if u is None else u).double().tolist()
        self.sigma_min, self.sigma_max = self.u[-2], self.u[0]

    def index(self, sigma: float) -> int:
        """Gives the index in `u` of the level nearest to `sigma`."""
        return min(range(len(self.u)), key=lambda j: abs(self.u[j] - sigma))

    def to_native(self, sigma: float) -> float:
        """Gives M - 1 - j, with j the index of the nearest level."""
        return len(self.u) - 2 - self.index(sigma)

    def to_sigma(self, t: float) -> float:
        """Gives u[M - 1 - t]; UsageError where the model has no such step."""
        index = len(self.u) - 2 - round(t)
        if not 0 <= index < len(self.u) - 1:
            raise UsageError(f"t {t:g} is no step of this model: expected 0 to {len(self.u) - 2}")
        return float(self.u[index])

    def nearest(self, sigma: float) -> float:
        """Gives the level of `u` that is nearest to `sigma`."""
        return float(self.u[self.index(sigma)])

    def input_scale(self, sigma: float) -> float:
        """Gives c_in = 1/√(1 + σ²)."""
        return 1 / math.hypot(1, sigma)


def iddpm_levels(C_1: float, C_2: float, M: int) -> Tensor:
    """Computes the noise levels of iDDPM (table 1), in float32 throughout, as the stored buffers were made.

    Args:
        C_1: Smallest ratio of ᾱ between neighbouring steps.
        C_2: Offset in ᾱ_j = sin²(π/2 · j/(M·(C_2 + 1))).
        M: Number of levels.

    Returns:
        The table u, float32 (M + 1,), descending to u[M] = 0.
    """

    def alpha_bar(j: Tensor) -> Tensor:
        return (0.5 * torch.pi * j / M / (C_2 + 1)).sin() ** 2

    u = torch.zeros(M + 1)
    for j in torch.arange(M, 0, -1):
        ratio = (alpha_bar(j - 1) / alpha_bar(j)).clamp(min=C_1)
        u[j - 1] = ((u[j] ** 2 + 1) / ratio - 1).sqrt()
    return u


PRECONDITIONERS: dict[str, type[Preconditioner]] = {
    c.__name__: c for c in (EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond)
}
