"""An analytic Gaussian denoiser, spelled `toy:d=32,side=8`: every number of the pipeline has a closed form.

The data are pixels x_j ~ N(0, v_j), independent, v_j = 1/j (`numerics.power_law`; `--data synthetic:count=N` draws
them). With features z = A(x + σ·noise), A of full row rank, two views share A·x and differ in σ·A·noise, so that
Σs = A·V·Aᵀ, Σξ = σ²·A·Aᵀ and

    ICR(σ) = 1 / (1 + tr((A·Aᵀ)⁻¹·A·V·Aᵀ) / (d·σ²)).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from diffscope import numerics
from diffscope.checkpoints.base import Checkpoint
from diffscope.errors import UsageError
from diffscope.families._analytic import MAX_NUMBERS, MAX_SIDE, analytic_facts
from diffscope.families._building import dry_walk
from diffscope.families._conventions import PlainSigma
from diffscope.families.base import Classes, Denoiser, InputSpace, Match
from diffscope.families.networks.walk import OUTPUT, Walk, WalkedNetwork


class GaussianNetwork(WalkedNetwork):
    """Layers: `linear` (d features of the noisy input), `wiener` (the posterior mean, as a map).

    Args:
        d: Number of features, at most side².
        side: Of the images, in pixels.
    """

    trunk = ()
    projection: Tensor
    variances: Tensor

    def __init__(self, d: int, side: int) -> None:
        super().__init__()
        pixels = side * side
        matrix = np.random.Generator(np.random.Philox(key=0)).standard_normal((d, pixels)) / math.sqrt(pixels)
        self.register_buffer("projection", torch.from_numpy(matrix).float())
        self.register_buffer("variances", torch.from_numpy(numerics.power_law(pixels, 1.0)).float())

    def walk(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Walk:
        """Yields the layers.

        Args:
            x: Noisy images (B, 1, side, side).
            time: Sigma itself, (B,) or (1,).
            label: Not used.

        Yields:
            (name, activation), then the posterior mean.
        """
        flat = x.flatten(1)
        yield "linear", nn.functional.linear(flat, self.projection)
        mean = (flat * (self.variances / (self.variances + time[:, None] ** 2))).view(x.shape)
        yield "wiener", mean
        yield OUTPUT, mean


@dataclass
class ToyDenoiser(Denoiser):
    """The Gaussian's exact denoiser, with the closed form of its ICR."""

    family: ClassVar[str] = "toy"

    def label(self, classes: Tensor | None, device: torch.device) -> Tensor | None:
        """Gives None: the network takes no classes."""
        return None

    def denoise(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """Gives the exact posterior mean."""
        mean: Tensor = self.network(x, sigma.flatten())
        return mean

    def closed_form_icr(self, sigma: float) -> float:
        """Computes the population ICR of layer `linear`, without augmentation.

        Args:
            sigma: Noise-to-signal ratio, above 0.

        Returns:
            ICR, in (0, 1).
        """
        assert isinstance(self.network, GaussianNetwork)
        a, v = self.network.projection.double().numpy(), self.network.variances.double().numpy()
        signal = np.trace(np.linalg.solve(a @ a.T, (a * v) @ a.T))
        return float(1 / (1 + signal / (len(a) * sigma**2)))


def recognise(checkpoint: Checkpoint) -> Match | None:
    """Claims the spelling `toy:…`."""
    return Match(True, "the spelling toy:") if checkpoint.container == "toy" else None


def build(checkpoint: Checkpoint, config: Mapping[str, str], match: Match) -> ToyDenoiser:
    """Builds the Gaussian that the spelling describes.

    Args:
        checkpoint: Without tensors; its arguments are the spelling's.
        config: The user's `--config`, with the same keys.
        match: From `recognise`.

    Returns:
        The denoiser, on the CPU.

    Raises:
        UsageError: If a key or value is not allowed.
    """
    facts = analytic_facts(checkpoint, config, ("d", "side"))
    side = facts.integer("side", 8, high=MAX_SIDE)
    d = facts.integer("d", 32)
    if d > side**2:
        raise UsageError(f"{checkpoint.path}: d must be from 1 to side² = {side**2}")
    if d * side**2 > MAX_NUMBERS:
        raise UsageError(f"{checkpoint.path}: a matrix of {d} × {side**2}; expected up to {MAX_NUMBERS} numbers")
    network = GaussianNetwork(d, side).eval()
    space = InputSpace("pixels", 1, side, 1, side, "lanczos")
    layers = dry_walk(deepcopy(network).to("meta"), space, None, checkpoint.path)
    return ToyDenoiser(
        network_class="GaussianNetwork",
        network=network,
        space=space,
        noise=PlainSigma(),
        classes=Classes(),
        layers=layers,
        default_layer="linear",
        evidence=match.why,
        constructor={"d": d, "side": side},
    )
