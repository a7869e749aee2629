"""What a stream can carry: text for a terminal that may know neither Greek nor box drawing.

Names of files, layers and classes come from outside; control characters in them would move the cursor or worse.
"""

from __future__ import annotations

import os
import re

SYMBOLS = "σξ±–◆●○│─┤└┬"

FALLBACK = str.maketrans(
    {
        **{"σ": "sigma", "ξ": "xi", "±": "+-", "–": "-", "−": "-", "×": "x", "²": "^2", "…": "...", "→": "->"},
        **{"◆": "*", "●": "#", "○": "o", "│": "|", "─": "-", "┤": "|", "└": "+", "┬": "+"},
    }
)
"""The plot's characters keep their width, or its columns would shift."""

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def carry(text: str, encoding: str) -> str:
    """The text as a stream of this encoding can show it."""
    text = CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    if not can_carry(encoding):
        text = text.translate(FALLBACK)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def one_line(text: str, encoding: str) -> str:
    """The same on a single line, whatever the text held."""
    return carry(" ".join(text.split()), encoding)


def can_carry(encoding: str) -> bool:
    try:
        SYMBOLS.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def silence(file: int) -> None:
    """What is written to it goes nowhere from now on; else Python complains again when it closes a stream."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, file)
    os.close(nowhere)
