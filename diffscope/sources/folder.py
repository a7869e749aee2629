"""A folder of images, searched recursively; where the first level is folders, they are the classes.

EDM's layout (`00000/img00000000.png`, labels in `dataset.json`) is such a folder. Links are followed.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np

from diffscope.errors import DataError
from diffscope.sources import _listing
from diffscope.sources._decode import decode
from diffscope.sources.base import Source, Target


def accepts(path: str) -> bool:
    return os.path.isdir(path)


def open(path: str) -> Source:
    return FolderSource(path)


class FolderSource(Source):
    kind = "images"

    def __init__(self, path: str) -> None:
        self.path = path
        self._root = Path(path)
        files = _files(path)
        self._names = sorted(name for name in files if _listing.is_image(name))
        if not self._names:
            raise _listing.no_images(path, len(files))
        label_file = self._root / _listing.LABEL_FILE
        listed = label_file.read_bytes() if label_file.is_file() else None
        self.labels, self.class_names = _listing.classes(self._names, listed, path)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return self._names[index]

    def read(self, index: int, target: Target) -> np.ndarray:
        return decode(self._bytes(index), self._names[index], target)

    def size(self, index: int) -> int:
        try:
            return (self._root / self._names[index]).stat().st_size
        except OSError:
            return 0  # a dangling link is one unreadable image, not the end of the run

    def checksum(self, index: int) -> int:
        return zlib.crc32(self._bytes(index))

    def _bytes(self, index: int) -> bytes:
        try:
            return (self._root / self._names[index]).read_bytes()
        except OSError as error:
            raise DataError(
                f"Cannot read {self._names[index]}: {error.strerror}. Replace or remove the file."
            ) from error


def _files(path: str) -> list[str]:
    """All visible files below `path`, relative to it, with forward slashes."""
    found: list[str] = []
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(path, followlinks=True, onerror=_refuse):
        # A link to a folder above would otherwise be followed for ever.
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not _listing.is_hidden(name))
        inside = os.path.relpath(folder, path).replace(os.sep, "/")
        prefix = "" if inside == "." else inside + "/"
        found += [prefix + name for name in files if not _listing.is_hidden(name)]
    return found


def _refuse(error: OSError) -> None:
    raise DataError(f"Cannot list {error.filename}: {error.strerror}. Make the folder readable.") from error
