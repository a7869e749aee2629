"""Noise conventions that several families share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from diffscope.errors import NoiseLevelError
from diffscope.families.base import NoiseConvention


class PlainSigma(NoiseConvention):
    """The network is fed sigma itself and unscaled noisy data.

    Args:
        sigma_min: Smallest noise-to-signal ratio.
        sigma_max: Largest noise-to-signal ratio.
    """

    native = "sigma itself"

    def __init__(self, sigma_min: float = 0.0, sigma_max: float = math.inf) -> None:
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def to_native(self, sigma: float) -> float:
        """Gives sigma itself."""
        return sigma

    def to_sigma(self, t: float) -> float:
        """Gives `t` itself."""
        return t

    def input_scale(self, sigma: float) -> float:
        """Gives 1."""
        return 1.0


def unit_time(t: float) -> float:
    """Checks a time of a path from noise to data.

    Args:
        t: The network's own time.

    Returns:
        The same, in [0, 1].

    Raises:
        NoiseLevelError: If it is outside.
    """
    if not 0 <= t <= 1:
        raise NoiseLevelError(f"t {t:g}: expected from 0 to 1")
    return t


class FlowToNoise(NoiseConvention):
    """x_t = (1 - t)·data + t·noise.

    Lipman et al., "Flow Matching for Generative Modeling", 2023, https://arxiv.org/abs/2210.02747; Esser et al.,
    "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024, https://arxiv.org/abs/2403.03206.
    """

    native = "time t from 0 (data) to 1 (noise)"
    sigma_min, sigma_max = 0.0, math.inf

    def to_native(self, sigma: float) -> float:
        """Gives σ/(1 + σ)."""
        return sigma / (1 + sigma)

    def to_sigma(self, t: float) -> float:
        """Gives t/(1 - t); NoiseLevelError outside of [0, 1)."""
        if not 0 <= t < 1:
            raise NoiseLevelError(f"t {t:g}: expected from 0 to 1, without 1 itself, which is noise alone")
        return t / (1 - t)

    def input_scale(self, sigma: float) -> float:
        """Gives 1 - t = 1/(1 + σ)."""
        return 1 / (1 + sigma)


class FlowToData(NoiseConvention):
    """x_t = t·data + (1 - t)·noise."""

    native = "time t from 0 (noise) to 1 (data)"
    sigma_min, sigma_max = 0.0, math.inf

    def to_native(self, sigma: float) -> float:
        """Gives 1/(1 + σ)."""
        return 1 / (1 + sigma)

    def to_sigma(self, t: float) -> float:
        """Gives (1 - t)/t; NoiseLevelError outside of (0, 1]."""
        if not 0 < t <= 1:
            raise NoiseLevelError(f"t {t:g}: expected from 0 to 1, without 0 itself, which is noise alone")
        return (1 - t) / t

    def input_scale(self, sigma: float) -> float:
        """Gives t = 1/(1 + σ)."""
        return 1 / (1 + sigma)


class DiscreteSteps(NoiseConvention):
    """Variance-preserving steps 0 … N-1; the nearest step in ln sigma stands for a noise level.

    sigma[t] = √((1 - abar[t]) / abar[t]), with abar[t] the share of the data's variance that is left at step t: Ho et
    al., "Denoising Diffusion Probabilistic Models", 2020, https://arxiv.org/abs/2006.11239.

    Args:
        sigmas: Noise-to-signal ratio of each step, rising, above 0.
        spacing: What the network is fed is the step times this number.
    """

    native = "whole step from 0, rising with noise"
    discrete = True

    def __init__(self, sigmas: Sequence[float], spacing: float = 1) -> None:
        self.sigmas, self.spacing = list(sigmas), spacing
        if spacing != 1:
            self.native = f"{spacing:g} times the {DiscreteSteps.native}"
        self._logs = np.log(self.sigmas)
        self.sigma_min, self.sigma_max = self.sigmas[0], self.sigmas[-1]

    def step(self, sigma: float) -> int:
        """Finds the step whose ln sigma is nearest.

        Args:
            sigma: Noise-to-signal ratio, above 0.

        Returns:
            A step, from 0 to N-1.
        """
        return int(np.argmin(np.abs(self._logs - math.log(sigma))))

    def to_native(self, sigma: float) -> float:
        """Gives the step whose ln sigma is nearest, times `spacing`."""
        return self.step(sigma) * self.spacing

    def to_sigma(self, t: float) -> float:
        """Gives the sigma of a step; NoiseLevelError where `t` is not what the network is fed at one."""
        last, step = len(self.sigmas) - 1, round(t / self.spacing)
        if not math.isclose(t, step * self.spacing, rel_tol=1e-6) or not 0 <= step <= last:
            whole = "whole step" if self.spacing == 1 else f"multiple of {self.spacing:g}"
            raise NoiseLevelError(f"t {t:g}: expected a {whole} from 0 to {last * self.spacing:g}")
        return self.sigmas[step]

    def nearest(self, sigma: float) -> float:
        """Gives the sigma of the step nearest to `sigma`."""
        return self.sigmas[self.step(sigma)]

    def input_scale(self, sigma: float) -> float:
        """Gives 1/√(1 + sigma²)."""
        return 1 / math.hypot(1, sigma)
