r"""Names from outside (of files, layers, classes, of what a checkpoint says of itself), as they are shown and stored.

Characters that nobody sees may say to a terminal where to write and in which colour, or let a name read backwards. They
are shown as escapes, like `\x1b`; in JSON as its own. A spreadsheet computes what begins like a formula: in a cell of
a CSV file an apostrophe stands before it, which `read_cell` takes off again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
"""C0 and C1 controls, marks and overrides of direction (Unicode Standard Annex 9), separators of lines, the BOM."""

HIDDEN_BUT_NEWLINES = re.compile(HIDDEN.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))
"""Large documents have millions of those."""

FORMULA = tuple("=+-@")


def visible(text: str, spared: str = "") -> str:
    r"""Replaces hidden characters by escapes such as `\x1b`.

    Args:
        text: A name from outside.
        spared: Hidden characters to leave as they are, such as "\n".

    Returns:
        The text without hidden characters but those spared.
    """
    return HIDDEN.sub(lambda found: found[0] if found[0] in spared else _escape(ord(found[0])), text)


def in_json(text: str) -> str:
    """Replaces hidden characters of a JSON document by JSON's own escapes, so that it reads back as it was.

    Args:
        text: The document; its newlines stay.

    Returns:
        The same document in printable characters.
    """
    return HIDDEN_BUT_NEWLINES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def cell(text: str) -> str:
    """Makes a text safe as a cell of a CSV file.

    Args:
        text: A name from outside.

    Returns:
        The text without hidden characters, behind an apostrophe where a spreadsheet would take it for a formula.
    """
    text = visible(text)
    return f"'{text}" if text.lstrip("'").startswith(FORMULA) else text


def read_cell(text: str) -> str:
    """Undoes `cell`.

    Args:
        text: A cell that `cell` made.

    Returns:
        What `cell` was given, except that hidden characters stay escaped.
    """
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(FORMULA) else text


def _escape(number: int) -> str:
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def first_few(names: Sequence[str], limit: int = 5) -> str:
    """Lists names, of many the first.

    Args:
        names: Those that a sentence speaks of.
        limit: How many are spelt out.

    Returns:
        "a, b, c", or "a, b and 7 more".
    """
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")
