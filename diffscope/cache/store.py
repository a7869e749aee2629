"""Finished parts of a run on disk, so that nothing computed is lost: an error, Ctrl-C or kill costs one block.

A part is one file, written under another name, flushed, then renamed: it is either whole or not there. Parts lie in a
folder named after the protocol's hash, so that the same command finds them and another one does not. What a disk did
to them since, checksums tell: such a part is as good as not there.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffscope import locks
from diffscope.errors import StoreError
from diffscope.formats import TENSOR_DTYPES
from diffscope.textfile import read_text

if TYPE_CHECKING:  # its import takes longer than to read a record: it waits for the first array
    import numpy as np

Arrays = dict[str, "np.ndarray"]
Record = dict[str, Any]
"""Plain JSON."""
Key = int | str
"""Of a part: its number, or a name that says what is in it."""
Say = Callable[[str], None]

UNFINISHED = ".unfinished"
"""How names of files and folders in work end, and those that a killed run left."""

_swept: set[Path] = set()
"""Folders in which this process has looked for what killed runs left."""


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
    """Call `write` with a temporary path beside `path`, flush, and rename; StoreError where the disk refuses.

    `write` finds an empty file there, of the mode that the user's umask gives, and fills it.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in _swept:
            _swept.add(path.parent)
            remove_unfinished(path.parent)
        with locks.file_in_work(part):
            write(part)
            with open(part, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def unfinished_folder(beside: Path) -> Iterator[Path]:
    """A folder within `beside` for what is to be renamed into it, gone afterwards; OSError where it cannot be."""
    remove_unfinished(beside)
    folder = beside / f".diffscope.{os.getpid()}{UNFINISHED}"
    release = locks.share(folder)
    try:
        yield folder
    finally:
        release()
        locks.remove(folder)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed runs left in a folder; what a process has in work stays, whoever's it is."""
    with contextlib.suppress(OSError):
        locked = [path.with_suffix("") for path in folder.glob(f".*{UNFINISHED}.{locks.LOCK}")]
        for path in {*folder.glob(f".*{UNFINISHED}"), *locked}:
            if path.is_dir() and not path.is_symlink():
                locks.remove(path)
            else:
                locks.unlink(path)


Tensor = tuple[str, tuple[int, ...], memoryview]
"""Its dtype (a key of `TENSOR_DTYPES`), its shape, and its bytes."""


def as_bytes(array: np.ndarray) -> memoryview:
    """An array's bytes, in C order."""
    import numpy as np

    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file; OSError where the disk refuses.

    The format's own library writes to another file and renames that, with the rights of its owner alone.
    """
    # What is not UTF-8 in a name, JSON may carry and the format's readers refuse.
    carried = {key: value.encode("utf-8", "backslashreplace").decode() for key, value in metadata.items()}
    header: dict[str, Any] = {"__metadata__": carried}
    # The widest dtypes first, so that every tensor is aligned.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1][2].nbytes // max(1, math.prod(item[1][1])), item[0]))
    end = 0
    for name, (dtype, shape, data) in ordered:
        header[name] = {"dtype": TENSOR_DTYPES[dtype], "shape": list(shape), "data_offsets": [end, end + data.nbytes]}
        end += data.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, (_, _, data) in ordered:
            file.write(data)


class Damaged(Exception):
    """A part that is not as it was written."""


def write_part(path: Path, arrays: Arrays, record: Mapping[str, object]) -> None:
    """Arrays and a small record in one file, with the checksums of both; StoreError where the disk refuses."""
    import numpy as np

    whole = {name: np.asarray(array, order="C") for name, array in sorted(arrays.items())}
    text, sums = json.dumps(record), json.dumps({name: _checksum(name, array) for name, array in whole.items()})
    metadata = {"record": text, "checksums": sums, "checksum": _of_text(text + sums)}
    tensors = {name: (array.dtype.name, array.shape, as_bytes(array)) for name, array in whole.items()}
    write_atomically(path, lambda part: write_tensors(part, tensors, metadata))


def is_intact(path: Path) -> bool:
    """Whether all of a part reads as it was written."""
    try:
        with opened_part(path) as part:
            part.record()
            for name in part.names():
                part.array(name)
    except Damaged:
        return False
    return True


@contextlib.contextmanager
def opened_part(path: Path) -> Iterator[Part]:
    """To read from it; whatever turns out not to be as it was written raises Damaged, inside as well."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():  # opened, a pipe would wait for ever
        raise Damaged("no file")
    try:
        with safe_open(path, framework="np") as file:
            yield Part(file)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(str(error) or type(error).__name__) from None


class Part:
    """An open part, checked as it is read: every array, and the record with the list of checksums."""

    def __init__(self, file: Any) -> None:
        self._file = file
        metadata = file.metadata() or {}
        self._record: str = metadata["record"]
        if metadata["checksum"] != _of_text(self._record + metadata["checksums"]):
            raise Damaged("its record does not match its checksum")
        self._sums: dict[str, int] = json.loads(metadata["checksums"])

    def names(self) -> list[str]:
        """In ascending order."""
        return list(self._sums)

    def array(self, name: str) -> np.ndarray:
        """Reads one array.

        Raises:
            Damaged: Where it is not as it was written.
        """
        array: np.ndarray = self._file.get_tensor(name)
        if _checksum(name, array) != self._sums[name]:
            raise Damaged(f"{name} does not match its checksum")
        return array

    def record(self) -> Record:
        """What was written beside the arrays."""
        record: Record = json.loads(self._record)
        return record


class Parts:
    """The finished parts of one run: arrays by name, and a small record, each under a number or a name."""

    def __init__(self, folder: Path, protocol_hash: str) -> None:
        self.folder = folder / f"parts-{protocol_hash[:16]}"
        self._claim: locks.Claim | None = None
        self._intact: set[Key] = set()

    def claim(self, say: Say = lambda text: None) -> None:
        """Keep other processes off this run until this one is done with it; StoreError where one is at it already.

        Parts that an earlier run finished and the disk has damaged are removed, and said to be.
        """
        try:
            self._claim = locks.claim(self.folder)
        except BlockingIOError:
            raise StoreError(f"{self.folder}: another process is measuring the same; wait for it to end") from None
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot be written: {error.strerror or error}") from None
        remove_unfinished(self.folder)
        damaged = sorted(self._keys() - self.finished(), key=str)
        for key in damaged:
            self.remove(key)
        if damaged:
            names = ", ".join(self._path(key).name for key in damaged[:3])
            more = "" if len(damaged) <= 3 else f" and {len(damaged) - 3} more"
            say(f"{self.folder}: {names}{more} damaged on disk; what was in there is measured again")

    def finished(self) -> set[Key]:
        """Keys of the parts that are there as they were written."""
        there = self._keys()
        self._intact &= there
        self._intact |= {key for key in there - self._intact if is_intact(self._path(key))}
        return set(self._intact)

    def _keys(self) -> set[Key]:
        stems = (path.stem.removeprefix("part-") for path in self.folder.glob("part-*.safetensors"))
        return {int(stem) if stem.isdecimal() else stem for stem in stems}

    def write(self, key: Key, arrays: Arrays, record: Mapping[str, object]) -> None:
        """Writes a part under its key; StoreError where the disk refuses."""
        write_part(self._path(key), arrays, record)
        self._intact.add(key)

    def read(self, key: Key, prefix: str, names: Collection[str] | None = None) -> Arrays:
        """The arrays of a part whose names start with `prefix`, which is cut off; nothing else is read.

        `names`, without the prefix, spares a search through all that the part holds. StoreError where the disk has
        damaged it since `finished` looked.
        """
        try:
            with opened_part(self._path(key)) as part:
                if names is None:
                    names = [name[len(prefix) :] for name in part.names() if name.startswith(prefix)]
                return {name: part.array(f"{prefix}{name}") for name in names}
        except Damaged as error:
            raise self._lost(key, error) from None

    def record(self, key: Key) -> Record:
        """What was written with a part; StoreError like `read`."""
        try:
            with opened_part(self._path(key)) as part:
                return part.record()
        except Damaged as error:
            raise self._lost(key, error) from None

    def _lost(self, key: Key, error: Damaged) -> StoreError:
        return StoreError(f"{self._path(key)}: damaged on disk ({error}); the same command measures it again")

    def remove(self, key: Key) -> None:
        """Forget a part whose numbers have been read."""
        self._path(key).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget the run: its result is written."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._release()
        locks.remove(self.folder)  # where the claimed lock could not be removed: Windows

    def _release(self) -> None:
        self._claim = None

    def _path(self, key: Key) -> Path:
        return self.folder / f"part-{key if isinstance(key, str) else f'{key:03d}'}.safetensors"


def _checksum(name: str, array: np.ndarray) -> int:
    """Of the array's bytes and what gives them their meaning."""
    return zlib.crc32(as_bytes(array), zlib.crc32(f"{name} {array.dtype.name} {array.shape}".encode()))


def checksum_of_file(path: Path) -> int:
    """Of its bytes, read piece by piece."""
    found = 0
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            found = zlib.crc32(piece, found)
    return found


def _of_text(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


class Records:
    """Small finished results by key, which later runs of the same kind go on from: one JSON file each."""

    def __init__(self, folder: Path, say: Say = lambda text: None) -> None:
        """say: told of a record that the disk has damaged."""
        self.folder, self._say = folder, say

    def read(self, key: str) -> Record | None:
        """None where there is none, or a damaged one: it is then made again."""
        path = self._path(key)
        try:
            found = json.loads(read_text(path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and found.pop(CHECKSUM, None) == _of_text(json.dumps(found)):
            return found
        self._say(f"{path}: damaged on disk; what it recorded is measured again")
        return None

    def write(self, key: str, record: Mapping[str, object]) -> None:
        """Writes a record under its key; StoreError where the disk refuses."""
        text = json.dumps(record, allow_nan=False)
        whole = json.dumps({CHECKSUM: _of_text(text), **record})
        write_atomically(self._path(key), lambda path: _write_text(path, whole))

    def touch(self, key: str) -> None:
        """Marks a record as used now, as far as the disk lets."""
        with contextlib.suppress(OSError):
            os.utime(self._path(key))

    def leave(self, most: int) -> None:
        """Removes those that were used longest ago, until there are no more than `most`."""
        with contextlib.suppress(OSError):  # one that another process has just removed
            paths = sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
            for path in paths[: max(0, len(paths) - most)]:
                path.unlink(missing_ok=True)

    def remove(self, key: str) -> None:
        """Forgets a record, if there is one."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"


CHECKSUM = "checksum"
"""The key of a record under which that of all others stands."""
