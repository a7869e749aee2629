"""What `memorization` does with its checkpoints, one after the other."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from diffscope.cli.gates import check, parse
from diffscope.cli.running import prepare_folder, print_result, refuse_other_protocol, tell_remaining, tell_skipped
from diffscope.measure.opening import open_images
from diffscope.measure.snapshots import step_pattern
from diffscope.options.settings import Loading
from diffscope.report import terminal
from diffscope.studies.memorization.choices import Choices
from diffscope.studies.memorization.copies import measure_keys
from diffscope.studies.memorization.memorization import Examination, Subject, find_subjects


@dataclass
class Run:
    """What the user asked for."""

    choices: Choices
    loading: Loading
    data: str
    step_from: str | None
    save_samples: bool
    out: Path | None
    overwrite: bool
    json: bool
    quiet: bool
    fail_if: Sequence[str]

    def __post_init__(self) -> None:
        keys = {"step", "samples", *measure_keys(self.choices.criterion)}
        self.gates = [parse(text, keys) for text in self.fail_if]
        step_pattern(self.step_from)


def examine(run: Run, paths: Sequence[str]) -> None:
    """Examine, print, write, then hold the gates."""
    examination = Examination(
        open_images(run.choices.settings(1), run.data),
        run.choices,
        run.loading,
        folder=run.out,
        save_samples=run.save_samples,
        say=terminal.note,
    )
    if run.out is not None:
        prepare_folder(run.out)
        if not run.overwrite:
            examination.agree = partial(refuse_other_protocol, out=run.out)
    subjects, left_out = find_subjects(paths, run.step_from, run.loading.weights)
    examination.expect(subjects)
    examination.leave_out(left_out)
    for entry in left_out:
        terminal.warn(f"left out: {entry.why}")
    with terminal.progress(run.choices.samples * len(subjects), "memorization", unit="samples") as advance:
        examination.progress = advance
        _take_all(examination, subjects)
    result = examination.result()
    for line in result.warnings:
        if run.choices.class_label == "null" or "null label" not in line:
            terminal.warn(line)
    tell_skipped(result)
    for path in [] if run.out is None else result.save(run.out):
        terminal.note(f"wrote {path}")
    print_result(result, run.json, run.quiet)
    check(run.gates, [{**row, "layer": _place(row)} for row in result.rows])


def _take_all(examination: Examination, subjects: Sequence[Subject]) -> None:
    """After the first that had to be examined, say how long the rest will take if that is more than a minute."""
    said = False
    for number, subject in enumerate(subjects, start=1):
        start, fresh = time.perf_counter(), examination.fresh
        if examination.take(subject) is None:
            terminal.warn(f"left out: {examination.left_out[subject.path]}")
        if examination.fresh > fresh and not said:
            said = True
            tell_remaining(len(subjects) - number, time.perf_counter() - start, "checkpoints")


def _place(row: Mapping[str, Any]) -> str:
    return str(row["checkpoint"]) if row["step"] is None else f"step {row['step']}"
