"""What a user should know before a run, from the images and the noise levels that were asked for."""

from __future__ import annotations

from collections.abc import Sequence

from diffscope.errors import DataError
from diffscope.extraction import cpu_capabilities, target_of
from diffscope.measure.job import Job
from diffscope.options.settings import Settings
from diffscope.sources.base import Source

LOOKED_AT = 4
"""Images: all of them grey among colour pictures is unlikely enough."""


def cautions(job: Job) -> list[str]:
    """One line for each thing in a job that makes its numbers doubtful, or slow to come."""
    # That a class-conditional model was never trained without a class matters only if it is run so.
    null_class = job.plan.class_label == "null"
    of_network = [line for line in job.denoiser.warnings if null_class or "null label" not in line]
    return [*of_network, *_grey(job), *_untrained(job), *_slow(job)]


def warnings_of(job: Job) -> list[str]:
    """The same, and where there are fewer images than asked for."""
    return [*cautions(job), *too_few(job.settings, job.source)]


def too_few(settings: Settings, source: Source) -> list[str]:
    """A line where there are fewer images than asked for."""
    asked, there = settings.num_images, len(source)
    if asked is None or asked <= there:
        return []
    return [f"`num_images={asked}`: {source.path} has {there}, and all of them are used"]


def _grey(job: Job) -> Sequence[str]:
    if not job.source.are_pictures or job.denoiser.space.image_channels != 3:
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


def _slow(job: Job) -> Sequence[str]:
    able = cpu_capabilities()
    if job.plan.device != "cpu" or job.plan.precision != "bf16" or able.get("avx512_bf16") or able.get("amx_bf16"):
        return ()
    return ("this CPU has no bf16 arithmetic: bf16 will be slower than fp32, and less exact",)
