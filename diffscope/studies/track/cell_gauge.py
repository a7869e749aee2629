"""How single layers and noise levels follow a run: each has a verdict of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from diffscope.measure.description import described_data
from diffscope.measure.estimate import Estimate, estimate
from diffscope.measure.job import Job
from diffscope.measure.memory import total_passes
from diffscope.measure.progress import Listener
from diffscope.measure.run import measure
from diffscope.measure.series import Answer
from diffscope.results import Row
from diffscope.results.sections import plain as plain_record
from diffscope.studies.sweep.stopping import interval
from diffscope.studies.sweep.window_rows import windows
from diffscope.studies.track import onset
from diffscope.studies.track.gauge import Gauge, Judgement, Run, answer, by_share, rows_of
from diffscope.studies.track.loss import Loss, denoising_loss, plain
from diffscope.studies.track.overlay import IcrCurve


@dataclass
class CellGauge(Gauge):
    """Judges each cell by a rule of `onset.py`.

    Attributes:
        rule: auto, long or short.
        online: Judge as if nothing were known of what comes later.
    """

    rule: str
    online: bool
    needs_level: ClassVar[bool] = True

    def note(self, job: Job) -> str | None:
        """How many held-out images there are, where that was not said."""
        if self.held is None or self.held.count is not None:
            return None
        held = self.held.job(job)
        used, of = len(held.indices), len(held.source)
        return f"{used} of {of} held-out images, for {len(job.indices)} are tracked; `num_holdout=` sets it"

    def estimated(self, found: Estimate, job: Job, count: int) -> Estimate:
        """With held-out images, both once for ICR and once for the loss."""
        if self.held is None:
            return found
        other = estimate(self.held.job(job), count)
        passes, seconds = 2 * (found.passes + other.passes), 2 * (found.seconds + other.seconds)
        return replace(found, passes=passes, seconds=seconds, disk=found.disk + other.disk)

    def measure(self, job: Job, listener: Listener, folder: Path | None) -> Answer:
        """Features; with held-out images, theirs and both losses."""
        jobs = [job] if self.held is None else [job, self.held.job(job)]
        inner = by_share(listener, sum(map(total_passes, jobs)) * len(jobs))
        found = [measure(one, inner, folder, self._shared(one, one.plan, listener.say)) for one in jobs]
        data = [described_data(one, m.used, m.skipped) for one, m in zip(jobs, found, strict=True)]
        rows = found[0].rows
        if self.held is not None:
            data[0]["holdout"] = data[1]
            losses = [
                denoising_loss(one, self._shared(one, plain(one.plan), listener.say), inner.advance) for one in jobs
            ]
            rows = tuple(
                row.having(**_held_out(row, held_row, job, *losses))
                for row, held_row in zip(rows, found[1].rows, strict=True)
            )

        def forget() -> None:
            for one in found:
                one.parts.clear()

        return answer(rows, **self._beside(job, rows)), data[0], forget

    def half_width(self, rows: Sequence[Row], views: int) -> float:
        """Of the layer and level that is known least."""
        return max(self._half_width(row, views) for row in rows)

    def _half_width(self, row: Row, views: int) -> float:
        if row["icr"] is None or row["replicates"] is None:
            return math.inf
        low, high = interval(row["icr"], row["replicates"], views, self.error)
        return float((high - low) / 2 / row["icr"])

    def judge(self, run: Run) -> Judgement:
        """A verdict for each layer and level, in the order of the network."""
        series: dict[tuple[str, float], list[onset.Snapshot]] = {}
        for snapshot, taken in run:
            assert snapshot.step is not None
            for row in rows_of(taken):
                point = onset.Snapshot(snapshot.step, snapshot.path, row["icr"], row["replicates"], row.n)
                series.setdefault((row.layer, row.sigma), []).append(point)
        verdicts, curves = [], []
        for (layer, sigma), points in series.items():
            verdict = onset.judge(layer, sigma, points, self.rule, self.online)
            steps = [point.step for point in points]
            turn = (
                steps.index(verdict.keep_step) if verdict.state == "turned" and verdict.keep_step is not None else None
            )
            verdicts.append(verdict)
            curves.append(IcrCurve(layer, sigma, steps, [point.icr for point in points], turn))
        return Judgement(tuple(verdicts), curves)

    def _beside(self, job: Job, rows: Sequence[Row]) -> dict[str, Any]:
        """What a record keeps beside the rows."""
        return {}


class WindowGauge(CellGauge):
    """The same of a sweep, with the window of each layer at each snapshot."""

    needs_level: ClassVar[bool] = False

    def key(self, job: Job) -> str:
        """Not that of the same levels, each of them given."""
        return f"{super().key(job)} windows"

    def _beside(self, job: Job, rows: Sequence[Row]) -> dict[str, Any]:
        return {"window": plain_record(windows(job.denoiser.noise.to_native, rows))}


def _held_out(row: Row, held: Row, job: Job, losses: Sequence[Loss], held_losses: Sequence[Loss]) -> dict[str, Any]:
    """What the held-out images add to a row."""
    level = [level.sigma for level in job.levels].index(row.sigma)
    return {
        "icr_holdout": held["icr"],
        "icr_holdout_low": held["icr_low"],
        "icr_holdout_high": held["icr_high"],
        "loss": losses[level].mean,
        "loss_se": losses[level].se,
        "loss_holdout": held_losses[level].mean,
        "loss_holdout_se": held_losses[level].se,
    }
