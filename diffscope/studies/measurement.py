"""Runs a job block by block and reads all numbers from the moments: what `icr`, `sweep` and later studies share.

Finished blocks stand on disk under the protocol's hash. Whatever was computed when a run ended early is found again by
the same command, and blocks are merged in their order, so that an interrupted run gives the same bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffscope import seeding
from diffscope.errors import DataError, EstimationError, MemoryLimit, NeedTwoViews, NonFinite, TooFewImages
from diffscope.features import SPACING, Extractor, Inputs, Plan, cure
from diffscope.metrics.base import Context, measure_all
from diffscope.metrics.icr import size_problem
from diffscope.moments import BlockAccumulator, BlockMoments, Moments, NonFiniteFeature, accumulator_nbytes, nbytes
from diffscope.protocol import Protocol
from diffscope.results import Row, finite
from diffscope.store import Parts, cache_folder
from diffscope.studies.settings import Job, with_layers

MAX_UNREADABLE = 0.05


@dataclass
class Listener:
    """What a caller wants to hear while a job runs; all silent by default."""

    advance: Callable[[int], None] = lambda passes: None
    """Forward passes finished: images × views × levels."""
    say: Callable[[str], None] = lambda text: None
    """One line for a person."""


@dataclass(frozen=True)
class Measured:
    """What a job came to."""

    protocol: Protocol
    rows: tuple[Row, ...]
    skipped: tuple[Mapping[str, str], ...]
    used: int
    """Images that were read."""
    timing: Mapping[str, Any]
    parts: Parts
    """The blocks on disk, to be cleared once the result is safe."""
    moments: Callable[[Row], Moments] = field(repr=False)
    """The moments behind a row, read from disk; of a layer that was refused there are none."""


def total_passes(job: Job) -> int:
    return len(job.indices) * job.plan.views * len(job.levels)


def measure(
    job: Job, listener: Listener | None = None, folder: Path | None = None, inputs: Inputs | None = None
) -> Measured:
    """All metrics of every layer at every noise level; finished blocks are kept in `folder`, else in the cache.

    `inputs` are those that jobs of one protocol share, but for the checkpoint.
    Raises TooFewImages where no layer's covariance can be determined (a layer that is too wide among others gets
    rows of nulls), MemoryLimit before the run, DataError where too many images cannot be read.
    """
    listener = listener or Listener()
    start, cpu = time.perf_counter(), time.process_time()
    if job.plan.views < 2:
        raise NeedTwoViews(f"--views {job.plan.views}: ICR compares views of one image; at least 2 are needed")
    whole = job
    job, refused = _measurable(job)
    _check_memory(job)
    protocol = whole.protocol
    parts = Parts(folder or cache_folder(), protocol.hash())
    parts.claim()
    resumed = _run_blocks(job, parts, listener, inputs)
    run_seconds = time.perf_counter() - start
    skipped = tuple(entry for number in range(job.blocks) for entry in _skipped(parts, number))
    used = len(job.indices) - len(skipped)
    moments = partial(_moments, job, parts)
    rows = [*_rows(job, moments), *_null_rows(job, refused, used)]
    order = {layer.name: number for number, layer in enumerate(job.denoiser.layers)}
    rows.sort(key=lambda row: (order[row.layer], row.sigma))
    passes = (job.blocks - resumed) / job.blocks * total_passes(job)
    timing = {
        "seconds": round(time.perf_counter() - start, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "images_per_second": round(passes / run_seconds, 2) if run_seconds else None,
        "blocks_measured": job.blocks - resumed,
        "blocks_resumed": resumed,
    }
    return Measured(protocol, tuple(rows), skipped, used, timing, parts, partial(_moments_of_row, job, parts))


def _moments(job: Job, parts: Parts, level: int, layer: int) -> Moments:
    prefix = f"{level}/{layer}/"
    return Moments.from_blocks([BlockMoments.from_arrays(parts.read(g, prefix)) for g in range(job.blocks)])


def _moments_of_row(job: Job, parts: Parts, row: Row) -> Moments:
    """By name and level: the layers measured may be fewer than those asked for, and then count otherwise."""
    levels, layers = [at.sigma for at in job.levels], [layer.name for layer in job.plan.layers]
    return _moments(job, parts, levels.index(row.sigma), layers.index(row.layer))


def null_row(job: Job, layer: str, level: int, n: int, d: int, note: str) -> Row:
    """A row whose numbers could not be computed, with the reason."""
    keys = [key for key in _example() if key not in ("n", "d")]
    at = job.levels[level]
    return Row(layer, at.sigma, at.t, n, d, dict.fromkeys(keys), (note,), at.requested)


def row_keys() -> set[str]:
    """What a gate on a row may ask for: its numbers."""
    return {"sigma", "t", *(key for key, value in _example().items() if not isinstance(value, (list, tuple)))}


@cache
def _example() -> Mapping[str, Any]:
    """The metrics of a few random numbers, for the keys and kinds of what a row holds."""
    z = torch.from_numpy(seeding.noise(0, seeding.Stream.SYNTHETIC, 0, 0, (4, 8, 2, 2)))
    blocks = []
    for part in z:
        accumulator = BlockAccumulator(2, 2)
        accumulator.update(part)
        blocks.append(accumulator.finish())
    return measure_all(Moments.from_blocks(blocks), Context()).values


def refusals(job: Job) -> dict[str, str]:
    """Layer → why so few images do not determine it; known before any is read."""
    refused = {}
    for layer in job.plan.layers:
        if len(job.indices) < 2 * job.blocks:  # first: more views would not help
            problem: str | None = (
                f"{len(job.indices)} images; expected at least {2 * job.blocks}, two for each block of the jackknife"
            )
        else:
            problem = size_problem(len(job.indices), job.plan.views, job.plan.width(layer))
        if problem:
            refused[layer.name] = problem
    return refused


def _measurable(job: Job) -> tuple[Job, dict[str, str]]:
    """The job with the layers that the images can determine, and the others' reasons."""
    refused = refusals(job)
    kept = tuple(layer for layer in job.plan.layers if layer.name not in refused)
    if not kept:
        name, problem = next(iter(refused.items()))
        raise TooFewImages(f"layer {name}: {problem}")
    return with_layers(job, kept), refused


