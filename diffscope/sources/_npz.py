"""Reading `.npy` and `.npz` without ever unpickling, for the sources that keep arrays in them.

Its header tells what an array is before any of it is read. Arrays of up to `IN_MEMORY` bytes are read into memory.
Larger ones are mapped: where they lie, or, compressed ones, in a nameless file on the disk of the cache.
"""

from __future__ import annotations

import io
import math
import os
import shutil
import tempfile
import warnings
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from diffscope.cache.store import cache_folder
from diffscope.errors import DataError
from diffscope.sources import _files, _listing, _zip
from diffscope.sources._listing import Classes

IN_MEMORY = 256 << 20
HEADER = 10_000  # bytes, as much as NumPy reads of one from elsewhere
NAME_KEYS = ("class_names", "label_names")
MOST_NAMES = 16 << 20  # bytes
DEFLATE = 1032  # the most bytes that deflate makes of one


class Stored(ABC):
    """An array that has not been read."""

    def __init__(self, path: str, head: bytes) -> None:
        self.path = path
        self.shape, self.fortran, self.dtype, self.offset = _layout(path, head)
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize

    @abstractmethod
    def read(self) -> np.ndarray:
        """Reads or maps the array; DataError where it cannot be read, or is shorter than its header says."""

    def _mapped(self, file: BinaryIO, start: int = 0) -> np.ndarray:
        """Maps the array whose header begins at `start` of an open file."""
        order = "F" if self.fortran else "C"
        if (size := os.fstat(file.fileno()).st_size - start) < self.offset + self.nbytes:
            raise self._wrong_size(size)
        try:
            array: np.ndarray = np.memmap(file, self.dtype, "r", start + self.offset, self.shape, order)  # type: ignore[call-overload]
            return array
        except OSError as error:
            raise _files.unreadable(self.path, error) from error

    def _wrong_size(self, found: int) -> DataError:
        """An error on bytes that are not those of the header."""
        what = f"{self.dtype} {list(self.shape)}, {self.nbytes} bytes"
        return DataError(
            f"Cannot read {self.path}: its header says {what}, and there are {found - self.offset}. Save it anew."
        )


class _Npy(Stored):
    """The array of an `.npy`."""

    def read(self) -> np.ndarray:
        with open(self.path, "rb") as file:
            return self._mapped(file)


