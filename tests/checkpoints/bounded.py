"""Reads checkpoints as `diffscope inspect` does, each in a process that may take no more than is promised."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

SECONDS = 5
BYTES = 10**9
"""Beyond the program itself, with twice the file's size on top."""

# One process has imported everything; a copy of it reads each file and leaves what it found in a file of its own.
SCRIPT = """
import json, os, resource, sys, warnings
import numpy, torch
from diffscope import families, registry
from diffscope.checkpoints import read
from diffscope.errors import DiffscopeError
registry.load('diffscope.families')
warnings.simplefilter('error')
seconds, allowed = int(sys.argv[1]), int(sys.argv[2])
for path in sys.argv[3:]:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        continue
    with open('/proc/self/statm') as file:
        pages = int(file.read().split()[0])
    limit = pages * resource.getpagesize() + allowed + 2 * os.stat(path).st_size
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    try:
        families.load(read(path, outline=True))
        said = ''
    except DiffscopeError as error:
        said = str(error)
    except BaseException as error:
        said = f'foreign {type(error).__name__}: {error}'
    with open(path + '.said', 'w') as file:
        json.dump(said, file)
    os._exit(0)
"""


@dataclass(frozen=True)
class Ending:
    said: str | None
    """Empty where the file was read; None where the process was ended, for it took too long or too much."""


def read_each(paths: Sequence[Path], seconds: int = SECONDS, allowed: int = BYTES) -> dict[str, Ending]:
    """How reading each file ended, by the file's name."""
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("needs /proc to know the size of the process")
    command = [sys.executable, "-c", SCRIPT, str(seconds), str(allowed), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return {path.name: _ending(path) for path in paths}


def _ending(path: Path) -> Ending:
    said = path.with_name(path.name + ".said")
    return Ending(json.loads(said.read_text()) if said.exists() else None)


def assert_refused(ending: Ending, words: str = "") -> None:
    assert ending.said, "read" if ending.said == "" else "no end"
    assert not ending.said.startswith("foreign ")
    assert "MemoryError" not in ending.said
    assert ending.said.isprintable()
    assert words in ending.said
