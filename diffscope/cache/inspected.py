"""What `inspect` found of files, kept so that it answers at once where they are as they were.

To find out imports torch, which takes seconds, and for some networks a library besides. What was found stands under the
files as they are: place, size, times, and the bytes at both ends, where headers and lists of members with their
checksums lie.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffscope.cache.answers import Answers, key_of
from diffscope.cache.store import Record

KIND = "inspect-records"
EDGE = 1 << 20
"""Bytes at either end of a file that are read: headers of safetensors have up to 2 MB, those of most a tenth of it."""
MOST_FILES = 200
"""Of a folder with more, nothing is kept: it is a whole run, and no checkpoint."""
SETTLED = 2.0
"""Seconds. A file that was written to so lately may be written to again within the resolution of its times."""
BESIDE = (
    "model_index.json", "scheduler_config.json", "scheduler/scheduler_config.json", "vae/config.json",
    "vqvae/config.json",
)  # fmt: skip
"""What is read of a pipeline, or of a run, whose network alone is given, one or two folders above it."""


@dataclass(frozen=True)
class Inspected:
    """The place of what was found of one checkpoint."""

    path: str
    asked: Mapping[str, Any]
    """How it is read, plain JSON."""
    key: str | None
    """None where nothing is kept of it."""

    @staticmethod
    def of(path: str, asked: Mapping[str, Any]) -> Inspected:
        """Looks at the files, as they are before anything else reads them.

        Args:
            path: A checkpoint on this disk; nothing is kept of any other.
            asked: How it is read, plain JSON.
        """
        return Inspected(path, asked, _key(path, asked))

    def read(self) -> Record | None:
        """What was found; None where it has to be found out."""
        return None if self.key is None else Answers(KIND).recall(self.key)

    def write(self, found: Mapping[str, Any]) -> None:
        """Keeps what was found, plain JSON, unless the files have changed meanwhile."""
        if self.key is not None and self.key == _key(self.path, self.asked):
            Answers(KIND).keep(self.key, dict(found))


def _key(path: str, asked: Mapping[str, Any]) -> str | None:
    try:
        files = _files(path)
        if not files or any(time.time() - os.stat(file).st_mtime < SETTLED for file in files):
            return None
        return key_of(path, os.path.abspath(path), asked, [_as_it_stands(file) for file in files])
    except OSError:  # what reads it in earnest says why
        return None


def _files(path: str) -> list[str]:
    """The files that a checkpoint is made of, in order; none where it is none of this disk, or too many."""
    if os.path.isfile(path):
        return [path]
    inside: list[str] = []
    for place, folders, names in os.walk(path, followlinks=True):
        inside += [os.path.join(place, name) for name in names]
        if len(inside) + len(folders) > MOST_FILES:
            return []
    if not all(map(os.path.isfile, inside)):  # opened, a pipe would wait for ever
        return []
    above = os.path.dirname(os.path.abspath(path))
    beside = [os.path.join(folder, *name.split("/")) for folder in (above, os.path.dirname(above)) for name in BESIDE]
    return [*sorted(inside), *(file for file in beside if inside and os.path.isfile(file))]


def _as_it_stands(path: str) -> list[Any]:
    """A file's place, size and times, and a digest of the bytes at its ends."""
    with open(path, "rb", buffering=0) as file:
        told = os.fstat(file.fileno())
        digest = hashlib.sha256(file.read(EDGE))
        file.seek(max(EDGE, told.st_size - EDGE))
        digest.update(file.read(EDGE))
    return [path, told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns, digest.hexdigest()]
