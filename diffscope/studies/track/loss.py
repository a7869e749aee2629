"""The denoising loss at one noise level, the classical signal of overfitting: on training and on held-out images.

E‖D(x + σn; σ) − x‖² per pixel and channel, D the posterior mean that the network gives (Karras et al., "Elucidating the
design space of diffusion-based generative models", 2022, https://arxiv.org/abs/2206.00364, equation 2), on images
without augmentation. Images and noise are the same for every checkpoint, so that a change is the network's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from diffscope.extraction import DTYPES, Inputs, Plan, arithmetic, batch_label, not_finite
from diffscope.measure.job import Job
from diffscope.views import Augmentation


@dataclass(frozen=True)
class Loss:
    """That of one noise level."""

    mean: float
    """Mean squared error a pixel and channel, in units of the network's input space."""
    se: float
    """Standard error over images."""


def plain(plan: Plan) -> Plan:
    """The same images and noise, not augmented."""
    return replace(plan, augmentation=Augmentation("none"), input="noisy")


def denoising_loss(job: Job, inputs: Inputs, advance: Callable[[int], None]) -> list[Loss]:
    """One loss for each noise level of the job; `inputs` are those of `plain(job.plan)`."""
    plan, denoiser = inputs.plan, job.denoiser
    denoiser.to(inputs.device)
    denoiser.network.set_precision(DTYPES[plan.precision])
    errors: list[list[np.ndarray]] = [[] for _ in plan.sigmas]
    for batch in inputs.batches(denoiser, job.indices.tolist()):
        with torch.inference_mode(), arithmetic(plan.precision, inputs.device):
            label = batch_label(denoiser, job.source, plan, batch.indices)
            for level, sigma in enumerate(plan.sigmas):
                found = denoiser.denoise(batch.at(sigma), torch.full((1,), sigma, device=inputs.device), label)
                squared = (found.float() - batch.signal).square().flatten(1).mean(1)
                errors[level].append(squared.view(-1, plan.views).mean(1).double().cpu().numpy())
        advance(len(batch.indices) * plan.views * len(plan.sigmas))
    return [
        _loss(np.concatenate(found), sigma, plan.precision) for found, sigma in zip(errors, plan.sigmas, strict=True)
    ]


def _loss(errors: np.ndarray, sigma: float, precision: str) -> Loss:
    if not np.isfinite(errors).all():
        raise not_finite(f"the denoising loss at sigma {sigma:g} is", precision)
    return Loss(float(errors.mean()), float(errors.std(ddof=1) / np.sqrt(len(errors))))
