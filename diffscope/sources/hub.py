"""A data set on the Hub: `hf://datasets/OWNER/NAME[@REVISION][/PATH]`, as Parquet, as a tree of images or as one file.

PATH is a file (.parquet, .zip, .npy, .npz), a folder, also in a zip, or the common name of Parquet shards: `train`
stands for `train-00000-of-00002.parquet` and its kin. Where a repository holds several sets of images, as splits
usually are, none is guessed: they are listed. Only the files that are read are downloaded.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from diffscope import hub
from diffscope.errors import DataError
from diffscope.sources import _listing, _parquet
from diffscope.sources.base import Source, Target, found

SHARD = re.compile(r"-\d+-of-\d+(-[0-9a-f]+)?$")  # datasets' own names of shards
NUMBER = re.compile(r"(part-)?\d+([-.].*)?$")  # the Hub's conversions, and Spark's
ARCHIVES = (".zip", ".npy", ".npz")
FEW = 20  # images up to this many beside archives are pictures of a README


def accepts(path: str) -> bool:
    """Says whether `path` is a Hub reference."""
    return hub.is_reference(path)


def open(path: str) -> Source:
    """Opens a data set on the Hub; only the files that are read are downloaded.

    Raises:
        DataError: The reference does not name one set of images, or it cannot be fetched or read.
    """
    repository = hub.open(path, "dataset")
    return HubSource(path, repository.commit, _opened(repository))


class HubSource(Source):
    """The images that were downloaded, under the reference that they came from.

    Args:
        path: The reference.
        revision: The commit that it stood for.
        inside: Reads what was downloaded.
    """

    revision: str
    """The commit that the reference stood for."""

    def __init__(self, path: str, revision: str, inside: Source) -> None:
        self.path = path
        self.revision = revision
        self.kind = inside.kind
        self.labels, self.class_names, self.lacking = inside.labels, inside.class_names, inside.lacking
        self._inside = inside

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._inside)

    def admit(self, max_pixels: int) -> None:
        """Sets `max_pixels`, here and of what was downloaded."""
        super().admit(max_pixels)
        self._inside.admit(max_pixels)

    def use_range(self, data_range: tuple[float, ...]) -> None:
        """Takes `data_range`, here and of what was downloaded; DataError where that does not fit it."""
        self._inside.use_range(data_range)
        self.data_range = self._inside.data_range

    def name(self, index: int) -> str:
        """Returns the image's name in what was downloaded."""
        return self._inside.name(index)

    def read(self, index: int, target: Target) -> np.ndarray:
        """Reads one image of what was downloaded."""
        return self._inside.read(index, target)

    def size(self, index: int) -> int:
        """Returns the bytes of the stored image."""
        return self._inside.size(index)

    def checksum(self, index: int) -> int:
        """Returns the CRC-32 of the stored image."""
        return self._inside.checksum(index)


def _opened(repository: hub.Repository) -> Source:
    reference = repository.reference
    if reference.path.lower().endswith(".parquet"):
        _parquet.require(reference.text)
    if reference.path and (file := repository.find(reference.path)):
        return _local(reference.text, file)
    if (inside := _listing.in_zip(reference.path)) and (file := repository.find(inside[0])):
        return _local(reference.text, file / inside[1])
    names = repository.names()
    shards = _shards(names)
    chosen = {name: files for name, files in shards.items() if _is_below(name, reference.path)}
    if chosen:
        _parquet.require(reference.text)
        files = chosen[_only(reference, sorted(chosen))]
        folder = repository.fetch(files)
        return _parquet.ParquetSource(reference.text, [folder / name for name in files])
    below = [name for name in names if _is_below(name, reference.path)]
    if not below:
        raise repository.missing(reference.path, also=sorted(shards))
    images = _images(below, reference.path)
    archives = [name for name in below if name.lower().endswith(ARCHIVES)]
    if archives and len(images) <= FEW:
        only = _only(reference, archives)
        return _local(reference.at(only), repository.fetch([only]) / only)
    if not images:
        raise reference.failure(
            f"no images in it, as Parquet, zip, arrays or a tree of them; it holds {hub.listed(below)}"
        )
    root = _tree(reference, images, set(below))
    label_file = posixpath.join(root, _listing.LABEL_FILE)
    return _local(reference.text, repository.fetch([*images, *({label_file} & set(below))]) / root)


def _local(reference: str, path: Path) -> Source:
    """Opens what lies at a local path; errors name the reference instead of the path."""
    try:
        source = found(str(path))
    except DataError as error:
        raise DataError(str(error).replace(str(path), reference)) from None
    source.path = reference
    return source


def _shards(names: Iterable[str]) -> dict[str, list[str]]:
    """Parquet files by the name that they share: `data/train-00000-of-00002.parquet` is one of `data/train`."""
    found: dict[str, list[str]] = {}
    for name in names:
        stem, suffix = posixpath.splitext(name)
        folder, last = posixpath.split(SHARD.sub("", stem))
        if suffix.lower() == ".parquet" and last != "metadata":  # that one describes images that lie beside it
            found.setdefault(folder if NUMBER.match(last) else posixpath.join(folder, last), []).append(name)
    return found


def _is_below(name: str, path: str) -> bool:
    return not path or name == path or name.startswith(path + "/")


def _only(reference: hub.Reference, found: Sequence[str]) -> str:
    """The one set of images among those found; an error that lists them where there are several."""
    if len(found) > 1:
        raise reference.failure(
            f"{len(found)} sets of images in it; give one as /PATH, such as {reference.at(found[0])}; "
            f"all: {hub.listed(found)}"
        )
    return found[0]


def _images(names: Sequence[str], path: str) -> list[str]:
    start = len(path) + 1 if path else 0
    return [name for name in names if _listing.is_image(name[start:])]


def _tree(reference: hub.Reference, images: Sequence[str], names: set[str]) -> str:
    """The folder at whose first level the classes stand: folders that wrap all images are passed through."""
    root = reference.path
    while posixpath.join(root, _listing.LABEL_FILE) not in names:
        start = len(root) + 1 if root else 0
        first = {name[start:].partition("/")[0] if "/" in name[start:] else None for name in images}
        folders = sorted(folder for folder in first if folder is not None)
        if None in first or len(folders) > 1:
            if None not in first and _listing.are_splits(folders):
                _only(reference, [posixpath.join(root, folder) for folder in folders])
            break
        root = posixpath.join(root, folders[0])
    return root
