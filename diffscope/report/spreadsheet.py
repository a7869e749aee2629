"""Rows as a table in a file: CSV for spreadsheets."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffscope.names import cell
from diffscope.results import HEAD


def write_csv(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes a line a row with the keys of `result.json`, as RFC 4180 has it; a null is an empty field.

    Lists (`replicates`) are left out, notes joined by "; ". Floats are written so that they read back unchanged. Words
    are written as `names.cell` has them.
    """
    columns, rows = cells(records)
    # the csv module ends lines itself, with CR LF; a file name that is not UTF-8 is still written
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def cells(records: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The headings and the rows of that table, as text."""
    keys = dict.fromkeys(key for record in records for key in record)
    listed = {key for record in records for key, value in record.items() if isinstance(value, (list, dict))}
    head = [key for key in HEAD if key in keys]
    rest = [key for key in keys if key not in {*head, *listed, "notes"}]
    columns = [*head, *rest, *(["notes"] if "notes" in keys else [])]
    return [cell(key) for key in columns], [[_field(record.get(key)) for key in columns] for record in records]


def _field(value: Any) -> str:
    if isinstance(value, float):  # most are
        return repr(value)
    if value is None:
        return ""
    if isinstance(value, list):
        return cell("; ".join(value))
    return cell(value) if isinstance(value, str) else str(value)
