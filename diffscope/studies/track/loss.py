"""What the denoiser does at its output, at one noise level: the loss, and how much of the noise it lets through.

The loss E‖D(x + σn; σ) − x‖² per pixel and channel, D the posterior mean that the network gives (Karras et al.,
"Elucidating the design space of diffusion-based generative models", 2022, https://arxiv.org/abs/2206.00364, equation
2), is the classical signal of overfitting: on images as they were trained on, on views of them that training never saw,
on held-out ones. Degrees of freedom, E[n · D(x + σn)]/σ, are the trace of the Jacobian by Stein's identity ("Estimation
of the mean of a multivariate normal distribution", 1981, https://doi.org/10.1214/aos/1176345632). Images and noise are
the same for every checkpoint, so that a change is the network's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from diffscope.extraction import DTYPES, Inputs, Plan, arithmetic, batch_label, not_finite
from diffscope.measure.job import Job
from diffscope.numerics import FloatArray
from diffscope.views import Augmentation


@dataclass(frozen=True)
class Loss:
    """That of one noise level."""

    mean: float
    """Mean squared error a pixel and channel, in units of the network's input space."""
    se: float
    """Standard error over images."""
    replicates: tuple[float, ...]
    """log of the mean without each block of images, [G]: the blocks of ICR."""
    freedom: float
    """Degrees of freedom of the denoiser, a pixel and channel: 0 lets no noise through, 1 all."""


def plain(plan: Plan) -> Plan:
    """The same images and noise, not augmented."""
    return replace(plan, augmentation=Augmentation("none"), input="noisy")


def denoising_loss(job: Job, inputs: Inputs, advance: Callable[[int], None]) -> list[Loss]:
    """One loss for each noise level of the job; `inputs` say whether its images are augmented."""
    plan, denoiser = inputs.plan, job.denoiser
    denoiser.to(inputs.device)
    denoiser.network.set_precision(DTYPES[plan.precision])
    place = {int(index): rank for rank, index in enumerate(job.indices)}
    blocks: list[int] = []
    found: list[list[FloatArray]] = [[] for _ in plan.sigmas]
    for batch in inputs.batches(denoiser, job.indices.tolist()):
        assert batch.noise is not None
        blocks += [place[index] % job.blocks for index in batch.indices]
        with torch.inference_mode(), arithmetic(plan.precision, inputs.device):
            label = batch_label(denoiser, job.source, plan, batch.indices)
            for level, sigma in enumerate(plan.sigmas):
                out = denoiser.denoise(batch.at(sigma), torch.full((1,), sigma, device=inputs.device), label).float()
                each = torch.stack([(out - batch.signal).square(), out * batch.noise / sigma]).flatten(2).mean(2)
                found[level].append(each.view(2, -1, plan.views).mean(2).double().cpu().numpy())
        advance(len(batch.indices) * plan.views * len(plan.sigmas))
    return [
        _loss(np.concatenate(parts, axis=1), np.array(blocks), job.blocks, sigma, plan.precision)
        for parts, sigma in zip(found, plan.sigmas, strict=True)
    ]


def _loss(found: FloatArray, blocks: np.ndarray, count: int, sigma: float, precision: str) -> Loss:
    """`found` [2, n] are squared errors and degrees of freedom of n images in these blocks [n]."""
    errors, freedom = found
    if not np.isfinite(errors).all():
        raise not_finite(f"the denoising loss at sigma {sigma:g} is", precision)
    sums, sizes = (np.bincount(blocks, weights, count) for weights in (errors, None))
    without = (errors.sum() - sums) / (len(errors) - sizes)
    return Loss(
        float(errors.mean()),
        float(errors.std(ddof=1) / np.sqrt(len(errors))),
        tuple(np.log(without).tolist()),
        float(freedom.mean()),
    )
