"""How a job's moments fit into the memory given: all of it at one go, or some levels or layers in one round of tasks.

Noise levels are passes of their own, so that taking them in rounds costs only images made ready again (or kept).
Where not even one level fits with all its layers, layers are taken in rounds too, and the network is run once for
each: those passes are counted and told.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from diffscope.cache.sizes import in_bytes
from diffscope.errors import MemoryLimit
from diffscope.measure.job import Job, with_layers
from diffscope.measure.tasks import Task, whole_blocks
from diffscope.moments import accumulator_nbytes, nbytes, size_problem

Round = list[Task]
"""Whole blocks, whose moments of these levels and layers are in memory together."""


def rounds(job: Job) -> list[Round]:
    """The tasks of a job, in few rounds of similar size.

    Raises:
        MemoryLimit: If one layer at one level is too much.
    """
    limit = memory_limit(job)
    costs = [accumulator_nbytes(job.plan.views, job.plan.width(layer)) for layer in job.plan.layers]
    # Read back, a row takes all its blocks at once; nothing is in work then.
    reading = (2 * job.blocks + 8) * max(nbytes(job.plan.views, job.plan.width(layer)) for layer in job.plan.layers)
    need = max(reading, *costs)
    if need > limit:
        raise MemoryLimit(
            f"the moments of one layer at one noise level need {in_bytes(need)}, more than `max_memory=` "
            f"{in_bytes(limit)}; take a narrower layer, `pool=mean`, or a larger `max_memory=`"
        )
    levels = range(len(job.levels))
    runs = [tuple(range(len(costs)))]
    if sum(costs) > limit:
        runs = _runs(costs, limit)
    at_once = max(1, int(limit // max(sum(costs[layer] for layer in run) for run in runs)))
    groups = -(-len(levels) // at_once)
    chosen = [tuple(levels[len(levels) * g // groups : len(levels) * (g + 1) // groups]) for g in range(groups)]
    return [whole_blocks(job, group, run) for run in runs for group in chosen]


def _runs(costs: Sequence[int], limit: int) -> list[tuple[int, ...]]:
    """Neighbouring layers that fit together."""
    runs: list[list[int]] = [[]]
    for layer, cost in enumerate(costs):
        if sum(costs[other] for other in runs[-1]) + cost > limit:
            runs.append([])
        runs[-1].append(layer)
    return [tuple(run) for run in runs]


def total_passes(job: Job) -> int:
    """Forward passes of a measurement, MemoryLimit where none is possible; of a job with one view, of seeing it once.

    Layers too wide for the images are refused before any memory is planned for them.
    """
    plan = job.plan
    kept = [layer for layer in plan.layers if not size_problem(len(job.indices), plan.views, plan.width(layer))]
    if not kept or plan.views < 2:
        return passes_at_once(job)
    job = with_layers(job, tuple(kept))
    return passes_of(job, rounds(job))


def passes_of(job: Job, chosen: Sequence[Round]) -> int:
    """Images × views × levels, each as often as its layers need."""
    return sum(task.passes(job) for one in chosen for task in one)


def passes_at_once(job: Job) -> int:
    """Forward passes of seeing every image once at every level, whatever is done with its features."""
    return len(job.indices) * job.plan.views * len(job.levels)


def described(job: Job, chosen: Sequence[Round]) -> str | None:
    """What a user should know of several rounds, before they run."""
    if len(chosen) == 1:
        return None
    layers = len({one[0].layers for one in chosen})
    text = (
        f"the moments need {in_bytes(memory_of(job))}, more than `max_memory={in_bytes(memory_limit(job))}`: measured "
        f"in {len(chosen)} portions of at most {_counted(max(len(one[0].levels) for one in chosen), 'noise level')}"
    )
    if layers > 1:
        most = _counted(max(len(one[0].layers) for one in chosen), "layer")
        text += f" and {most}; the network is run {layers} times as often"
    return text


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def memory_of(job: Job) -> int:
    """Bytes of the moments of the block in work, all levels and layers together."""
    plan = job.plan
    return sum(accumulator_nbytes(plan.views, plan.width(layer)) for layer in plan.layers) * len(plan.sigmas)


def memory_limit(job: Job) -> int:
    """Bytes that moments may take: what the user says, else half of what is there."""
    if job.settings.max_memory is not None:
        return job.settings.max_memory
    if job.plan.device.startswith("cuda"):
        return min(half_of_memory(), torch.cuda.mem_get_info(job.plan.device)[0] // 2)
    return half_of_memory()


def half_of_memory() -> int:
    """Bytes."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (ValueError, OSError, AttributeError):
        return 4 << 30
