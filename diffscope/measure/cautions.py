"""What a user should know before a run, from the images and the noise levels that were asked for."""

from __future__ import annotations

from collections.abc import Sequence

from diffscope.errors import DataError
from diffscope.features import target_of
from diffscope.measure.job import Job

LOOKED_AT = 4
"""Images: all of them grey among colour pictures is unlikely enough."""


def cautions(job: Job) -> list[str]:
    return [*_grey(job), *_untrained(job)]


def _grey(job: Job) -> Sequence[str]:
    if job.source.kind != "images" or job.denoiser.space.image_channels != 3:
        return ()
    images = []
    for index in job.indices[:LOOKED_AT]:
        try:
            images.append(job.source.read(int(index), target_of(job.denoiser)))
        except DataError:  # the run counts them
            continue
    if not images or any((image != image[:1]).any() for image in images):
        return ()
    return (f"{job.source.path}: the first {len(images)} images are grey, and the network takes colour pictures",)


def _untrained(job: Job) -> Sequence[str]:
    low, high = job.denoiser.noise.trained
    outside = [sigma for sigma in job.plan.sigmas if not 0.99 * low <= sigma <= 1.01 * high]
    if not outside:
        return ()
    return (
        f"sigma {', '.join(f'{sigma:g}' for sigma in outside[:4])}: such networks are trained from {low:g} to "
        f"{high:g}; what they make of other levels says little",
    )
