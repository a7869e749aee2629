"""A `.zip` of images: the tree that a folder would hold, or EDM's layout with `dataset.json`.

A folder that wraps the whole archive is taken off the names, so that classes come from the first level that
differs and a zip has the names, and the fingerprint, of the folder that was zipped. `photos.zip/train` is the folder
`train` of it, as if that alone had been zipped. Nothing is ever extracted.
"""

from __future__ import annotations

import os
import posixpath
import threading
import zipfile

import numpy as np

from diffscope.errors import DataError
from diffscope.sources import _listing, _zip
from diffscope.sources._decode import decode, most_bytes, upright_size
from diffscope.sources._room import STORED
from diffscope.sources.base import Source, Target


def accepts(path: str) -> bool:
    """Says whether `path` is a file that ends in .zip, or leads into one."""
    found = _listing.in_zip(path)
    return found is not None and os.path.isfile(found[0])


def open(path: str) -> Source:
    """Opens a zip of images, or a folder in one.

    Raises:
        DataError: It is no zip, holds no images, or its `dataset.json` is broken.
    """
    return ArchiveSource(path)


class ArchiveSource(Source):
    """The images of a zip, in the order of their sorted names; it is listed when opened, and no image is read.

    Args:
        path: Of the zip, or of a folder in it.

    Raises:
        DataError: It is no zip, holds no images or no such folder, or its `dataset.json` is broken.
    """

    kind = "images"

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        found = _listing.in_zip(path)
        assert found is not None
        self._zip = _zip.opened(found[0])
        members = [info for info in self._zip.infolist() if info.filename and not info.is_dir()]
        files = _below(found[1], {info.filename.replace("\\", "/"): info for info in members}, path)
        images = sorted(name for name in files if _listing.is_image(name))
        if not images:
            raise _listing.no_images(path, len(files))
        root = _root(images, set(files))
        self._names = [name[len(root) :] for name in images]
        self._infos = [files[name] for name in images]
        label_file = files.get(root + _listing.LABEL_FILE)
        listed = self._bytes(label_file, _listing.most_bytes(len(images))) if label_file else None
        self.labels, self.class_names, self.lacking = _listing.classes(
            self._names, listed, posixpath.join(path, root.rstrip("/")).rstrip("/")
        )

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._names)

    def name(self, index: int) -> str:
        """Returns the path of an image in the archive, below the folder that wraps all."""
        return self._names[index]

    def read(self, index: int, target: Target) -> np.ndarray:
        """Decodes one image to uint8 [channels, side, side].

        Raises:
            DataError: It cannot be read; the message names it.
            Exhausted: Memory or file handles ran out.
        """
        info = self._infos[index]
        with STORED.of(info.file_size):
            data = self._bytes(info, most_bytes(self.max_pixels))
            return decode(data, self._names[index], target, self.max_pixels)

    def stored_size(self, index: int) -> tuple[int, int]:
        """Returns the height and width of the picture, upright.

        Raises:
            DataError: It cannot be read.
        """
        info = self._infos[index]
        with STORED.of(info.file_size):
            return upright_size(self._bytes(info, most_bytes(self.max_pixels)), self._names[index], self.max_pixels)

    def size(self, index: int) -> int:
        """Returns the bytes of the unpacked file."""
        return self._infos[index].file_size

    def checksum(self, index: int) -> int:
        """Returns the CRC-32 that the archive states, without reading the image."""
        return self._infos[index].CRC

    def _bytes(self, info: zipfile.ZipInfo, most: int) -> bytes:
        # Threads share one file position; they decode at the same time, outside the lock.
        with self._lock:
            return _zip.read(self._zip, info, most)


def _below(folder: str, files: dict[str, zipfile.ZipInfo], path: str) -> dict[str, zipfile.ZipInfo]:
    """Files of a folder in a zip, by their names in it; all files where the folder is ""."""
    if not folder:
        return files
    start = f"{folder}/"
    below = {name[len(start) :]: info for name, info in files.items() if name.startswith(start)}
    if not below:
        first = sorted({name.split("/")[0] for name in files if "/" in name and not _listing.is_hidden(name)})
        there = f"the folders {', '.join(first[:8])}" if first else "no folders"
        raise DataError(f"Nothing at {path}: the zip has {there}. Check the spelling.")
    return below


def _root(images: list[str], files: set[str]) -> str:
    """The folders, with their slash, that wrap all images; `dataset.json` marks the root where it lies."""
    root = ""
    while root + _listing.LABEL_FILE not in files:
        first, slash, _ = images[0][len(root) :].partition("/")
        if not slash or not all(name.startswith(f"{root}{first}/") for name in images):
            break
        root += f"{first}/"
    return root
