"""Which names of a tree of files are images, and what their classes are. Shared by folders, zips and the Hub's trees.

`dataset.json` may name the classes that it numbers, as a list or by their numbers:

    {"labels": [["00000/img00000000.png", 1]], "class_names": ["cat", "dog"]}
    {"labels": [["00000/img00000000.png", 1]], "class_names": {"0": "cat", "1": "dog"}}
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from diffscope.errors import DataError
from diffscope.formats import PICTURE_ENDINGS

LABEL_FILE = "dataset.json"
"""EDM's name for the list of labels at the root of a data set."""
_SHARD = re.compile(r"latents_rank\d+_shard\d+\.safetensors")
LARGEST_LABEL = 2**31 - 1
NAME_KEYS = ("class_names", "classes")
"""Under which `dataset.json` may name its classes."""
SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval", "unsupervised"}


class Classes(NamedTuple):
    """What a source says of the classes of its images."""

    labels: np.ndarray | None = None
    """int64 [count]; None where an image has no class."""
    names: list[str] | None = None
    """By label; None where the classes have none."""
    lacking: str | None = None
    """Where some images have a class and others none: how many are without."""


def most_bytes(images: int) -> int:
    """Most bytes of `dataset.json`: an image takes some 30, and up to twenty times as many in memory."""
    return (16 << 20) + 256 * images


def in_zip(path: str) -> tuple[str, str] | None:
    """Takes the path of a zip, or of a folder in one, apart.

    Args:
        path: For example "photos.zip" or "photos.zip/train".

    Returns:
        (the zip, the folder in it or ""); None where no part of the path ends as a zip's does.
    """
    found = re.fullmatch(r"(.+?\.zip)(?:/+(.*?))?/*", path, re.IGNORECASE | re.DOTALL)
    return None if found is None else (found[1], found[2] or "")


def is_image(name: str) -> bool:
    """Whether a name (forward slashes) ends as an image does and no part of it is hidden."""
    return name.lower().endswith(PICTURE_ENDINGS) and not any(is_hidden(part) for part in name.split("/"))


def is_hidden(part: str) -> bool:
    """Whether a part of a name is hidden, or what macOS adds to zips."""
    return part.startswith(".") or part == "__MACOSX"


def is_shard(name: str) -> bool:
    """Whether a file's name is that of latents in shards (`shards.py`)."""
    return _SHARD.fullmatch(name) is not None


def is_tar(name: str) -> bool:
    """Whether a file's name is that of a tar shard (`webdataset.py`)."""
    return name.lower().endswith(".tar") and not is_hidden(name)


def has_shards(folder: str) -> bool:
    """Whether a folder holds latents in shards; False where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return any(is_shard(entry.name) for entry in entries)
    except (OSError, ValueError):  # the latter of a name that no file can have
        return False


def has_tars(folder: str) -> bool:
    """Whether a folder holds tar shards, and neither images nor folders beside them; False where it cannot be listed.

    A folder of a million images is known by the first of them.
    """
    found = False
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found |= is_tar(entry.name)
                if not is_hidden(entry.name) and (is_image(entry.name) or entry.is_dir()):
                    return False
    except (OSError, ValueError):
        return False
    return found


def is_saved(path: str) -> bool:
    """Whether a folder is one that `datasets` saved: Arrow's files, or splits of them (`arrow.py`)."""
    beside = [name for name in ("state.json", "dataset_info.json") if os.path.isfile(os.path.join(path, name))]
    return len(beside) == 2 or os.path.isfile(os.path.join(path, "dataset_dict.json"))


def no_images(path: str, files: int) -> DataError:
    """Makes the error for a tree of `files` files that holds no image."""
    endings = " ".join(ending[1:] for ending in PICTURE_ENDINGS)
    found = f"{files} files, none of them {endings}" if files else f"nothing at all. Expected {endings}"
    return DataError(f"No images in {path}: {found}. Point `data=` at the images.")


def are_splits(folders: Iterable[str]) -> bool:
    """Whether folders are named as parts of a data set are, and none as a class would be."""
    return all(folder.lower() in SPLITS for folder in folders)


def several_splits(path: str, splits: Sequence[str]) -> DataError:
    """Makes the error for a path at which there are splits, of which one is to be named."""
    example = next((name for name in splits if name.lower().startswith("train")), next(iter(splits), "train"))
    return DataError(
        f"{path} holds splits in place of classes: {', '.join(splits)}. Give one of them, such as "
        f"{posixpath.join(path, example)}."
    )


