"""WebDataset's tar shards: one `.tar`, several spelled `shards/{000..099}.tar`, or a folder of them.

Files of one name up to its first dot are one sample: `000123.jpg` is its image, `000123.cls` its class as a number, or
`000123.json` with the class under `label`, `cls` or `class`, as a number or a name.
https://github.com/webdataset/webdataset. A shard's headers are read when it is opened, an image when it is asked for.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffscope.errors import DataError
from diffscope.formats import PICTURE_ENDINGS
from diffscope.sources import _listing, _tar
from diffscope.sources._decode import decode, most_bytes, upright_size
from diffscope.sources._listing import Classes
from diffscope.sources._room import STORED
from diffscope.sources.base import Source, Target

_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_LABELS = ("cls", "json")
_LABEL_ENDINGS = tuple(f".{ending}" for ending in _LABELS)
KEYS = ("label", "cls", "class")
"""Under which a sample's JSON may hold its class."""
MOST_SHARDS = 100_000
MOST_LABEL = 1 << 16
"""Bytes of a sample's `.cls` or `.json`."""


def accepts(path: str) -> bool:
    """Says whether `path` is a tar, several spelled with braces, or a folder of nothing but them."""
    if not path.lower().endswith(".tar") or os.path.isdir(path):
        return _listing.has_tars(path)
    return os.path.isfile(path) or _RANGE.search(path) is not None


def open(path: str) -> Source:
    """Opens one shard, or several.

    Raises:
        DataError: One is missing or damaged, or there are no images.
    """
    return WebDatasetSource(path)


@dataclass(frozen=True)
class Sample:
    """One image, and where its class stands."""

    name: str
    shard: str
    image: _tar.Member
    label: _tar.Member | None


class WebDatasetSource(Source):
    """The images of tar shards, in the order of their sorted names.

    Args:
        path: Of a shard, of several with braces, or of their folder.

    Raises:
        DataError: One is missing or damaged, or there are no images.
    """

    kind = "images"

    def __init__(self, path: str) -> None:
        self.path = path
        shards = _shards(path)
        found: list[Sample] = []
        for shard in shards:
            found += _samples(shard, f"{os.path.basename(shard)}/" if len(shards) > 1 else "")
        if not found:
            endings = " ".join(ending[1:] for ending in PICTURE_ENDINGS)
            raise DataError(f"No images in {path}: {len(shards)} tar files, no member of them {endings}.")
        self._samples = sorted(found, key=lambda sample: sample.name)
        names = [sample.name for sample in self._samples]
        if doubled := next((a for a, b in itertools.pairwise(names) if a == b), None):
            raise DataError(f"{path} has two images of the name {doubled}. Rename one of them, or one of their shards.")
        self.labels, self.class_names, self.lacking = _labels(self._samples, path)

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._samples)

    def name(self, index: int) -> str:
        """Returns the member's name; of several shards, behind the shard's own."""
        return self._samples[index].name

    def read(self, index: int, target: Target) -> np.ndarray:
        """Decodes one image to uint8 [channels, side, side].

        Raises:
            DataError: It cannot be read; the message names it.
            Exhausted: Memory or file handles ran out.
        """
        with STORED.of(self.size(index)):
            return decode(self._bytes(index), self.name(index), target, self.max_pixels)

    def stored_size(self, index: int) -> tuple[int, int]:
        """Returns the height and width of the picture, upright.

        Raises:
            DataError: It cannot be read.
        """
        with STORED.of(self.size(index)):
            return upright_size(self._bytes(index), self.name(index), self.max_pixels)

    def size(self, index: int) -> int:
        """Returns the bytes of the stored picture."""
        return self._samples[index].image.size

    def checksum(self, index: int) -> int:
        """Returns the CRC-32 of the stored picture.

        Raises:
            DataError: It cannot be read.
        """
        with STORED.of(self.size(index)):
            return zlib.crc32(self._bytes(index))

    def _bytes(self, index: int) -> bytes:
        sample = self._samples[index]
        return _tar.read(sample.shard, sample.image, sample.name, most_bytes(self.max_pixels))


