"""What the measuring commands do with a job: progress on stderr, the result on stdout and on disk, gates."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffscope.cli.output import print_json, print_line, reader_may_leave
from diffscope.errors import StoreError

WINDOW_KEYS = (
    *("icr", "sigma", "t", "low", "high", "sigma_error", "practical_low", "practical_high", "lowest_sigma"),
    "window",
)
"""What a gate on a sweep may ask of a layer's window."""

if TYPE_CHECKING:
    from diffscope.checkpoints import Checkpoint
    from diffscope.cli.gates import Gate
    from diffscope.cli.several import Several
    from diffscope.measure.job import Job
    from diffscope.results import Result, Shown
    from diffscope.studies.sweep.shards import Shard


def run_and_report(
    job: Job,
    command: str,
    gates: Sequence[Gate],
    out: Path | None,
    json: bool,
    quiet: bool = False,
    overwrite: bool = False,
    self_check: bool = False,
    several: Several | None = None,
) -> None:
    """Measure, print, write, then hold the gates; with several values of a setting, all of this once for all."""
    from diffscope.measure.memory import total_passes
    from diffscope.measure.progress import Listener
    from diffscope.report import terminal
    from diffscope.studies.sweep.sweep import sweep
    from diffscope.studies.sweep.variation import measure_all, vary

    variation = None if several is None else vary(job, several.key, several.values)
    for line in warnings_of(job):
        terminal.warn(line)
    prepare(out, job.protocol.to_json() if variation is None else variation.protocol, overwrite)
    passes = total_passes(job) if variation is None else sum(map(total_passes, variation.jobs))
    with terminal.progress(passes, command, unit="passes") as advance:
        listener = Listener(advance, terminal.note)
        if variation is None:
            result, measured = sweep(job, command, listener, out, self_check)
            parts = [measured.parts]
        else:
            result, parts = measure_all(variation, command, listener, out, self_check)
    others_leave()
    deliver(result, out, json, quiet)
    # Only now: until the result is out, its blocks are all there is of the work.
    for finished in parts:
        finished.clear()
    check_gates(gates, result)


def run_shard(job: Job, command: str, shard: Shard, out: Path) -> None:
    """Measure some of the blocks, and leave them in `out` for `diffscope merge`."""
    from diffscope.measure.progress import Listener
    from diffscope.report import terminal
    from diffscope.studies.sweep.shards import measure_shard

    for line in warnings_of(job):
        terminal.warn(line)
    prepare(out, job.protocol.to_json(), overwrite=False)
    with terminal.progress(shard.passes(job), command, unit="passes") as advance:
        blocks = measure_shard(job, shard, command, out, Listener(advance, terminal.note))
    others_leave()
    print_line(f"{out}  shard {shard}: blocks {', '.join(map(str, blocks))} of {job.blocks}")
    terminal.note(f"when all {shard.count} are there: diffscope merge FOLDERS... --out DIR")


def deliver(result: Result, out: Path | None, json: bool, quiet: bool) -> None:
    """Files, then what stdout is for."""
    from diffscope.report import terminal

    tell_skipped(result)
    if out is not None:
        for path in result.save(out):
            terminal.note(f"wrote {path}")
    print_result(result, json, quiet, pictured=out is not None)
    summarise_for_github(result)


def print_result(shown: Shown, json: bool, quiet: bool = False, pictured: bool = False) -> None:
    """What stdout is for: one JSON document, numbers with their names, or all there is to see."""
    from diffscope.report.terminal import stdout_console
    from diffscope.report.views.base import view_of

    with reader_may_leave():
        if json:
            print_json(shown.to_json())
        elif quiet:
            for line in view_of(shown).quiet(shown):
                print_line(line)
        else:
            view_of(shown).show(shown, stdout_console(), pictured)


def gates_of(command: str, texts: Sequence[str] | None) -> list[Gate]:
    """UsageError where one asks for what the command's result does not have."""
    from diffscope.cli.gates import parse
    from diffscope.measure.rows import row_keys

    keys = row_keys() if command == "icr" else WINDOW_KEYS
    return [parse(text, keys) for text in texts or []]


