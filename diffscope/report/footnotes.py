"""Notes of a table's rows: letters in the row, and beneath the table a line for each letter, however many have it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from string import ascii_lowercase

from diffscope.report.cells import code, sentences
from diffscope.results import Row


def noted(rows: Iterable[Row]) -> dict[str, Callable[[Row], str]]:
    """The column of a table that marks notes, each kind by a letter that `footnotes` explains; none without notes."""
    marks = _marks(rows)
    return {"notes": lambda row: " ".join(dict.fromkeys(marks[code(note)] for note in row.notes))} if marks else {}


def footnotes(rows: Iterable[Row]) -> list[str]:
    """What stands beneath the table: a line for each letter."""
    rows = list(rows)
    lines = sentences(note for row in rows for note in row.notes)
    return [f"({mark}) {line}" for mark, line in zip(_marks(rows).values(), lines, strict=True)]


def _marks(rows: Iterable[Row]) -> dict[str, str]:
    """Kind of note → letter, in the order in which they appear."""
    codes = dict.fromkeys(code(note) for row in rows for note in row.notes)
    return {code: ascii_lowercase[i % 26] * (i // 26 + 1) for i, code in enumerate(codes)}
