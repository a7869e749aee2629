"""ICR over the snapshots of a training run: the same images, views and noise for all, one record on disk for each.

A snapshot's record stands under what all snapshots share (the protocol but for the checkpoint) and its sha256: the
same command goes on where it was stopped, and one more snapshot costs only itself.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from diffscope import __version__
from diffscope.cache.store import Parts, Records, cache_folder
from diffscope.checkpoints import read
from diffscope.errors import (
    CheckpointError,
    EstimationError,
)
from diffscope.families.base import Denoiser
from diffscope.families.networks.autoencoder import Autoencoder
from diffscope.features import Inputs, Plan
from diffscope.measure.description import common_checkpoint, described_checkpoint, described_data
from diffscope.measure.job import Job, prepare
from diffscope.measure.measurement import measure
from diffscope.measure.opening import job_of, open_job
from diffscope.measure.portions import half_of_memory, total_passes
from diffscope.measure.progress import Listener
from diffscope.measure.read_ahead import ReadAhead
from diffscope.measure.snapshots import OWN_FAULTS, SHARED_FAULTS, LeftOut, Snapshot
from diffscope.options.settings import Loading, Settings
from diffscope.protocol import Protocol, require_equal
from diffscope.ranks import world
from diffscope.results import OnsetRow, Result, Row
from diffscope.sources.base import Source
from diffscope.studies.sweep.window_rows import windows
from diffscope.studies.track import onset, overlay
from diffscope.studies.track.loss import denoising_loss, plain
from diffscope.studies.track.overlay import Points

LEVEL_IMAGES = 1000
"""Of the sweep that chooses the noise level, where none is given."""


@dataclass(frozen=True)
class Measured:
    """One snapshot's numbers, as they stand on disk."""

    about: dict[str, Any]
    """What the checkpoint is."""
    rows: tuple[Row, ...]
    data: dict[str, Any]
    """What of the images was used."""
    warnings: tuple[str, ...]
    fresh: bool = False
    """Measured now, not found on disk."""

    def to_json(self) -> dict[str, Any]:
        rows = [row.to_json() for row in self.rows]
        return {"about": self.about, "rows": rows, "data": self.data, "warnings": list(self.warnings)}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Measured:
        rows = tuple(map(Row, record["rows"]))
        return Measured(record["about"], rows, record["data"], tuple(record["warnings"]))


