"""ICR over the snapshots of a training run: the same images, views and noise for all, one record on disk for each.

A snapshot's record stands under what all snapshots share (the protocol but for the checkpoint) and its sha256: the
same command goes on where it was stopped, and one more snapshot costs only itself. What is measured of each, and what
the run says by it, is the affair of a gauge (`gauge.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from diffscope import __version__
from diffscope.checkpoints import read as read_checkpoint
from diffscope.errors import CheckpointError, EstimationError, UsageError
from diffscope.measure.estimate import Estimate, estimate
from diffscope.measure.job import Job, prepare
from diffscope.measure.opening import open_job
from diffscope.measure.progress import Listener
from diffscope.measure.series import Answer, Series
from diffscope.measure.snapshots import SHARED_FAULTS, LeftOut, Snapshot, find_snapshots
from diffscope.options.settings import Loading, Settings
from diffscope.ranks import world
from diffscope.results import Result, Row, WindowRow
from diffscope.results.sections import read as read_record
from diffscope.sources.base import Source
from diffscope.studies.sweep.stopping import interval
from diffscope.studies.track import enough, level, onset, overlay
from diffscope.studies.track.alarm_gauge import AlarmGauge
from diffscope.studies.track.cell_gauge import CellGauge, WindowGauge
from diffscope.studies.track.gauge import Gauge, HeldOut, Judgement, Run, rows_of
from diffscope.studies.track.overlay import Points


@dataclass(kw_only=True)
class Tracker(Series):
    """Takes snapshots, all at once or one by one in any order, and makes a result of those taken so far.

    Attributes:
        holdout: Images that were not trained on: their ICR and the loss on both stand beside.
        num_holdout: How many of them; else 128 for the alarm, or as many as are tracked, for the same error.
        rule: "alarm" pools layers and levels and watches the loss (`alarm.py`); else a preset of `onset.py` for each.
        online: Judge as if nothing were known of what comes later.
        accuracy: To which ICR of the first snapshot should be known; the others take as many images.
        columns: Numbers of the user's own of the same run, by name.
        gauge: What is measured of each snapshot, and how the run is judged by it.
    """

    holdout: Source | None = None
    num_holdout: int | None = None
    rule: str = "auto"
    online: bool = False
    accuracy: float | None = None
    columns: Mapping[str, Points] = field(default_factory=dict)

    gauge: Gauge = field(init=False)
    _notes: list[str] = field(default_factory=list, init=False)
    """What was chosen for the user."""
    _enough: enough.Enough | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Chooses how the run is followed."""
        super().__post_init__()
        held = None if self.holdout is None else HeldOut(self.holdout, self.num_holdout)
        if self.rule == "alarm":
            own_cells = self.settings.layer == ("mid",) and not self._has_levels
            self.gauge = AlarmGauge(held, len(self.source), own_cells)
        else:
            kind = CellGauge if self.settings.num_levels is None or self._has_levels else WindowGauge
            self.gauge = kind(held, self.rule, self.online)

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

    @property
    def _has_levels(self) -> bool:
        return bool(self.settings.sigma or self.settings.t)

    @property
    def _needs_level(self) -> bool:
        return self.gauge.needs_level and not self._has_levels

    def settle(self, snapshots: Sequence[Snapshot]) -> None:
        """What a run is told once, by these snapshots: its noise level and how many images it takes."""
        self.choose_level(snapshots)
        self.choose_images(snapshots)

    def choose_level(self, snapshots: Sequence[Snapshot]) -> None:
        """Where a noise level is needed and none is given: that of `level.py`, by the middle one of these snapshots."""
        if not self._needs_level:
            return
        swept = level.of_sweep(self.settings, self.source)
        for snapshot in level.from_the_middle(snapshots):
            try:
                job = open_job(snapshot.path, self.source, swept, self.loading, self._encoder)
                self._encoder = job.denoiser.encoder
                origin = read_checkpoint(snapshots[0].path, self.loading.weights, outline=True).sha256()
                chosen = level.choose(job, origin, self.folder, self.listener)
            except SHARED_FAULTS:
                raise
            except (CheckpointError, EstimationError) as error:
                self.leave_out([LeftOut(snapshot.path, str(error))])
                continue
            self._note(f"sigma {chosen.sigma:.4g} was chosen by a sweep of {chosen.checkpoint}; `sigma=` sets it")
            self.settings = replace(self.settings, sigma=(chosen.sigma,))
            return
        raise CheckpointError(next(iter(self.left_out.values())))

    def choose_images(self, snapshots: Sequence[Snapshot]) -> None:
        """As many as the accuracy asks for, by the first of these snapshots; `enough.py`."""
        if self.accuracy is None:
            return
        for snapshot in snapshots:
            try:
                found = self._enough_by(snapshot)
            except SHARED_FAULTS:
                raise
            except (CheckpointError, EstimationError) as error:
                self.leave_out([LeftOut(snapshot.path, str(error))])
                continue
            self._enough, self.gauge.error = found, found.error
            self.settings = replace(self.settings, num_images=found.images)
            self.listener.say(f"{found.images} of {found.looks[-1]} images are taken of each snapshot")
            return
        raise CheckpointError(next(iter(self.left_out.values())))

    def _enough_by(self, snapshot: Snapshot) -> enough.Enough:
        assert self.accuracy is not None
        whole = open_job(snapshot.path, self.source, self.settings, self.loading, self._encoder)
        self._encoder = whole.denoiser.encoder

        def taking(images: int | None) -> Job:
            settings = replace(whole.settings, num_images=images)
            return self._arranged(prepare(whole.checkpoint, whole.denoiser, whole.source, settings, whole.options))

        first = read_checkpoint(snapshot.path, self.loading.weights, outline=True).sha256()
        most, place = self.settings.num_images, self._place()
        return enough.choose(self.gauge, self.accuracy, taking, most, first, place, self.listener)

    def judged(self) -> Judgement:
        """What the run says so far."""
        return self.gauge.judge(self.in_order())

    def result(self) -> Result:
        """Of the snapshots taken so far; CheckpointError where none could be."""
        head, judged, taken = self._head(), self.judged(), self.in_order()
        return Result(
            **{**head, "warnings": (*head["warnings"], *self._notes)},
            version=__version__,
            command="track",
            rows=tuple(
                self._with_interval(row).having(checkpoint=snapshot.path, step=snapshot.step)
                for snapshot, one in taken
                for row in rows_of(one)
            ),
            sections={
                "window": tuple(
                    replace(read_record(WindowRow, window), step=snapshot.step)
                    for snapshot, one in taken
                    for window in one.answer.get("window", ())
                ),
                "checkpoints": tuple(self._checkpoints()),
                "onset": judged.onset,
                **({} if judged.alarm is None else {"alarm": judged.alarm}),
                "overlay": overlay.compare_all(self.columns, judged.curves),
                **({} if self._enough is None else {"accuracy": self._enough.described(self._half_widths(taken))}),
            },
        )

    def _half_widths(self, taken: Run) -> dict[int, float]:
        """How well ICR is known, by step."""
        assert self.protocol is not None
        views = self.protocol["views"]
        return {snapshot.order: self.gauge.half_width(rows_of(one), views) for snapshot, one in taken}

    def _with_interval(self, row: Row) -> Row:
        """With one that is wide enough for all looks, where there were any."""
        if self._enough is None or row["icr_low"] is None or row["replicates"] is None:
            return row
        assert self.protocol is not None
        low, high = interval(row["icr"], row["replicates"], self.protocol["views"], self._enough.error)
        return row.having(icr_low=low, icr_high=high)

    def estimate(self) -> Estimate:
        """What `run` would take; without a noise level, the sweep that chooses one is among it."""
        if not self._needs_level:
            return super().estimate()
        swept = estimate(self._first(level.of_sweep(self.settings, self.source)))
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
        return self.gauge.estimated(super()._estimate(job), job, len(self.snapshots))

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self.listener.say(text)

    def _prepare(self) -> None:
        self.settle(self.snapshots)

    def _shared(self, job: Job) -> dict[str, Any]:
        return job.protocol.shared().to_json()

    def _records_folder(self, job: Job) -> Path:
        kinds = f"{job.protocol.shared().hash()} {self.gauge.key(job)}"
        return self._place() / f"track-{hashlib.sha256(kinds.encode()).hexdigest()[:16]}"

    def _arranged(self, job: Job) -> Job:
        return self.gauge.arranged(job)

    def _begin(self, job: Job) -> None:
        if (note := self.gauge.note(job)) is not None:
            self._note(note)

    def _measure(self, job: Job, snapshot: Snapshot, listener: Listener) -> Answer:
        return self.gauge.measure(job, listener, self.folder)


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
    accuracy: float | None = None,
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
        num_holdout: How many of them; else 128 for the alarm, or as many as are tracked.
        step_from: A regular expression with one group that finds the step in a path.
        rule: auto, alarm, long or short.
        accuracy: To which ICR of the first snapshot should be known.
        columns: Numbers of the same run, by name, to be compared with ICR.
        online: Take snapshots as they appear, and judge as if nothing were known of what comes later; no `paths`.

    Raises:
        CheckpointError: If there is no snapshot, or one that cannot be taken where settings are strict.
        UsageError: If there is no such rule, or `step_from` is no such expression.
    """
    tracker = partial(
        Tracker,
        source=source,
        settings=settings,
        loading=loading,
        holdout=holdout,
        num_holdout=num_holdout,
        accuracy=accuracy,
        columns=columns or {},
    )
    if online:
        return tracker(rule=watched_rule(rule, settings), online=True)
    rule = chosen_rule(rule, settings)
    snapshots, left_out = world().lead(
        partial(find_snapshots, paths, step_from, loading.weights),
        lambda found: [[asdict(one) for one in each] for each in found],
        lambda said: ([Snapshot(**one) for one in said[0]], [LeftOut(**one) for one in said[1]]),
    )
    found = tracker(rule=rule, snapshots=snapshots)
    found.leave_out(left_out)
    return found


def chosen_rule(rule: str, settings: Settings) -> str:
    """What `auto` means: the alarm, where neither layer nor level is chosen. UsageError where there is no such rule."""
    chosen = settings.layer != ("mid",) or settings.sigma or settings.t or settings.num_levels
    if rule == "auto" and not chosen:
        rule = "alarm"
    if rule != "alarm":
        onset.preset(rule, 0)
    elif settings.num_levels is not None:
        raise UsageError(
            f"`num_levels={settings.num_levels}`: sweeps each snapshot for its window, and the alarm has levels of its "
            "own; leave out one of the two"
        )
    return rule


def watched_rule(rule: str, settings: Settings) -> str:
    """The same for a run that goes on, which keeps the rule that it began with."""
    rule = chosen_rule(rule, settings)
    return "long" if rule == "auto" else rule
