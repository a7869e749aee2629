"""What a run would take, before it is run: passes of the network, memory, disk, and time by a short measurement.

Nothing is written: some batches are read, given to the real network and thrown away.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from diffscope.cache.sizes import in_bytes
from diffscope.extraction import Extractor, Inputs
from diffscope.measure.job import Job
from diffscope.measure.memory import Round, passes_of, rounds
from diffscope.measure.progress import in_words
from diffscope.measure.run import measurable
from diffscope.moments import BlockAccumulator, accumulator_nbytes, nbytes
from diffscope.ranks import world

SECONDS, BATCHES = 2.0, 4
"""A rate is measured for so long, or over so many batches, after one that warms up."""


@dataclass(frozen=True)
class Estimate:
    """What a run would take.

    Attributes:
        protocol: What its numbers would depend on.
        checkpoints: How many there are.
        images: Of each; or samples that are drawn.
        views: Of each image.
        levels: Noise levels at which the network sees each.
        passes: Forward passes of the network, all together.
        memory: Bytes beside the network and its activations: moments, features or samples.
        disk: Bytes that stand on disk at most until the result is written.
        seconds: Expected for the passes, at the rate of this machine now.
    """

    protocol: Mapping[str, Any]
    checkpoints: int
    images: int
    views: int
    levels: int
    passes: int
    memory: int
    disk: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As a plain record."""
        return {**asdict(self), "seconds": round(self.seconds, 1)}

    def lines(self) -> list[str]:
        """For a person."""
        several = "" if self.checkpoints == 1 else f"{self.checkpoints} checkpoints × "
        rate = self.passes / self.seconds if self.seconds else 0.0
        return [
            f"{several}{self.images} images × {self.views} views × {self.levels} levels: {self.passes:,} passes",
            f"{in_bytes(self.memory)} of memory beside the network, {in_bytes(self.disk)} of disk until it is done",
            f"about {in_words(self.seconds)}, at {rate:.3g} passes a second",
        ]


def estimate(job: Job, checkpoints: int = 1) -> Estimate:
    """What it takes to measure a job: `icr`, `sweep`, and `track` of several checkpoints.

    Args:
        job: What would be measured, with the first of the checkpoints.
        checkpoints: How many are measured alike.

    Raises:
        DiffscopeError: Whatever would end the run before its first pass.
    """
    protocol = job.protocol.to_json()
    job, _ = measurable(job)
    planned = rounds(job)
    passes = passes_of(job, planned) * checkpoints
    memory = max(sum(accumulator_nbytes(job.plan.views, width) for width in _widths(job, one)) for one in planned)
    disk = max(job.blocks * sum(_packed(job.plan.views, width) for width in _widths(job, one)) for one in planned)
    seconds = passes / passes_a_second(job, planned[0])
    return of_job(job, passes, memory, disk, seconds, protocol, checkpoints)


def of_job(
    job: Job,
    passes: int,
    memory: int,
    disk: int,
    seconds: float,
    protocol: Mapping[str, Any] | None = None,
    checkpoints: int = 1,
) -> Estimate:
    """An estimate with the counts of a job."""
    return Estimate(
        protocol=job.protocol.to_json() if protocol is None else protocol,
        checkpoints=checkpoints,
        images=len(job.indices),
        views=job.plan.views,
        levels=len(job.levels),
        passes=passes,
        memory=memory,
        disk=disk,
        seconds=seconds,
    )


def passes_a_second(job: Job, of: Round | None = None) -> float:
    """The rate of a job on this machine, with all processes together.

    Args:
        job: What would be measured.
        of: Levels and layers whose moments are summed up as in the run; without, features are only computed.
    """
    plan = job.plan
    if of is not None:
        layers, sigmas = (plan.layers[n] for n in of[0].layers), (plan.sigmas[n] for n in of[0].levels)
        plan = replace(plan, layers=tuple(layers), sigmas=tuple(sigmas))
    extractor = Extractor(job.denoiser, _Unwritten(job.source, plan, job.settings.strict), plan)
    cells = itertools.product(range(len(plan.sigmas)), range(len(plan.layers))) if of is not None else ()
    sums = {cell: BlockAccumulator(plan.views, plan.width(plan.layers[cell[1]])) for cell in cells}

    def batch(images: list[int]) -> int:
        passes = 0
        for features in extractor.run(images):
            if sums:
                sums[features.level, features.layer].update(features.z)
            if features.layer == len(plan.layers) - 1:
                passes += len(features.indices) * plan.views
        return passes

    chosen = itertools.cycle(job.indices.tolist())
    return rate(lambda: batch(list(itertools.islice(chosen, min(plan.batch_size, len(job.indices))))), plan.device)


def rate(work: Callable[[], int], device: str) -> float:
    """Units a second, of work that is done once before the clock starts, on all processes together."""
    work()
    done, start = 0, time.perf_counter()
    for units in _until_known(work, start):
        done += units
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return max(done, 1) / (time.perf_counter() - start) * world().size


def _until_known(work: Callable[[], int], start: float) -> Iterator[int]:
    for _ in range(BATCHES):
        yield work()
        if time.perf_counter() - start > SECONDS:
            return


class _Unwritten(Inputs):
    """Leaves no latents on disk."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._limit = 0


def _widths(job: Job, one: Round) -> list[int]:
    """Of each cell of a round."""
    return [job.plan.width(job.plan.layers[layer]) for _, layer in one[0].cells()]


def _packed(views: int, d: int) -> int:
    """Bytes of one block on disk, of whose two symmetric matrices a half is written."""
    return nbytes(views, d) - 8 * d * (d - 1)