@dataclass
class Tracker:
    """Takes snapshots one by one, in any order, and makes a result of those taken so far."""

    source: Source
    settings: Settings
    loading: Loading = field(default_factory=Loading)
    holdout: Source | None = None
    """Images that were not trained on: their ICR and the loss on both stand beside."""
    num_holdout: int | None = None
    """How many of them; else as many as are tracked, so that both figures have the same error."""
    folder: Path | None = None
    """Where records are kept, else in the cache."""
    rule: str = "auto"
    """A preset of `onset.py`."""
    online: bool = False
    """Judge as if nothing were known of what comes later."""
    progress: Callable[[float], None] = lambda snapshots: None
    """Told of snapshots finished, in fractions."""
    say: Callable[[str], None] = lambda text: None

    taken: dict[int, tuple[Snapshot, Measured]] = field(default_factory=dict, init=False)
    """By step."""
    left_out: dict[str, str] = field(default_factory=dict, init=False)
    """Path → why."""
    protocol: Protocol | None = field(default=None, init=False)
    """What all snapshots share, from the first of them on."""
    _notes: list[str] = field(default_factory=list, init=False)
    """What was chosen for the user."""
    _records: Records | None = field(default=None, init=False)
    _encoder: Autoencoder | None = field(default=None, init=False)
    _ahead: ReadAhead = field(init=False)
    _following: Snapshot | None = field(default=None, init=False)
    _inputs: dict[str, Inputs] = field(default_factory=dict, init=False)
    _start: tuple[float, float] = field(default_factory=lambda: (time.perf_counter(), time.process_time()), init=False)

    def __post_init__(self) -> None:
        self._ahead = ReadAhead(self.loading)

    def choose_level(self, snapshots: Sequence[Snapshot]) -> None:
        """Where no noise level is given: the upper end of the window in a short sweep of the middle snapshot.

        Windows move to larger noise in training, so that at levels below them ICR rises in any run. A run keeps the
        level that was chosen for it once, as long as its first snapshot is the same.
        """
        if self.settings.sigma or self.settings.t:
            return
        for snapshot in _from_the_middle(snapshots):
            try:
                sigma, chosen_at = self._level(snapshots[0], snapshot)
            except SHARED_FAULTS:
                raise
            except (CheckpointError, EstimationError) as error:
                self.leave_out([LeftOut(snapshot.path, str(error))])
                continue
            self._note(f"sigma {sigma:.4g} was chosen by a sweep of {chosen_at}; --sigma sets it")
            self.settings = replace(self.settings, sigma=(sigma,))
            return
        raise CheckpointError(next(iter(self.left_out.values())))

    def leave_out(self, left: Iterable[LeftOut]) -> None:
        """Note what cannot be taken; CheckpointError if the settings are strict."""
        for entry in left:
            if self.settings.strict:
                raise CheckpointError(entry.why)
            self.left_out[entry.path] = entry.why

    def take_all(self, snapshots: Sequence[Snapshot]) -> Iterator[tuple[Snapshot, Measured | None]]:
        """`take` one after the other; each is read while the one before it is computed."""
        for snapshot, following in zip_longest(snapshots, snapshots[1:]):
            self._following = following
            yield snapshot, self.take(snapshot)

    def take(self, snapshot: Snapshot, network: Denoiser | None = None) -> Measured | None:
        """Measure a snapshot, or find its record; None where it had to be left out, with the reason in `left_out`.

        `network`: of a snapshot that is in memory; it has no record.
        """
        self.left_out.pop(snapshot.path, None)
        twin = self.taken.get(snapshot.step)
        if twin is not None and twin[0].path != snapshot.path:
            self.leave_out([LeftOut(snapshot.path, f"{snapshot.path}: {twin[0].path} stands at step {snapshot.step}")])
            return None
        try:
            measured = self._measured(snapshot, network)
        except SHARED_FAULTS:
            raise
        except OWN_FAULTS as error:
            if self.protocol is None and not isinstance(error, CheckpointError):
                raise
            why = str(error) if snapshot.path in str(error) else f"{snapshot.path}: {error}"
            self.leave_out([LeftOut(snapshot.path, why)])
            return None
        if not measured.fresh:
            self.progress(1.0)
        self.taken[snapshot.step] = (snapshot, measured)
        return measured

    def judged(self) -> tuple[OnsetRow, ...]:
        """What each layer and noise level says of the run so far."""
        return tuple(
            onset.judge(layer, sigma, points, self.rule, self.online)
            for (layer, sigma), points in self._series().items()
        )

    def result(self, columns: Mapping[str, Points] | None = None) -> Result:
        """Of the snapshots taken so far, beside columns of the user's own; CheckpointError where none could be."""
        if not self.taken or self.protocol is None:
            raise CheckpointError(next(iter(self.left_out.values()), "no snapshot of a training run"))
        ordered = [self.taken[step] for step in sorted(self.taken)]
        first = ordered[0][1]
        judged = self.judged()
        fresh = sum(measured.fresh for _, measured in ordered)
        return Result(
            version=__version__,
            command="track",
            checkpoint=common_checkpoint(first.about, [s.path for s, _ in ordered]),
            data={**first.data, "path": self.source.path},
            protocol=self.protocol.to_json(),
            rows=tuple(row.having(checkpoint=s.path, step=s.step) for s, found in ordered for row in found.rows),
            timing={
                "seconds": round(time.perf_counter() - self._start[0], 3),
                "cpu_seconds": round(time.process_time() - self._start[1], 3),
                "snapshots_measured": fresh,
                "snapshots_resumed": len(ordered) - fresh,
            },
            warnings=(*first.warnings, *self._notes),
            sections={
                "window": (),
                "checkpoints": (
                    *({"path": s.path, "sha256": found.about["sha256"], "step": s.step, "step_unit": s.unit}
                      for s, found in ordered),
                    *({"path": path, "why": why} for path, why in sorted(self.left_out.items())),
                ),
                "onset": judged,
                "overlay": overlay.compare_all(columns or {}, self._turns(judged)),
            },
        )  # fmt: skip

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self.say(text)

    def _measured(self, snapshot: Snapshot, network: Denoiser | None) -> Measured:
        if network is not None:
            job = self._open(open_job(network, self.source, self.settings, self.loading, self._encoder))
            return self._fresh(job, record=False)
        # Which records are this run's is known once the first snapshot is open; until then they cannot be looked up.
        sha = self._ahead.sha256(snapshot.path)
        if self._records is not None:
            self._read_following()
        if self._records is not None and (record := self._recorded(sha)) is not None:
            return record
        found, denoiser = self._ahead.loaded(snapshot.path)
        job = self._open(job_of(found, denoiser, self.source, self.settings, self.loading, self._encoder))
        self._read_following()
        record = self._recorded(sha)
        return self._fresh(job, record=True) if record is None else record

    def _fresh(self, job: Job, record: bool) -> Measured:
        assert self._records is not None
        measured, parts = self._measure(job)
        records = self._records

        def keep() -> None:
            if record:
                records.write(job.checkpoint.sha256(), measured.to_json())
            for part in parts:
                part.clear()

        world().lead(keep)
        return measured

    def _recorded(self, sha: str) -> Measured | None:
        records = self._records
        assert records is not None
        record = world().lead(lambda: records.read(sha))
        return None if record is None else Measured.from_json(record)

    def _read_following(self) -> None:
        """Begin with the next snapshot, if that has not been done."""
        following, self._following = self._following, None
        if following is not None:
            self._ahead.start(following.path, self._is_recorded)

    def _is_recorded(self, sha: str) -> bool:
        """As far as this process can see."""
        return self._records is not None and self._records.read(sha) is not None

    def _open(self, job: Job) -> Job:
        """The same; ProtocolMismatch where it is another network than the first one."""
        shared = job.protocol.shared()
        if self.protocol is None:
            held = self._held(job)
            kinds = f"{shared.hash()} {held.protocol.shared().hash() if held else ''}"
            key = hashlib.sha256(kinds.encode()).hexdigest()[:16]
            self._records = Records((self.folder or cache_folder()) / f"track-{key}", self.say)
            self.protocol, self._encoder = shared, job.denoiser.encoder
            if held is not None and self.num_holdout is None:
                used, of = len(held.indices), len(held.source)
                self._note(f"{used} of {of} held-out images, for {len(job.indices)} are tracked; --num-holdout sets it")
        require_equal(self.protocol.to_json(), shared.to_json(), (), "the first snapshot and this one")
        return job

    def _held(self, job: Job) -> Job | None:
        """The same with the held-out images."""
        if self.holdout is None:
            return None
        count = self.num_holdout or len(job.indices)
        return prepare(job.checkpoint, job.denoiser, self.holdout, replace(job.settings, num_images=count))

    def _measure(self, job: Job) -> tuple[Measured, list[Parts]]:
        """All numbers of one snapshot; the parts on disk are to be cleared once they are safe."""
        held = self._held(job)
        jobs = [job] if held is None else [job, held]
        total = sum(map(total_passes, jobs)) * (1 if held is None else 2)
        listener = Listener(advance=lambda passes: self.progress(passes / total))
        found = [measure(one, listener, self.folder, self._shared(one, one.plan)) for one in jobs]
        data = [described_data(one, m.used, m.skipped) for one, m in zip(jobs, found, strict=True)]
        rows = found[0].rows
        if held is not None:
            data[0]["holdout"] = data[1]
            losses = [denoising_loss(one, self._shared(one, plain(one.plan)), listener.advance) for one in jobs]
            rows = tuple(
                row.having(**_beside(row, held_row, job, *losses))
                for row, held_row in zip(rows, found[1].rows, strict=True)
            )
        measured = Measured(described_checkpoint(job), rows, data[0], job.denoiser.warnings, fresh=True)
        return measured, [one.parts for one in found]

    def _shared(self, job: Job, plan: Plan) -> Inputs:
        """The images as all snapshots take them."""
        key = f"{job.source.path} {plan.augmentation.name}"
        if key not in self._inputs:
            room = (job.settings.max_memory or half_of_memory()) // 8  # up to four of these share half of it
            self._inputs[key] = Inputs(job.source, plan, job.settings.strict, room, self.say)
        return self._inputs[key]

    def _level(self, first: Snapshot, middle: Snapshot) -> tuple[float, str]:
        """The noise level and the snapshot at which it was chosen, now or by an earlier command for the same run."""
        count = min(len(self.source), self.settings.num_images or LEVEL_IMAGES)
        settings = replace(self.settings, sigma=(), t=(), num_images=count)
        job = open_job(middle.path, self.source, settings, self.loading, self._encoder)
        self._encoder = job.denoiser.encoder
        origin = read(first.path, self.loading.weights, outline=True).sha256()
        key = hashlib.sha256(f"{job.protocol.shared().hash()} {origin}".encode()).hexdigest()[:16]
        records = Records((self.folder or cache_folder()) / "track-levels", self.say)
        if (record := world().lead(lambda: records.read(key))) is not None:
            return float(record["sigma"]), str(record["checkpoint"])
        self.say(f"no --sigma: choosing the noise level by a sweep of {middle.path}")
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
            raise EstimationError(f"{middle.path}: no noise level has an ICR with an interval; give one with --sigma")
        sigma = best.sigma if best.high is None else best.high
        sigma = job.denoiser.noise.check(float(f"{sigma:.3g}"))
        world().lead(lambda: records.write(key, {"sigma": sigma, "checkpoint": middle.path}))
        if world().leads:
            found.parts.clear()
        return sigma, middle.path

    def _series(self) -> dict[tuple[str, float], list[onset.Snapshot]]:
        """By layer and noise level, in the order of the network; snapshots by rising step."""
        series: dict[tuple[str, float], list[onset.Snapshot]] = {}
        for step in sorted(self.taken):
            snapshot, measured = self.taken[step]
            for row in measured.rows:
                point = onset.Snapshot(step, snapshot.path, row["icr"], row["replicates"], row.n)
                series.setdefault((row.layer, row.sigma), []).append(point)
        return series

    def _turns(self, judged: Sequence[OnsetRow]) -> list[overlay.Series]:
        """Each series with its turn, for what the user has of the same run."""
        turns = {(row.layer, row.sigma): row.keep_step for row in judged if row.state == "turned"}
        found = []
        for (layer, sigma), points in self._series().items():
            steps = [point.step for point in points]
            turn = turns.get((layer, sigma))
            index = None if turn is None else steps.index(turn)
            found.append(overlay.Series(layer, sigma, steps, [point.icr for point in points], index))
        return found


def _from_the_middle(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """The middle one first, then those nearest to it."""
    middle = len(snapshots) // 2
    return [snapshots[i] for i in sorted(range(len(snapshots)), key=lambda i: abs(i - middle))]


def _beside(row: Row, held: Row, job: Job, losses: Sequence[Any], held_losses: Sequence[Any]) -> dict[str, Any]:
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