def _check_memory(job: Job) -> None:
    """The moments of the block in work, and those of one row when it is read back."""
    views, levels = job.plan.views, len(job.levels)
    widths = [job.plan.width(layer) for layer in job.plan.layers]
    in_work = sum(accumulator_nbytes(views, d) for d in widths) * levels
    reading = (2 * job.blocks + 8) * nbytes(views, max(widths))
    limit = job.settings.max_memory or half_of_memory()
    need = in_work + reading
    if need > limit:
        raise MemoryLimit(
            f"the moments need {in_bytes(need)}, more than --max-memory {in_bytes(limit)}; take fewer layers "
            f"({len(widths)}) or noise levels ({levels}) at a time, --pool mean, or a larger --max-memory"
        )


def in_bytes(number: int) -> str:
    """A size for people to read."""
    if number >= 1e9:
        return f"{number / 1e9:.1f} GB"
    return f"{number / 1e6:.0f} MB" if number >= 1e7 else f"{number / 1e6:.2g} MB"


def memory_of(plan: Plan) -> int:
    """Bytes of the moments of the block in work."""
    return sum(accumulator_nbytes(plan.views, plan.width(layer)) for layer in plan.layers) * len(plan.sigmas)


def half_of_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (ValueError, OSError, AttributeError):
        return 4 << 30


def _run_blocks(job: Job, parts: Parts, listener: Listener, inputs: Inputs | None) -> int:
    """Measure the blocks that are not on disk yet; how many were there."""
    done = parts.finished()
    per_image = job.plan.views * len(job.levels)
    for number in sorted(done):
        listener.advance(len(job.block(number)) * per_image)
    if done:
        listener.say(f"{len(done)} of {job.blocks} blocks were measured before; going on from there")
    unreadable = sum(len(_skipped(parts, number)) for number in done)
    extractor = Extractor(job.denoiser, inputs or Inputs(job.source, job.plan, job.settings.strict), job.plan)
    foresight = _Foresight(job, listener, missing=job.blocks - len(done))
    for number in range(job.blocks):
        if number in done:
            continue
        before = len(extractor.inputs.skipped)
        arrays = _block(job, extractor, number, listener, foresight)
        skipped = extractor.inputs.skipped[before:]
        unreadable += len(skipped)
        check_unreadable(job, unreadable, skipped)
        parts.write(number, arrays, {"skipped": skipped})
    return len(done)


