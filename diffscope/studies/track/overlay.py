"""A column of numbers that the user has of the same run (FID, a memorization ratio) beside ICR over training.

Does the column turn where ICR turns, and how much earlier or later? Spearman, "The proof and measurement of association
between two things", 1904, https://doi.org/10.2307/1412159: the correlation of ranks asks for no common unit and no
straight line.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from diffscope.errors import DataError
from diffscope.names import read_cell
from diffscope.numerics import rank_correlation
from diffscope.results import Overlay, OverlayAgainst
from diffscope.textfile import read_text

Points = tuple[tuple[int, float], ...]
"""(step, value), by rising step."""

STEP = "step"


class IcrCurve(NamedTuple):
    """ICR of one layer at one noise level over a run, by rising step."""

    layer: str | None
    """None of all layers and levels pooled."""
    sigma: float | None
    steps: Sequence[int]
    icr: Sequence[float | None]
    turn: int | None
    """Index of the snapshot where it turns; None where it does not."""


def read_columns(path: str) -> dict[str, Points]:
    """The columns of a CSV file with a header, or of the records under "rows" of a `.json` file, by name.

    One column is called `step` (in any case) and holds whole numbers. The others hold numbers; empty cells and what is
    not finite are no points. Columns with other words are left out. Raises DataError where no column is left, or where
    a step comes twice.
    """
    rows = _json_rows(path) if path.lower().endswith(".json") else _csv_rows(path)
    columns: dict[str, list[tuple[int, float]]] = {}
    words: set[str] = set()
    for number, row in enumerate(rows, start=1):
        step = _step(path, number, row)
        for name, cell in row.items():
            if name.lower() == STEP:
                continue
            try:
                value = _number(cell)
            except ValueError:
                words.add(name)
                continue
            if value is not None:
                columns.setdefault(name, []).append((step, value))
    found = {name: _by_step(path, name, points) for name, points in columns.items() if name not in words}
    if not found:
        names = ", ".join(dict.fromkeys(name for row in rows for name in row)) or "none"
        raise DataError(f"{path}: no column of numbers beside '{STEP}' (columns: {names}); expected one such as fid")
    return found


def _csv_rows(path: str) -> list[dict[str, Any]]:
    try:
        # "utf-8-sig": spreadsheets write a mark before the first name.
        table = io.StringIO(read_text(path, "utf-8-sig", piped=True), newline="")
        lines = [[read_cell(cell) for cell in line] for line in csv.reader(table) if any(map(str.strip, line))]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; expected a CSV file with a column '{STEP}'") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}: not a CSV file ({error}); expected text with a header and a column '{STEP}'"
        ) from None
    header = [name.strip() for name in lines[0]] if lines else []
    _require_step(path, header)
    if twice := _twice(header):
        raise DataError(f"{path}: two columns '{twice[0]}'; expected each name once; rename one")
    # Cells beyond the header have no name, and a short line lacks its last ones.
    return [dict(zip(header, line, strict=False)) for line in lines[1:]]


def _json_rows(path: str) -> list[dict[str, Any]]:
    try:
        record = json.loads(read_text(path, piped=True))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; expected a result with steps") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not JSON; expected records with '{STEP}' under \"rows\"") from None
    rows = record.get("rows") if isinstance(record, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: no list of records under \"rows\"; expected records with '{STEP}' and numbers")
    _require_step(path, list(dict.fromkeys(name for row in rows for name in row)))
    return rows


def _require_step(path: str, names: Sequence[str]) -> None:
    count = sum(name.lower() == STEP for name in names)
    if count != 1:
        listed = ", ".join(names) or "none"
        found = f"{count} columns" if count else "no column"
        raise DataError(f"{path}: {found} '{STEP}' (columns: {listed}); expected one; rename the header")


def _step(path: str, number: int, row: Mapping[str, Any]) -> int:
    cell = next((cell for name, cell in row.items() if name.lower() == STEP), None)
    try:
        step = _number(cell)
    except ValueError:
        step = None
    if step is None or step != int(step):
        raise DataError(f"{path}: step {cell!r} in row {number}; expected a whole number; correct or remove the row")
    return int(step)


def _number(cell: object) -> float | None:
    """None for an empty cell and what is not finite; ValueError for words, truth values and lists."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    if isinstance(cell, bool) or not isinstance(cell, (str, int, float)):
        raise ValueError(cell)
    value = float(cell)
    return value if math.isfinite(value) else None


