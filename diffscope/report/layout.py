"""Parts of a result in a terminal: as wide as it is, with no word broken, whatever its encoding.

A table that is too wide goes without some columns, and where that is not enough each of its rows becomes a record:
`key: value`, side by side as far as they fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text as Styled

from diffscope.report.parts import Facts, Part, Plots, Table, Text, groups
from diffscope.report.streams import carry, one_line

READABLE = 100
"""Columns of a paragraph, however wide the window."""
BETWEEN = "   "
"""Two columns of a table."""
INDENT = 2
"""Blanks before what goes on from the line above."""


def show(parts: Iterable[Part], console: Console) -> None:
    """Prints parts, an empty line between two."""
    told: set[str] = set()
    for i, part in enumerate(parts):
        if i:
            console.print()
        if isinstance(part, Table):
            _table(part, console, told)
        else:
            _SHOWN[type(part)](part, console)


def _table(table: Table, console: Console, told: set[str]) -> None:
    """`told`: what has been said beneath other tables, and is not said again."""
    if table.title:
        _bold(table.title, console)
    table = _carried(table, console)
    fitting, dropped = _fitting(table, console.width)
    beneath = [f"Left out at this width: {', '.join(dropped)}."] if fitting is not None and dropped else []
    if fitting is None:
        for line in _records(table, console.width):
            console.print(Styled(line), soft_wrap=True)
    else:
        for i, line in enumerate(_grid(fitting)):
            console.print(Styled(carry(line, console.encoding), "" if i else "bold"), soft_wrap=True)
    for line in [*beneath, *table.beneath]:
        if line not in told:
            _wrapped(line, console)
        told.add(line)


def _carried(table: Table, console: Console) -> Table:
    """With cells that the stream can show, none of more than a line."""

    def carried(cells: Iterable[str]) -> list[str]:
        return [one_line(cell, console.encoding) for cell in cells]

    together = [carried(columns) for columns in table.dropped_first]
    rows = [carried(row) for row in table.rows]
    return Table(
        carried(table.headings), rows, carried(table.left), carried(table.once), table.gaps, together, table.beneath
    )


def _fitting(table: Table, width: int) -> tuple[Table | None, list[str]]:
    """The table with as many columns as have room, and the headings of the others; None where it does not fit."""
    dropped: list[str] = []
    for together in ([], *table.dropped_first):
        dropped += [heading for heading in together if heading in table.headings]
        kept = [i for i, heading in enumerate(table.headings) if heading not in dropped]
        rows = [[row[i] for i in kept] for row in table.rows]
        narrow = Table([table.headings[i] for i in kept], rows, table.left, table.once, table.gaps)
        if sum(_widths(narrow)) + len(BETWEEN) * (len(kept) - 1) <= width:
            return narrow, dropped
    return None, dropped


def _widths(table: Table) -> list[int]:
    return [max(map(cell_len, cells)) for cells in zip(table.headings, *table.rows, strict=True)]


def _grid(table: Table) -> Iterator[str]:
    """The heading, a rule, and a line a row."""
    widths = _widths(table)

    def line(cells: Sequence[str]) -> str:
        pairs = zip(table.headings, cells, widths, strict=True)
        padded = [_padded(cell, width, heading in table.left) for heading, cell, width in pairs]
        return BETWEEN.join(padded).rstrip()

    yield line(table.headings)
    yield "─" * (sum(widths) + len(BETWEEN) * (len(widths) - 1))
    for start, end in groups(table.common):
        if table.gaps and start and end > start + 1:
            yield ""
        for i in range(start, end):
            hidden = table.once if i > start else ()
            shown = zip(table.headings, table.rows[i], strict=True)
            yield line(["" if heading in hidden else cell for heading, cell in shown])


def _padded(cell: str, width: int, left: bool) -> str:
    blanks = " " * (width - cell_len(cell))
    return cell + blanks if left else blanks + cell


def _records(table: Table, width: int) -> Iterator[str]:
    """Each row as `key: value`, side by side; what does not fit goes on below, a little to the right."""
    for row in table.rows:
        pairs = [
            f"{heading}: {cell}" if heading else cell for heading, cell in zip(table.headings, row, strict=True) if cell
        ]
        yield from _flowed(pairs, width, BETWEEN)


def _flowed(words: Iterable[str], width: int, between: str = " ") -> Iterator[str]:
    """Words filled into lines, those after the first indented; a pair too long for a line is filled by its words."""
    line = blanks = ""
    for word in words:
        if line and cell_len(line) + len(between) + cell_len(word) <= width:
            line += between + word
            continue
        if line:
            yield line
            blanks = " " * INDENT
        line = blanks + word
        if cell_len(line) > width and " " in word:
            *whole, last = _flowed(word.split(), width - len(blanks))
            yield from (blanks + part for part in whole)
            line, blanks = blanks + last, " " * INDENT
    if line:
        yield line


def _text(text: Text, console: Console) -> None:
    for i, line in enumerate(text.lines):
        _wrapped(line, console, "" if i else text.heading)


def _wrapped(text: str, console: Console, heading: str = "") -> None:
    """For reading; a heading stands at its beginning in bold."""
    start = one_line(heading, console.encoding) + " " if heading else ""
    whole = Styled.assemble((start, "bold"), one_line(text, console.encoding), overflow="ignore")
    for line in whole.wrap(console, min(console.width, READABLE)):
        line.rstrip()
        console.print(line, soft_wrap=True)


def _facts(facts: Facts, console: Console) -> None:
    """What does not fit goes on below, beside the names."""
    width = max(cell_len(name) for name, _ in facts.pairs) + 2
    for name, value in facts.pairs:
        said = Styled(one_line(value, console.encoding), overflow="ignore")
        for i, line in enumerate(said.wrap(console, max(console.width - width, 1))):
            line.rstrip()
            head = "" if i else name
            console.print(Styled(f"{head:<{width}}") + line, soft_wrap=True)


def _plots(plots: Plots, console: Console) -> None:
    if console.width < plots.needed:
        _wrapped(f"No plot at this width: it takes {plots.needed} columns.", console)
        return
    for title, lines in plots.drawn.items():
        _bold(title, console)
        console.print(Styled(carry("\n".join(lines), console.encoding)), soft_wrap=True)
        console.print()
    for line in plots.legend:
        for filled in _flowed(carry(line, console.encoding).split(BETWEEN), console.width, BETWEEN):
            console.print(Styled(filled), soft_wrap=True)


def _bold(text: str, console: Console) -> None:
    _wrapped("", console, text)


_SHOWN: dict[type, Callable[[Any, Console], None]] = {Text: _text, Facts: _facts, Plots: _plots}
