"""What goes to stdout beside tables: JSON, and the case that nobody reads on."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def print_json(record: Mapping[str, Any]) -> None:
    """One document and nothing else; characters that the stream cannot carry are written as JSON escapes."""
    text = json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(record, indent=2, allow_nan=False)
    print(text)


def print_numbers(rows: Iterable[Any], key: str) -> None:
    """One number of each row, a line each: what --quiet prints."""
    for row in rows:
        print("null" if row[key] is None else repr(row[key]))


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """`| head` may have enough of what is printed inside; files and gates that follow are none the less due."""
    try:
        yield
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # Rich makes the one into the other
        silence_stdout()


def silence_stdout() -> None:
    """Without this, Python complains of a closed pipe again when it closes the stream."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
