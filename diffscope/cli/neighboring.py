"""What `neighbors` does with a study, and `demo` with its own: progress, pictures, the result, gates."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from diffscope.cli.gates import Gate, check
from diffscope.cli.running import prepare_folder, print_result, refuse_other_protocol, tell_skipped
from diffscope.measure.progress import Listener, Progress
from diffscope.measure.study import Finished
from diffscope.report import terminal
from diffscope.studies.neighbors.neighbors import Neighbors

GATE_KEYS = ("same_class", "same_class_se", "same_class_xi", "same_class_xi_se", "chance", "icr", "sigma", "step")


def run_and_report(
    study: Neighbors, gates: Sequence[Gate], out: Path | None, json: bool, quiet: bool = False, overwrite: bool = False
) -> None:
    """Search, write, print, then hold the gates."""
    found = search(study, out, overwrite)
    result = found.result
    print_result(result, json, quiet, pictured=out is not None)
    if out is None and not (json or quiet):
        terminal.note("no pictures without --out DIR")
    # Only now: until the result is out, what stands on disk is all there is of the work.
    found.forget()
    check(gates, [_gated(by_s, by_xi) for by_s, by_xi in zip(result.rows[::2], result.rows[1::2], strict=True)])


def search(study: Neighbors, out: Path | None, overwrite: bool) -> Finished:
    """Find the neighbours with progress on stderr, and write result and pictures."""
    for line in study.warnings():
        terminal.warn(line)
    if out is not None:
        prepare_folder(out)
    with terminal.progress(int(study.total), "neighbors", unit=study.unit) as advance:
        listener = Listener(advance, terminal.note, terminal.warn)
        if out is not None and not overwrite:
            listener.agree = partial(refuse_other_protocol, out=out)
        finished = study.run(out, Progress(listener, study.total, study.unit, not sys.stderr.isatty()).listener)
    tell_skipped(finished.result)
    for path in [] if out is None else finished.result.save(out):
        terminal.note(f"wrote {path}")
    return finished


def _gated(by_s: Mapping[str, Any], by_xi: Mapping[str, Any]) -> dict[str, Any]:
    """One checkpoint for the gates: `same_class` is that by s, which is meant to be high."""
    return {**by_s, "same_class_xi": by_xi["same_class"], "same_class_xi_se": by_xi["same_class_se"]}