def _shards(path: str) -> list[str]:
    """The files that are meant, in order; DataError where one is missing."""
    if os.path.isdir(path):
        names = sorted(name for name in os.listdir(path) if _listing.is_tar(name))
        return [os.path.join(path, name) for name in names]
    if os.path.isfile(path):
        return [path]
    shards = _expanded(path)
    missing = [shard for shard in shards if not os.path.isfile(shard)]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of {len(shards)} shards are missing, the first {missing[0]}. Fetch them, or name "
            "those that are there."
        )
    return shards


def _expanded(path: str) -> list[str]:
    """`{000..099}` as bash has it: counted up or down, with as many digits as the longer end has."""
    parts = _RANGE.split(path)
    choices: list[Sequence[str]] = [[parts[0]]]
    count = 1
    for first, last, rest in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        a, b = int(first), int(last)
        count *= abs(b - a) + 1
        if count > MOST_SHARDS:
            raise DataError(f"{path} spells more than {MOST_SHARDS} shards. Expected fewer and larger ones.")
        digits = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
        choices += [[f"{number:0{digits}d}" for number in range(a, b + 1) or range(a, b - 1, -1)], [rest]]
    return list(dict.fromkeys(map("".join, itertools.product(*choices))))


def _samples(shard: str, prefix: str) -> list[Sample]:
    """The samples of a shard that have an image; DataError where one has two."""
    images: dict[str, _tar.Member] = {}
    labels: dict[str, _tar.Member] = {}
    for member in _tar.members(shard, lambda name: name.endswith(_LABEL_ENDINGS), MOST_LABEL):
        folder, _, base = member.name.rpartition("/")
        if any(map(_listing.is_hidden, member.name.removeprefix("./").split("/"))):
            continue
        stem, _, ending = base.partition(".")
        key = f"{folder}/{stem}"
        if f".{ending.lower()}" in PICTURE_ENDINGS:
            if key in images:
                raise DataError(
                    f"{shard}: a sample with two images, {images[key].name} and {member.name}. Expected one; give what "
                    "is no image an ending of two parts, such as .mask.png."
                )
            images[key] = member
        elif ending in _LABELS and (key not in labels or ending == _LABELS[0]):
            labels[key] = member
    return [Sample(prefix + image.name, shard, image, labels.get(key)) for key, image in images.items()]


def _labels(samples: Sequence[Sample], path: str) -> Classes:
    """Classes of all samples, and their names where they have any."""
    found = [_label(sample) for sample in samples]
    missing = [sample.name for sample, label in zip(samples, found, strict=True) if label is None]
    if len(missing) == len(found):
        return Classes()
    if missing:
        return Classes(lacking=_listing.lacking(missing, len(found)))
    if all(isinstance(label, int) for label in found):
        numbers = [int(label) for label in found if label is not None]
        _listing.check_range(min(numbers), max(numbers), path)
        return Classes(np.array(numbers, dtype=np.int64))
    if not all(isinstance(label, str) for label in found):
        raise DataError(f"{path} has classes both as numbers and as names. Expected one of the two.")
    return _listing.by_name([str(label) for label in found])


def _label(sample: Sample) -> int | str | None:
    """The class of a sample; None where nothing says it."""
    if sample.label is None:
        return None
    where, text = f"{sample.label.name} in {sample.shard}", sample.label.content
    if text is None:
        raise DataError(f"{where} has {sample.label.size} bytes. Expected a class, in {MOST_LABEL} at most.")
    try:
        said: object = json.loads(text)
    except (ValueError, RecursionError):
        raise DataError(f"{where} is {text[:40]!r}. Expected a number, or JSON with the class; repair it.") from None
    if isinstance(said, dict):
        said = next((said[key] for key in KEYS if key in said), None)
    if said is None or type(said) is int or isinstance(said, str):
        return said
    raise DataError(f"{where} has the class {said!r:.40}. Expected a number or a name.")
