"""Ctrl-C and SIGTERM, from the first line of `main` to the last file written: one line, the exit code promised.

KeyboardInterrupt would be raised wherever Python is: in a library half imported, in a function called from C++, which
then ends the process, in a destructor, which swallows it. What stands on disk is whole at any moment (`store`), and
what is in work is removed by the next run: the process can end where it is.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""Exit codes; shells give the same, 128 + the signal's number, where a process does not answer it."""
INTERRUPTED = CODES[signal.SIGINT]
SAID = {
    signal.SIGINT: "interrupted; finished blocks are on disk, the same command goes on from there",
    signal.SIGTERM: "ended by SIGTERM; finished blocks are on disk, the same command goes on from there",
}
CLEAN_LINE = "\r\x1b[2K\x1b[?25h"
"""On a terminal: away with a progress bar, back with the cursor that it hid."""


def answer_signals() -> None:
    """Leave at once from now on; a signal that the caller has this process ignore, as nohup does, stays ignored."""
    for number in CODES:
        with suppress(ValueError):  # not the main thread: its signals are another's
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, _leave)


def ignore_signals() -> None:
    """All is done: too late to be interrupted."""
    for number in CODES:
        with suppress(ValueError):
            if signal.getsignal(number) is _leave:
                signal.signal(number, signal.SIG_IGN)


@contextmanager
def last_word() -> Iterator[None]:
    """Within, Ctrl-C is KeyboardInterrupt, for who has something to say then; a second one ends that as well."""
    answered = signal.getsignal(signal.SIGINT) is _leave
    if answered:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if answered:
            signal.signal(signal.SIGINT, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    # Past Python's own streams, which may be in the middle of something. Of several processes the first speaks.
    if os.environ.get("RANK", "0") == "0":
        with suppress(OSError, AttributeError, ValueError):
            stderr = sys.__stderr__.fileno()  # type: ignore[union-attr]
            start = CLEAN_LINE if os.isatty(stderr) and os.environ.get("TERM") != "dumb" else ""
            os.write(stderr, f"{start}{SAID[signal.Signals(number)]}\n".encode())
    os._exit(CODES[signal.Signals(number)])
