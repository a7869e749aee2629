"""What `inspect` found of files, kept so that it answers at once where they are as they were.

To find out imports torch, which takes seconds, and for some networks a library besides. A record stands under a digest
of all that it follows from: what was asked, the files as they stand (place, size, times, and the bytes at both ends,
where headers and lists of members with their checksums lie), and the program and its libraries. Whatever is wrong with
the cache itself costs the time of finding out again, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import diffscope
from diffscope.cache.sizes import keeps_nothing
from diffscope.cache.store import Record, Records, cache_folder
from diffscope.errors import StoreError

FOLDER = "inspect-records"
EDGE = 1 << 20
"""Bytes at either end of a file that are read: headers of safetensors have up to 2 MB, those of most a tenth of it."""
MOST_FILES = 200
"""Of a folder with more, nothing is kept: it is a whole run, and no checkpoint."""
MOST_RECORDS = 500
"""Those that were used longest ago make room for new ones; one has some 10 kB."""
SETTLED = 2.0
"""Seconds. A file that was written to so lately may be written to again within the resolution of its times."""
BESIDE = (
    "model_index.json", "scheduler_config.json", "scheduler/scheduler_config.json", "vae/config.json",
    "vqvae/config.json",
)  # fmt: skip
"""What is read of a pipeline, or of a run, whose network alone is given, one or two folders above it."""
LIBRARIES = ("torch", "diffusers", "transformers", "safetensors", "numpy")


@dataclass(frozen=True)
class Inspected:
    """The place of one record."""

    path: str
    asked: Mapping[str, Any]
    """All else that the record follows from, plain JSON."""
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
        if self.key is None:
            return None
        records = _records()
        found = records.read(self.key)
        if found is not None:
            records.touch(self.key)
        return found

    def write(self, found: Mapping[str, Any]) -> None:
        """Keeps what was found, unless the files have changed meanwhile, or the disk refuses."""
        if self.key is None or self.key != _key(self.path, self.asked):
            return
        try:
            _records().write(self.key, dict(found))
            _records().leave(MOST_RECORDS)
        except (StoreError, ValueError):  # a full disk; a number that is not finite
            return


def _records() -> Records:
    return Records(cache_folder() / FOLDER)


def _key(path: str, asked: Mapping[str, Any]) -> str | None:
    if keeps_nothing():
        return None
    try:
        files = _files(path)
        if not files or any(time.time() - os.stat(file).st_mtime < SETTLED for file in files):
            return None
        digest = hashlib.sha256(json.dumps([path, os.path.abspath(path), asked, _program()]).encode())
        for file in files:
            digest.update(_as_it_stands(file))
    except OSError:  # what reads it in earnest says why
        return None
    return digest.hexdigest()[:32]


def _files(path: str) -> list[str]:
    """The files that a checkpoint is made of, in order; none where it is none of this disk, or too many."""
    if os.path.isfile(path):
        return [path]
    inside: list[str] = []
    for place, folders, names in os.walk(path, followlinks=True):
        inside += [os.path.join(place, name) for name in names]
        if len(inside) + len(folders) > MOST_FILES:
            return []
    above = os.path.dirname(os.path.abspath(path))
    beside = [os.path.join(folder, *name.split("/")) for folder in (above, os.path.dirname(above)) for name in BESIDE]
    return [*sorted(inside), *(file for file in beside if inside and os.path.isfile(file))]


def _as_it_stands(path: str) -> bytes:
    """A digest of a file's place, size and times, and of the bytes at its ends."""
    with open(path, "rb", buffering=0) as file:
        told = os.fstat(file.fileno())
        stands = [path, told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns]
        digest = hashlib.sha256(json.dumps(stands).encode())
        digest.update(file.read(EDGE))
        file.seek(max(EDGE, told.st_size - EDGE))
        digest.update(file.read(EDGE))
    return digest.digest()


def _program() -> list[Any]:
    """The libraries, and the program as its files stand: a change of its code counts before its version does."""
    sources = sorted(_sources(os.path.dirname(diffscope.__file__)))
    return [diffscope.__version__, sys.version, [_version(name) for name in LIBRARIES], sources]


def _sources(folder: str) -> Iterator[tuple[str, int, int]]:
    """Place, size and time of each file of code."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _sources(entry.path)
            elif entry.name.endswith(".py"):
                yield entry.path, entry.stat().st_size, entry.stat().st_mtime_ns


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
