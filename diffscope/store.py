"""Finished parts of a run on disk, so that nothing computed is lost: an error, Ctrl-C or kill costs one block.

A part is one file, written under another name, flushed, then renamed: it is either whole or not there. Parts lie in a
folder named after the protocol's hash, so that the same command finds them and another one does not.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffscope.errors import StoreError

Arrays = dict[str, np.ndarray]
Record = dict[str, Any]
"""Plain JSON."""


def cache_folder() -> Path:
    """$DIFFSCOPE_CACHE_DIR, else $XDG_CACHE_HOME/diffscope, else ~/.cache/diffscope."""
    if folder := os.environ.get("DIFFSCOPE_CACHE_DIR"):
        return Path(folder)
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "diffscope"
    try:
        return Path.home() / ".cache" / "diffscope"
    except RuntimeError:  # no home: a build machine
        return Path(tempfile.gettempdir()) / "diffscope"


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a temporary path beside `path`, flush, and rename; StoreError where the disk refuses."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


class Parts:
    """The finished parts of one run: arrays by name, and a small record, each under a number."""

    def __init__(self, folder: Path, protocol_hash: str) -> None:
        self.folder = folder / f"parts-{protocol_hash[:16]}"
        self._release: Callable[[], object] = lambda: None

    def claim(self) -> None:
        """Keep other processes off this run until this one is done with it; StoreError where one is at it already."""
        try:
            import fcntl
        except ImportError:  # Windows: two processes at one run are then on their own
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT)
            self._release = weakref.finalize(self, os.close, lock)
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{self.folder}: another process is measuring the same; wait for it to end") from None
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot be written: {error.strerror or error}") from None

    def finished(self) -> set[int]:
        return {int(path.stem.removeprefix("part-")) for path in self.folder.glob("part-*.safetensors")}

    def write(self, number: int, arrays: Arrays, record: Mapping[str, object]) -> None:
        from safetensors.numpy import save_file

        whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        metadata = {"record": json.dumps(record)}
        write_atomically(self._path(number), lambda path: save_file(whole, path, metadata=metadata))

    def read(self, number: int, prefix: str, names: Collection[str] | None = None) -> Arrays:
        """The arrays of a part whose names start with `prefix`, which is cut off; nothing else is read.

        `names`, without the prefix, spares a search through all that the part holds.
        """
        from safetensors import safe_open

        with safe_open(self._path(number), framework="np") as file:
            if names is None:
                names = [name[len(prefix) :] for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            return {name: file.get_tensor(f"{prefix}{name}") for name in names}

    def record(self, number: int) -> dict[str, object]:
        from safetensors import safe_open

        with safe_open(self._path(number), framework="np") as file:
            record: dict[str, object] = json.loads(file.metadata()["record"])
            return record

    def remove(self, number: int) -> None:
        """Forget a part whose numbers have been read."""
        self._path(number).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget the run: its result is written."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._release()

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:03d}.safetensors"


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


class Records:
    """Small finished results by key, which later runs of the same kind go on from: one JSON file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: str) -> Record | None:
        """None where there is none, or one that cannot be read: it is then made again."""
        try:
            found = json.loads(self._path(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def write(self, key: str, record: Mapping[str, object]) -> None:
        text = json.dumps(record, allow_nan=False)
        write_atomically(self._path(key), lambda path: _write_text(path, text))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"
