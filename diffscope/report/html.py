"""A result in a notebook: its first lines, a table of its rows, and its picture. All text from outside is escaped."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from diffscope.names import visible
from diffscope.report.cells import NULL, number

if TYPE_CHECKING:
    from diffscope.report.figures.canvas import Figure

ROWS = 40
"""Lines of a table that are still read."""


def page(lines: str, records: Sequence[Mapping[str, Any]], figure: Figure | None) -> str:
    """HTML of a result.

    Args:
        lines: What it is, where, and the verdict.
        records: Its rows; the first ROWS are shown, and of their values words and numbers.
        figure: Its picture, if it has one.
    """
    parts = [f"<div>{'<br>'.join(map(_text, lines.splitlines()))}</div>"]
    parts += [_table(records)] if records else []
    if figure is not None:
        from diffscope.report.figures import canvas

        parts.append(f'<img src="data:image/png;base64,{b64encode(canvas.png(figure)).decode()}" alt="">')
    return "\n".join(parts)


def _table(records: Sequence[Mapping[str, Any]]) -> str:
    shown = records[:ROWS]
    keys = dict.fromkeys(
        key for record in shown for key, value in record.items() if not isinstance(value, (list, dict))
    )
    head = "".join(f"<th>{_text(key)}</th>" for key in keys)
    lines = ["".join(f"<td>{_text(_cell(record.get(key)))}</td>" for key in keys) for record in shown]
    more = f"<div>{len(shown)} of {len(records)} rows</div>" if len(records) > len(shown) else ""
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>{more}"


def _cell(value: Any) -> str:
    if value is None:
        return NULL
    return number(value, 4) if isinstance(value, float) else str(value)


def _text(text: str) -> str:
    return escape(visible(text))
