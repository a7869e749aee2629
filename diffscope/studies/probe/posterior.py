"""The posterior mean D(x + σn; σ) as if it were a layer, so that whatever takes features takes it too."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

import torch
from torch import Tensor

from diffscope.families.base import Denoiser, Layer
from diffscope.families.networks.walk import Walk

POSTERIOR = "posterior_mean"


class PosteriorMean(Denoiser):
    """A denoiser whose one layer is its own output: the denoised image, flattened, [C·H·W]."""

    family: ClassVar[str] = POSTERIOR

    def __init__(self, inner: Denoiser) -> None:
        self.__dict__.update(inner.__dict__)
        self.inner = inner
        space = inner.space
        self.layers = (Layer(POSTERIOR, (space.channels * space.side**2,)),)
        self.default_layer = POSTERIOR

    def label(self, classes: Tensor | None, device: torch.device) -> Tensor | None:
        """As the inner denoiser has it."""
        return self.inner.label(classes, device)

    def denoise(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """As the inner denoiser has it."""
        return self.inner.denoise(x, sigma, label)

    def walk(self, x: Tensor, sigma: float, label: Tensor | None, until: Collection[str] | None = None) -> Walk:
        """Yields the denoised images (B, C·H·W) as the one layer."""
        yield POSTERIOR, self.denoise(x, torch.full((1,), sigma, device=x.device), label).flatten(1)
