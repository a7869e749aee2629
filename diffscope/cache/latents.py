"""Latents on disk: the views of an image as a VAE encoded them, found again by what they were made of.

A *set* is one folder, named after a hash of all that its latents share (VAE, augmentation, seed, …): `latents.sqlite`,
which also says what these are, and the lock of those who use it. Within it a row stands under the digest of the image's
decoded pixels, its index in its source (which keys its draws) and the view: a file that changed is another image.

Each batch is one transaction, so that a killed run leaves whole rows, and several processes may write at once. There is
no write-ahead log, which network file systems do not carry, and no waiting for the disk, which would take as long as a
GPU takes to encode: what a power failure tears, checksums find, of every row together with its key. It is made again.
Nothing here ends a run: where the disk refuses, it goes on without, and says so once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import weakref
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffscope import locks
from diffscope.cache.sizes import LIMIT, in_bytes

FILE = "latents.sqlite"

BUSY = 60.0
"""Seconds to wait for other writers; a batch is written in milliseconds."""

Key = tuple[bytes, int, int]
"""Digest of the image, its index in its source, view."""

TABLES = (
    "CREATE TABLE IF NOT EXISTS about (only INTEGER PRIMARY KEY, record TEXT)",
    "CREATE TABLE IF NOT EXISTS latents"
    " (image BLOB, number INTEGER, view INTEGER, checksum INTEGER, data BLOB, UNIQUE (image, number, view))",
)


def digest(image: np.ndarray) -> bytes:
    """Of an image's decoded values, with their kind and shape."""
    return hashlib.sha256(f"{image.dtype.str} {image.shape}".encode() + image.tobytes()).digest()