def lacking(missing: Sequence[str], count: int) -> str:
    """Says how many of `count` images have no class."""
    return f"{len(missing)} of {count} images have no class, such as {missing[0]}"


def classes(names: list[str], label_file: bytes | None, path: str) -> Classes:
    """Finds the classes of images by their names.

    Args:
        names: Paths in the tree, with forward slashes.
        label_file: Contents of `dataset.json`, which goes first where it has labels. Without them, the folders of the
            first level are the classes, in sorted order, if no image lies beside them.
        path: Of the tree, for errors.

    Raises:
        DataError: `dataset.json` is broken, or the first level is splits in place of classes.
    """
    if label_file is not None:
        content = _parse(label_file, path)
        if isinstance(content, dict) and "labels" in content:
            return _listed(content, names, posixpath.join(path, LABEL_FILE))
    first = [name.split("/")[0] if "/" in name else None for name in names]
    folders = sorted({folder for folder in first if folder is not None})
    if not folders:
        return Classes()
    if None in first:
        beside = [name for name, folder in zip(names, first, strict=True) if folder is None]
        return Classes(lacking=lacking(beside, len(names)))
    if are_splits(folders):
        raise several_splits(path, folders)
    return by_name([folder for folder in first if folder is not None])


def by_name(found: Sequence[str]) -> Classes:
    """Numbers the classes of images, given by their names, in sorted order."""
    names = sorted(set(found))
    rank = {name: label for label, name in enumerate(names)}
    return Classes(np.array([rank[name] for name in found], dtype=np.int64), names)


def _parse(label_file: bytes, path: str) -> object:
    """The contents of `dataset.json`."""
    try:
        content: object = json.loads(label_file)
    except (ValueError, RecursionError) as error:
        reason = "too deep" if isinstance(error, RecursionError) else error
        raise DataError(
            f"{posixpath.join(path, LABEL_FILE)} is not JSON ({reason}). Repair it, or remove it to go without labels."
        ) from error
    return content


def _listed(content: dict[str, object], names: list[str], where: str) -> Classes:
    """EDM's `{"labels": [[name, class], …]}`; null, and vectors in place of classes, give none."""
    listed = content["labels"]
    if listed is None:
        return Classes()
    try:
        by_name = dict(listed)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise DataError(f'{where} has unknown labels. Expected {{"labels": [["name", class], …]}} or null.') from None
    found = [by_name.get(name) for name in names]
    if not all(type(label) is int or label is None for label in found):
        return Classes()
    missing = [name for name, label in zip(names, found, strict=True) if label is None]
    if missing:
        return Classes(lacking=lacking(missing, len(names)))
    check_range(min(found), max(found), where)
    said = next((content[key] for key in NAME_KEYS if key in content), None)
    return Classes(np.array(found, dtype=np.int64), _class_names(said, max(found), where))


def _class_names(said: object, largest: int, where: str) -> list[str] | None:
    """Names from a list, or by numbers from 0; None where something else is said, such as how many there are."""
    if isinstance(said, dict):
        said = [said.get(str(label)) for label in range(len(said))]
    if not isinstance(said, list):
        return None
    if not all(isinstance(name, str) for name in said):
        raise DataError(
            f'{where} names its classes in an unknown form. Expected ["cat", "dog", …] or {{"0": "cat", "1": "dog"}}.'
        )
    check_names(len(said), largest, where)
    return said


def check_names(count: int, largest: int, where: str) -> None:
    """DataError where `count` names are too few for labels up to `largest`."""
    if count <= largest:
        raise DataError(f"{where} has the label {largest} and {count} class names. Expected one for each, from 0.")


def check_range(least: int, largest: int, where: str) -> None:
    """DataError where labels are no numbers of classes."""
    wrong = least if least < 0 else largest
    if not 0 <= wrong <= LARGEST_LABEL:
        shown = f"{wrong}" if abs(wrong) < 10**20 else f"{wrong:.3g}" if abs(wrong) < 10**300 else "beyond 10^300"
        raise DataError(f"{where} has the label {shown}. Expected classes from 0 to {LARGEST_LABEL}; number them anew.")
