"""One command in a child process under a limit of time and memory, and how it ended.

A server imports torch and diffscope once and forks for each case, so that a case costs milliseconds, begins in the same
state as the one before, and may be killed. Time is the child's CPU time: how busy the machine is does not count. Memory
is the growth of the child's resident set; its address space is limited as well, so that no case can hurt the machine.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 5
"""CPU time that a case may take."""
PATIENCE = 60.0
"""Seconds on the clock after which a case that waits for something is killed."""
MARGIN = 1 << 29
"""Bytes of address space beyond the budget: what is reserved and never touched."""
MOST_LINES = 12
"""On stderr: the command's own notes take fewer."""
PYTHONS = re.compile(r"\.py:\d+: \w*Warning|Traceback \(most recent|^\w*TIFF\w*:|: Warning, |^lib(png|tiff|jpeg)", re.M)
FOREIGN = re.compile(r"unexpected (\S+): .*this is a bug", re.S)
MEMORY = re.compile(r"MemoryError|out of memory|[Cc]annot allocate memory|not enough memory")
STOPPED = "Stack (most recent call first)"
"""What faulthandler writes before the lines where a process stood when its time was over."""
PLACE = re.compile(r'File "[^"]*?((?:diffscope|site-packages)/[^"]+)", line (\d+),? in (\S+)')
ERROR = re.compile(r"^([A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Warning|Mismatch))\b", re.M)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """Exit code, or the negative number of the signal that ended it."""
    seconds: float
    """Of CPU time."""
    grown: int
    """Bytes of memory at the most, beyond those of the program before it."""
    out: str
    err: str
    waited: bool = False
    """Killed because it did nothing for too long."""


@dataclass(frozen=True)
class Judged:
    fault: str | None
    """What is wrong, the same words for the same fault; None where all is well."""
    accepted: bool


