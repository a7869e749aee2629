"""What `neighbors` does with a study, and `demo` with its own: progress, pictures, the result, gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffscope.cli.gates import Gate, check
from diffscope.cli.output import print_json, print_numbers, reader_may_leave
from diffscope.cli.running import prepare_folder, refuse_other_protocol, tell_skipped, warnings_of
from diffscope.measure.progress import Listener
from diffscope.report import neighbors, terminal
from diffscope.report.files import write_with_pictures
from diffscope.results import TableResult
from diffscope.studies.neighbors.neighbors import Found, Study

GATE_KEYS = ("same_class", "same_class_se", "same_class_xi", "same_class_xi_se", "chance", "icr", "sigma", "step")


def run_and_report(
    study: Study, gates: Sequence[Gate], out: Path | None, json: bool, quiet: bool = False, overwrite: bool = False
) -> None:
    """Search, write, print, then hold the gates."""
    found = search(study, out, overwrite)
    result = found.result
    with reader_may_leave():
        if json:
            print_json(result.to_json())
        elif quiet:
            print_numbers(result.rows, "same_class")
        else:
            show(result, names=out is None)
    if out is None and not (json or quiet):
        terminal.note("no pictures without --out DIR")
    # Only now: until the result is out, what stands on disk is all there is of the work.
    found.clear()
    check(gates, [_gated(by_s, by_xi) for by_s, by_xi in zip(result.rows[::2], result.rows[1::2], strict=True)])


def search(study: Study, out: Path | None, overwrite: bool) -> Found:
    """Find the neighbours with progress on stderr, and write result and pictures."""
    for line in (*warnings_of(study.first), *(f"left out: {entry['why']}" for entry in study.left_out)):
        terminal.warn(line)
    if out is not None:
        prepare_folder(out)
        if not overwrite:
            refuse_other_protocol(study.protocol, out)
    with terminal.progress(study.passes, "neighbors", unit="passes") as advance:
        found = study.run(out, Listener(advance, terminal.note))
    tell_skipped(found.result)

    def draw_pictures(folder: Path) -> list[Path]:
        from diffscope.report.figures.neighbors import draw  # matplotlib takes a second to load

        return draw(found.result, found.pictures, folder)

    for path in [] if out is None else write_with_pictures(found.result, out, draw_pictures):
        terminal.note(f"wrote {path}")
    return found


def show(result: TableResult, names: bool) -> None:
    """Table and finding; with the neighbours' names between, where no picture shows them."""
    console = terminal.stdout_console()
    headings = neighbors.headings(result)
    terminal.print_table(headings, neighbors.cells(result), console, left=neighbors.LEFT)
    console.print()
    for sentence in neighbors.notes(result):
        terminal.print_text(sentence, console)
    for title, lines in neighbors.listing(result) if names else []:
        terminal.print_text(title, console)
        terminal.print_table(neighbors.listed(result), lines, console, left=neighbors.listed(result))
        console.print()
    if finding := neighbors.finding(result):
        terminal.print_text(finding, console)


def _gated(by_s: Mapping[str, Any], by_xi: Mapping[str, Any]) -> dict[str, Any]:
    """One checkpoint for the gates: `same_class` is that by s, which is meant to be high."""
    return {**by_s, "same_class_xi": by_xi["same_class"], "same_class_xi_se": by_xi["same_class_se"]}
