"""What lies in the cache folder, and its removal: sets of latents, parts of unfinished runs, records of finished ones.

Names that diffscope does not give are left alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from diffscope import locks
from diffscope.cache import latents

LATENTS = "latents"
"""The folder of all sets, within the cache folder."""

KINDS = {
    "parts-": "unfinished run",
    "track-": "track records",
    "memorization-": "memorization records",
    "neighbors-": "neighbors records",
    "samples-": "samples",
    "features-": "features",
    "prompts-": "prompt embeddings",
    "inspect-": "what inspect found",
    "walked-": "layers of networks",
}
"""What a folder is, by how its name begins."""

IN_THE_MAKING = 3600.0
"""Seconds. Samples have no lock: where one was written so lately, more may be to come."""


@dataclass(frozen=True)
class Entry:
    """One folder of the cache."""

    kind: str
    """latents, or a value of KINDS."""
    folder: Path
    files: int
    nbytes: int
    used: float
    """Seconds since 1970."""
    about: Mapping[str, Any]
    """Of a set of latents: what it depends on, and how many `images` and `views`."""

    def to_json(self) -> dict[str, Any]:
        """As `diffscope cache ls --json` has it."""
        used = datetime.fromtimestamp(self.used, timezone.utc).isoformat(timespec="seconds")
        name = f"{LATENTS}/{self.folder.name}" if self.kind == LATENTS else self.folder.name
        return {"kind": self.kind, "name": name, "bytes": self.nbytes, "files": self.files, "used": used, **self.about}


@dataclass(frozen=True)
class Pruned:
    """What was removed, and what stays because a process uses it or it cannot be removed."""

    removed: list[Entry]
    held: list[Entry]
    """Were to be removed, but a process uses them, or may do so, or the disk refuses."""


def contents(folder: Path) -> list[Entry]:
    """All that is kept in the cache folder, what was used last first."""
    found = [_entry(LATENTS, path) for path in _folders(folder / LATENTS)]
    for path in _folders(folder):
        kind = next((kind for prefix, kind in KINDS.items() if path.name.startswith(prefix)), None)
        if kind is not None:
            found.append(_entry(kind, path))
    return sorted(found, key=lambda entry: (-entry.used, entry.folder.name))


def prune(folder: Path, older_than: float | None = None, max_bytes: int | None = None) -> Pruned:
    """Remove what was last used `older_than` seconds ago or earlier; then what was used longest ago, until `max_bytes`.

    What a process uses stays, and counts.
    """
    entries = contents(folder)
    total = sum(entry.nbytes for entry in entries)
    pruned, now = Pruned([], []), time.time()
    for entry in reversed(entries):
        too_old = older_than is not None and now - entry.used >= older_than
        too_much = max_bytes is not None and total > max_bytes
        if not (too_old or too_much):
            continue
        fresh = entry.kind == KINDS["samples-"] and now - entry.used < IN_THE_MAKING
        if not fresh and locks.remove(entry.folder):
            pruned.removed.append(entry)
            total -= entry.nbytes
        else:
            pruned.held.append(entry)
    return pruned


def _folders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []


def _entry(kind: str, path: Path) -> Entry:
    files = sum(1 for found in path.rglob("*") if found.is_file() and not locks.is_lock(found.name))
    about = latents.described(path) if kind == LATENTS else {}
    return Entry(kind, path, files, latents.nbytes(path), latents.last_used(path), about)
