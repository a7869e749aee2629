"""Denoiser + seed → samples: the deterministic sampler of EDM, for every family.

With D(x; σ) the posterior mean, the probability flow is dx/dσ = (x - D(x; σ))/σ, followed here from σ_max · noise down
to σ = 0 by Heun's method, over levels that are evenly spaced in σ^(1/ρ): algorithm 1 of Karras et al., "Elucidating
the Design Space of Diffusion-Based Generative Models", 2022, https://arxiv.org/abs/2206.00364, with s(t) = 1 and
σ(t) = t. A flow model's own ODE is this one in another time and scale, so that its samples for a given noise agree but
for the error of the steps.

The ODE starts from noise alone, whereas data at σ_max are data + σ_max · noise: samples of a model whose noise does not
go far beyond the spread of its data are off by that much.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from diffscope import seeding
from diffscope.errors import NoiseLevelError, UsageError
from diffscope.families.base import Denoiser, NoiseConvention
from diffscope.seeding import Stream

STEPS, SIGMA_MIN, SIGMA_MAX, RHO = 18, 0.002, 80.0, 7.0
"""Karras et al. 2022, table 1 and section 5, for CIFAR-10."""


def sample(
    denoiser: Denoiser,
    numbers: Sequence[int],
    *,
    seed: int = 0,
    steps: int = STEPS,
    sigma_min: float = SIGMA_MIN,
    sigma_max: float = SIGMA_MAX,
    rho: float = RHO,
    label: int | Sequence[int] | None = None,
    batch_size: int = 64,
    device: str = "cpu",
) -> Iterator[Tensor]:
    """Draws samples in the network's input space, batch by batch in the order of `numbers`.

    Pixels are meant to lie in [-1, 1] and are not cut to it; latents are left to their decoder. All arguments are
    checked before anything is computed.

    Args:
        denoiser: Moved to `device`.
        numbers: Which samples, each at least 0. Sample i is a function of (seed, i), to rounding, whatever is drawn
            beside it: `range(64)` now and `range(64, 128)` later or elsewhere are `range(128)`.
        seed: At least 0.
        steps: Noise levels above 0, at least 2; the network runs 2 · steps − 1 times. The error falls as 1/steps².
        sigma_min: Lowest level, raised to the model's own range.
        sigma_max: Highest level, cut to the model's own range. Where a model's levels are discrete, the nearest of them
            are taken, each once, so that there may be fewer steps.
        rho: Above 0. Above 1, levels crowd at low noise; 1 spaces them evenly.
        label: A class for all samples, or one for each number; None is the null class.
        batch_size: Samples in memory at a time, at least 1.
        device: Where the network runs, by torch's name.

    Returns:
        An iterator over float32 (B, C, S, S) on the device.

    Raises:
        UsageError: An argument is out of range, or the model has no such class.
        NoiseLevelError: The model has no noise levels in the range.
    """
    if batch_size < 1:
        raise UsageError(f"batch size {batch_size}: expected at least 1")
    if any(number < 0 for number in numbers):
        raise UsageError(f"sample number {min(numbers)}: expected 0 or more")
    sigmas = levels(denoiser.noise, steps, sigma_min, sigma_max, rho)
    classes = _classes(denoiser, label, len(numbers))
    there = torch.device(device)
    denoiser.label(None if classes is None else torch.tensor(classes[:1]), there)  # may refuse
    denoiser.to(there)

    def batches() -> Iterator[Tensor]:
        for start in range(0, len(numbers), batch_size):
            part = slice(start, start + batch_size)
            x = sigmas[0] * _noise(denoiser, numbers[part], seed).to(there)
            chosen = None if classes is None else torch.tensor(classes[part])
            yield _heun(denoiser, x, sigmas, denoiser.label(chosen, there))

    return batches()


def levels(
    noise: NoiseConvention,
    steps: int = STEPS,
    sigma_min: float = SIGMA_MIN,
    sigma_max: float = SIGMA_MAX,
    rho: float = RHO,
) -> list[float]:
    """Lists the noise levels that `sample` visits.

    σ_i^(1/ρ) runs linearly from σ_max^(1/ρ) to σ_min^(1/ρ): Karras et al. 2022, equation 5.

    Args:
        noise: The model's noise convention.
        steps: At least 2.
        sigma_min: Raised to the model's own range.
        sigma_max: Cut to the model's own range.
        rho: Above 0.

    Returns:
        σ, falling, all above 0; σ = 0, where sampling ends, is left out. Fewer than `steps` where levels are discrete.

    Raises:
        UsageError: `steps` or `rho` is out of range.
        NoiseLevelError: The model has no noise levels in the range.
    """
    if steps < 2:
        raise UsageError(f"{steps} steps: expected at least 2")
    if not (rho > 0 and math.isfinite(rho)):
        raise UsageError(f"rho {rho:g}: expected a number above 0")
    # A float32 of the very end, as the network is told of it, could lie beyond.
    low, high = max(sigma_min, noise.sigma_min), min(sigma_max, noise.sigma_max * (1 - 2**-22))
    if not 0 < low < high < math.inf:
        raise NoiseLevelError(
            f"no noise levels from {sigma_min:g} to {sigma_max:g} to sample at; "
            f"this model's range is {noise.sigma_min:.6g} to {noise.sigma_max:.6g}"
        )
    ramp = [high ** (1 / rho) + i / (steps - 1) * (low ** (1 / rho) - high ** (1 / rho)) for i in range(steps)]
    # Powers and roots do not undo each other to the last bit: the ends are put where they belong.
    wanted = [high, *(root**rho for root in ramp[1:-1]), low]
    return list(dict.fromkeys(noise.check(sigma) for sigma in wanted))


def _classes(denoiser: Denoiser, label: int | Sequence[int] | None, count: int) -> list[int] | None:
    """One class for each of `count` samples; None for the null class."""
    if label is None:
        return None
    classes = [label] * count if isinstance(label, int) else [int(c) for c in label]
    if len(classes) != count:
        raise UsageError(f"{len(classes)} classes for {count} samples; expected one for each, or one for all")
    known = denoiser.classes.count
    for c in classes:
        if not 0 <= c < known:
            expected = f"0 to {known - 1}" if known else "none, for the model has no classes"
            raise UsageError(f"class {c}: expected {expected}")
    return classes


def _noise(denoiser: Denoiser, numbers: Sequence[int], seed: int) -> Tensor:
    """Standard normal (B, C, S, S) on the CPU, each sample's own."""
    space = denoiser.space
    shape = (space.channels, space.side, space.side)
    return torch.from_numpy(np.stack([seeding.noise(seed, Stream.SAMPLE, int(n), 0, shape) for n in numbers]))


@torch.no_grad()
def _heun(denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], label: Tensor | None) -> Tensor:
    """Follows x (B, C, S, S) from the first of the levels to σ = 0."""
    for now, then in itertools.pairwise(sigmas):
        slope = _slope(denoiser, x, now, label)
        ahead = x + (then - now) * slope
        x = x + (then - now) / 2 * (slope + _slope(denoiser, ahead, then, label))
    # The last step goes to σ = 0, where there is no slope to correct with. Euler's method there is D(x; σ) itself.
    return _mean(denoiser, x, sigmas[-1], label)


def _slope(denoiser: Denoiser, x: Tensor, sigma: float, label: Tensor | None) -> Tensor:
    """dx/dσ at one level."""
    return (x - _mean(denoiser, x, sigma, label)) / sigma


def _mean(denoiser: Denoiser, x: Tensor, sigma: float, label: Tensor | None) -> Tensor:
    """D(x; σ) in the dtype of x."""
    return denoiser.denoise(x, x.new_full((1,), sigma), label).to(x.dtype)
