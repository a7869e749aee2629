"""A result in a notebook: its first lines, its table, and its picture. All text from outside is escaped."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from diffscope.names import visible
from diffscope.report.parts import Part, Table

if TYPE_CHECKING:
    from diffscope.report.figures.canvas import Figure


def page(lines: str, parts: Iterable[Part], figure: Figure | None) -> str:
    """HTML of a result.

    Args:
        lines: What it is, where, and the verdict.
        parts: What there is to read; the first table is shown.
        figure: Its picture, if it has one.

    Returns:
        A fragment that needs no other file and runs no script.
    """
    tables = (part for part in parts if isinstance(part, Table))
    blocks = ["<br>".join(map(_text, lines.splitlines())), *map(_table, [*tables][:1])]
    if figure is not None:
        from diffscope.report.figures import canvas  # matplotlib takes a second to load

        blocks.append(f'<img src="data:image/png;base64,{b64encode(canvas.png(figure)).decode()}" alt="">')
    return "\n".join(f"<div>{block}</div>" for block in blocks)


def _table(table: Table) -> str:
    def line(cells: Iterable[str], tag: str) -> str:
        sides = ("left" if heading in table.left else "right" for heading in table.headings)
        pairs = zip(cells, sides, strict=True)
        return "".join(f'<{tag} style="text-align: {side}">{_text(cell)}</{tag}>' for cell, side in pairs)

    rows = "".join(f"<tr>{line(row, 'td')}</tr>" for row in table.rows)
    beneath = "".join(f"<br>{_text(said)}" for said in table.beneath)
    return f"<table><tr>{line(table.headings, 'th')}</tr>{rows}</table>{beneath}"


def _text(text: str) -> str:
    return escape(visible(text))