class Latents:
    """One set, open for reading and writing until this object is gone."""

    def __init__(
        self, folder: Path, about: Mapping[str, Any], limit: int, say: Callable[[str], None], note: Mapping[str, Any]
    ) -> None:
        """folder: of all sets. about: plain JSON, all that the latents depend on but for image and view.

        note: what else to write down of the set, for people; the first to make the set decides.
        say: told once, where latents cannot be kept.
        """
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        self.folder, self._limit, self._say = folder / key[:16], limit, say
        self._allowance, self._full, self._damaged = 0, False, False
        self._release: Callable[[], object] = lambda: None
        self._connection: sqlite3.Connection | None = None
        try:
            self._connection = self._opened({**about, **note})
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def read(self, keys: Sequence[Key], shape: tuple[int, ...]) -> list[np.ndarray | None]:
        """float32 of this shape for each key, None where there is none or a damaged one."""
        if self._connection is None:
            return [None] * len(keys)
        query = "SELECT checksum, data FROM latents WHERE image = ? AND number = ? AND view = ?"
        try:
            found = [self._connection.execute(query, key).fetchone() for key in keys]
        except sqlite3.Error as error:
            self._give_up(error)
            return [None] * len(keys)
        rows = [None if row is None else _intact(key, row, shape) for key, row in zip(keys, found, strict=True)]
        if any(row is not None and latent is None for row, latent in zip(found, rows, strict=True)):
            self._say_damaged()
        return rows

    def write(self, keys: Sequence[Key], latents: np.ndarray) -> None:
        """Keep float32 (n, …), all n rows or none."""
        # SQLite adds 2 to 5 % to latents of published models, up to half to tiny ones, and a few pages of 4 kB.
        if self._connection is None or self._full or not self._has_room(3 * latents.nbytes // 2 + (4 << 12)):
            return
        data = [np.ascontiguousarray(latent).tobytes() for latent in latents]
        rows = [(*key, _checksum(key, row), row) for key, row in zip(keys, data, strict=True)]
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT OR REPLACE INTO latents VALUES (?, ?, ?, ?, ?)", rows)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._give_up(error)
        finally:
            if self._connection is not None and self._connection.in_transaction:  # Ctrl-C
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")

    def _opened(self, record: Mapping[str, Any], again: bool = True) -> sqlite3.Connection:
        release = locks.share(self.folder)
        try:
            connection = _connected(self.folder / FILE)
            if connection.execute("SELECT 1 FROM about").fetchone() is None:
                connection.execute("INSERT OR IGNORE INTO about VALUES (1, ?)", [json.dumps(record)])
        except BaseException as error:
            release()
            if again and _is_damage(error) and locks.remove(self.folder):
                self._say_damaged()
                return self._opened(record, again=False)
            raise
        self._release = weakref.finalize(self, _close, connection, release)
        return connection

    def _has_room(self, added: int) -> bool:
        """Whether so many bytes more are within the bound; the sets used longest ago make room."""
        if added > self._allowance:
            room = make_room(self.folder, self._limit, added)
            # Other processes write as well: look again before long.
            self._allowance = min(room, max(added, self._limit // 64))
        self._allowance -= added
        self._full = self._allowance < 0
        if self._full:
            self._say_once(
                f"latents of {in_bytes(self._limit)} are kept, as many as {LIMIT} allows; no more will be: raise it"
            )
        return not self._full

    def _give_up(self, error: Exception) -> None:
        """Go on without; a damaged file, if nobody else is at it, is removed for the next run."""
        self._connection = None
        self._release()
        if _is_damage(error):
            locks.remove(self.folder)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self._say_once(f"{self.folder}: latents cannot be kept there ({reason}); the run goes on without")

    def _say_damaged(self) -> None:
        if not self._damaged:
            self._damaged = True
            self._say(f"{self.folder / FILE}: damaged on disk; the latents concerned are encoded again")

    def _say_once(self, text: str) -> None:
        self._say(text)
        self._say = lambda text: None


def make_room(folder: Path, limit: int, added: int) -> int:
    """Remove sets beside `folder`, the one used longest ago first, until `added` bytes more are within the limit.

    Gives the bytes that are then left. Sets in use stay; all do where even their absence would not be enough.
    """
    others = {path: nbytes(path) for path in folder.parent.iterdir() if path.is_dir() and path != folder}
    most = limit - nbytes(folder)
    room = most - sum(others.values())
    for path in sorted(others, key=last_used):
        if room >= added or most < added:
            break
        if locks.remove(path):
            room += others[path]
    return room


def nbytes(folder: Path) -> int:
    """Of all files in a folder; those that vanish meanwhile count nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(place, name)).st_size
    return total


def last_used(folder: Path) -> float:
    """Seconds since 1970 at which any file in a folder was last changed; a set's lock is so with each use."""
    latest = 0.0
    for place, _, names in os.walk(folder):
        for path in (place, *(os.path.join(place, name) for name in names)):
            with contextlib.suppress(OSError):
                latest = max(latest, os.stat(path).st_mtime)
    return latest


def described(folder: Path) -> dict[str, Any]:
    """What a set is, with how many `images` and `views` it holds; nothing where it cannot be read."""
    try:
        with contextlib.closing(_connected(folder / FILE, "ro", busy=2.0)) as connection:
            (record,) = connection.execute("SELECT record FROM about").fetchone() or ("{}",)
            # The index alone answers this: the latents themselves are not read.
            views = connection.execute("SELECT COUNT(*) FROM latents GROUP BY view").fetchall()
        about = json.loads(record)
    except (sqlite3.Error, TypeError, ValueError, RecursionError):
        return {}
    if not isinstance(about, dict):
        return {}
    return {**about, "images": max((count for (count,) in views), default=0), "views": len(views)}


def _connected(path: Path, mode: str = "rwc", busy: float = BUSY) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", busy, isolation_level=None, check_same_thread=False, uri=True
    )
    try:
        for statement in ("PRAGMA synchronous = OFF", *TABLES) if mode != "ro" else ():
            connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


def _is_damage(error: BaseException) -> bool:
    """A plain DatabaseError is a file that is none of SQLite's, or torn; what the disk refuses is a child of it."""
    return type(error) is sqlite3.DatabaseError


def _close(connection: sqlite3.Connection, release: Callable[[], None]) -> None:
    with contextlib.suppress(sqlite3.Error):
        connection.close()
    release()


def _checksum(key: Key, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(repr(key).encode()))


def _intact(key: Key, row: tuple[int, bytes], shape: tuple[int, ...]) -> np.ndarray | None:
    checksum, data = row
    if not isinstance(data, bytes) or _checksum(key, data) != checksum or len(data) != 4 * int(np.prod(shape)):
        return None
    return np.frombuffer(data, np.float32).reshape(shape)
