"""One command in several processes, as torchrun starts them: all compute, the first reads, writes and prints."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from diffscope import ranks
from diffscope.commands.base import Command, commands
from diffscope.errors import RankLost, UsageError

GRACE = 2.0
"""Seconds."""


class Silence(io.TextIOBase):
    """Where processes write that are not to be heard; `behind` is where they may be, once."""

    def __init__(self, behind: TextIO) -> None:
        self.behind = behind

    def write(self, text: str) -> int:
        """Swallows it."""
        return len(text)


def run_together(argv: Sequence[str], run: Callable[[Sequence[str]], int]) -> int:
    """The exit code of `run` in this process; only the first is heard, but for the loss of another."""
    first = os.environ["RANK"] == "0"
    try:
        if first:
            code = run(argv)
        else:
            with contextlib.redirect_stdout(Silence(sys.stdout)), contextlib.redirect_stderr(Silence(sys.stderr)):
                code = run(argv)
    except RankLost as lost:  # told to end where `run` no longer hears it
        from diffscope.report.terminal import fail

        fail(str(lost))
        code = lost.exit_code
    finally:
        # It is ending already, with a reason of its own.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if code and not first:
        # torchrun ends all as soon as one fails: the first must have said why by then.
        time.sleep(GRACE)
    return code


@contextlib.contextmanager
def joined(command: Command, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Within, the processes of this run know each other, if there are several.

    Raises:
        UsageError: Where the command is one that runs in one process.
        RankLost: Where the others do not come.
    """
    if not ranks.is_one_of_several():
        yield
        return
    if not command.distributed:
        known = ", ".join(name for name, one in commands().items() if one.distributed)
        raise UsageError(f"diffscope {command.name} runs in one process; torchrun serves {known}")
    ranks.join(getattr(arguments.get("settings"), "device", None))
    signal.signal(signal.SIGTERM, _ended)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ranks.leave()


def _ended(number: int, frame: object) -> None:
    raise RankLost("another process of this run has ended; what was finished is on disk, and the same command goes on")