class Server:
    """Forks a child for each case. `entry` is "module:function" with words as its argument; `warm` are commands that it
    runs before, each in its folder."""

    def __init__(
        self,
        entry: str = "diffscope.cli:main",
        warm: Sequence[tuple[str, Sequence[str]]] = (),
        patience: float = PATIENCE,
    ) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        for name in ("DIFFSCOPE_CACHE_SIZE", "DIFFSCOPE_DEVICE", "FORCE_COLOR", "COLUMNS", "GITHUB_STEP_SUMMARY"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.patience = patience
        self._ask({"entry": entry, "warm": [(folder, list(argv)) for folder, argv in warm]})

    def run(self, folder: Path, argv: Sequence[str], budget: int, debug: bool = False) -> Ended:
        """`argv` in `folder`, which may grow by `budget` bytes."""
        message = {"folder": str(folder), "argv": list(argv), "budget": budget, "debug": debug}
        return Ended(**self._ask({**message, "patience": self.patience}))

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the server of cases ended with {self.process.wait()}")
        found: dict[str, Any] = json.loads(answer)
        return found


def judge(ended: Ended, budget: int, expected: str | None = None) -> Judged:
    """`expected`: the rows that must be on stdout if the command ends well."""
    accepted = ended.code in (0, 3)
    said = ended.out + ended.err
    fault = None
    if ended.waited:
        fault = "waits for ever"
    elif ended.code == -signal.SIGXCPU or ended.seconds > SECONDS:
        fault = f"takes more than {SECONDS} s"
    elif ended.grown > budget or MEMORY.search(ended.err):
        fault = "takes more memory than its budget"
    elif ended.code < 0:
        fault = f"killed by {signal.Signals(-ended.code).name}"
    elif found := FOREIGN.search(ended.err):
        fault = f"foreign {found[1]}"
    elif ended.code not in (0, 1, 2, 3):
        fault = f"ends with exit code {ended.code}"
    elif found := PYTHONS.search(ended.err):
        fault = f"prints {found[0]}"
    elif ended.err.count("\n") > MOST_LINES:
        fault = f"prints more than {MOST_LINES} lines on stderr"
    elif not accepted and ended.err.count("error: ") != 1:
        fault = "does not say in one line why it failed"
    elif odd := {c for c in said if c != "\n" and not c.isprintable()}:
        fault = f"prints characters such as {min(odd)!a}"
    elif accepted and expected is not None and rows_of(ended.out) != expected:
        fault = "other numbers"
    return Judged(fault, accepted)


def rows_of(out: str) -> str:
    """The numbers of a result, without what differs from run to run; empty where there is none."""
    try:
        return json.dumps(json.loads(out)["rows"])
    except (ValueError, KeyError, TypeError):
        return ""


def place_of(traceback: str) -> str:
    """Where a traceback ends: our deepest line, and the exception."""
    lines = [(file, line, name) for file, line, name in PLACE.findall(traceback) if "cli/__init__" not in file]
    ours = [found for found in lines if found[0].startswith("diffscope")]
    deepest = 0 if STOPPED in traceback else -1
    file, line, name = (ours or lines or [("?", "?", "?")])[deepest]
    errors = ERROR.findall(traceback)
    return f"{errors[-1] if errors else 'no exception'} at {file}:{line} in {name}"


# The server's side


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path[0] = str(Path(__file__).parents[1])
    first = json.loads(sys.stdin.readline())
    module, _, function = first["entry"].partition(":")
    entry = getattr(importlib.import_module(module), function)
    for folder, argv in first["warm"]:
        _warm(entry, folder, argv)
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        print(json.dumps(_answer(entry, **message)), file=answers, flush=True)


def _warm(entry: Any, folder: str, argv: list[str]) -> None:
    """Run once what all children will need, so that they find it imported."""
    saved = [os.dup(number) for number in (1, 2)]
    with tempfile.TemporaryFile() as nowhere:
        for number in (1, 2):
            os.dup2(nowhere.fileno(), number)
        try:
            _enter(folder, debug=False)
            entry(argv)
        except SystemExit:
            pass
        finally:
            for number, kept in zip((1, 2), saved, strict=True):
                os.dup2(kept, number)
                os.close(kept)


def _enter(folder: str, debug: bool) -> None:
    os.chdir(folder)
    os.environ["DIFFSCOPE_CACHE_DIR"] = os.path.join(folder, "cache")
    os.environ.pop("DIFFSCOPE_DEBUG", None)
    if debug:
        os.environ["DIFFSCOPE_DEBUG"] = "1"


def _answer(entry: Any, folder: str, argv: list[str], budget: int, debug: bool, patience: float) -> dict[str, Any]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        ended, ours = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(ended)
            _child(entry, folder, argv, budget, debug, out.fileno(), err.fileno(), ours)
        os.close(ours)
        waited = not select.select([ended], [], [], patience)[0]
        before = os.read(ended, 100) if not waited else b""
        waited = waited or not select.select([ended], [], [], patience)[0]
        if waited:
            os.kill(pid, signal.SIGKILL)
        _, status, used = os.wait4(pid, 0)
        os.close(ended)
        grown = used.ru_maxrss * 1024 - int(before or 0)
        said = [_text(file.fileno()) for file in (out, err)]
    return {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": round(used.ru_utime + used.ru_stime, 3),
        "grown": grown,
        "out": said[0],
        "err": said[1],
        "waited": waited,
    }


def _child(entry: Any, folder: str, argv: list[str], budget: int, debug: bool, out: int, err: int, alive: int) -> None:
    """Never returns. `alive` tells the server how large the process is before the command, and closes with it."""
    code = 99
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, number in ((nothing, 0), (out, 1), (err, 2)):
            os.dup2(source, number)
        total, resident, *_ = (int(pages) * resource.getpagesize() for pages in _statm())
        resource.setrlimit(resource.RLIMIT_AS, (total + budget + MARGIN,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        faulthandler.register(signal.SIGXCPU, all_threads=False, chain=True)
        _enter(folder, debug)
        os.write(alive, str(resident).encode())
        try:
            entry(argv)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        except BaseException:
            import traceback

            traceback.print_exc()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code)


def _statm() -> list[str]:
    with open("/proc/self/statm") as file:
        return file.read().split()


def _text(number: int) -> str:
    """The first 10 MB of a file."""
    return os.pread(number, 10_000_000, 0).decode("utf-8", "backslashreplace")


if __name__ == "__main__":
    _serve()
