"""Processes that stand by, so that many runs of several processes cost one start of Python and torch each."""

from __future__ import annotations

import atexit
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from commands import Ran

LIMIT = 60.0
"""Seconds in which each run must end, also one that lost a process."""
NEEDED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GRACE")
GRACE = 0.05
"""Seconds that a process which failed leaves the first to speak: nobody ends them all here, as torchrun would."""
LOST = 99
"""Exit code of a process that ended by an exception that nobody expected."""


def together(size: int, *argv: object, **environment: str) -> list[Ran]:
    """One command line in `size` processes, as torchrun starts it; what a user sees of each, by rank."""
    return begin(size, *argv, **environment).end()


def alone(*argv: object) -> Ran:
    """The same in one of these processes, so that the number of threads is the same."""
    (ran,) = Run(_standing(1), [{"argv": list(map(str, argv)), "environment": {}}]).end()
    return ran


def begin(size: int, *argv: object, **environment: str) -> Run:
    return _begin(size, {"argv": list(map(str, argv))}, environment)


def call(size: int, function: str) -> list[Any]:
    """What `module:function` returns, as JSON, in each of `size` processes that have joined."""
    return [json.loads(ran.out.splitlines()[-1]) for ran in _begin(size, {"call": function}, {}).end()]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _begin(size: int, message: dict[str, Any], environment: dict[str, str]) -> Run:
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **environment}
    messages = [{**message, "environment": {"RANK": str(k), "LOCAL_RANK": str(k), **shared}} for k in range(size)]
    return Run(_standing(size), messages)


class Run:
    """A command that goes on."""

    def __init__(self, processes: list[_Process], messages: list[dict[str, Any]]) -> None:
        self.processes = processes
        self.start = time.monotonic()
        self.files = []
        for process, message in zip(processes, messages, strict=True):
            folder = Path(tempfile.mkdtemp(prefix="diffscope-tests-"))
            for name in ("out", "err"):
                (folder / name).touch()
            self.files.append(folder)
            process.tell({**message, "out": str(folder / "out"), "err": str(folder / "err")})

    def kill(self, rank: int) -> None:
        self.processes[rank].process.kill()

    def running(self) -> bool:
        return all(process.process.poll() is None and not process.answered() for process in self.processes)

    def end(self) -> list[Ran]:
        """Of each, in the order of ranks; -9 of one that was killed."""
        codes = [process.answer(self.start + LIMIT) for process in self.processes]
        return [
            Ran(code, (folder / "out").read_text("utf-8"), (folder / "err").read_text("utf-8"))
            for code, folder in zip(codes, self.files, strict=True)
        ]


@dataclass
class _Process:
    process: subprocess.Popen[str]

    def tell(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def answered(self, seconds: float = 0) -> bool:
        assert self.process.stdout is not None
        return bool(select.select([self.process.stdout], [], [], max(0.0, seconds))[0])

    def answer(self, until: float) -> int:
        """The exit code; AssertionError, and an end with this process, if there is none in time."""
        assert self.process.stdout is not None
        if not self.answered(until - time.monotonic()):
            self.process.kill()
            raise AssertionError(f"process {self.process.pid} did not end in {LIMIT:g} s")
        line = self.process.stdout.readline()
        return int(line) if line else self.process.wait()

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


_processes: list[_Process] = []


def _standing(size: int) -> list[_Process]:
    """That many that live: any of them may be of any rank."""
    _ended_with_us()
    for dead in [one for one in _processes if one.process.poll() is not None]:
        dead.close()
        _processes.remove(dead)
    environment = {key: value for key, value in os.environ.items() if key not in NEEDED}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    while len(_processes) < size:
        process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        _processes.append(_Process(process))
    return _processes[:size]


@cache
def _ended_with_us() -> None:
    @atexit.register
    def end() -> None:
        for one in _processes:
            one.process.kill()
            one.process.wait()
            one.close()


def _serve() -> None:
    """Command after command from stdin, each answered with its exit code; what it says goes to files."""
    answers = os.fdopen(os.dup(1), "w")
    import torch  # noqa: F401 (before the first command, which then finds it)

    for line in sys.stdin:
        message = json.loads(line)
        for number, name in ((1, "out"), (2, "err")):
            file = os.open(message[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, number)
            os.close(file)
        for name in NEEDED:
            os.environ.pop(name, None)
        os.environ.update(message["environment"])
        try:
            code = _called(message["call"]) if "call" in message else _commanded(message["argv"])
        except BaseException:
            traceback.print_exc()
            code = LOST
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.stdout.flush()
        sys.stderr.flush()
        print(code, file=answers, flush=True)


def _commanded(argv: list[str]) -> int:
    from diffscope.cli import distributed as served
    from diffscope.cli import main

    served.GRACE = float(os.environ.get("GRACE", GRACE))
    try:
        main(argv)
    except SystemExit as end:
        return int(end.code or 0)
    return LOST


def _called(name: str) -> int:
    from diffscope import ranks

    module, _, function = name.partition(":")
    ranks.join("cpu")
    try:
        print(json.dumps(getattr(importlib.import_module(module), function)()))
    finally:
        ranks.leave()
    return 0


if __name__ == "__main__":
    _serve()
