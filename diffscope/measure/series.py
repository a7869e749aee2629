"""Checkpoints of one run, taken in order under one protocol: what runs every study that has them in its rows.

Of each there is a record on disk, under what all share (the protocol but for the checkpoint) and its sha256: the same
command goes on where it was stopped, and one more checkpoint costs only itself. The next one is read while one is
computed. One that is damaged, diverged or another network is left out with its reason, or ends a run that is strict.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from diffscope.cache.store import Records, cache_folder
from diffscope.errors import CheckpointError, UsageError
from diffscope.families.base import Denoiser
from diffscope.families.networks.autoencoder import Autoencoder
from diffscope.measure.cautions import cautions, too_few
from diffscope.measure.description import common_checkpoint, described_checkpoint
from diffscope.measure.estimate import Estimate, estimate
from diffscope.measure.job import Job
from diffscope.measure.opening import job_of, open_job
from diffscope.measure.progress import Listener
from diffscope.measure.read_ahead import ReadAhead
from diffscope.measure.snapshots import OWN_FAULTS, SHARED_FAULTS, LeftOut, Snapshot, find_series
from diffscope.measure.study import Finished
from diffscope.options.settings import Loading, Settings
from diffscope.protocol import require_equal
from diffscope.ranks import world
from diffscope.results import Result
from diffscope.sources.base import Source


@dataclass(frozen=True)
class Taken:
    """What was found of one checkpoint, as its record has it.

    Attributes:
        about: What the checkpoint is.
        data: What of the images was used.
        answer: The study's own, plain JSON.
        warnings: Of the network.
        fresh: Computed now, not found on disk.
    """

    about: dict[str, Any]
    data: dict[str, Any]
    answer: dict[str, Any]
    warnings: tuple[str, ...]
    fresh: bool = False

    def to_json(self) -> dict[str, Any]:
        """Without `fresh`, which is of this run."""
        return {"about": self.about, "data": self.data, "answer": self.answer, "warnings": list(self.warnings)}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Taken:
        """What `to_json` gave."""
        return Taken(record["about"], record["data"], record["answer"], tuple(record["warnings"]))


def find(
    checkpoints: Sequence[str | Denoiser], step_from: str | None = None, weights: str = "ema"
) -> tuple[list[Snapshot], list[LeftOut], Denoiser | None]:
    """Finds the checkpoints of a run, or the one in memory.

    Args:
        checkpoints: Paths, folders, or one network in memory. A single checkpoint need not say its step.
        step_from: A regular expression with one group that finds the step in a path.
        weights: Which are read of a file with several: ema or model.

    Returns:
        Snapshots by rising step, what could not be taken for one, and the network where there is one in memory.

    Raises:
        UsageError: If there are several networks in memory.
        CheckpointError: If there is no checkpoint.
    """
    paths = [checkpoint for checkpoint in checkpoints if isinstance(checkpoint, str)]
    if len(paths) == len(checkpoints):
        return (*find_series(paths, step_from, weights), None)
    if len(checkpoints) > 1:
        raise UsageError("networks in memory are taken one at a time")
    (network,) = checkpoints
    assert isinstance(network, Denoiser)
    return [Snapshot(f"live:{network.network_class}", None)], [], network


Answer = tuple[dict[str, Any], dict[str, Any], Callable[[], None]]
"""A study's own of one checkpoint, what of the images was used, and what forgets the work on disk once the record of
both is written."""


@dataclass(kw_only=True)
class Series(ABC):
    """A study of one checkpoint after another, all at once (`run`) or each as it appears (`take`).

    Attributes:
        source: The images.
        settings: Of the measurement.
        loading: How checkpoints are read.
        snapshots: What `run` takes, in this order.
        network: One in memory in place of the file of the only snapshot; it has no record.
        folder: Where records are kept, else in the cache.
        listener: Hears of the run; `run` is given another.
        taken: What was taken so far, by path.
        left_out: Path → why.
        protocol: What all checkpoints share, from the first of them on.
    """

    source: Source
    settings: Settings
    loading: Loading = field(default_factory=Loading)
    snapshots: Sequence[Snapshot] = ()
    network: Denoiser | None = None
    folder: Path | None = None
    listener: Listener = field(default_factory=Listener)

    taken: dict[str, tuple[Snapshot, Taken]] = field(default_factory=dict, init=False)
    left_out: dict[str, str] = field(default_factory=dict, init=False)
    protocol: dict[str, Any] | None = field(default=None, init=False)
    _records: Records | None = field(default=None, init=False)
    _encoder: Autoencoder | None = field(default=None, init=False)
    _ahead: ReadAhead = field(init=False)
    _following: Snapshot | None = field(default=None, init=False)
    _is_run: bool = field(default=False, init=False)
    _advanced: float = field(default=0.0, init=False)
    """Of the checkpoint in work, in units."""
    _start: tuple[float, float] = field(default_factory=lambda: (time.perf_counter(), time.process_time()), init=False)

    def __post_init__(self) -> None:
        self._ahead = ReadAhead(self.loading)

    # --- what a study says

    @property
    @abstractmethod
    def unit(self) -> str:
        """What progress counts."""

    @property
    @abstractmethod
    def each(self) -> float:
        """Units of one checkpoint."""

    @abstractmethod
    def result(self) -> Result:
        """Of the checkpoints taken so far; CheckpointError where none could be."""

    @abstractmethod
    def _measure(self, job: Job, snapshot: Snapshot, listener: Listener) -> Answer:
        """One checkpoint."""

    @abstractmethod
    def _shared(self, job: Job) -> dict[str, Any]:
        """The protocol but for the checkpoint, with its hash."""

    @abstractmethod
    def _records_folder(self, job: Job) -> Path:
        """Of the run that this job is of."""

    def _estimate(self, job: Job) -> Estimate:
        """Of all checkpoints, by the job of the first."""
        return replace(estimate(job, len(self.snapshots)), protocol=self._shared(job))

    def _prepare(self) -> None:  # noqa: B027
        """What comes before the first checkpoint of a run."""

    def _begin(self, job: Job) -> None:  # noqa: B027
        """What comes before anything is computed of the first checkpoint."""

    def _arranged(self, job: Job) -> Job:
        """The job as the study runs it."""
        return job

    def _is_whole(self, taken: Taken, snapshot: Snapshot) -> bool:
        """Whether all that belongs to a record is there."""
        return True

    def _forget(self) -> None:  # noqa: B027
        """Remove what is of no use to a later run."""

    # --- all at once

    @property
    def total(self) -> float:
        """What progress counts up to."""
        return self.each * len(self.snapshots)

    @property
    def is_series(self) -> bool:
        """Whether there are several checkpoints, of which one may be left out."""
        return len(self.snapshots) > 1

    def warnings(self) -> list[str]:
        """Lines for a person, before the run."""
        left = (f"left out: {why}" for why in self.left_out.values())
        return [*too_few(self.settings, self.source), *left]

    def run(self, folder: Path | None, listener: Listener) -> Finished:
        """Take all snapshots, each being read while the one before it is computed.

        Args:
            folder: Where records are kept, else in the cache.
            listener: Hears of snapshots that were left out, and of the protocol as soon as it is known.

        Raises:
            CheckpointError: If none could be taken, or the first that could not where settings are strict.
        """
        self.folder, self.listener, self._is_run = folder, listener, True
        self._prepare()
        for snapshot, taken in self.take_all(self.snapshots):
            if taken is None:
                listener.warn(f"left out: {self.left_out[snapshot.path]}")
        return Finished(self.result(), self._forget)

    def take_all(self, snapshots: Sequence[Snapshot]) -> Iterator[tuple[Snapshot, Taken | None]]:
        """`take` one after the other; each is read while the one before it is computed."""
        for snapshot, following in zip_longest(snapshots, snapshots[1:]):
            self._following = following
            yield snapshot, self.take(snapshot, self.network)

    def estimate(self) -> Estimate:
        """What `run` would take, by a short measurement with the first checkpoint; nothing is written."""
        return self._estimate(self._first(self.settings))

    # --- one at a time

    def leave_out(self, left: Iterable[LeftOut]) -> None:
        """Note what cannot be taken; CheckpointError if the settings are strict."""
        for entry in left:
            if self.settings.strict:
                raise CheckpointError(entry.why)
            self.left_out[entry.path] = entry.why

    def take(self, snapshot: Snapshot, network: Denoiser | None = None) -> Taken | None:
        """Measure a checkpoint, or find its record; None where it had to be left out, with the reason in `left_out`.

        Args:
            snapshot: Where it lies and how far training was.
            network: Of a checkpoint that is in memory; it has no record.
        """
        self.left_out.pop(snapshot.path, None)
        self._advanced = 0.0
        taken = self._attempt(snapshot, network)
        if (rest := self.each - self._advanced) > 1e-9 * self.each:
            self.listener.skip(rest)
        if taken is not None:
            self.taken[snapshot.path] = snapshot, taken
        return taken

    def in_order(self) -> list[tuple[Snapshot, Taken]]:
        """What was taken so far, by rising step."""
        return sorted(self.taken.values(), key=lambda entry: entry[0].order)

    def _attempt(self, snapshot: Snapshot, network: Denoiser | None) -> Taken | None:
        for other, _ in self.taken.values():
            if other.step == snapshot.step is not None and other.path != snapshot.path:
                why = f"{snapshot.path}: {other.path} stands at step {snapshot.step}"
                self.leave_out([LeftOut(snapshot.path, why)])
                return None
        try:
            return self._live(snapshot, network) if network is not None else self._stored(snapshot)
        except SHARED_FAULTS:
            raise
        except OWN_FAULTS as error:
            # Before anything is known of the run, a fault may be that of the settings.
            if len(self.snapshots) == 1 or (self.protocol is None and not isinstance(error, CheckpointError)):
                raise
            why = str(error) if snapshot.path in str(error) else f"{snapshot.path}: {error}"
            self.leave_out([LeftOut(snapshot.path, why)])
            return None

    def _first(self, settings: Settings) -> Job:
        checkpoint = self.snapshots[0].path if self.network is None else self.network
        return self._arranged(open_job(checkpoint, self.source, settings, self.loading))

    def _live(self, snapshot: Snapshot, network: Denoiser) -> Taken:
        job = self._opened(open_job(network, self.source, self.settings, self.loading, self._encoder))
        return self._fresh(job, snapshot, sha=None)

    def _stored(self, snapshot: Snapshot) -> Taken:
        # Which records are this run's is known once the first checkpoint is open; until then there is none to look up.
        sha = self._ahead.sha256(snapshot.path)
        if self._records is not None:
            self._read_following()
            if (found := self._recorded(sha, snapshot)) is not None:
                return found
        checkpoint, denoiser = self._ahead.loaded(snapshot.path)
        first = self._records is None
        job = self._opened(job_of(checkpoint, denoiser, self.source, self.settings, self.loading, self._encoder))
        self._read_following()
        found = self._recorded(sha, snapshot) if first else None
        return self._fresh(job, snapshot, sha) if found is None else found

    def _opened(self, job: Job) -> Job:
        """As the study runs it; ProtocolMismatch where it is another network than the first one."""
        job = self._arranged(job)
        shared = self._shared(job)
        if self.protocol is None:
            self._records = Records(self._records_folder(job), self.listener.say)
            self.protocol, self._encoder = shared, job.denoiser.encoder
            self.listener.agree(shared)
            for line in cautions(job) if self._is_run else ():
                self.listener.warn(line)
            self._begin(job)
        require_equal(self.protocol, shared, (), "the first checkpoint and this one")
        return job

    def _fresh(self, job: Job, snapshot: Snapshot, sha: str | None) -> Taken:
        """Measured now; its record is written unless there is no `sha` of a file."""
        listener = replace(self.listener, advance=self._advance, skip=self._skip)
        answer, data, forget = self._measure(job, snapshot, listener)
        about = described_checkpoint(job)
        about["step"] = about["step"] if snapshot.step is None else snapshot.step
        taken = Taken(about, data, answer, job.denoiser.warnings, fresh=True)

        def keep() -> None:
            if sha is not None:
                assert self._records is not None
                self._records.write(sha, taken.to_json())
            forget()

        world().lead(keep)
        return taken

    def _recorded(self, sha: str, snapshot: Snapshot) -> Taken | None:
        records = self._records
        assert records is not None
        record = world().lead(lambda: records.read(sha))
        # Those of an earlier version have other keys: they are made again.
        taken = Taken.from_json(record) if record is not None and "answer" in record else None
        return taken if taken is not None and self._is_whole(taken, snapshot) else None

    def _read_following(self) -> None:
        """Begin with the next checkpoint, if that has not been done."""
        following, self._following = self._following, None
        if following is not None:
            self._ahead.start(following.path, self._is_recorded)

    def _is_recorded(self, sha: str) -> bool:
        """As far as this process can see."""
        return self._records is not None and self._records.read(sha) is not None

    def _advance(self, units: float) -> None:
        self._advanced += units
        self.listener.advance(units)

    def _skip(self, units: float) -> None:
        self._advanced += units
        self.listener.skip(units)

    # --- for the result

    def _place(self) -> Path:
        return self.folder or cache_folder()

    def _head(self) -> dict[str, Any]:
        """The first fields of the result; CheckpointError where no checkpoint could be taken."""
        if not self.taken:
            raise CheckpointError(next(iter(self.left_out.values()), "no checkpoint to measure"))
        ordered = self.in_order()
        first = ordered[0][1]
        several = self.is_series or len(ordered) > 1
        return {
            "checkpoint": common_checkpoint(first.about, [s.path for s, _ in ordered]) if several else first.about,
            "data": {**first.data, "path": self.source.path},
            "protocol": self.protocol,
            "warnings": first.warnings,
            "timing": self._timing(ordered),
        }

    def _checkpoints(self) -> list[dict[str, Any]]:
        """Path, sha256 and step of each that was taken, then path and reason of the others."""
        return [
            *(
                {"path": s.path, "sha256": taken.about["sha256"], "step": s.step, "step_unit": s.unit}
                for s, taken in self.in_order()
            ),
            *({"path": path, "why": why} for path, why in sorted(self.left_out.items())),
        ]

    def _timing(self, ordered: Sequence[tuple[Snapshot, Taken]]) -> dict[str, Any]:
        fresh = sum(taken.fresh for _, taken in ordered)
        return {
            "seconds": round(time.perf_counter() - self._start[0], 3),
            "cpu_seconds": round(time.process_time() - self._start[1], 3),
            "snapshots_measured": fresh,
            "snapshots_resumed": len(ordered) - fresh,
        }
