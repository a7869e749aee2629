"""One measurement in several runs that know nothing of each other: each measures some blocks, `merge` reads them all.

For batch queues and machines that come and go. A shard is a folder with the moments of its blocks and one record that
says all else that the result needs, so that merging takes neither the checkpoint nor the images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from diffscope import __version__
from diffscope.cache.store import Parts, Records
from diffscope.errors import DataError, ProtocolMismatch, StoreError, UsageError
from diffscope.extraction import Inputs
from diffscope.families.base import NoiseConvention
from diffscope.measure.description import described_checkpoint, described_data
from diffscope.measure.estimate import Estimate
from diffscope.measure.job import Job
from diffscope.measure.memory import rounds, total_passes
from diffscope.measure.progress import Listener
from diffscope.measure.rows import Outline, all_rows, read_rows, require_one
from diffscope.measure.run import TaskRun, check_unreadable, measurable
from diffscope.measure.study import Finished
from diffscope.measure.tasks import TaskFile, files_of, moments_of, records_in, skipped_in
from diffscope.moments import Moments
from diffscope.protocol import require_equal
from diffscope.ranks import world
from diffscope.results import RESULT, Result
from diffscope.studies.sweep.window_rows import windows

NAME = "shard"
"""Of the record."""
TABLE = 4097
"""Points of the noise variable over the levels: a cubic through them is exact to eleven digits."""


@dataclass(frozen=True)
class Shard:
    """The I-th of N; it has the blocks g with g mod N = I − 1."""

    index: int
    count: int

    @staticmethod
    def parse(text: str) -> Shard:
        """`2/4`; UsageError."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"`shard={text}`: expected I/N such as 1/4, with I from 1 to N")
        return Shard(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def blocks(self, job: Job) -> list[int]:
        """Their numbers."""
        return list(range(self.index - 1, job.blocks, self.count))

    def passes(self, job: Job) -> int:
        """Forward passes, as `total_passes` of all blocks."""
        return sum(len(job.block(number)) for number in self.blocks(job)) * total_passes(job) // len(job.indices)


def measure_shard(job: Job, shard: Shard, command: str, folder: Path, listener: Listener | None = None) -> list[int]:
    """Measure the shard's blocks into `folder`; their numbers. The same call goes on where an earlier one ended."""
    listener = listener or Listener()
    if shard.count > job.blocks:
        raise UsageError(f"`shard={shard}`: {len(job.indices)} images make {job.blocks} blocks; at most 1/{job.blocks}")
    there = world().lead(lambda: Records(folder, listener.say).read(NAME))
    if there is not None and there.get("shard") != [shard.index, shard.count]:
        raise StoreError(
            f"{folder} holds shard {'/'.join(map(str, there.get('shard', ())))}; give each a folder of its own"
        )
    whole = job
    job, outline = measurable(job)
    parts = Parts(folder, whole.protocol.hash())
    world().lead(partial(parts.claim, listener.say))
    run = TaskRun(job, parts, listener, Inputs(job.source, job.plan, job.settings.strict, say=listener.say))
    mine = shard.blocks(job)
    for tasks in rounds(job):
        run.run([tasks[number] for number in mine])
    record = {
        "diffscope": __version__,
        "shard": [shard.index, shard.count],
        "blocks": mine,
        "command": command,
        "protocol": whole.protocol.to_json(),
        "outline": outline.to_json(),
        "checkpoint": described_checkpoint(job),
        "data": described_data(job, 0, ()),
        "noise": noise_table(job.denoiser.noise, job.plan.sigmas),
        "warnings": list(job.denoiser.warnings),
    }
    if world().leads:
        Records(folder).write(NAME, record)
    return mine


class Shards:
    """All shards of one measurement, found whole and of one protocol."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """ProtocolMismatch by field; DataError where a shard is missing, given twice or damaged."""
        records = [_read(path) for path in paths]
        _check(paths, records)
        self.first, self.count = records[0], len(paths)
        self.command: str = self.first["command"]
        self.protocol: dict[str, Any] = self.first["protocol"]
        self.outline = Outline.from_json(self.first["outline"])
        self.found: list[TaskFile] = []
        for path, record in zip(paths, records, strict=True):
            parts = Parts(_folder(path), record["protocol"]["hash"])
            there = files_of(parts, records_in(parts))
            _check_whole(path, self.outline, record["blocks"], there)
            self.found += there
        self.cells = [
            (level, layer) for layer in range(len(self.outline.measured)) for level in range(len(self.outline.levels))
        ]

    def merged(self, listener: Listener | None = None) -> Result:
        """The result that one run would have given; the listener hears of rows."""
        listener = listener or Listener()

        def moments(level: int, layer: int) -> Moments:
            listener.advance(1)
            return moments_of(self.found, level, layer)

        first, outline = self.first, self.outline
        rows, failures = read_rows(outline, self.cells, moments)
        require_one(rows, failures)
        skipped = skipped_in(self.found)
        check_unreadable(first["data"]["path"], outline.images, len(skipped), skipped)
        used = outline.images - len(skipped)
        whole = all_rows(outline, rows, used)
        return Result(
            version=__version__,
            command=self.command,
            checkpoint=first["checkpoint"],
            data={**first["data"], "used": used, "skipped": [dict(entry) for entry in skipped]},
            protocol=self.protocol,
            rows=whole,
            sections={"window": windows(from_table(first["noise"]), whole) if self.command == "sweep" else ()},
            timing={"shards": self.count},
            warnings=tuple(first["warnings"]),
        )


def noise_table(noise: NoiseConvention, sigmas: Sequence[float]) -> dict[str, Any]:
    """The model's own noise variable over the levels: all steps between them, or points of a smooth curve."""
    low, high = min(sigmas), max(sigmas)
    if noise.discrete:
        first, last = (round(t / noise.spacing) for t in sorted((noise.to_native(low), noise.to_native(high))))
        t = [step * noise.spacing for step in range(first, last + 1)]
        sigma = [noise.to_sigma(step) for step in t]
        return {"discrete": True, "ratio": _by_ratio(noise, sigma), "sigma": sigma, "t": t}
    sigma = [float(s) for s in (np.geomspace(low, high, TABLE) if high > low else [low])]
    return {"discrete": False, "sigma": sigma, "t": [noise.to_native(s) for s in sigma]}


def _by_ratio(noise: NoiseConvention, sigmas: Sequence[float]) -> bool:
    """Whether the nearest step is that of the least ratio, not of the least difference: asked where the two differ."""
    ordered = sorted(sigmas)
    low, high = max(pairwise(ordered), key=lambda pair: pair[1] / pair[0], default=(1.0, 1.0))
    between = (np.sqrt(low * high) + (low + high) / 2) / 2
    return bool(noise.to_native(float(between)) == noise.to_native(high))


def from_table(table: dict[str, Any]) -> Callable[[float], float]:
    """Sigma → the model's own variable, between the levels that the table was made for."""
    logs, t = np.log(table["sigma"]), table["t"]
    if table["discrete"] and not table["ratio"]:
        return lambda sigma: t[int(np.argmin(np.abs(np.array(table["sigma"]) - sigma)))]
    if table["discrete"] or len(t) == 1:
        return lambda sigma: t[int(np.argmin(np.abs(logs - np.log(sigma))))]
    from scipy.interpolate import CubicSpline

    curve = CubicSpline(logs, t)
    return lambda sigma: float(curve(np.log(sigma)))


def _folder(path: Path) -> Path:
    return path.parent if path.suffix == ".json" else path


def _read(path: Path) -> dict[str, Any]:
    record = Records(_folder(path)).read(NAME)
    if record is None:
        found = f"no {NAME}.json in it, or a damaged one" if path.exists() else "no such folder"
        if (path / RESULT).exists():
            found = f"a finished {RESULT}, which needs no merging"
        raise DataError(f"{path}: {found}; expected a folder that `shard=` I/N `out=FOLDER` wrote, to its end")
    if not {"shard", "blocks", "protocol", "outline", "noise"} <= record.keys():
        raise DataError(f"{_folder(path) / NAME}.json is no shard's record; measure it again")
    return record


def _check(paths: Sequence[Path], records: Sequence[dict[str, Any]]) -> None:
    first = records[0]
    count = first["shard"][1]
    places: dict[int, Path] = {}
    for path, record in zip(paths, records, strict=True):
        require_equal(first["protocol"], record["protocol"], (), f"{paths[0]} and {path}")
        for key in ("command", "outline"):
            if record[key] != first[key]:
                raise ProtocolMismatch(f"{paths[0]} and {path} differ in {key}; measure both with the same settings")
        index, of = record["shard"]
        if of != count:
            raise DataError(f"{path}: shard {index}/{of}, but {paths[0]} is one of {count}; expected shards of one run")
        if index in places:
            raise DataError(f"{path}: shard {index}/{count} is {places[index]} already; give each once")
        places[index] = path
    missing = [f"{index}/{count}" for index in range(1, count + 1) if index not in places]
    if missing:
        raise DataError(f"shard {', '.join(missing)} is missing: run it, then merge all {count}")


def _check_whole(path: Path, outline: Outline, blocks: Sequence[int], files: Sequence[TaskFile]) -> None:
    there = {(one.task.block, *cell) for one in files for cell in one.task.cells()}
    for block in blocks:
        for level in range(len(outline.levels)):
            for layer in range(len(outline.measured)):
                if (block, level, layer) not in there:
                    raise DataError(
                        f"{path}: the moments of block {block} are not all there, or damaged; run this shard again"
                    )


class MergeStudy:
    """The shards of one measurement, to be read as one result."""

    unit = "rows"

    def __init__(self, paths: Sequence[Path]) -> None:
        """Reads what the shards say of themselves; errors as of `Shards`."""
        self.shards = Shards(paths)

    @property
    def command(self) -> str:
        """That of the shards."""
        return self.shards.command

    @property
    def total(self) -> float:
        """Rows."""
        return len(self.shards.cells)

    def warnings(self) -> list[str]:
        """None: those of the runs stand in the result."""
        return []

    def estimate(self) -> Estimate:
        """Merging reads what shards have written: there is nothing to foresee."""
        raise UsageError("merge runs no network: `dry_run=` is for what does")

    def run(self, folder: Path | None, listener: Listener) -> Finished:
        """The result that one run would have given; the shards stay."""
        listener.agree(self.shards.protocol)
        return Finished(self.shards.merged(listener))
