"""What a stream can carry: text for a terminal that may know neither Greek nor box drawing.

Names of files, layers and classes come from outside: what they would say to a terminal is escaped (`names`).
"""

from __future__ import annotations

import os
from collections.abc import Callable

from diffscope.names import visible

SYMBOLS = "σξ±–◆●○│─┤└┬"

FALLBACK = str.maketrans(
    {
        **{"σ": "sigma", "ξ": "xi", "±": "+-", "–": "-", "−": "-", "×": "x", "²": "^2", "…": "...", "→": "->"},
        **{"◆": "*", "●": "#", "○": "o", "│": "|", "─": "-", "┤": "|", "└": "+", "┬": "+"},
    }
)
"""The plot's characters keep their width, or its columns would shift."""


translate: Callable[[str], str] = str
"""Brings a text of the library into the words of who shows it: the command line has its flags here."""


def carry(text: str, encoding: str) -> str:
    """The text as a stream of this encoding can show it."""
    text = visible(translate(text), spared="\t\n")
    if not can_carry(encoding):
        text = text.translate(FALLBACK)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def one_line(text: str, encoding: str) -> str:
    """The same on a single line, whatever the text held."""
    return carry(" ".join(text.split()), encoding)


def can_carry(encoding: str) -> bool:
    """Whether an encoding has the characters of tables and plots."""
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
