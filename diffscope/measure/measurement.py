"""Runs a job and reads all numbers from its moments: what `icr`, `sweep` and later studies share."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from diffscope.cache.store import Parts, Records, cache_folder
from diffscope.errors import EstimationError, NeedTwoViews, TooFewImages
from diffscope.features import Inputs
from diffscope.measure.blocks import Blocks
from diffscope.measure.job import Job, with_layers
from diffscope.measure.pieces import whole_blocks
from diffscope.measure.portions import Portion, described, memory_limit, passes_of, portions
from diffscope.measure.progress import Listener
from diffscope.measure.rows import Beside, Outline, all_rows, outline, read_rows, require_one
from diffscope.moments import size_problem
from diffscope.protocol import Protocol
from diffscope.ranks import world
from diffscope.results import Row


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


def measure(
    job: Job,
    listener: Listener | None = None,
    folder: Path | None = None,
    inputs: Inputs | None = None,
    beside: Beside | None = None,
) -> Measured:
    """All metrics of every layer at every noise level; finished blocks are kept in `folder`, else in the cache.

    `inputs` are those that jobs of one protocol share, but for the checkpoint. `beside` adds to rows.
    Raises TooFewImages where no layer's covariance can be determined (a layer that is too wide among others gets
    rows of nulls), MemoryLimit before the run, DataError where too many images cannot be read.
    """
    listener = listener or Listener()
    started = time.perf_counter(), time.process_time()
    whole = job
    job, told = measurable(job)
    # Memory may differ from process to process; the plan may not.
    chosen = world().lead(
        partial(portions, job),
        lambda found: [asdict(portion) for portion in found],
        lambda said: tuple(Portion(tuple(one["levels"]), tuple(one["layers"])) for one in said),
    )
    if (text := described(job, chosen)) is not None:
        listener.say(text)
    protocol = whole.protocol
    parts = Parts(folder or cache_folder(), protocol.hash())
    world().lead(partial(parts.claim, listener.say))
    keep = memory_limit(job) // 8 if len(chosen) > 1 else 0
    inputs = inputs or Inputs(job.source, job.plan, job.settings.strict, keep, listener.say)
    blocks = Blocks(job, parts, listener, inputs)
    rows: list[Row] = []
    failures: list[EstimationError] = []
    for portion in chosen:
        key = _key(portion, beside) if len(chosen) > 1 else None
        found = _finished(parts, key, listener)
        if found is None:
            blocks.run(whole_blocks(job, portion.levels, portion.layers))
            read = partial(_read, told, blocks, portion, beside, key)
            found = world().lead(read, _Read.to_json, _Read.from_json)
        else:
            listener.skip(sum(piece.passes(job) for piece in whole_blocks(job, portion.levels, portion.layers)))
            blocks.resumed += job.blocks
        rows += found.rows
        failures += found.failures
        skipped = found.skipped
    world().lead(partial(require_one, rows, failures))
    run_seconds = time.perf_counter() - started[0]
    used = len(job.indices) - len(skipped)
    passes = passes_of(job, chosen)
    fresh = blocks.measured / (blocks.measured + blocks.resumed) * passes
    timing = {
        **blocks.timing(started),
        "images_per_second": round(fresh / run_seconds, 2) if run_seconds else None,
        **({"passes": passes, "portions": len(chosen)} if len(chosen) > 1 else {}),
    }
    return Measured(protocol, all_rows(told, rows, used, beside), skipped, used, timing, parts)


@dataclass(frozen=True)
class _Read:
    """What the moments of a portion came to."""

    rows: tuple[Row, ...]
    skipped: tuple[Mapping[str, str], ...]
    failures: tuple[EstimationError, ...] = ()
    """In the process that read them."""

    def to_json(self) -> dict[str, Any]:
        return {"rows": [row.to_json() for row in self.rows], "skipped": [dict(entry) for entry in self.skipped]}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> _Read:
        return _Read(tuple(map(Row, record["rows"])), tuple(record["skipped"]))


def _read(told: Outline, blocks: Blocks, portion: Portion, beside: Beside | None, key: str | None) -> _Read:
    """`key`: of the portion's record, where it is one of several."""
    cells = [(level, layer) for layer in portion.layers for level in portion.levels]
    rows, failures = read_rows(told, cells, blocks.moments, beside)
    found = _Read(tuple(rows), blocks.skipped(), tuple(failures))
    if key is not None and len(failures) < len(rows):
        # Their moments, of all blocks at once, may be more than the disk should hold.
        Records(blocks.parts.folder).write(key, found.to_json())
        blocks.forget(whole_blocks(blocks.job, portion.levels, portion.layers))
    return found


def _key(portion: Portion, beside: Beside | None) -> str:
    """What is added to rows is no part of the protocol, and so of the record's name."""
    (level, *_, last_level), (layer, *_, last_layer) = portion.levels * 2, portion.layers * 2
    return f"rows{'-checked' if beside else ''}-{level}-{last_level}-{layer}-{last_layer}"


def _finished(parts: Parts, key: str | None, listener: Listener) -> _Read | None:
    """What an earlier run read of a portion, one of several."""
    record = None if key is None else world().lead(lambda: Records(parts.folder, listener.say).read(key))
    return None if record is None else _Read.from_json(record)


def refusals(job: Job) -> dict[str, str]:
    """Layer → why so few images do not determine it; known before any is read."""
    refused = {}
    for layer in job.plan.layers:
        if len(job.indices) < 2 * job.blocks:  # first: more views would not help
            problem: str | None = (
                f"{len(job.indices)} images; expected at least {2 * job.blocks}, two for each block of the jackknife: "
                "raise --num-images, or give more with --data"
            )
        else:
            problem = size_problem(len(job.indices), job.plan.views, job.plan.width(layer))
        if problem:
            refused[layer.name] = problem
    return refused


def measurable(job: Job) -> tuple[Job, Outline]:
    """The job with the layers that the images can determine, and what rows say of these and the others.

    NeedTwoViews; TooFewImages where they determine none.
    """
    if job.plan.views < 2:
        raise NeedTwoViews(f"--views {job.plan.views}: ICR compares views of one image; at least 2 are needed")
    refused = refusals(job)
    kept = tuple(layer for layer in job.plan.layers if layer.name not in refused)
    if not kept:
        name, problem = next(iter(refused.items()))
        raise TooFewImages(f"layer {name}: {problem}")
    return with_layers(job, kept), outline(job, refused)
