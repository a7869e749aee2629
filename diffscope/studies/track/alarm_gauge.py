"""How the alarm follows a run: some layers at some levels together, and the loss of some images beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffscope.extraction import Plan
from diffscope.measure.description import described_data
from diffscope.measure.estimate import Estimate
from diffscope.measure.job import Job
from diffscope.measure.memory import passes_at_once, total_passes
from diffscope.measure.progress import Listener
from diffscope.measure.run import measure
from diffscope.measure.series import Answer
from diffscope.results import Row
from diffscope.studies.track.alarm import FALSE_ALARMS, VIEWS
from diffscope.studies.track.cells import LOSS_IMAGES, LOSS_PASSES, of_loss, pooled, watches_loss
from diffscope.studies.track.course import course_of, judged, reach
from diffscope.studies.track.gauge import Gauge, Judgement, Run, answer, by_share, rows_of
from diffscope.studies.track.loss import Loss, denoising_loss, plain
from diffscope.studies.track.overlay import IcrCurve


@dataclass
class AlarmGauge(Gauge):
    """Judges all cells together.

    Attributes:
        trained_on: Images in the training set, for the passes over it.
        own_cells: Whether it looks where it does by itself; of these, with the loss on views, false alarms are known.
    """

    trained_on: int
    own_cells: bool

    def arranged(self, job: Job) -> Job:
        """With the alarm's layers and levels in the place of what was not chosen."""
        return pooled(job)

    def key(self, job: Job) -> str:
        """That of every gauge, and what the loss is measured on."""
        return f"{super().key(job)} {LOSS_IMAGES}, {LOSS_PASSES} for the loss"

    def estimated(self, found: Estimate, job: Job, count: int) -> Estimate:
        """With the losses."""
        more = count * sum(passes_at_once(one) for _, one, _ in self._losses(job))
        return replace(found, passes=found.passes + more, seconds=found.seconds * (1 + more / found.passes))

    def measure(self, job: Job, listener: Listener, folder: Path | None) -> Answer:
        """Features, then the losses; those of a level stand in the rows of all its layers."""
        losses = self._losses(job)
        inner = by_share(listener, total_passes(job) + sum(passes_at_once(one) for _, one, _ in losses))
        found = measure(job, inner, folder, self._shared(job, job.plan, listener.say))
        said: dict[float, dict[str, Any]] = {level.sigma: {} for level in job.levels}
        for key, one, plan in losses:
            inputs = self._shared(one, plan, listener.say)
            for values, loss in zip(said.values(), denoising_loss(one, inputs, inner.advance), strict=True):
                values.update(_said(key, loss))
        rows = [row.having(**said[row.sigma]) for row in found.rows]
        return answer(rows), described_data(job, found.used, found.skipped), found.parts.clear

    def half_width(self, rows: Sequence[Row], views: int) -> float:
        """Of all cells together."""
        course = course_of([(0, "", rows)])
        if course is None or len(course.cells) < len(rows):
            return math.inf
        return (math.exp(reach(course.icr, 0, self.error)) - math.exp(-reach(course.icr, 0, self.error))) / 2

    def judge(self, run: Run) -> Judgement:
        """The verdict of all cells, once there is a snapshot that has one."""
        course = course_of([(snapshot.order, snapshot.path, rows_of(taken)) for snapshot, taken in run])
        if course is None:
            return Judgement((), [IcrCurve(None, None, [], [], None)], ())
        last = run[-1][0]
        seen = last.step if last.unit == "images" else None
        false_alarms = FALSE_ALARMS if self.own_cells and course.watched == VIEWS else None
        onset, alarm = judged(course, None if seen is None else seen / self.trained_on, false_alarms, self.error)
        steps = [point.step for point in alarm.points]
        turn = steps.index(onset.keep_step) if onset.state == "turned" and onset.keep_step is not None else None
        curve = IcrCurve(None, None, steps, [point.icr for point in alarm.points], turn)
        return Judgement((onset,), [curve], (alarm,))

    def _losses(self, job: Job) -> list[tuple[str, Job, Plan]]:
        """What is read at the output: key, job and how its images are taken."""
        if not watches_loss(job):
            return []
        seen = of_loss(job)
        found = [("loss", seen, plain(seen.plan)), ("loss_views", seen, seen.plan)]
        if self.held is not None:
            held = of_loss(replace(job, source=self.held.source), self.held.count or LOSS_IMAGES)
            found.append(("loss_holdout", held, plain(held.plan)))
        return found


def _said(key: str, loss: Loss) -> dict[str, Any]:
    """What a row holds of a loss."""
    said = {key: loss.mean, f"{key}_se": loss.se, f"{key}_replicates": list(loss.replicates)}
    return {**said, "freedom": loss.freedom} if key == "loss" else said
