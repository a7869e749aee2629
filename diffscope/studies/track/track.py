"""ICR over the snapshots of a training run: the same images, views and noise for all, one record on disk for each.

A snapshot's record stands under what all snapshots share (the protocol but for the checkpoint) and its sha256: the
same command goes on where it was stopped, and one more snapshot costs only itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from diffscope import __version__
from diffscope.cache.store import Records
from diffscope.checkpoints import read as read_checkpoint
from diffscope.errors import CheckpointError, EstimationError
from diffscope.extraction import Inputs, Plan
from diffscope.measure.description import described_data
from diffscope.measure.estimate import Estimate, estimate
from diffscope.measure.job import Job, prepare
from diffscope.measure.memory import half_of_memory, passes_at_once, total_passes
from diffscope.measure.opening import open_job
from diffscope.measure.progress import Listener
from diffscope.measure.run import measure
from diffscope.measure.series import Answer, Series, Taken
from diffscope.measure.snapshots import SHARED_FAULTS, LeftOut, Snapshot, find_snapshots
from diffscope.options.settings import Loading, Settings
from diffscope.ranks import world
from diffscope.results import Alarm, OnsetRow, Result, Row, WindowRow
from diffscope.results.sections import plain as plain_record
from diffscope.results.sections import read as read_record
from diffscope.sources.base import Source
from diffscope.studies.sweep.window_rows import windows
from diffscope.studies.track import onset, overlay
from diffscope.studies.track.cells import LOSS_IMAGES, LOSS_PASSES, of_loss, pooled, watches_loss
from diffscope.studies.track.course import course_of, judged
from diffscope.studies.track.loss import Loss, denoising_loss, plain
from diffscope.studies.track.overlay import Points

LEVEL_IMAGES = 1000
"""Of the sweep that chooses the noise level, where none is given."""


def rows_of(taken: Taken) -> tuple[Row, ...]:
    """The numbers of one snapshot."""
    return tuple(map(Row, taken.answer["rows"]))


@dataclass(kw_only=True)
class Tracker(Series):
    """Takes snapshots, all at once or one by one in any order, and makes a result of those taken so far.

    Attributes:
        holdout: Images that were not trained on: their ICR and the loss on both stand beside.
        num_holdout: How many of them; else as many as are tracked, so that both figures have the same error.
        rule: "alarm" pools layers and levels and watches the loss (`alarm.py`); else a preset of `onset.py` for each.
        online: Judge as if nothing were known of what comes later.
        columns: Numbers of the user's own of the same run, by name.
    """

    holdout: Source | None = None
    num_holdout: int | None = None
    rule: str = "auto"
    online: bool = False
    columns: Mapping[str, Points] = field(default_factory=dict)

    _notes: list[str] = field(default_factory=list, init=False)
    """What was chosen for the user."""
    _inputs: dict[str, Inputs] = field(default_factory=dict, init=False)

    @property
    def alarmed(self) -> bool:
        """Whether all layers and levels are judged together."""
        return self.rule == "alarm"

    @property
    def maps(self) -> bool:
        """Whether each snapshot is swept over noise levels, for its window."""
        return self.settings.num_levels is not None and not (self.settings.sigma or self.settings.t)

    @property
    def unit(self) -> str:
        """What progress counts."""
        return "snapshots"

    @property
    def each(self) -> float:
        """Of them, of one."""
        return 1.0

    @property
    def is_series(self) -> bool:
        """Of one snapshot as of many."""
        return True

    def choose_level(self, snapshots: Sequence[Snapshot]) -> None:
        """Where no noise level is given: the upper end of the window in a short sweep of the middle snapshot.

        Windows move to larger noise in training, so that at levels below them ICR rises in any run. A run keeps the
        level that was chosen for it once, as long as its first snapshot is the same.
        """
        if self.alarmed or self.maps or self.settings.sigma or self.settings.t:
            return
        for snapshot in _from_the_middle(snapshots):
            try:
                sigma, chosen_at = self._level(snapshots[0], snapshot)
            except SHARED_FAULTS:
                raise
            except (CheckpointError, EstimationError) as error:
                self.leave_out([LeftOut(snapshot.path, str(error))])
                continue
            self._note(f"sigma {sigma:.4g} was chosen by a sweep of {chosen_at}; `sigma=` sets it")
            self.settings = replace(self.settings, sigma=(sigma,))
            return
        raise CheckpointError(next(iter(self.left_out.values())))

    def judged(self) -> tuple[OnsetRow, ...]:
        """What each layer and noise level says of the run so far, or all of them together."""
        if self.alarmed:
            return tuple(verdict for verdict, _ in self._alarm())
        return tuple(
            onset.judge(layer, sigma, points, self.rule, self.online)
            for (layer, sigma), points in self._series().items()
        )

    def result(self) -> Result:
        """Of the snapshots taken so far; CheckpointError where none could be."""
        head = self._head()
        alarm = self._alarm() if self.alarmed else []
        judged = tuple(verdict for verdict, _ in alarm) if self.alarmed else self.judged()
        return Result(
            **{**head, "warnings": (*head["warnings"], *self._notes)},
            version=__version__,
            command="track",
            rows=tuple(
                row.having(checkpoint=snapshot.path, step=snapshot.step)
                for snapshot, taken in self.in_order()
                for row in rows_of(taken)
            ),
            sections={
                "window": tuple(
                    replace(read_record(WindowRow, window), step=snapshot.step)
                    for snapshot, taken in self.in_order()
                    for window in taken.answer.get("window", ())
                ),
                "checkpoints": tuple(self._checkpoints()),
                "onset": judged,
                **({"alarm": tuple(found for _, found in alarm)} if self.alarmed else {}),
                "overlay": overlay.compare_all(self.columns, self._turns(judged)),
            },
        )

    def estimate(self) -> Estimate:
        """What `run` would take; without a noise level, the sweep that chooses one is among it."""
        if self.alarmed or self.maps or self.settings.sigma or self.settings.t:
            return super().estimate()
        swept = estimate(self._first(self._of_sweep()))
        whole = self._estimate(self._first(replace(self.settings, num_levels=1)))
        return replace(
            whole,
            protocol={key: value for key, value in whole.protocol.items() if key not in ("sigmas", "hash")},
            passes=whole.passes + swept.passes,
            memory=max(whole.memory, swept.memory),
            disk=max(whole.disk, swept.disk),
            seconds=whole.seconds + swept.seconds,
        )

    def _estimate(self, job: Job) -> Estimate:
        found, held = super()._estimate(job), self._held(job)
        if self.alarmed:
            more = len(self.snapshots) * sum(passes_at_once(one) for _, one, _ in self._losses(job))
            return replace(found, passes=found.passes + more, seconds=found.seconds * (1 + more / found.passes))
        if held is None:
            return found
        other = estimate(held, len(self.snapshots))
        # Once for ICR, once for the loss.
        passes, seconds = 2 * (found.passes + other.passes), 2 * (found.seconds + other.seconds)
        return replace(found, passes=passes, seconds=seconds, disk=found.disk + other.disk)

    def _of_sweep(self) -> Settings:
        """Settings of the sweep that chooses the noise level."""
        count = min(len(self.source), self.settings.num_images or LEVEL_IMAGES)
        return replace(self.settings, sigma=(), t=(), num_images=count)

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self.listener.say(text)

    def _prepare(self) -> None:
        self.choose_level(self.snapshots)

    def _shared(self, job: Job) -> dict[str, Any]:
        return job.protocol.shared().to_json()

    def _records_folder(self, job: Job) -> Path:
        held = self._held(job)
        kinds = f"{job.protocol.shared().hash()} {held.protocol.shared().hash() if held else ''}"
        kinds += f" {LOSS_IMAGES}, {LOSS_PASSES} for the loss" if self.alarmed else ""
        return self._place() / f"track-{hashlib.sha256(kinds.encode()).hexdigest()[:16]}"

    def _arranged(self, job: Job) -> Job:
        return pooled(job) if self.alarmed else job

    def _begin(self, job: Job) -> None:
        held = self._held(job)
        if held is not None and self.num_holdout is None and not self.alarmed:
            used, of = len(held.indices), len(held.source)
            self._note(f"{used} of {of} held-out images, for {len(job.indices)} are tracked; `num_holdout=` sets it")

    def _held(self, job: Job) -> Job | None:
        """The same with the held-out images."""
        if self.holdout is None:
            return None
        count = self.num_holdout or len(job.indices)
        return prepare(job.checkpoint, job.denoiser, self.holdout, replace(job.settings, num_images=count))

    def _losses(self, job: Job) -> list[tuple[str, Job, Plan]]:
        """What the alarm reads at the output: key, job and how its images are taken."""
        if not watches_loss(job):
            return []
        seen = of_loss(job)
        found = [("loss", seen, plain(seen.plan)), ("loss_views", seen, seen.plan)]
        if self.holdout is not None:
            held = of_loss(replace(job, source=self.holdout), self.num_holdout or LOSS_IMAGES)
            found.append(("loss_holdout", held, plain(held.plan)))
        return found

    def _measure_pooled(self, job: Job, listener: Listener) -> Answer:
        losses = self._losses(job)
        total = total_passes(job) + sum(passes_at_once(one) for _, one, _ in losses)
        inner = Listener(_share(listener.advance, total), skip=_share(listener.skip, total))
        found = measure(job, inner, self.folder, self._shared_inputs(job, job.plan))
        output = {key: denoising_loss(one, self._shared_inputs(one, plan), inner.advance) for key, one, plan in losses}
        levels = [level.sigma for level in job.levels]
        rows = [
            row.having(**{name: value for key, each in output.items() for name, value in
                          _said(key, each[levels.index(row.sigma)]).items()})
            for row in found.rows
        ]  # fmt: skip
        return (
            {"rows": [row.to_json() for row in rows]},
            described_data(job, found.used, found.skipped),
            found.parts.clear,
        )

    def _measure(self, job: Job, snapshot: Snapshot, listener: Listener) -> Answer:
        if self.alarmed:
            return self._measure_pooled(job, listener)
        held = self._held(job)
        jobs = [job] if held is None else [job, held]
        total = sum(map(total_passes, jobs)) * (1 if held is None else 2)
        inner = Listener(_share(listener.advance, total), skip=_share(listener.skip, total))
        found = [measure(one, inner, self.folder, self._shared_inputs(one, one.plan)) for one in jobs]
        data = [described_data(one, m.used, m.skipped) for one, m in zip(jobs, found, strict=True)]
        rows = found[0].rows
        if held is not None:
            data[0]["holdout"] = data[1]
            losses = [denoising_loss(one, self._shared_inputs(one, plain(one.plan)), inner.advance) for one in jobs]
            rows = tuple(
                row.having(**_held_out(row, held_row, job, *losses))
                for row, held_row in zip(rows, found[1].rows, strict=True)
            )

        def forget() -> None:
            for one in found:
                one.parts.clear()

        answer: dict[str, Any] = {"rows": [row.to_json() for row in rows]}
        if self.maps:
            answer["window"] = plain_record(windows(job.denoiser.noise.to_native, rows))
        return answer, data[0], forget

    def _shared_inputs(self, job: Job, plan: Plan) -> Inputs:
        """The images as all snapshots take them."""
        key = f"{job.source.path} {plan.augmentation.name} {plan.views}"
        if key not in self._inputs:
            room = (job.settings.max_memory or half_of_memory()) // 8  # up to four of these share half of it
            self._inputs[key] = Inputs(job.source, plan, job.settings.strict, room, self.listener.say)
        return self._inputs[key]

    def _level(self, first: Snapshot, middle: Snapshot) -> tuple[float, str]:
        """The noise level and the snapshot at which it was chosen, now or by an earlier command for the same run."""
        job = open_job(middle.path, self.source, self._of_sweep(), self.loading, self._encoder)
        self._encoder = job.denoiser.encoder
        origin = read_checkpoint(first.path, self.loading.weights, outline=True).sha256()
        key = hashlib.sha256(f"{job.protocol.shared().hash()} {origin}".encode()).hexdigest()[:16]
        records = Records(self._place() / "track-levels", self.listener.say)
        if (record := world().lead(lambda: records.read(key))) is not None:
            return float(record["sigma"]), str(record["checkpoint"])
        self.listener.say(f"no `sigma=`: choosing the noise level by a sweep of {middle.path}")
        found = measure(job, None, self.folder)
        best = min(
            (
                window
                for window in windows(job.denoiser.noise.to_native, found.rows)
                if window.sigma is not None and window.icr is not None
            ),
            key=lambda window: (not window.is_ranked, window.icr or 0.0),
            default=None,
        )
        if best is None or best.sigma is None:
            raise EstimationError(f"{middle.path}: no noise level has an ICR with an interval; give one with `sigma=`")
        sigma = best.sigma if best.high is None else best.high
        sigma = job.denoiser.noise.check(float(f"{sigma:.3g}"))
        world().lead(lambda: records.write(key, {"sigma": sigma, "checkpoint": middle.path}))
        if world().leads:
            found.parts.clear()
        return sigma, middle.path

    def _series(self) -> dict[tuple[str, float], list[onset.Snapshot]]:
        """By layer and noise level, in the order of the network; snapshots by rising step."""
        series: dict[tuple[str, float], list[onset.Snapshot]] = {}
        for snapshot, taken in self.in_order():
            assert snapshot.step is not None
            for row in rows_of(taken):
                point = onset.Snapshot(snapshot.step, snapshot.path, row["icr"], row["replicates"], row.n)
                series.setdefault((row.layer, row.sigma), []).append(point)
        return series

    def _alarm(self) -> list[tuple[OnsetRow, Alarm]]:
        """The verdict of all cells together, once there is a snapshot that has one."""
        taken = self.in_order()
        course = course_of([(snapshot.order, snapshot.path, rows_of(one)) for snapshot, one in taken])
        if course is None:
            return []
        last = taken[-1][0]
        seen = last.step if last.unit == "images" else None
        return [judged(course, None if seen is None else seen / len(self.source))]

    def _turns(self, judged: Sequence[OnsetRow]) -> list[overlay.IcrCurve]:
        """Each series with its turn, for what the user has of the same run."""
        turns = {(row.layer, row.sigma): row.keep_step for row in judged if row.state == "turned"}
        if self.alarmed:
            steps = [point.step for _, alarm in self._alarm() for point in alarm.points]
            icr = [point.icr for _, alarm in self._alarm() for point in alarm.points]
            turn = turns.get((None, None))
            return [overlay.IcrCurve(None, None, steps, icr, None if turn is None else steps.index(turn))]
        found = []
        for (layer, sigma), points in self._series().items():
            steps = [point.step for point in points]
            turn = turns.get((layer, sigma))
            index = None if turn is None else steps.index(turn)
            found.append(overlay.IcrCurve(layer, sigma, steps, [point.icr for point in points], index))
        return found


def open_track(
    paths: Sequence[str],
    source: Source,
    settings: Settings,
    loading: Loading,
    *,
    holdout: Source | None = None,
    num_holdout: int | None = None,
    step_from: str | None = None,
    rule: str = "auto",
    columns: Mapping[str, Points] | None = None,
    online: bool = False,
) -> Tracker:
    """The snapshots of a run, found and ordered; none is read yet.

    Args:
        paths: Checkpoints of one run, or folders of them.
        source: Images, best those that were trained on.
        settings: Without a noise level, one is chosen by a sweep of the middle snapshot.
        loading: How checkpoints are read.
        holdout: Images that were not trained on.
        num_holdout: How many of them; else as many as are tracked.
        step_from: A regular expression with one group that finds the step in a path.
        rule: auto, long or short.
        columns: Numbers of the same run, by name, to be compared with ICR.
        online: Take snapshots as they appear, and judge as if nothing were known of what comes later; no `paths`.

    Raises:
        CheckpointError: If there is no snapshot, or one that cannot be taken where settings are strict.
        UsageError: If there is no such rule, or `step_from` is no such expression.
    """
    rule = chosen_rule(rule, settings)
    if online:
        return Tracker(
            source=source,
            settings=settings,
            loading=loading,
            holdout=holdout,
            num_holdout=num_holdout,
            rule=watched_rule(rule, settings),
            online=True,
            columns=columns or {},
        )
    snapshots, left_out = world().lead(
        partial(find_snapshots, paths, step_from, loading.weights),
        lambda found: [[asdict(one) for one in each] for each in found],
        lambda said: ([Snapshot(**one) for one in said[0]], [LeftOut(**one) for one in said[1]]),
    )
    tracker = Tracker(
        source=source,
        settings=settings,
        loading=loading,
        snapshots=snapshots,
        holdout=holdout,
        num_holdout=num_holdout,
        rule=rule,
        columns=columns or {},
    )
    tracker.leave_out(left_out)
    return tracker


def chosen_rule(rule: str, settings: Settings) -> str:
    """What `auto` means: the alarm, where neither layer nor level is chosen. UsageError where there is no such rule."""
    chosen = settings.layer != ("mid",) or settings.sigma or settings.t or settings.num_levels
    if rule == "auto" and not chosen:
        rule = "alarm"
    if rule != "alarm":
        onset.preset(rule, 0)
    return rule


def watched_rule(rule: str, settings: Settings) -> str:
    """The same for a run that goes on, which keeps the rule that it began with."""
    rule = chosen_rule(rule, settings)
    return "long" if rule == "auto" else rule


def _share(told: Callable[[float], None], total: float) -> Callable[[float], None]:
    """Told of passes, tells of the share of one snapshot that they are."""
    return lambda passes: told(passes / total)


def _from_the_middle(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """The middle one first, then those nearest to it."""
    middle = len(snapshots) // 2
    return [snapshots[i] for i in sorted(range(len(snapshots)), key=lambda i: abs(i - middle))]


def _said(key: str, loss: Loss) -> dict[str, Any]:
    """What a row holds of a loss."""
    said = {key: loss.mean, f"{key}_se": loss.se, f"{key}_replicates": list(loss.replicates)}
    return {**said, "freedom": loss.freedom} if key == "loss" else said


def _held_out(row: Row, held: Row, job: Job, losses: Sequence[Any], held_losses: Sequence[Any]) -> dict[str, Any]:
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