class _Member(Stored):
    """An array of an `.npz`."""

    def __init__(self, path: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        super().__init__(path, next(_zip.chunks(archive, info), b""))
        self._name = info.filename

    def read(self) -> np.ndarray:
        with _zip.opened(self.path) as archive:
            info = archive.getinfo(self._name)
            if info.file_size != self.offset + self.nbytes:
                raise self._wrong_size(info.file_size)
            chunks = _zip.chunks(archive, info)
            if self.nbytes <= IN_MEMORY:
                return self._in_memory(chunks)
            if info.compress_type == zipfile.ZIP_STORED:
                for _ in chunks:  # for its checksum
                    pass
                with open(self.path, "rb") as file:
                    return self._mapped(file, _start(file, info))
            return self._unpacked(chunks, info)

    def _in_memory(self, chunks: Iterator[bytes]) -> np.ndarray:
        array = np.frombuffer(b"".join(chunks), self.dtype, math.prod(self.shape), self.offset)
        return array.reshape(self.shape, order="F" if self.fortran else "C")

    def _unpacked(self, chunks: Iterator[bytes], info: zipfile.ZipInfo) -> np.ndarray:
        """Unpacks to a file on disk that is gone when this process is."""
        folder = cache_folder()
        what = f"{self.path}: {self._name} has {info.file_size} bytes when unpacked"
        if info.file_size > DEFLATE * info.compress_size + _zip.CHUNK:
            raise DataError(f"{what}, of {info.compress_size}, which cannot be. Save it anew.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if info.file_size > free // 2:
                raise DataError(f"{what}, and {folder} has {free} free. Save it as .npy, which is read where it lies.")
            with tempfile.TemporaryFile(dir=folder) as file:
                for chunk in chunks:
                    if chunk.count(0) == len(chunk):  # black is a hole in the file
                        file.seek(len(chunk), os.SEEK_CUR)
                    else:
                        file.write(chunk)
                file.truncate()
                return self._mapped(file)
        except OSError as error:
            raise DataError(f"{what}, for which {folder} will not do: {error.strerror or error}.") from error


def npy(path: str) -> Stored:
    """Opens the array of an `.npy`; DataError where it is none."""
    try:
        with open(path, "rb") as file:
            return _Npy(path, file.read(HEADER))
    except OSError as error:
        raise _files.unreadable(path, error) from error


def member(path: str, *alternatives: str) -> Stored | None:
    """Opens the array under the first of `alternatives` in an `.npz`, None without any; DataError where it is none."""
    with _zip.opened(path) as archive:
        infos = _arrays(archive)
        found = next((infos[key] for key in alternatives if key in infos), None)
        return None if found is None else _Member(path, archive, found)


def keys(path: str) -> list[str]:
    """Lists the names of the arrays in an `.npz`; none where the file cannot be read as one."""
    try:
        with _zip.opened(path) as archive:
            return list(_arrays(archive))
    except DataError:
        return []


def classes(path: str, count: int, *alternatives: str) -> Classes:
    """Reads the classes of an `.npz`: labels, integers [N] or [N, 1], and a text for each of them, if it has any."""
    stored = member(path, *alternatives)
    if stored is None or stored.dtype.kind not in "iu":
        return Classes()
    if stored.shape not in ((count,), (count, 1)):
        raise DataError(
            f"{path} has labels {list(stored.shape)} for {count} images. Expected [{count}]; save them anew."
        )
    found = stored.read().reshape(count)
    _listing.check_range(int(found.min()), int(found.max()), path)
    return Classes(found.astype(np.int64), _class_names(path, int(found.max())))


def _class_names(path: str, largest: int) -> list[str] | None:
    """Names of classes up to `largest`; None without any, or where they are pickled, which is never loaded."""
    with _zip.opened(path) as archive:
        infos = _arrays(archive)
        info = next((infos[key] for key in NAME_KEYS if key in infos), None)
        if info is None:
            return None
        data = _zip.read(archive, info, MOST_NAMES)
    shape, _, dtype, start = _header(path, data)
    if dtype.kind != "U":
        return None
    if len(shape) != 1 or len(data) != start + shape[0] * dtype.itemsize:
        raise DataError(f"{path} has class names of {dtype} {str(list(shape))[:80]}. Expected a text for each class.")
    _listing.check_names(shape[0], largest, path)
    try:
        # NumPy itself takes any number for a character.
        form, width = "utf-32-be" if dtype.str.startswith(">") else "utf-32-le", dtype.itemsize
        places = range(start, start + shape[0] * width, width or 1)
        return [data[place : place + width].decode(form).rstrip("\0") for place in places]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} has class names that are no text: {error}. Save it anew.") from None


def _arrays(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Members of an open `.npz` by the names of their arrays."""
    return {info.filename.removesuffix(".npy"): info for info in archive.infolist()}


def _layout(path: str, head: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """(shape, whether in Fortran's order, dtype, length of the header) of an array of numbers; DataError for others."""
    shape, fortran, dtype, start = _header(path, head)
    if dtype.hasobject:
        raise DataError(f"{path} holds pickled objects, which are never loaded. Expected numbers; save it as uint8.")
    if dtype.kind not in "buifc" or len(shape) > 8 or min(shape, default=1) < 0:
        raise DataError(f"{path} holds {dtype} {str(list(shape))[:80]}. Expected an array of numbers.")
    if 0 in shape:
        raise DataError(f"No images in {path}: it holds {dtype} {list(shape)}.")
    return shape, fortran, dtype, start


def _header(path: str, head: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """The same of any array; DataError where it is none."""
    stream = io.BytesIO(head[:HEADER])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files that Python 2 has written
            version = np.lib.format.read_magic(stream)
            parse = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = parse(stream)
    # A few kilobytes: what Python's parser calls a lack of memory is a header nested too deep.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"Cannot read {path} ({os.path.getsize(path)} bytes): {reason}. Expected what numpy.save or savez writes."
        ) from error
    return shape, fortran, dtype, stream.tell()


def _start(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where a stored member begins in its zip: after its header, whose last two numbers are lengths of what follows."""
    file.seek(info.header_offset)
    header = file.read(30)
    return info.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
