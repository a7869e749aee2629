"""What there is to see of a result, as data: tables, paragraphs, facts and plots of plain strings.

A view gives them in the order in which they are read, the verdict last. The terminal (`layout`), a notebook (`html`)
and the summary of a CI run (`markdown`) lay them out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from diffscope.report.text import code, sentences
from diffscope.results import Row

T = TypeVar("T")

MOST = 40
"""Lines of a table that a reader still reads."""

Columns = Mapping[str, Callable[[Any], str]]
"""Heading of a column → how a row fills it."""


@dataclass(frozen=True)
class Table:
    """Rows of cells under headings, all of them filled."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Collection[str] = ()
    """Columns of words, which begin at the left; numbers end at the right."""
    once: Collection[str] = ()
    """Columns that say what a group of rows has in common, and are left empty in all but its first."""
    gaps: bool = False
    """Whether groups of several rows stand apart."""
    dropped_first: Sequence[Collection[str]] = ()
    """Columns that a narrow terminal goes without, in this order."""
    beneath: Sequence[str] = ()
    """Lines beneath the table."""
    title: str = ""

    @property
    def common(self) -> list[tuple[str, ...]]:
        """Of each row, what its group has in common."""
        places = [i for i, heading in enumerate(self.headings) if heading in self.once]
        return [tuple(row[i] for i in places) for row in self.rows]


@dataclass(frozen=True)
class Text:
    """Paragraphs, each beginning on a line of its own; the heading stands at the beginning of the first."""

    lines: Sequence[str]
    heading: str = ""


@dataclass(frozen=True)
class Facts:
    """Names and what there is to say of each."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Plots:
    """Lines of characters under titles, with a legend for all of them."""

    drawn: Mapping[str, Sequence[str]]
    needed: int
    """Columns that the longest line takes."""
    legend: Sequence[str]


Part = Table | Text | Facts | Plots


def table(columns: Columns, rows: Iterable[Any], **look: Any) -> Table:
    """A table of rows, from what its columns show of one."""
    return Table(list(columns), [[show(row) for show in columns.values()] for row in rows], **look)


def few(items: Sequence[T], what: str, most: int = MOST) -> tuple[Sequence[T], list[str]]:
    """The first of a long table, and the line that says of how many they are."""
    return items[:most], rest(min(most, len(items)), len(items), what)


def rest(shown: int, whole: int, what: str) -> list[str]:
    """The line that says that a table is not the whole; none where it is."""
    return [f"{shown} of {whole} {what}; all are in result.json (--json)."] if shown < whole else []


class Notes:
    """Notes of rows as letters and footnotes; each is told once, wherever it stands."""

    def __init__(self, rows: Iterable[Row]) -> None:
        rows = list(rows)
        self._of_rows = [note for row in rows for note in row.notes]
        codes = dict.fromkeys(map(code, self._of_rows))
        self._marks = {code: "abcdefghijklmnopqrstuvwxyz"[i % 26] * (i // 26 + 1) for i, code in enumerate(codes)}
        self._told = set(self._of_rows)

    def column(self) -> dict[str, Callable[[Row], str]]:
        """The column of a table that marks notes by their letters; none without notes."""
        if not self._marks:
            return {}
        return {"notes": lambda row: " ".join(dict.fromkeys(self._marks[code(note)] for note in row.notes))}

    def footnotes(self) -> list[str]:
        """What stands beneath the table: a line for each letter."""
        lines = sentences(self._of_rows)
        return [f"({mark}) {line}" for mark, line in zip(self._marks.values(), lines, strict=True)]

    def new(self, notes: Iterable[str]) -> list[str]:
        """Of other notes, those that have not been told yet."""
        found = [note for note in dict.fromkeys(notes) if note not in self._told]
        self._told |= set(found)
        return sentences(found)


def groups(cells: Sequence[tuple[str, ...]]) -> Iterator[tuple[int, int]]:
    """Where rows with the same cells begin and end."""
    start = 0
    for i in range(1, len(cells) + 1):
        if i == len(cells) or cells[i] != cells[start]:
            yield start, i
            start = i
