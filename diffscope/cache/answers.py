"""Small answers that take long to find, kept in the cache folder under all that they follow from.

The program is among that, as its files stand, and so are its libraries. Whatever is wrong with the cache itself costs
the time to find an answer again, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import diffscope
from diffscope.cache.sizes import keeps_nothing
from diffscope.cache.store import Record, Records, cache_folder
from diffscope.errors import StoreError

LIBRARIES = ("torch", "diffusers", "transformers", "safetensors", "numpy")
MOST = 500
"""Answers of a kind. Those that were used longest ago make room for new ones; one has some 10 kB."""


class Answers:
    """All answers of one kind.

    Args:
        kind: Name of their folder.
    """

    def __init__(self, kind: str) -> None:
        self.records = Records(cache_folder() / kind)

    def recall(self, key: str) -> Record | None:
        """What was kept; None where there is nothing, it is damaged, or nothing is to be kept."""
        if keeps_nothing():
            return None
        found = self.records.read(key)
        if found is not None:
            self.records.touch(key)
        return found

    def keep(self, key: str, answer: Mapping[str, Any]) -> None:
        """Keeps an answer, plain JSON; not where the disk refuses, or nothing is to be kept."""
        if keeps_nothing():
            return
        try:
            self.records.write(key, answer)
            self.records.leave(MOST)
        except StoreError:
            return  # it is found again


def key_of(*facts: Any) -> str:
    """A digest of what an answer follows from, and of the program.

    Args:
        facts: Plain JSON.

    Returns:
        32 hexadecimal digits.
    """
    return hashlib.sha256(json.dumps([*facts, program()]).encode()).hexdigest()[:32]


def program() -> list[Any]:
    """Versions, and the code as its files stand: a change of it counts before the version does."""
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
