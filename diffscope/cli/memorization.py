"""What `memorization` does with its checkpoints, one after the other."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from diffscope.cli.gates import check, parse
from diffscope.cli.running import prepare_folder, print_result, refuse_other_protocol, tell_skipped
from diffscope.measure.opening import open_images
from diffscope.measure.progress import Listener, Progress
from diffscope.measure.snapshots import step_pattern
from diffscope.options.settings import Loading
from diffscope.report import terminal
from diffscope.studies.memorization.choices import Choices
from diffscope.studies.memorization.copies import measure_keys
from diffscope.studies.memorization.memorization import open_memorization


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
    source = open_images(run.choices.settings(1), run.data)
    if run.out is not None:
        prepare_folder(run.out)
    study = open_memorization(
        paths, source, run.choices, run.loading, step_from=run.step_from, save_samples=run.save_samples
    )
    for line in study.warnings():
        terminal.warn(line)
    with terminal.progress(int(study.total), "memorization", unit=study.unit) as advance:
        listener = Listener(advance, terminal.note, terminal.warn)
        if run.out is not None and not run.overwrite:
            listener.agree = partial(refuse_other_protocol, out=run.out)
        heard = Progress(listener, study.total, study.unit, lines=not sys.stderr.isatty())
        result = study.run(run.out, heard.listener).result
    tell_skipped(result)
    for path in [] if run.out is None else result.save(run.out):
        terminal.note(f"wrote {path}")
    print_result(result, run.json, run.quiet)
    check(run.gates, [{**row, "layer": _place(row)} for row in result.rows])


def _place(row: Mapping[str, Any]) -> str:
    return str(row["checkpoint"]) if row["step"] is None else f"step {row['step']}"
