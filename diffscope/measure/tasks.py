"""What is measured at one go, and read back as moments: tasks and their files.

A task is some images of one block, at some noise levels, of some layers. Usually it is a whole block at all levels;
less where memory is short (`memory.py`) or where images are spent in stages (`studies.sweep.adaptive`). Its file is
named after its coordinates. Tasks are merged in their order, so that an interrupted run, and one in several processes
or shards, gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from diffscope.cache.store import Parts
from diffscope.measure.job import Job
from diffscope.moments import BlockMoments, Moments

LONGEST = 60
"""Letters for levels, and for layers, in a file's name."""


@dataclass(frozen=True)
class Task:
    """The images of one block among those of rank start … stop − 1, at some levels, of some layers.

    Attributes:
        block: Its number, 0 … G − 1.
        start: A multiple of the number of blocks.
        stop: Behind the last rank.
        levels: Indices into the plan's noise levels, rising.
        layers: Indices into the plan's layers, rising.
    """

    block: int
    start: int
    stop: int
    levels: tuple[int, ...]
    layers: tuple[int, ...]

    @property
    def name(self) -> str:
        """That of its file: `b03-i0-5000-s0-11-l0-27`."""
        return f"b{self.block:02d}-i{self.start}-{self.stop}-s{_runs(self.levels)}-l{_runs(self.layers)}"

    def cells(self) -> Iterator[tuple[int, int]]:
        """Each (level, layer)."""
        return ((level, layer) for level in self.levels for layer in self.layers)

    def images(self, job: Job) -> list[int]:
        """Indices into the job's source."""
        return [int(index) for index in job.indices[self.start : self.stop][self.block :: job.blocks]]

    def passes(self, job: Job) -> int:
        """Images × views × levels."""
        return len(self.images(job)) * job.plan.views * len(self.levels)

    def to_json(self) -> dict[str, Any]:
        """Its coordinates."""
        return asdict(self)

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Task:
        """What `to_json` gave."""
        return Task(**{**record, "levels": tuple(record["levels"]), "layers": tuple(record["layers"])})


def whole_blocks(job: Job, levels: Sequence[int], layers: Sequence[int]) -> list[Task]:
    """All images, a task a block."""
    return [Task(block, 0, len(job.indices), tuple(levels), tuple(layers)) for block in range(job.blocks)]


@dataclass(frozen=True)
class TaskFile:
    """A task on disk.

    Attributes:
        task: What was measured.
        skipped: {file, why} of the images that could not be read.
        parts: Where it lies.
    """

    task: Task
    skipped: tuple[Mapping[str, str], ...]
    parts: Parts

    def block(self, level: int, layer: int) -> BlockMoments:
        """Its moments of one cell."""
        names = BlockMoments.__dataclass_fields__
        return BlockMoments.from_arrays(self.parts.read(self.task.name, f"{level}/{layer}/", names))


def files_of(parts: Parts, records: Sequence[Mapping[str, Any]]) -> list[TaskFile]:
    """The tasks whose records these are."""
    return [TaskFile(Task.from_json(record["task"]), tuple(record["skipped"]), parts) for record in records]


def records_in(parts: Parts) -> list[dict[str, Any]]:
    """The records of all tasks that are there, by name."""
    return [parts.record(name) for name in sorted(name for name in parts.finished() if isinstance(name, str))]


def missing_of(task: Task, there: Sequence[TaskFile]) -> Task | None:
    """What is not on disk of it; None where all is."""
    place = (task.block, task.start, task.stop)
    done = {
        cell for one in there if (one.task.block, one.task.start, one.task.stop) == place for cell in one.task.cells()
    }
    cells = [cell for cell in task.cells() if cell not in done]
    if not cells:
        return None
    levels, layers = ({cell[axis] for cell in cells} for axis in (0, 1))
    return replace(task, levels=tuple(sorted(levels)), layers=tuple(sorted(layers)))


def moments_of(there: Sequence[TaskFile], level: int, layer: int) -> Moments:
    """Of all images measured at this level, block by block."""
    blocks: dict[int, dict[int, TaskFile]] = {}
    for one in there:
        if level in one.task.levels and layer in one.task.layers:
            blocks.setdefault(one.task.block, {}).setdefault(one.task.start, one)
    return Moments.from_blocks([_block(blocks[number], level, layer) for number in sorted(blocks)])


def skipped_in(there: Sequence[TaskFile]) -> tuple[Mapping[str, str], ...]:
    """{file, why} of the images that could not be read, in the order of blocks."""
    once = {(one.task.block, one.task.start): one.skipped for one in there}
    return tuple(entry for place in sorted(once) for entry in once[place])


def _block(by_start: Mapping[int, TaskFile], level: int, layer: int) -> BlockMoments:
    first, *others = (by_start[start].block(level, layer) for start in sorted(by_start))
    for other in others:
        first = first + other
    return first


def _runs(numbers: Sequence[int]) -> str:
    """`0-3+5`; of many runs, which would make no file's name, the bits."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    text = "+".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return text if len(text) <= LONGEST else f"x{sum(1 << number for number in numbers):x}"