def _by_step(path: str, name: str, points: list[tuple[int, float]]) -> Points:
    if twice := _twice([step for step, _ in points]):
        raise DataError(f"{path}: two values of '{name}' at step {twice[0]}; expected one; keep one row for each step")
    return tuple(sorted(points))


def _twice(values: Sequence[Any]) -> list[Any]:
    """Those that stand there more than once, in ascending order."""
    return sorted(value for value, count in Counter(values).items() if count > 1)


def read_chosen(path: str | None, names: Sequence[str]) -> dict[str, Points] | None:
    """The columns of a file that were asked for, all of them where none is named; None without a file."""
    return None if path is None else dict(chosen(read_columns(path), names, path))


def chosen(columns: Mapping[str, Points], names: Sequence[str], path: str) -> dict[str, Points]:
    """These columns, with what says how sure they are; all where none is named. DataError where one is not there."""
    for name in names:
        if name not in columns:
            raise DataError(f"{path}: no column of numbers '{name}'; expected one of {', '.join(columns)}")
    wanted = {end for name in names for end in (name, *_ends(name), f"{name}_se")}
    return {name: points for name, points in columns.items() if not names or name in wanted}


def compare_all(columns: Mapping[str, Points], series: Sequence[IcrCurve]) -> tuple[Overlay, ...]:
    """Every column but those that say how sure another one is: `share_low` and `share_high`, `fd_se`."""
    beside = {end for name in columns for end in (*_ends(name), f"{name}_se")}
    found = []
    for name, points in columns.items():
        if name not in beside:
            low, high = _interval(name, columns)
            found.append(replace(compare(name, points, series), low=low, high=high))
    return tuple(found)


def _interval(name: str, columns: Mapping[str, Points]) -> tuple[Points, Points]:
    """Its own ends, else 1.96 standard errors to either side where there are any."""
    low, high = (columns.get(end, ()) for end in _ends(name))
    if low or high:
        return low, high
    errors = dict(columns.get(f"{name}_se", ()))
    known = [(step, value, 1.96 * errors[step]) for step, value in columns[name] if step in errors]
    return tuple((step, value - e) for step, value, e in known), tuple((step, value + e) for step, value, e in known)


def _ends(name: str) -> tuple[str, str]:
    return f"{name}_low", f"{name}_high"


def compare(column: str, points: Points, series: Sequence[IcrCurve]) -> Overlay:
    """A column against ICR of each layer and noise level: rank correlation, and which of the two turns first."""
    turn = _turn_step(points)
    against = []
    for layer, sigma, steps, icr, icr_turn in series:
        values = dict(points)
        pairs = [
            (value, values[step])
            for step, value in zip(steps, icr, strict=True)
            if value is not None and step in values
        ]
        lead = None
        if turn is not None and icr_turn is not None:
            nearest = min(range(len(steps)), key=lambda index: abs(steps[index] - turn))
            lead = nearest - icr_turn
        against.append(OverlayAgainst(layer, sigma, len(pairs), rank_correlation(pairs), lead))
    return Overlay(column, points, turn, tuple(against))


def _turn_step(points: Points) -> int | None:
    """The step after which a column leaves its minimum for the first time: a ratio of 0, 0, 0, .03 turns at the last 0.

    None where that is its first or last point, before or beyond which nothing is known.
    """
    values = [value for _, value in points]
    if not values:
        return None
    turn = values.index(min(values))
    while turn + 1 < len(values) and values[turn + 1] == values[turn]:
        turn += 1
    return points[turn][0] if 0 < turn < len(values) - 1 else None
