"""Runs a job task by task, in one process or several, and reads all numbers from its moments.

What was computed when a run ended early is on disk, and found again by the same command.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from diffscope.cache.store import Arrays, Parts, Record, Records, cache_folder
from diffscope.errors import DataError, DiffscopeError, EstimationError, NeedTwoViews, TooFewImages
from diffscope.extraction import Extractor, Inputs, Skipped, not_finite
from diffscope.measure.job import Job, with_layers
from diffscope.measure.memory import Round, described, memory_limit, passes_of, rounds
from diffscope.measure.progress import Listener
from diffscope.measure.rows import AddToRow, Outline, all_rows, outline_of, read_rows, require_one
from diffscope.measure.tasks import Task, TaskFile, files_of, missing_of, moments_of, records_in, skipped_in
from diffscope.moments import BlockAccumulator, Moments, NonFiniteFeature, size_problem
from diffscope.protocol import Protocol
from diffscope.ranks import world
from diffscope.results import Row

MAX_UNREADABLE = 0.05
"""Share of the images above which something else is wrong."""


@dataclass(frozen=True)
class Measured:
    """What a job came to.

    Attributes:
        protocol: What the numbers depend on.
        rows: Of every layer at every noise level.
        skipped: {file, why} of the images that could not be read.
        used: Images that were read.
        timing: For the result.
        parts: The tasks on disk, to be cleared once the result is safe.
    """

    protocol: Protocol
    rows: tuple[Row, ...]
    skipped: tuple[Mapping[str, str], ...]
    used: int
    timing: Mapping[str, Any]
    parts: Parts


def measure(
    job: Job,
    listener: Listener | None = None,
    folder: Path | None = None,
    inputs: Inputs | None = None,
    add: AddToRow | None = None,
) -> Measured:
    """Measures all metrics of every layer at every noise level.

    Args:
        job: What is measured.
        listener: Hears of passes.
        folder: Where finished tasks are kept, else in the cache.
        inputs: Those that jobs of one protocol share, but for the checkpoint.
        add: What a study adds to each row.

    Raises:
        TooFewImages: If no layer's covariance can be determined; one that is too wide among others has rows of nulls.
        MemoryLimit: If the moments of one layer do not fit; before any image is read.
        DataError: If too many images cannot be read.
    """
    listener = listener or Listener()
    started = time.perf_counter(), time.process_time()
    protocol = job.protocol
    job, outline = measurable(job)
    # Memory may differ from process to process; the plan may not.
    planned = world().lead(
        partial(rounds, job),
        lambda found: [[task.to_json() for task in one] for one in found],
        lambda said: [list(map(Task.from_json, one)) for one in said],
    )
    if (text := described(job, planned)) is not None:
        listener.say(text)
    parts = Parts(folder or cache_folder(), protocol.hash())
    world().lead(partial(parts.claim, listener.say))
    keep = memory_limit(job) // 8 if len(planned) > 1 else 0
    run = TaskRun(job, parts, listener, inputs or Inputs(job.source, job.plan, job.settings.strict, keep, listener.say))
    read = [_read_round(run, outline, one, add, several=len(planned) > 1) for one in planned]
    rows = [row for one in read for row in one.rows]
    world().lead(partial(require_one, rows, [failure for one in read for failure in one.failures]))
    skipped = read[-1].skipped
    used = len(job.indices) - len(skipped)
    timing = _timing(run, started, planned)
    return Measured(protocol, all_rows(outline, rows, used, add), skipped, used, timing, parts)


@dataclass
class TaskRun:
    """The tasks of one job; those of an earlier run of the same protocol are there already.

    Attributes:
        job: What is measured.
        parts: Where finished tasks lie.
        listener: Hears of passes.
        inputs: The images.
        measured: Tasks, by this run.
        resumed: Tasks that were there.
        there: On disk; other processes than the first know of what was there at the start.
    """

    job: Job
    parts: Parts
    listener: Listener
    inputs: Inputs
    measured: int = 0
    resumed: int = 0
    there: list[TaskFile] = field(default_factory=list, init=False)
    _extractors: dict[tuple[tuple[int, ...], tuple[int, ...]], Extractor] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.there = files_of(self.parts, world().lead(partial(records_in, self.parts)))

    def run(self, tasks: Sequence[Task]) -> None:
        """Measure what is not on disk yet of these tasks, dealt to the processes in turn."""
        missing = [left for task in tasks if (left := missing_of(task, self.there)) is not None]
        done = len(tasks) - len(missing)
        if done:
            self.resumed += done
            self.listener.skip(sum(task.passes(self.job) for task in tasks if missing_of(task, self.there) is None))
            self.listener.say(f"{done} of {len(tasks)} blocks were measured before; going on from there")
        several = world()
        for first in range(0, len(missing), several.size):
            dealt = missing[first : first + several.size]
            mine = self._attempt(dealt[several.rank]) if several.rank < len(dealt) else None

            def take(rank: int, arrays: Arrays, record: Record, dealt: list[Task] = dealt) -> None:
                if rank:
                    self.listener.advance(dealt[rank].passes(self.job))
                self._keep(dealt[rank], arrays, record)

            several.gather(mine, take)
            self.measured += len(dealt)

    def moments(self, level: int, layer: int, images: int | None = None) -> Moments:
        """Of all images measured at this level, or of the first `images`; in the first process only."""
        return moments_of([one for one in self.there if images is None or one.task.stop <= images], level, layer)

    def skipped(self) -> tuple[Mapping[str, str], ...]:
        """{file, why} of the images that could not be read; in the first process only."""
        return skipped_in(self.there)

    def forget(self, tasks: Sequence[Task]) -> None:
        """Their numbers have been read."""
        for one in [one for one in self.there if one.task in tasks]:
            self.parts.remove(one.task.name)
            self.there.remove(one)

    def timing(self, started: tuple[float, float]) -> dict[str, Any]:
        """For a result: since the clocks of wall and CPU stood at `started`."""
        return {
            "seconds": round(time.perf_counter() - started[0], 3),
            "cpu_seconds": round(time.process_time() - started[1], 3),
            "blocks_measured": self.measured,
            "blocks_resumed": self.resumed,
            **({"processes": world().size} if world().size > 1 else {}),
        }

    def _attempt(self, task: Task) -> tuple[Arrays, Record] | DiffscopeError:
        try:
            arrays, skipped = self._measure(task)
        except DiffscopeError as error:
            return error
        return arrays, {"task": task.to_json(), "skipped": skipped}

    def _extractor(self, levels: tuple[int, ...], layers: tuple[int, ...]) -> Extractor:
        """The same for all tasks of a kind: to make one readies the whole network."""
        if (levels, layers) not in self._extractors:
            plan = self.job.plan
            some = replace(
                plan,
                layers=tuple(plan.layers[layer] for layer in layers),
                sigmas=tuple(plan.sigmas[level] for level in levels),
            )
            self._extractors[levels, layers] = Extractor(self.job.denoiser, self.inputs, some)
        return self._extractors[levels, layers]

    def _measure(self, task: Task) -> tuple[Arrays, Skipped]:
        """Its moments, `LEVEL/LAYER/NAME` each, and {file, why} of images that could not be read."""
        extractor = self._extractor(task.levels, task.layers)
        plan, skipped = extractor.plan, Skipped()
        cells = [(level, layer) for level in range(len(plan.sigmas)) for layer in range(len(plan.layers))]
        deferred = plan.device.startswith("cuda")
        sums = {cell: BlockAccumulator(plan.views, plan.width(plan.layers[cell[1]]), deferred) for cell in cells}
        added: list[int] = []
        arrays: Arrays = {}
        cell = (0, 0)
        try:
            for features in extractor.run(task.images(self.job), skipped):
                cell = (features.level, features.layer)
                if cell == (0, 0):
                    added += features.indices
                sums[cell].update(features.z)
                if features.layer == len(plan.layers) - 1:
                    self.listener.advance(len(features.indices) * plan.views)
            for cell in cells:
                # Each is let go as it is packed: together they may be all the memory there is.
                place = f"{task.levels[cell[0]]}/{task.layers[cell[1]]}"
                arrays |= {f"{place}/{name}": array for name, array in sums.pop(cell).finish().to_arrays().items()}
        except NonFiniteFeature as error:
            image, sigma = self.job.source.name(added[error.position]), plan.sigmas[cell[0]]
            what = f"image {image}: features of layer {plan.layers[cell[1]].name} at sigma {sigma:g} are"
            raise not_finite(what, plan.precision) from None
        return arrays, skipped

    def _keep(self, task: Task, arrays: Arrays, record: Record) -> None:
        """On disk; in the first process."""
        latest = record["skipped"]
        if latest:
            check_unreadable(self.job.source.path, len(self.job.indices), len(self.skipped()) + len(latest), latest)
        self.parts.write(task.name, arrays, record)
        self.there += files_of(self.parts, [record])


def check_unreadable(path: str, images: int, count: int, latest: Sequence[Mapping[str, str]]) -> None:
    """Checks that few images of a source are unreadable.

    Args:
        path: The source's.
        images: How many it has, or how many of it are used.
        count: How many of them cannot be read.
        latest: {file, why} of some of these.

    Raises:
        DataError: If they are more than 5 % of all: something else is wrong then.
    """
    if count > MAX_UNREADABLE * images:
        raise DataError(
            f"{path}: {count} images so far cannot be decoded, more than 5 % of {images}; "
            f"one of them: {latest[-1]['why']}"
        )


@dataclass(frozen=True)
class _Read:
    """What the moments of a round came to; failures are known in the process that read them."""

    rows: tuple[Row, ...]
    skipped: tuple[Mapping[str, str], ...]
    failures: tuple[EstimationError, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"rows": [row.to_json() for row in self.rows], "skipped": [dict(entry) for entry in self.skipped]}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> _Read:
        return _Read(tuple(map(Row, record["rows"])), tuple(record["skipped"]))


def _read_round(run: TaskRun, outline: Outline, tasks: Round, add: AddToRow | None, several: bool) -> _Read:
    """The rows of a round, measured now or read by an earlier run; one of several leaves a record of them."""
    key, records = _key(tasks[0], add), Records(run.parts.folder, run.listener.say)
    record = world().lead(partial(records.read, key)) if several else None
    if record is not None:
        run.listener.skip(sum(task.passes(run.job) for task in tasks))
        run.resumed += run.job.blocks
        return _Read.from_json(record)
    run.run(tasks)

    def read() -> _Read:
        cells = [(level, layer) for layer in tasks[0].layers for level in tasks[0].levels]
        rows, failures = read_rows(outline, cells, run.moments, add)
        found = _Read(tuple(rows), run.skipped(), tuple(failures))
        if several and len(failures) < len(rows):
            # Their moments, of all blocks at once, may be more than the disk should hold.
            records.write(key, found.to_json())
            run.forget(tasks)
        return found

    return world().lead(read, _Read.to_json, _Read.from_json)


def _key(task: Task, add: AddToRow | None) -> str:
    """What is added to rows is no part of the protocol, and so of the record's name."""
    (level, *_, last_level), (layer, *_, last_layer) = task.levels * 2, task.layers * 2
    return f"rows{'-checked' if add else ''}-{level}-{last_level}-{layer}-{last_layer}"


