"""The exact denoiser of a mixture of low-rank Gaussians, spelled `mixture:classes=3,rank=4,side=8,delta=0.2`.

Assumption 1 of Wang et al., "Understanding representation dynamics of diffusion models via low-dimensional modeling",
2025, https://arxiv.org/abs/2502.05743: an image of class k, each of K as likely, is x = U_k a + δ Ũ_k e with a, e
standard normal, U_k [n, r] orthonormal, the U_k of different classes orthogonal; n = channels · side². Ũ_k is the rest
of R^n (`noise=complement`), or the other classes' U_l alone (`noise=others`, as the paper's published version has it).
The U_k are drawn at random once and for all, or lie along the axes (`bases=aligned`). (`--data mixture:count=600,...`
draws the images.) Of y = x + σ·noise the posterior mean is, with P_k = U_k U_kᵀ and P the projection on all that x can
be (for `complement` P y = y),

    D(y) = ξ P y + (ζ − ξ) Σ_k w_k P_k y,   ζ = 1/(1 + σ²),   ξ = δ²/(δ² + σ²),
    w = softmax_k ½ (1/(δ² + σ²) − 1/(1 + σ²)) ‖P_k y‖²,

so that P_l D(y) = (ξ + (ζ − ξ) w_l) P_l y: directions outside of all U_k do not enter CSNR. For y of class k the
‖P_l y‖² are independent χ²_r, times 1 + σ² for l = k and δ² + σ² for the others (of clean input, y = x, times 1 and
δ²): CSNR is a ratio of two means over K numbers. With the weights of the mean exponents (`weights_at_means`) and clean
input it is

    CSNR ≈ ((1 + σ²/δ² h(w⁺)) / (1 + σ²/δ² h(w⁻)))² / δ²,   h(w) = (1 − δ²) w + δ²,

w⁺ the weight of the image's own class and w⁻ that of another: the paper's closed form, which has a factor 1/(K − 1)
more (see `studies/probe`). It rises as noise makes D drop δ e, and falls once classes are confused.

x and −x are equally likely in every class, so that a linear probe of D is close to chance. Of the absolute values |D|
it is not, unless the noise is too large, and with clean input it is best about where CSNR is (the paper's figure 5 and
appendix A.3), if the bases lie at random: of aligned ones every number of D belongs to one class, and denoising hardly
helps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.special import chdtrc, gammaln
from torch import Tensor

from diffscope import numerics
from diffscope.checkpoints.base import Checkpoint
from diffscope.errors import UsageError
from diffscope.families._analytic import MAX_NUMBERS, MAX_SIDE, analytic_facts
from diffscope.families._building import dry_walk
from diffscope.families._conventions import PlainSigma
from diffscope.families.base import Classes, Denoiser, InputSpace, Match
from diffscope.families.networks.walk import OUTPUT, Walk, WalkedNetwork

NOISE = ("complement", "others")
"""Where δ e may lie: in all of R^n but the own subspace, or in the other classes' subspaces."""
BASES = ("random", "aligned")
"""How the subspaces may lie to the axes."""
MAX_CHANNELS = 1024
LATER = {"channels": 1, "noise": "complement", "bases": "random"}
"""Facts that first versions did not have, and what stood for them: unsaid, so that protocols stay what they were."""


