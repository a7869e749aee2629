"""What EDM's and EDM2's denoisers share: preconditioning, and classes as one-hot rows.

Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
https://arxiv.org/abs/2206.00364: D(x; σ) = c_skip·x + c_out·F(c_in·x; c_noise), table 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffscope.families._preconditioners import Preconditioner
from diffscope.families.base import Classes, Denoiser, Layer


@dataclass
class PreconditionedDenoiser(Denoiser):
    """A network behind a preconditioner, with classes as one-hot rows."""

    def label(self, classes: Tensor | None, device: torch.device) -> Tensor | None:
        """Makes one-hot rows.

        Args:
            classes: Indices (B,) int64; None stands for the null class.
            device: Where the result is used.

        Returns:
            Rows (B, count), float32; None, which the network reads as all zero, for the null class.
        """
        if not self.classes.count or classes is None:
            return None
        return torch.nn.functional.one_hot(classes, self.classes.count).float().to(device)

    def denoise(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """Computes the posterior mean c_skip·x + c_out·F(c_in·x; c_noise).

        Args:
            x: (B, C, H, W), in the network's input space.
            sigma: Noise-to-signal ratio, (B,) or (1,).
            label: From `label`.

        Returns:
            (B, C, H, W).
        """
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
        "`class_label=label` uses the images' own labels",
    )
