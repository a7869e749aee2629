"""Which names of a tree of files are images, and what their classes are. Shared by folders and zips."""

from __future__ import annotations

import json
import os
import posixpath
import re

import numpy as np

from diffscope.errors import DataError
from diffscope.formats import PICTURE_ENDINGS

LABEL_FILE = "dataset.json"
"""EDM's name for the list of labels at the root of a data set."""
_SHARD = re.compile(r"latents_rank\d+_shard\d+\.safetensors")
LARGEST_LABEL = 2**31 - 1


def most_bytes(images: int) -> int:
    """Most bytes of `dataset.json`: an image takes some 30, and up to twenty times as many in memory."""
    return (16 << 20) + 256 * images


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


def no_images(path: str, files: int) -> DataError:
    """Makes the error for a tree of `files` files that holds no image."""
    endings = " ".join(ending[1:] for ending in PICTURE_ENDINGS)
    found = f"{files} files, none of them {endings}" if files else f"nothing at all. Expected {endings}"
    return DataError(f"No images in {path}: {found}. Point `data=` at the images.")


def classes(names: list[str], label_file: bytes | None, path: str) -> tuple[np.ndarray | None, list[str] | None]:
    """Finds the classes of images by their names.

    Args:
        names: Paths in the tree, with forward slashes.
        label_file: Contents of `dataset.json`, which goes first where it has labels. Without them, the folders of the
            first level are the classes, in sorted order, if no image lies beside them.
        path: Of the tree, for errors.

    Returns:
        (labels int64 [count] or None, class names or None)

    Raises:
        DataError: `dataset.json` is broken or leaves an image out.
    """
    if label_file is not None:
        content = _parse(label_file, path)
        if isinstance(content, dict) and "labels" in content:
            return _listed_labels(content["labels"], names, path), None
    first = [name.split("/")[0] if "/" in name else None for name in names]
    folders = sorted({folder for folder in first if folder is not None})
    if not folders or None in first:
        return None, None
    rank = {folder: label for label, folder in enumerate(folders)}
    return np.array([rank[folder] for folder in first if folder is not None], dtype=np.int64), folders


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


def _listed_labels(listed: object, names: list[str], path: str) -> np.ndarray | None:
    """EDM's `{"labels": [[name, class], …]}`; null, and vectors in place of classes, give None."""
    if listed is None:
        return None
    where = posixpath.join(path, LABEL_FILE)
    try:
        by_name = dict(listed)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise DataError(f'{where} has unknown labels. Expected {{"labels": [["name", class], …]}} or null.') from None
    missing = [name for name in names if name not in by_name]
    if missing:
        raise DataError(
            f"{where} has no label for {missing[0]} ({len(missing)} of {len(names)} images are missing). "
            "Complete it, or remove it to go without labels."
        )
    found = [by_name[name] for name in names]
    if not all(type(label) is int for label in found):
        return None
    check_range(min(found), max(found), where)
    return np.array(found, dtype=np.int64)


def check_range(least: int, largest: int, where: str) -> None:
    """DataError where labels are no numbers of classes."""
    wrong = least if least < 0 else largest
    if not 0 <= wrong <= LARGEST_LABEL:
        shown = f"{wrong}" if abs(wrong) < 10**20 else f"{wrong:.3g}" if abs(wrong) < 10**300 else "beyond 10^300"
        raise DataError(f"{where} has the label {shown}. Expected classes from 0 to {LARGEST_LABEL}; number them anew.")
