"""A folder of images, searched recursively; where the first level is folders, they are the classes.

EDM's layout (`00000/img00000000.png`, labels in `dataset.json`) is such a folder. Links are followed.
"""

from __future__ import annotations

import os
import zlib

import numpy as np

from diffscope.errors import DataError
from diffscope.sources import _files, _listing
from diffscope.sources._decode import decode, most_bytes, upright_size
from diffscope.sources._room import STORED
from diffscope.sources.base import Source, Target


def accepts(path: str) -> bool:
    """Says whether `path` is a folder, but of latents, tar shards or what `datasets` saved."""
    others = (_listing.has_tars, _listing.has_shards, _listing.is_saved)
    return os.path.isdir(path) and not any(other(path) for other in others)


def open(path: str) -> Source:
    """Opens a folder of images.

    Raises:
        DataError: It cannot be listed, holds no images, or its `dataset.json` is broken.
    """
    return FolderSource(path)


class FolderSource(Source):
    """The images below a folder, in the order of their sorted names; it is listed when opened, and no image is read.

    Args:
        path: Of the folder.

    Raises:
        DataError: It cannot be listed, holds no images, or its `dataset.json` is broken.
    """

    kind = "images"

    def __init__(self, path: str) -> None:
        self.path = self._root = path  # the former may be told as a reference
        files = _tree(path)
        self._names = sorted(name for name in files if _listing.is_image(name))
        if not self._names:
            raise _listing.no_images(path, len(files))
        listed = _label_file(path, len(self._names)) if _listing.LABEL_FILE in files else None
        self.labels, self.class_names, self.lacking = _listing.classes(self._names, listed, path)

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._names)

    def name(self, index: int) -> str:
        """Returns the path of an image below the folder, with forward slashes."""
        return self._names[index]

    def read(self, index: int, target: Target) -> np.ndarray:
        """Decodes one image to uint8 [channels, side, side].

        Raises:
            DataError: It cannot be read; the message names it.
            Exhausted: Memory or file handles ran out.
        """
        with STORED.of(self.size(index)):
            return decode(self._bytes(index), self._names[index], target, self.max_pixels)

    def stored_size(self, index: int) -> tuple[int, int]:
        """Returns the height and width of the picture, upright.

        Raises:
            DataError: It cannot be read.
        """
        with STORED.of(self.size(index)):
            return upright_size(self._bytes(index), self._names[index], self.max_pixels)

    def size(self, index: int) -> int:
        """Returns the bytes of the file, 0 where it is a dangling link."""
        try:
            return os.stat(self._place(index)).st_size
        except OSError:
            return 0  # a dangling link is one unreadable image, not the end of the run

    def checksum(self, index: int) -> int:
        """Returns the CRC-32 of the file.

        Raises:
            DataError: It cannot be read.
        """
        with STORED.of(self.size(index)):
            return zlib.crc32(self._bytes(index))

    def _bytes(self, index: int) -> bytes:
        return _files.read(self._place(index), self._names[index], most_bytes(self.max_pixels))

    def _place(self, index: int) -> str:
        return f"{self._root}/{self._names[index]}"  # a pathlib.Path costs a million files three times the time


def _label_file(path: str, images: int) -> bytes:
    name = os.path.join(path, _listing.LABEL_FILE)
    return _files.read(name, name, _listing.most_bytes(images))


def _tree(path: str) -> list[str]:
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
