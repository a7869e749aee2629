"""What is measured of each snapshot of a run, and what the run so far says by it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from diffscope.extraction import Inputs, Plan
from diffscope.measure.estimate import Estimate
from diffscope.measure.job import Job, prepare
from diffscope.measure.memory import half_of_memory
from diffscope.measure.progress import Listener
from diffscope.measure.series import Answer, Taken
from diffscope.measure.snapshots import Snapshot
from diffscope.results import Alarm, OnsetRow, Row
from diffscope.sources.base import Source
from diffscope.studies.sweep.stopping import ALPHA
from diffscope.studies.track.overlay import IcrCurve

Run = Sequence[tuple[Snapshot, Taken]]
"""Snapshots taken so far, by rising step."""


@dataclass(frozen=True)
class HeldOut:
    """Images that were not trained on.

    Attributes:
        source: Where they are.
        count: How many of them; None where nothing is said.
    """

    source: Source
    count: int | None

    def job(self, job: Job) -> Job:
        """The same with these images, as many as there are of the others unless it is said."""
        settings = replace(job.settings, num_images=self.count or len(job.indices))
        return prepare(job.checkpoint, job.denoiser, self.source, settings)


@dataclass(frozen=True)
class Judgement:
    """What a run says.

    Attributes:
        onset: The verdict of each series.
        curves: ICR of each over the run, with its turn.
        alarm: What the verdict of all together rests on; None where each is judged alone.
    """

    onset: tuple[OnsetRow, ...]
    curves: Sequence[IcrCurve]
    alarm: tuple[Alarm, ...] | None = None


@dataclass
class Gauge(ABC):
    """One way to follow a run.

    Attributes:
        held: Images that were not trained on.
        error: Two-sided, of intervals of ICR.
    """

    held: HeldOut | None
    error: float = field(default=ALPHA, init=False)
    needs_level: ClassVar[bool] = False
    """Whether a noise level is to be chosen for it where none is given."""
    _inputs: dict[str, Inputs] = field(default_factory=dict, init=False)

    def arranged(self, job: Job) -> Job:
        """The job as it is run."""
        return job

    def note(self, job: Job) -> str | None:
        """What was chosen for the user, before anything is computed."""
        return None

    def key(self, job: Job) -> str:
        """What the records of a run depend on beside its protocol."""
        return "" if self.held is None else self.held.job(job).protocol.shared().hash()

    @abstractmethod
    def estimated(self, found: Estimate, job: Job, count: int) -> Estimate:
        """What `count` snapshots take, where their features alone take what was found."""

    @abstractmethod
    def measure(self, job: Job, listener: Listener, folder: Path | None) -> Answer:
        """One snapshot; `listener` hears of shares of it."""

    @abstractmethod
    def half_width(self, rows: Sequence[Row], views: int) -> float:
        """How well ICR of one snapshot is known: its interval's half-width, relative; infinite where there is none."""

    @abstractmethod
    def judge(self, run: Run) -> Judgement:
        """The run so far."""

    def _shared(self, job: Job, plan: Plan, say: Callable[[str], None]) -> Inputs:
        """The images as all snapshots take them, decoded once."""
        key = f"{job.source.path} {plan.augmentation.name} {plan.views}"
        if key not in self._inputs:
            room = (job.settings.max_memory or half_of_memory()) // 8  # up to four of these share half of it
            self._inputs[key] = Inputs(job.source, plan, job.settings.strict, room, say)
        return self._inputs[key]


def rows_of(taken: Taken) -> tuple[Row, ...]:
    """The numbers of one snapshot."""
    return tuple(map(Row, taken.answer["rows"]))


def by_share(listener: Listener, total: float) -> Listener:
    """One that is told of passes, of `total`, and tells of the share of one snapshot that they are."""
    return Listener(lambda passes: listener.advance(passes / total), skip=lambda passes: listener.skip(passes / total))


def answer(rows: Sequence[Row], **more: Any) -> dict[str, Any]:
    """What a record keeps of one snapshot: its rows, and what else there is."""
    return {"rows": [row.to_json() for row in rows], **more}