class MixtureNetwork(WalkedNetwork):
    """Layers: `noisy` (the input itself), `posterior` (the posterior mean), both flat, [n].

    Args:
        classes: K, at least 2.
        rank: r, of every class's subspace; K·r is at most n.
        side: Of the images.
        delta: δ, the standard deviation outside of the own subspace, in (0, 1).
        channels: Of the images, so that n = channels · side².
        noise: Where δ e lies, one of NOISE.
        bases: How the U_k lie, one of BASES.
    """

    trunk = ()
    bases: Tensor
    """[K, n, r]."""

    def __init__(self, classes: int, rank: int, side: int, delta: float, channels: int, noise: str, bases: str) -> None:
        super().__init__()
        self.delta, self.everywhere = delta, noise == "complement"
        found = numerics.orthogonal_bases(classes, rank, channels * side**2, aligned=bases == "aligned")
        self.register_buffer("bases", torch.from_numpy(found).float())

    def walk(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Walk:
        """Yields the layers.

        Args:
            x: Noisy images (B, channels, side, side).
            time: Sigma itself, (B,) or (1,).
            label: Not used.

        Yields:
            (name, activation (B, n)), then the posterior mean as a map.
        """
        y = x.flatten(1)
        yield "noisy", y
        mean = self.posterior_mean(y, time[:, None])
        yield "posterior", mean
        yield OUTPUT, mean.view(x.shape)

    def posterior_mean(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Computes D(y) of the module's formula.

        Args:
            y: Flat noisy images [B, n].
            sigma: Noise-to-signal ratio, [B, 1] or [1, 1].

        Returns:
            The posterior mean [B, n].
        """
        low, high = self.delta**2 + sigma**2, 1 + sigma**2
        coordinates = torch.einsum("bn,knr->bkr", y, self.bases)
        weights = (0.5 * (1 / low - 1 / high) * coordinates.square().sum(2)).softmax(1)
        inside = torch.einsum("bk,bkr,knr->bn", weights, coordinates, self.bases)
        possible = y if self.everywhere else torch.einsum("bkr,knr->bn", coordinates, self.bases)
        return self.delta**2 / low * possible + (1 / high - self.delta**2 / low) * inside


@dataclass
class MixtureDenoiser(Denoiser):
    """The mixture's exact denoiser, with closed forms of what is measured on it."""

    family: ClassVar[str] = "mixture"

    def label(self, classes: Tensor | None, device: torch.device) -> Tensor | None:
        """Gives None: the network takes no classes."""
        return None

    def denoise(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """Gives the exact posterior mean."""
        mean: Tensor = self.network(x, sigma.flatten())
        return mean

    def closed_form_csnr(self, sigma: float, input: str = "noisy", draws: int = 200_000) -> float:
        """Computes the population CSNR of layer `posterior`: both means over K independent χ²_r, by Monte Carlo.

        No image, network or decomposition takes part.

        Args:
            sigma: Noise-to-signal ratio.
            input: "noisy" or "clean": what the network is fed.
            draws: Of K numbers each; the default gives three digits.

        Returns:
            CSNR, above 0.
        """
        classes, rank, delta = (self.constructor[key] for key in ("classes", "rank", "delta"))
        xi, zeta, sharpness = _coefficients(sigma, delta)
        own, other = _scales(sigma, delta, input)
        energy = np.random.Generator(np.random.Philox(key=1)).chisquare(rank, (draws, classes))
        energy *= np.array([own, *[other] * (classes - 1)])
        exponents = 0.5 * sharpness * energy
        weights = np.exp(exponents - exponents.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        caught = ((xi + (zeta - xi) * weights) ** 2 * energy).mean(0)
        return float(caught[0] / caught[1:].mean())

    def approximate_csnr(self, sigma: float) -> float:
        """Computes the formula for clean input with the weights of the mean exponents.

        Args:
            sigma: Noise-to-signal ratio.

        Returns:
            CSNR, above 0.
        """
        delta = self.constructor["delta"]
        own, other = (1 + sigma**2 / delta**2 * ((1 - delta**2) * w + delta**2) for w in self.weights_at_means(sigma))
        return float((own / other) ** 2 / delta**2)

    def weights_at_means(self, sigma: float) -> tuple[float, float]:
        """Computes the weights w at E‖P_l x‖² = r and δ² r.

        Args:
            sigma: Noise-to-signal ratio.

        Returns:
            (w of an image's own class, w of another one).
        """
        classes, rank, delta = (self.constructor[key] for key in ("classes", "rank", "delta"))
        gain = math.exp(-0.5 * _coefficients(sigma, delta)[2] * rank * (1 - delta**2))
        return 1 / (1 + (classes - 1) * gain), gain / (1 + (classes - 1) * gain)

    def closed_form_accuracy(self, sigma: float, input: str = "noisy") -> float:
        """Computes how often the class whose U_k catches most of the posterior mean is the right one.

        That is P(own χ²_r exceeds the others, scaled). (ξ + (ζ − ξ) w_l)²‖P_l y‖² is in the same order as ‖P_l y‖², so
        that denoising neither helps nor harms this best of classifiers, which knows the U_k: of noisy input it only
        falls with σ, of clean input it does not change. A probe, which does not know them, is below it.

        Args:
            sigma: Noise-to-signal ratio.
            input: "noisy" or "clean": what the network is fed.

        Returns:
            The accuracy, from 1/K to 1.
        """
        classes, rank, delta = (self.constructor[key] for key in ("classes", "rank", "delta"))
        own, other = _scales(sigma, delta, input)
        # ∫ f(q) F(q · own/other)^(K−1) dq over the quantiles where χ²_r has its mass, by the midpoint rule.
        q = (np.arange(100_000) + 0.5) * (rank + 20 * math.sqrt(2 * rank) + 40) / 100_000
        density = np.exp((rank / 2 - 1) * np.log(q) - q / 2 - rank / 2 * math.log(2) - gammaln(rank / 2))
        others = (1 - chdtrc(rank, q * own / other)) ** (classes - 1)
        return float((density * others).sum() * (q[1] - q[0]))


def _coefficients(sigma: float, delta: float) -> tuple[float, float, float]:
    """ξ, ζ, and what multiplies ½‖P_k y‖² in the exponent of w_k."""
    low, high = delta**2 + sigma**2, 1 + sigma**2
    return delta**2 / low, 1 / high, 1 / low - 1 / high


def _scales(sigma: float, delta: float, input: str) -> tuple[float, float]:
    """What χ²_r is multiplied by in an image's own subspace and in another one."""
    return (1.0, delta**2) if input == "clean" else (1 + sigma**2, delta**2 + sigma**2)


def recognise(checkpoint: Checkpoint) -> Match | None:
    """Claims the spelling `mixture:…`."""
    return Match(True, "the spelling mixture:") if checkpoint.container == "mixture" else None


def build(checkpoint: Checkpoint, config: Mapping[str, str], match: Match) -> MixtureDenoiser:
    """Builds the mixture that the spelling describes.

    Args:
        checkpoint: Without tensors; its arguments are the spelling's.
        config: The user's `--config`, with the same keys.
        match: From `recognise`.

    Returns:
        The denoiser, on the CPU.

    Raises:
        UsageError: If a key or value is not allowed.
    """
    facts = _facts(checkpoint, config)
    network = MixtureNetwork(**facts).eval()
    space = InputSpace("pixels", facts["channels"], facts["side"], facts["channels"], facts["side"], "lanczos")
    return MixtureDenoiser(
        network_class="MixtureNetwork",
        network=network,
        space=space,
        noise=PlainSigma(),
        classes=Classes(),
        layers=dry_walk(deepcopy(network).to("meta"), space, None, checkpoint.path),
        default_layer="posterior",
        evidence=match.why,
        constructor={key: value for key, value in facts.items() if LATER.get(key) != value},
    )


def _facts(checkpoint: Checkpoint, config: Mapping[str, str]) -> dict[str, Any]:
    known = ("classes", "rank", "side", "delta", "channels", "noise", "bases")
    facts = analytic_facts(checkpoint, config, known)
    classes, rank = facts.integer("classes", 3, low=2), facts.integer("rank", 4)
    side, delta = facts.integer("side", 8, high=MAX_SIDE), facts.number("delta", 0.2, 0, 1)
    channels = facts.integer("channels", 1, high=MAX_CHANNELS)
    noise, bases = facts.choice("noise", NOISE[0], NOISE), facts.choice("bases", BASES[0], BASES)
    size = channels * side**2
    if classes * rank > size or delta == 1:
        raise UsageError(
            f"{checkpoint.path}: expected classes · rank at most channels · side² = {size}, and delta between 0 and 1"
        )
    if classes * rank * size > MAX_NUMBERS:
        raise UsageError(f"{checkpoint.path}: bases of {classes * rank} × {size}; expected up to {MAX_NUMBERS} numbers")
    return dict(zip(known, (classes, rank, side, delta, channels, noise, bases), strict=True))