def _skipped(parts: Parts, number: int) -> list[dict[str, str]]:
    found: Any = parts.record(number)["skipped"]
    return list(found)


def check_unreadable(job: Job, count: int, latest: Sequence[Mapping[str, str]]) -> None:
    """DataError where `count` unreadable images are more than 5 % of all: something else is wrong then."""
    if count > MAX_UNREADABLE * len(job.indices):
        raise DataError(
            f"{job.source.path}: {count} images so far cannot be decoded, more than 5 % of {len(job.indices)}; "
            f"one of them: {latest[-1]['why']}"
        )


def _block(
    job: Job, extractor: Extractor, number: int, listener: Listener, foresight: _Foresight
) -> dict[str, np.ndarray]:
    plan = job.plan
    sums = {
        (level, layer): BlockAccumulator(plan.views, plan.width(plan.layers[layer]))
        for level in range(len(job.levels))
        for layer in range(len(plan.layers))
    }
    indices = job.block(number)
    last = len(plan.layers) - 1
    for features in extractor.run(indices.tolist()):
        try:
            sums[features.level, features.layer].update(features.z)
        except NonFiniteFeature as error:
            image = extractor.inputs.source.name(features.indices[error.position])
            layer, sigma = plan.layers[features.layer].name, plan.sigmas[features.level]
            raise NonFinite(
                f"image {image}: features of layer {layer} at sigma {sigma:g} are not finite in {plan.precision}; "
                f"{cure(plan.precision)}"
            ) from None
        if features.layer == last:
            listener.advance(len(features.indices) * plan.views)
            foresight.observe(len(features.indices) * plan.views)
    arrays = {}
    for (level, number_of_layer), accumulator in sums.items():
        for name, array in accumulator.finish().to_arrays().items():
            arrays[f"{level}/{number_of_layer}/{name}"] = array
    return arrays


class _Foresight:
    """Says once, before a run of more than a minute, what it will take; judged by its first batches."""

    def __init__(self, job: Job, listener: Listener, missing: int) -> None:
        self.job, self.listener = job, listener
        self.total = total_passes(job) * missing / job.blocks
        self.start = time.perf_counter()
        self.passes, self.said = 0, False

    def observe(self, passes: int) -> None:
        self.passes += passes
        elapsed = time.perf_counter() - self.start
        if self.said or elapsed < 2:
            return
        self.said = True
        expected = elapsed / self.passes * self.total
        if expected > 60:
            job = self.job
            self.listener.say(
                f"{len(job.indices)} images × {job.plan.views} views × {len(job.levels)} noise levels, "
                f"{memory_of(job.plan) / 1e6:.0f} MB for moments, about {expected / 60:.0f} min"
            )


def _rows(job: Job, moments: Callable[[int, int], Moments]) -> list[Row]:
    rows, failures = [], []
    for number, layer in enumerate(job.plan.layers):
        positions = layer.positions if job.plan.pool == "mean" else 1
        context = Context(SPACING[job.plan.precision], positions, job.settings.reduce)
        for level, at in enumerate(job.levels):
            found = moments(level, number)
            try:
                measured = measure_all(found, context)
            except EstimationError as error:
                failures.append(error)
                note = note_of(error)
                rows.append(null_row(job, layer.name, level, found.total.n, found.d, note))
                continue
            values = {key: _plain(value) for key, value in measured.values.items()}
            n, d = int(values.pop("n")), int(values.pop("d"))
            rows.append(Row(layer.name, at.sigma, at.t, n, d, values, measured.notes, at.requested))
    if len(failures) == len(rows):
        raise failures[0]
    return rows


def _null_rows(job: Job, refused: Mapping[str, str], used: int) -> list[Row]:
    return [
        null_row(job, layer.name, level, used, job.plan.width(layer), f"too_few_images: {refused[layer.name]}")
        for layer in job.denoiser.layers
        if layer.name in refused
        for level in range(len(job.levels))
    ]


def note_of(error: EstimationError) -> str:
    """`too_few_images: …` of TooFewImages."""
    name = type(error).__name__
    code = "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
    return f"{code}: {error}"


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [float(v) for v in value]
    return finite(None if value is None else float(value))
