"""Where the alarm looks: some layers at some noise levels, and the loss of some images at the same levels."""

from __future__ import annotations

from dataclasses import replace

from diffscope.errors import NoiseLevelError
from diffscope.families.base import Denoiser, Layer, NoiseConvention
from diffscope.measure.job import Job, prepare

LEVELS = (0.14, 0.3, 0.6)
"""Noise-to-signal ratios."""
IMAGES, IMAGES_PER_FEATURE = 1000, 2
"""So many at three levels take little more than `icr` takes for 5,000 at one."""
PASSES, MOST_VIEWS = 512, 8
"""Few images are seen in more views, up to so many passes of a level and so many views."""
LOSS_IMAGES, LOSS_PASSES = 128, 128
"""Of a level; its loss varies far less between images than its rise is large."""


def pooled(job: Job) -> Job:
    """The job of the alarm: its layers and levels in the place of what was not chosen."""
    settings, denoiser = job.settings, job.denoiser
    if settings.layer == ("mid",):
        settings = replace(settings, layer=tuple(layer.name for layer in layers_of(denoiser)))
    if not (settings.sigma or settings.t):
        settings = replace(settings, sigma=levels_of(denoiser.noise))
    if settings.num_images is None:
        plan = prepare(job.checkpoint, denoiser, job.source, settings, job.options).plan
        widest = max(plan.width(layer) for layer in plan.layers)
        settings = replace(settings, num_images=max(IMAGES, IMAGES_PER_FEATURE * widest))
    count = min(len(job.source), settings.num_images or len(job.source))
    settings = replace(settings, views=max(settings.views, min(MOST_VIEWS, PASSES // count)))
    return prepare(job.checkpoint, denoiser, job.source, settings, job.options)


def layers_of(denoiser: Denoiser) -> tuple[Layer, ...]:
    """The default layer, and of those behind it at its size the middle one and the last.

    In a U-Net that is the bottleneck and the beginning of the decoder, in a transformer the second half.
    """
    names = [layer.name for layer in denoiser.layers]
    start = names.index(denoiser.layer("mid").name)
    mid = denoiser.layers[start]
    same = [layer for layer in denoiser.layers[start + 1 :] if layer.shape[1:] == mid.shape[1:]]
    chosen = [mid, *([same[len(same) // 2], same[-1]] if same else [])]
    return tuple(layer for layer in denoiser.layers if layer in chosen)


def levels_of(noise: NoiseConvention) -> tuple[float, ...]:
    """Those of LEVELS that the model has; at least one."""
    found = [sigma for sigma in LEVELS if noise.sigma_min <= sigma <= noise.sigma_max]
    if not found:
        raise NoiseLevelError(
            f"the alarm looks at sigma {', '.join(map(str, LEVELS))}, and this model's range is {noise.sigma_min:g} to "
            f"{noise.sigma_max:g}; choose levels with `sigma=`"
        )
    return tuple(found)


def watches_loss(job: Job) -> bool:
    """Whether views differ from the images as they are, and the network says what it makes of them."""
    return job.settings.augment != "none" and job.denoiser.denoises


def of_loss(job: Job, count: int = LOSS_IMAGES) -> Job:
    """The same levels on so many images, fewer in more views."""
    count = min(count, len(job.source))
    settings = replace(job.settings, num_images=count, views=max(1, LOSS_PASSES // count), layer=("mid",))
    return prepare(job.checkpoint, job.denoiser, job.source, replace(settings, sigma=job.plan.sigmas, t=()))
