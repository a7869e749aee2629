"""A result as a table in a file: CSV for spreadsheets, Markdown for the summary of a CI run."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffscope.names import cell, visible
from diffscope.report import training, variation, verdict
from diffscope.report.cells import COLUMNS
from diffscope.report.footnotes import footnotes, noted
from diffscope.results import HEAD, Result, Row


def write_csv(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes a line a row with the keys of `result.json`, as RFC 4180 has it; a null is an empty field.

    Lists (`replicates`) are left out, notes joined by "; ". Floats are written so that they read back unchanged. Words
    are written as `names.cell` has them.
    """
    keys = dict.fromkeys(key for record in records for key in record)
    listed = {key for record in records for key, value in record.items() if isinstance(value, (list, dict))}
    head = [key for key in HEAD if key in keys]
    rest = [key for key in keys if key not in {*head, *listed, "notes"}]
    columns = [*head, *rest, *(["notes"] if "notes" in keys else [])]
    # the csv module ends lines itself, with CR LF; a file name that is not UTF-8 is still written
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(map(cell, columns))
        writer.writerows([[_field(record.get(key)) for key in columns] for record in records])


def _field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return cell("; ".join(value))
    return repr(value) if isinstance(value, float) else cell(value) if isinstance(value, str) else str(value)


def markdown_table(result: Result) -> str:
    """Title, the table of rows, the verdict and the notes, for GITHUB_STEP_SUMMARY."""
    of_kind = _of_training if result.command == "track" else _of_members if result.varied else _of_levels
    columns, verdicts = of_kind(result)
    name = training.run_name(result) if result.command == "track" else str(result.checkpoint.get("path", ""))
    lines = [
        f"### diffscope {result.command}: {_cell(name)}",
        "",
        _line(list(columns)),
        _line([":---" if heading in LEFT else "---:" for heading in columns]),
        *(_line([_cell(show(row)) for show in columns.values()]) for row in result.rows),
    ]
    notes = [f"- {_cell(sentence)}" for sentence in footnotes(result.rows)]
    for block in (verdicts, notes):
        lines += ["", *block] if block else []
    return "\n".join(lines) + "\n"


LEFT = ("layer", "checkpoint", "mark", "augmentation", "notes")

Columns = dict[str, Callable[[Row], str]]


def _of_levels(result: Result) -> tuple[Columns, list[str]]:
    columns = {**COLUMNS, **noted(result.rows)}
    verdicts = [f"- **{_cell(w.layer)}**: {_cell(verdict.finding(result, w))}" for w in verdict.ranked(result)]
    return columns, verdicts


def _of_members(result: Result) -> tuple[Columns, list[str]]:
    columns, _ = _of_levels(result)
    verdicts = [f"- {_cell(f'{heading} {text}')}" for heading, text in variation.paragraphs(result)]
    return {variation.HEADING[result.varied or ""]: variation.member, **columns}, verdicts


def _of_training(result: Result) -> tuple[Columns, list[str]]:
    """The series stands in every line; after the verdicts the user's own columns and what was left out."""
    columns = {"layer": COLUMNS["layer"], "σ": COLUMNS["σ"], **training.columns(result)}
    verdicts = [
        f"- **{_cell(f'{training.place(onset)}: {training.HEADLINE[training.verdict(onset)]}')}**. "
        f"{_cell(training.finding(result, onset))}"
        for onset in training.by_urgency(result.onset)
    ]
    others = [*training.overlay_lines(result), *training.left_out(result)]
    return columns, [*verdicts, *(f"- {_cell(line)}" for line in others)]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """On one line, without what Markdown would take for its own."""
    text = visible(" ".join(text.split()))
    for mark in "\\|<>*`":
        text = text.replace(mark, f"\\{mark}")
    return text
