"""Parts of a result as Markdown, for the summary of a CI run: it survives whatever a name holds."""

from __future__ import annotations

from collections.abc import Iterable

from diffscope.names import visible
from diffscope.report import streams
from diffscope.report.parts import Facts, Part, Table, Text


def document(title: str, parts: Iterable[Part]) -> str:
    """A heading, then tables and paragraphs; plots of characters are left out."""
    blocks = [[f"### {escaped(title)}"], *map(_block, parts)]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _block(part: Part) -> list[str]:
    if isinstance(part, Table):
        return _table(part)
    if isinstance(part, Text):
        heading = f"**{escaped(part.heading)}** " if part.heading else ""
        return [f"- {'' if i else heading}{escaped(line)}" for i, line in enumerate(part.lines)]
    return [f"- {escaped(name)}: {escaped(value)}" for name, value in part.pairs] if isinstance(part, Facts) else []


def _table(table: Table) -> list[str]:
    marks = [":---" if heading in table.left else "---:" for heading in table.headings]
    lines = [_line(map(escaped, table.headings)), _line(marks), *(_line(map(escaped, row)) for row in table.rows)]
    title = [f"**{escaped(table.title)}**", ""] if table.title else []
    beneath = ["", *(f"- {escaped(line)}" for line in table.beneath)] if table.beneath else []
    return [*title, *lines, *beneath]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """On one line, without what Markdown would take for its own: no name makes a link or a picture of itself."""
    text = visible(" ".join(streams.translate(text).split()))
    for mark in "\\|<>*`[]":
        text = text.replace(mark, f"\\{mark}")
    return text
