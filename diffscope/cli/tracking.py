"""What `track` does with a run: all snapshots at once, or each as it appears."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from diffscope.cli import options
from diffscope.cli.gates import check, parse
from diffscope.cli.leaving import last_word
from diffscope.cli.output import print_line, reader_may_leave
from diffscope.cli.running import (
    others_leave,
    prepare_folder,
    print_result,
    refuse_other_protocol,
    summarise_for_github,
    tell_skipped,
)
from diffscope.errors import CheckpointError, DiffscopeError, UsageError
from diffscope.measure.opening import open_images
from diffscope.measure.progress import Listener, Progress
from diffscope.measure.rows import row_keys
from diffscope.measure.snapshots import LeftOut, Snapshot, check_series, snapshot_of, step_pattern
from diffscope.options.settings import Loading
from diffscope.ranks import world
from diffscope.report import terminal
from diffscope.report.words.training import training_line
from diffscope.results import OnsetRow, Result
from diffscope.studies.track import overlay as overlays
from diffscope.studies.track.onset import preset
from diffscope.studies.track.track import Tracker, open_track
from diffscope.studies.track.watch import Watch

HELD_OUT_KEYS = (
    "icr_holdout",
    "icr_holdout_low",
    "icr_holdout_high",
    "loss",
    "loss_se",
    "loss_holdout",
    "loss_holdout_se",
)


@dataclass
class Run:
    """What the user asked for."""

    measuring: options.Measuring
    step_from: str | None
    holdout: tuple[str | None, int | None]
    """The images that were not trained on, and how many."""
    overlay: Path | None
    column: Sequence[str]
    rule: str
    on_onset: str | None
    out: Path | None
    overwrite: bool
    json: bool
    quiet: bool
    fail_if: Sequence[str]
    told: set[tuple[str, float]] = field(default_factory=set, init=False)
    """Layers and noise levels whose onset has been acted on."""

    def __post_init__(self) -> None:
        keys = {*row_keys(), "step", *HELD_OUT_KEYS, "onset"}
        self.gates = [parse(text, keys) for text in self.fail_if]
        preset(self.rule, 0)
        step_pattern(self.step_from)
        self.columns = None
        if self.overlay is not None:
            path = str(self.overlay)
            self.columns = overlays.chosen(overlays.read_columns(path), self.column, path)
        if self.out is not None:
            world().lead(partial(prepare_folder, self.out))

    def tracker(self, paths: Sequence[str] | None) -> Tracker:
        """Of these paths; of what is to come where there are none."""
        m, (holdout, num_holdout) = self.measuring, self.holdout
        settings = m.settings()
        loading = Loading(m.family, options.key_values(m.config), m.weights, m.vae)
        source, held = open_images(settings, m.data), None if holdout is None else open_images(settings, holdout)
        if paths is not None:
            tracker = open_track(
                paths, source, settings, loading, holdout=held, num_holdout=num_holdout,
                step_from=self.step_from, rule=self.rule, columns=self.columns,
            )  # fmt: skip
        else:
            tracker = Tracker(
                source=source, settings=settings, loading=loading, holdout=held, num_holdout=num_holdout,
                rule="long" if self.rule == "auto" else self.rule, online=True, columns=self.columns or {},
            )  # fmt: skip
        for line in tracker.warnings():
            terminal.warn(line)
        return tracker

    def listener(self, advance: Callable[[float], None] = lambda units: None) -> Listener:
        return Listener(advance, terminal.note, terminal.warn, self.agree)

    def agree(self, protocol: Mapping[str, Any]) -> None:
        """StoreError where `out` holds something else: known from the first snapshot on, not only at the end."""
        if self.out is not None and not self.overwrite:
            world().lead(partial(refuse_other_protocol, protocol, self.out))

    def write(self, result: Result) -> list[Path]:
        return [] if self.out is None else result.save(self.out)

    def act(self, judged: Sequence[OnsetRow]) -> None:
        """Run the user's command for what has newly turned; DiffscopeError where it fails."""
        for row in judged:
            place = (row.layer, row.sigma)
            if self.on_onset is None or row.state != "turned" or place in self.told:
                continue
            self.told.add(place)
            about = {"STEP": row.fired_at, "KEEP": row.keep, "KEEP_STEP": row.keep_step, "LAYER": row.layer}
            named = {f"DIFFSCOPE_{key}": "" if value is None else str(value) for key, value in about.items()}
            # What it prints goes to stderr: stdout is for results.
            done = subprocess.run(self.on_onset, shell=True, env=os.environ | named, stdout=2, check=False)
            if done.returncode:
                raise DiffscopeError(f"--on-onset '{self.on_onset}' ended with exit code {done.returncode}")


def track_once(run: Run, paths: Sequence[str]) -> None:
    tracker = run.tracker(paths)
    with terminal.progress(len(tracker.snapshots), "track", unit="snapshots") as advance:
        heard = Progress(run.listener(advance), tracker.total, tracker.unit, lines=not sys.stderr.isatty())
        result = tracker.run(run.out, heard.listener).result
    others_leave()
    tell_skipped(result)
    for path in run.write(result):
        terminal.note(f"wrote {path}")
    _report(run, result)
    run.act(result.onset)
    check(run.gates, _last_rows(result), result.onset)


def follow(run: Run, folder: str, every: float) -> None:
    """Until a gate holds or the user interrupts; either way the result so far is reported."""
    if world().size > 1:
        raise UsageError("--watch: one process waits for snapshots; without torchrun, or without --watch")
    tracker, watch = run.tracker(None), Watch(folder, every)
    tracker.folder, tracker.listener = run.out, run.listener()
    terminal.note(f"watching {folder}: a snapshot is measured when it has not changed for {every:g} s; end with Ctrl-C")
    try:
        with last_word():
            _follow(run, tracker, watch, every)
    finally:
        if tracker.taken:
            _report(run, tracker.result())


def _follow(run: Run, tracker: Tracker, watch: Watch, every: float) -> None:
    while True:
        appeared = _appeared(run, tracker, watch)
        for snapshot in appeared:
            measured = tracker.take(snapshot)
            if measured is None:
                terminal.warn(f"left out, until it changes: {tracker.left_out[snapshot.path]}")
                continue
            result = tracker.result()
            if measured.fresh or snapshot is appeared[-1]:
                run.write(result)
            if not (run.json or run.quiet):
                rows = [row for row in result.rows if row.step == snapshot.step]
                with reader_may_leave():
                    for row in rows:
                        print_line(training_line(row, result.onset))
            run.act(result.onset)
            check(run.gates, _last_rows(result), result.onset)
        time.sleep(every)


def _appeared(run: Run, tracker: Tracker, watch: Watch) -> list[Snapshot]:
    """What has newly appeared, by step. The noise level is chosen on the first of them, if it must be."""
    found = []
    for path in watch.look():
        try:
            found.append(snapshot_of(path, step_pattern(run.step_from), run.measuring.weights))
        except CheckpointError as error:
            tracker.leave_out([LeftOut(path, str(error))])
            terminal.warn(f"left out, until it changes: {error}")
    found.sort(key=lambda snapshot: snapshot.order)
    if found and not tracker.taken:
        check_series(found)
        tracker.choose_level(found)
    return found


def _last_rows(result: Result) -> list[dict[str, Any]]:
    last = max(row.step or 0 for row in result.rows)
    return [row.to_json() for row in result.rows if row.step == last]


def _report(run: Run, result: Result) -> None:
    print_result(result, run.json, run.quiet, pictured=run.out is not None)
    summarise_for_github(result)
