"""Streams that a user reads: results on stdout, everything else on stderr, with their width, encoding and colours."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console as Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from diffscope.report.streams import one_line, silence
from diffscope.report.text import number

UNBOUND = 1000
"""Columns where nobody has said how wide: a pipe or a file, whose reader should find whole rows."""

_drawing: list[Console] = []
"""The console with a progress bar on it, if any: other lines must pass through it, above the bar."""


def stdout_console() -> Console:
    """The console for results."""
    return _console(stderr=False)


def stderr_console() -> Console:
    """The console for all else; while a bar is drawn, that which draws it."""
    return _drawing[-1] if _drawing else _console(stderr=True)


def _console(stderr: bool) -> Console:
    """Rich honours FORCE_COLOR, TERM=dumb and COLUMNS; with NO_COLOR it would still write bold, so that is ours."""
    stream = sys.stderr if stderr else sys.stdout
    told = os.environ.get("COLUMNS", "").isdigit() or stream.isatty()
    return _Console(
        stderr=stderr,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        width=None if told else UNBOUND,
        markup=False,
        highlight=False,
        emoji=False,
    )


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would silence stdout, whichever stream it is that nobody reads, and end the process."""
        raise


def warn(text: str) -> None:
    """Says on one line of stderr what may be wrong."""
    _line("warning: ", "yellow", text)


def fail(text: str) -> None:
    """Says on one line of stderr what ended the run."""
    _line("error: ", "bold red", text)


def note(text: str) -> None:
    """Says on one line of stderr how the run goes on."""
    _line("", "", text)


def _line(prefix: str, style: str, text: str) -> None:
    """One line on stderr, however long: scripts and people search it."""
    console = stderr_console()
    try:
        console.print(Text.assemble((prefix, style), one_line(text, console.encoding)), soft_wrap=True)
    except OSError:  # nobody can be told; the exit code still says how it went
        silence(sys.stderr.fileno())


@contextmanager
def progress(
    total: float, description: str, unit: str = "images", shown: bool = True
) -> Iterator[Callable[[float], None]]:
    """Gives `advance(n)`; a bar with done/total, rate and time left, on a terminal or in a notebook, else nothing."""
    _end_waiting()
    console = stderr_console()
    terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    if not shown or not (terminal or console.is_jupyter) or _drawing:
        yield lambda n: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), _Rate(unit))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(one_line(description, console.encoding), total=total)
        _drawing.append(console)
        try:
            yield lambda n: bar.advance(task, n)
        finally:
            _drawing.pop()


PATIENCE, SILENCE = 1.0, 50.0
"""Seconds without a word: on a terminal, and in a log."""

_waited: list[tuple[threading.Event, threading.Thread]] = []
"""What ends the word of waiting, if it is being said, and who says it."""


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Says that something takes its time, where nobody knows how much of it is done.

    On a terminal it stands there after PATIENCE until the end or until a bar takes its place; in a log a line is
    written every SILENCE.

    Args:
        text: What is being done.
    """
    ended = threading.Event()
    teller = threading.Thread(target=_tell, args=(text, ended), daemon=True)
    _waited.append((ended, teller))
    teller.start()
    try:
        yield
    finally:
        _end_waiting()


def _end_waiting() -> None:
    while _waited:
        ended, teller = _waited.pop()
        ended.set()
        teller.join()


def _tell(text: str, ended: threading.Event) -> None:
    begin = time.monotonic()
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        while not ended.wait(SILENCE):
            note(f"{text}, for {time.monotonic() - begin:.0f} s so far")
        return
    if ended.wait(PATIENCE):
        return
    console = stderr_console()
    with console.status(one_line(text, console.encoding), spinner="line", refresh_per_second=1):
        _drawing.append(console)
        ended.wait()
        _drawing.remove(console)


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{number(speed)} {self.unit}/s")
