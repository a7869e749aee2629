"""Snapshots as they appear in a folder, never a half-written one.

A file counts as whole where it has not changed from one look to the next, or for as long. A writer that pauses longer
leaves a file that cannot be read yet: it is looked at again when it has changed.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from diffscope.errors import DiffscopeError
from diffscope.measure.snapshots import in_folder
from diffscope.results import OnsetRow

Stamp = tuple[tuple[str, int, int], ...]
"""Name, size and time of the last change in ns, of a file or of all files of a folder."""


@dataclass
class Watch:
    """Knows which files of a folder are whole and new.

    Attributes:
        folder: Where they appear.
        every: Seconds between two looks.
        weights: Which are read of a run that has several: ema or model.
    """

    folder: str
    every: float
    weights: str = "ema"
    _seen: dict[str, Stamp] = field(default_factory=dict, init=False)
    _given: dict[str, Stamp] = field(default_factory=dict, init=False)

    def look(self) -> list[str]:
        """Checkpoints that are whole now and were not given before, or have changed since; by name."""
        now = {path: _stamp(path) for path in in_folder(self.folder, self.weights)}
        whole = [path for path, stamp in now.items() if stamp and (stamp == self._seen.get(path) or self._old(stamp))]
        fresh = [path for path in whole if now[path] != self._given.get(path)]
        self._seen = now
        self._given |= {path: now[path] for path in fresh}
        return fresh

    def _old(self, stamp: Stamp) -> bool:
        return time.time() - max(changed for _, _, changed in stamp) / 1e9 > self.every


def _stamp(path: str) -> Stamp:
    """Empty where it is gone again."""
    files = [path]
    if os.path.isdir(path):
        files = sorted(os.path.join(place, name) for place, _, names in os.walk(path) for name in names)
    try:
        return tuple((file, status.st_size, status.st_mtime_ns) for file in files for status in [os.stat(file)])
    except OSError:
        return ()


class OnOnset:
    """Runs the user's command for what has newly turned, once for each layer and noise level."""

    def __init__(self, command: str | None) -> None:
        self.command = command
        self._told: set[tuple[str | None, float | None]] = set()

    def act(self, judged: Sequence[OnsetRow]) -> None:
        """Runs it in a shell, with DIFFSCOPE_STEP and its like set; what it prints goes to stderr.

        Raises:
            DiffscopeError: Where it fails.
        """
        for row in judged:
            place = (row.layer, row.sigma)
            if self.command is None or row.state != "turned" or place in self._told:
                continue
            self._told.add(place)
            about = {"STEP": row.fired_at, "KEEP": row.keep, "KEEP_STEP": row.keep_step, "LAYER": row.layer}
            named = {f"DIFFSCOPE_{key}": "" if value is None else str(value) for key, value in about.items()}
            done = subprocess.run(self.command, shell=True, env=os.environ | named, stdout=2, check=False)
            if done.returncode:
                raise DiffscopeError(f"`on_onset='{self.command}'` ended with exit code {done.returncode}")
