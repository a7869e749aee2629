"""ICR under several augmentations, or from several numbers of images: how much does it owe to the choice of these?

Figures 13 and 14 of Li et al., "Evaluating the representation space of diffusion models via self-supervised
principles", 2026, https://arxiv.org/abs/2606.09718. Each member is an ordinary measurement: the same command with its
one value gives the same numbers, bit for bit. Subsets are nested: the first 500 images are among the first 1,000. The
blocks of all members stay on disk until the last is done, so that a command that was stopped goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from diffscope.cache.store import Parts, cache_folder
from diffscope.errors import DataError, EstimationError, IllConditioned, RankDeficient, TooFewImages, ZeroNoise
from diffscope.measure.estimate import Estimate, estimate
from diffscope.measure.job import Job, prepare
from diffscope.measure.memory import total_passes
from diffscope.measure.progress import Listener
from diffscope.measure.rows import note_of, null_row
from diffscope.measure.run import refusals
from diffscope.results import Result, Row
from diffscope.studies.sweep.sweep import sweep
from diffscope.studies.sweep.window_rows import windows

UNDETERMINED = (TooFewImages, RankDeficient, IllConditioned, ZeroNoise)
"""What leaves one member without numbers while the others have theirs."""


@dataclass(frozen=True)
class Members:
    """One model and its images under several values of one setting."""

    key: str
    """The setting: augment or num_images."""
    values: tuple[str | int, ...]
    jobs: tuple[Job, ...]

    @cached_property
    def protocol(self) -> dict[str, Any]:
        """As JSON: what all share; a field in which they differ is the list of its values, in the members' order."""
        records = [job.protocol.to_json() for job in self.jobs]
        shared = {}
        for field in records[0]:
            found = [record[field] for record in records]
            shared[field] = found[0] if all(value == found[0] for value in found) else found
        shared["hash"] = hashlib.sha256(json.dumps(shared["hash"]).encode()).hexdigest()
        return shared


def vary(job: Job, key: str, values: Sequence[str | int]) -> Members:
    """The job once for each value of its setting `key`; DataError where there are not as many images."""
    if key == "num_images" and (most := max(map(int, values))) > len(job.source):
        raise DataError(f"`num_images={most}`: {job.source.path} has {len(job.source)} images; leave that number out")
    chosen: list[dict[str, Any]] = [{key: value} for value in values]
    settings = [replace(job.settings, **one) for one in chosen]
    jobs = (prepare(job.checkpoint, job.denoiser, job.source, one) for one in settings)
    return Members(key, tuple(values), tuple(jobs))


def estimate_all(members: Members) -> Estimate:
    """What `measure_all` would take, by a short measurement of each member; nothing is written."""
    found = [estimate(job) for job in members.jobs]
    return replace(
        found[-1],
        protocol=members.protocol,
        passes=sum(one.passes for one in found),
        memory=max(one.memory for one in found),
        disk=sum(one.disk for one in found),
        seconds=sum(one.seconds for one in found),
    )


def measure_all(
    members: Members,
    command: str = "sweep",
    listener: Listener | None = None,
    folder: Path | None = None,
    check: bool = False,
) -> tuple[Result, list[Parts]]:
    """One result of all members, and their blocks on disk, to be cleared once it is safe.

    A member whose images do not determine ICR has rows of nulls; where that is so of all, the last one's error is
    raised.
    """
    listener = listener or Listener()
    start, cpu = time.perf_counter(), time.process_time()
    found: list[Result] = []
    failed: list[EstimationError] = []
    parts: list[Parts] = []
    rows, window, fresh = [], [], 0.0
    for value, job in zip(members.values, members.jobs, strict=True):
        try:
            result, measured = sweep(job, command, _named(listener, value), folder, check)
        except UNDETERMINED as error:
            failed.append(error)
            of_rows = _null_rows(job, error)
            of_window = windows(job.denoiser.noise.to_native, of_rows) if command == "sweep" else ()
            parts.append(Parts(folder or cache_folder(), job.protocol.hash()))
        else:
            found.append(result)
            of_rows, of_window = result.rows, result.window
            parts.append(measured.parts)
            fresh += result.timing["blocks_measured"] / job.blocks * total_passes(job)
        member: dict[str, Any] = {members.key: value}
        rows += [row.having(**member) for row in of_rows]
        window += [replace(row, **member) for row in of_window]
    if not found:
        raise failed[-1]
    seconds = time.perf_counter() - start
    timing = {
        "seconds": round(seconds, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "images_per_second": round(fresh / seconds, 2),
        **{key: sum(result.timing[key] for result in found) for key in ("blocks_measured", "blocks_resumed")},
    }
    # `data` is that of the last member: of nested subsets the largest, which holds the others.
    whole = replace(found[-1], protocol=members.protocol, rows=tuple(rows), timing=timing)
    return whole.having(window=tuple(window), varied=members.key), parts


def _null_rows(job: Job, error: EstimationError) -> tuple[Row, ...]:
    """The reason of each layer where it is the number of images, else that of all."""
    refused = refusals(job)
    return tuple(
        null_row(
            layer.name,
            level,
            len(job.indices),
            job.plan.width(layer),
            f"too_few_images: {refused[layer.name]}" if layer.name in refused else note_of(error),
        )
        for layer in job.plan.layers
        for level in job.levels
    )


def _named(listener: Listener, value: str | int) -> Listener:
    """The same, which says of which member it speaks."""
    name = f"{value} images" if isinstance(value, int) else value
    return replace(listener, say=lambda text: listener.say(f"{name}: {text}"))
