"""What a child process takes that reads images, and how it ends where there is less memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

MEASURE = """
import json, resource, sys
from PIL import Image
from diffscope.errors import DiffscopeError
from diffscope.sources.base import Target, open_source

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) << 10

path, side, resize, first, options = json.loads(sys.argv[1])
Image.init()
before = peak()
said = []
try:
    source = open_source(path, **options)
    for index in range(len(source) if first is None else first):
        try:
            source.read(index, Target(side, 3, resize))
        except DiffscopeError as error:
            said.append(f"{type(error).__name__}: {error}")
except DiffscopeError as error:
    said.append(f"{type(error).__name__}: {error}")
print(json.dumps([peak() - before, said]))
"""


@dataclass(frozen=True)
class Reading:
    grown: int
    """Bytes of memory at the peak, beyond the program itself."""
    said: list[str]
    """What was refused."""


def read_all(
    path: object, side: int = 16, resize: str = "lanczos", first: int | None = None, **options: Any
) -> Reading:
    """Open a source in a process of its own and read every image of it, or the first few, in at most 60 s."""
    argument = json.dumps([str(path), side, resize, first, options])
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, argument],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return Reading(*json.loads(done.stdout))
