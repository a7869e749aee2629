"""One command in several processes, as torchrun starts it: all compute, the first reads, writes and prints."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from diffscope import ranks
from diffscope.errors import RankLost

GRACE = 2.0
"""Seconds."""
COMMANDS = ("icr", "sweep", "track", "probe", "features")


class Silence(io.TextIOBase):
    """Where processes write that are not to be heard; `behind` is where they may be, once."""

    def __init__(self, behind: TextIO) -> None:
        self.behind = behind

    def write(self, text: str) -> int:
        return len(text)


def run_together(argv: Sequence[str], run: Callable[[Sequence[str]], int]) -> int:
    """The exit code of `run` in this process; only the first is heard, but for the loss of another."""
    first = os.environ["RANK"] == "0"
    try:
        code = _run_joined(argv, run, first)
    except RankLost as lost:  # told to end where `run` no longer hears it
        _say(str(lost))
        code = lost.exit_code
    if code and not first:
        # torchrun ends all as soon as one fails: the first must have said why by then.
        time.sleep(GRACE)
    return code


def _run_joined(argv: Sequence[str], run: Callable[[Sequence[str]], int], first: bool) -> int:
    command = next((word for word in argv if not word.startswith("-")), "")
    if command not in COMMANDS:
        if first:
            _say(f"diffscope {command} runs in one process; torchrun serves {', '.join(COMMANDS)}")
        return 2
    try:
        ranks.join(_device(argv))
    except RankLost as lost:
        _say(str(lost))
        return 1
    signal.signal(signal.SIGTERM, _ended)
    try:
        if first:
            return run(argv)
        with contextlib.redirect_stdout(Silence(sys.stdout)), contextlib.redirect_stderr(Silence(sys.stderr)):
            return run(argv)
    finally:
        # It is ending already, with a reason of its own.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ranks.leave()


def _device(argv: Sequence[str]) -> str | None:
    """What the command will be told: processes meet before it is."""
    words = [part for word in argv for part in word.split("=", 1)]
    return words[words.index("--device") + 1] if "--device" in words[:-1] else os.environ.get("DIFFSCOPE_DEVICE")


def _ended(number: int, frame: object) -> None:
    raise RankLost("another process of this run has ended; what was finished is on disk, and the same command goes on")


def _say(text: str) -> None:
    from diffscope.report.terminal import fail

    fail(text)