def _timing(run: TaskRun, started: tuple[float, float], planned: Sequence[Round]) -> dict[str, Any]:
    seconds = time.perf_counter() - started[0]
    passes = passes_of(run.job, planned)
    fresh = run.measured / (run.measured + run.resumed) * passes
    return {
        **run.timing(started),
        "images_per_second": round(fresh / seconds, 2) if seconds else None,
        **({"passes": passes, "portions": len(planned)} if len(planned) > 1 else {}),
    }


def refusals(job: Job) -> dict[str, str]:
    """Layer → why so few images do not determine it; known before any is read."""
    refused = {}
    for layer in job.plan.layers:
        if len(job.indices) < 2 * job.blocks:  # first: more views would not help
            problem: str | None = (
                f"{len(job.indices)} images; expected at least {2 * job.blocks}, two for each block of the jackknife: "
                "raise `num_images=`, or give more with `data=`"
            )
        else:
            problem = size_problem(len(job.indices), job.plan.views, job.plan.width(layer))
        if problem:
            refused[layer.name] = problem
    return refused


def measurable(job: Job) -> tuple[Job, Outline]:
    """Leaves out the layers that the images cannot determine.

    Args:
        job: What was asked for.

    Returns:
        The job with the other layers, and what rows say of these and of those that were left out.

    Raises:
        NeedTwoViews: If there is one view.
        TooFewImages: If the images determine no layer.
    """
    if job.plan.views < 2:
        raise NeedTwoViews(f"`views={job.plan.views}`: ICR compares views of one image; at least 2 are needed")
    refused = refusals(job)
    kept = tuple(layer for layer in job.plan.layers if layer.name not in refused)
    if not kept:
        name, problem = next(iter(refused.items()))
        raise TooFewImages(f"layer {name}: {problem}")
    return with_layers(job, kept), outline_of(job, refused)
