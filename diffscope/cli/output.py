"""What goes to stdout beside tables: JSON, and the cases that nobody reads on or nothing can be written."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from diffscope.errors import StoreError
from diffscope.names import in_json
from diffscope.report import terminal
from diffscope.report.streams import one_line, silence
from diffscope.report.views.base import view_of
from diffscope.results import Record, Result

if TYPE_CHECKING:
    from typing_extensions import Buffer


def print_json(record: Mapping[str, Any]) -> None:
    """One document and nothing else; characters that the stream cannot carry are written as JSON escapes."""
    text = in_json(json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False))
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(record, indent=2, allow_nan=False)
    print(text)


def print_line(text: str) -> None:
    """With names from outside in it."""
    print(one_line(text, sys.stdout.encoding or "utf-8"))


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """What is printed inside has left before the files and gates that follow; a reader need not have read it all."""
    yield
    sys.stdout.flush()


class Stdout(io.FileIO):
    """File 1. That nobody reads on (`| head`) is no error; that it cannot be written is one of ours: StoreError."""

    def write(self, data: Buffer) -> int:
        """Writes bytes.

        Returns:
            How many were taken: all of them, where nobody reads on.

        Raises:
            StoreError: Where they cannot be written.
        """
        try:
            return super().write(data)
        except BrokenPipeError:
            silence(self.fileno())
            return memoryview(data).nbytes
        except OSError as error:
            silence(self.fileno())
            reason = error.strerror or str(error)
            raise StoreError(f"stdout: cannot be written: {reason}; send it elsewhere, or use --out DIR") from None


def prepare_streams() -> None:
    """Stdout as above; and in the place of `<&-`, `>&-` and `2>&-` something, lest the next file opened be stdout.

    A closed stdout then refuses like a full disk, once there is something to print; what is said on stderr is lost.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_WRONLY)
    old = sys.stdout
    if old is None or (isinstance(old, io.TextIOWrapper) and old.fileno() == 1):
        encoding, errors = ("utf-8", "strict") if old is None else (old.encoding, old.errors)
        at_once = False if old is None else old.line_buffering
        buffer = io.BufferedWriter(Stdout(1, "w", closefd=False))
        sys.stdout = io.TextIOWrapper(buffer, encoding, errors, line_buffering=at_once)
    if sys.stderr is None:
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), "utf-8", "backslashreplace", write_through=True)


def summarise_for_github(found: Result | Record) -> None:
    """A Markdown table in the job summary of GitHub Actions."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if not summary:
        return
    try:
        with open(summary, "a", encoding="utf-8") as file:
            file.write(view_of(found).markdown(found))
    except OSError as error:
        terminal.warn(f"GITHUB_STEP_SUMMARY {summary}: cannot be written: {error.strerror or error}")