def check_gates(gates: Sequence[Gate], result: Result) -> None:
    """GateHeld; of `icr` each row is looked at, of `sweep` each layer's window."""
    from diffscope.cli.gates import check

    if result.command == "icr":
        check(gates, [row.to_json() for row in result.rows])
    else:
        check(gates, [vars(window) for window in result.window])


def warnings_of(job: Job) -> list[str]:
    """What a user should know before the run."""
    from diffscope.measure.cautions import cautions, too_few

    return [*cautions(job), *too_few(job.settings, job.source)]


def others_leave() -> None:
    """The end for all processes but the first, which has the result to write."""
    import typer

    from diffscope.ranks import world

    if not world().leads:
        raise typer.Exit(0)


def prepare(out: Path | None, protocol: Mapping[str, Any], overwrite: bool) -> None:
    """StoreError where `out` cannot be written to or holds a result of another protocol."""
    from diffscope.ranks import world

    if out is None:
        return

    def look() -> None:
        prepare_folder(out)
        if not overwrite:
            refuse_other_protocol(protocol, out)

    world().lead(look)


def prepare_folder(out: Path) -> None:
    """Now, so that a place that cannot be written to costs no measurement; StoreError."""
    import tempfile

    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except FileExistsError:
        raise StoreError(
            f"--out {out}: a file of that name is there; expected a folder, new or old: choose another"
        ) from None
    except OSError as error:
        raise StoreError(f"--out {out}: cannot be written to: {error.strerror or error}; choose another") from None


def refuse_other_protocol(protocol: Mapping[str, Any], out: Path) -> None:
    """StoreError where `out` holds a result that depends on something else: it would be lost in silence."""
    from diffscope.errors import DataError
    from diffscope.results import read_record

    path = out / "result.json"
    if not path.exists():
        return
    try:
        earlier = read_record(str(path)).get("protocol", {})
    except DataError as error:
        raise StoreError(f"{error}; it would be replaced: choose another --out, or --overwrite") from None
    _require_same(earlier, protocol, path, "--out")


def _require_same(earlier: Mapping[str, Any], protocol: Mapping[str, Any], path: Path, option: str) -> None:
    from diffscope.errors import ProtocolMismatch
    from diffscope.protocol import require_equal

    try:
        require_equal(earlier, protocol, (), f"{path} and this run")
    except ProtocolMismatch as error:
        reason = str(error).split("; measure both")[0]
        raise StoreError(f"{reason}; choose another {option}, or --overwrite") from None


def refuse_other_features(protocol: Mapping[str, Any], output: Path) -> None:
    """StoreError where the file is there already and holds no features, or those of another protocol."""
    import json

    from diffscope.ranks import world

    def look() -> None:
        if (metadata := _metadata(output)) is not None:
            if "protocol" not in metadata:
                raise StoreError(
                    f"{output}: there already, and not made by features; choose another -o, or --overwrite"
                )
            _require_same(json.loads(metadata["protocol"]), protocol, output, "-o")

    world().lead(look)


def refuse_other_weights(checkpoint: Checkpoint, output: Path) -> None:
    """StoreError where the file is there already and was not converted from the same weights."""
    metadata = _metadata(output)
    if metadata is None:
        return
    same = {"source_sha256": checkpoint.sha256(), "weights": checkpoint.weights}
    if not same.items() <= metadata.items():
        raise StoreError(f"{output}: there already, and made from other weights; choose another name, or --overwrite")


def _metadata(path: Path) -> dict[str, str] | None:
    """Of a safetensors file, nothing where it is none; None where nothing is there."""
    if not path.exists():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def tell_skipped(result: Result) -> None:
    from diffscope.report import terminal

    skipped = result.data["skipped"]
    if skipped:
        terminal.warn(f"{len(skipped)} unreadable images were left out; the first: {skipped[0]['why']}")


def summarise_for_github(result: Result) -> None:
    """A Markdown table in the job summary of GitHub Actions."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if not summary:
        return
    from diffscope.report import terminal
    from diffscope.report.views.base import view_of

    try:
        with open(summary, "a", encoding="utf-8") as file:
            file.write(view_of(result).markdown(result))
    except OSError as error:
        terminal.warn(f"GITHUB_STEP_SUMMARY {summary}: cannot be written: {error.strerror or error}")
