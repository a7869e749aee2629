"""Masks: the class of every pixel of an image, as PNGs beside the images, checked before anything is computed.

The mask of `a/b.jpg` is DIR/a/b.png: 8 bits a pixel, grey or with a palette, whose number is the class; 255 is void and
counts nowhere. DIR/classes.txt, a name a line from class 0, says which classes there are; without it they are 0 to the
largest number found. A mask is cut and scaled as its image is, to the nearest pixel.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffscope.errors import DataError
from diffscope.sources.base import Source, Target
from diffscope.textfile import irregular, read_text

VOID = 255
CLASS_FILE = "classes.txt"
MOST_BYTES = 64 << 20
"""Of a mask's file."""

Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class Masks:
    """The masks of some images of a source, all of them there and whole."""

    folder: Path
    source: Source
    target: Target
    class_names: tuple[str, ...] | None
    classes: int
    """K; masks hold 0 … K − 1 and VOID."""
    fingerprint: str
    """Of the files and the names of the classes, SHA-256, hex."""

    def read(self, index: int) -> Mask:
        """The mask of an image as the network sees the image, [side, side]."""
        return fitted(_decoded(self.folder / mask_name(self.source, index)), self.target)


def open_masks(path: str, source: Source, indices: Sequence[int], target: Target) -> Masks:
    """Reads every mask once: it is there, has its image's size, and holds classes alone.

    Args:
        path: The folder.
        source: Of the images.
        indices: Of the images whose masks are used.
        target: What images are brought to.

    Raises:
        DataError: The first thing that is wrong, with the name of the file.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(f"`masks={path}`: no such folder; expected one of class-index PNGs named as the images")
    names = _class_names(folder)
    files = {index: mask_name(source, index) for index in sorted(indices)}
    _check_files(folder, source, files)
    digest = hashlib.sha256(repr(names).encode())
    found = np.zeros(256, dtype=bool)
    for index, name in files.items():
        mask = _decoded(folder / name)
        _check_size(mask, source, index, name)
        there = np.bincount(mask.ravel(), minlength=256) > 0
        _check_classes(there, names, name)
        found |= there
        digest.update(f"{index} {mask.shape}".encode() + mask.tobytes())
    largest = int(np.flatnonzero(found[:VOID])[-1]) if found[:VOID].any() else -1
    count = largest + 1 if names is None else len(names)
    if found[:VOID].sum() < 2:
        what = "nothing but void (255)" if largest < 0 else f"class {largest} alone"
        raise DataError(f"`masks={path}`: the masks hold {what}; expected numbers of at least two classes, from 0")
    return Masks(folder, source, target, names, count, digest.hexdigest())


def mask_name(source: Source, index: int) -> str:
    """Of an image's mask below the folder: a/b.png of a/b.jpg."""
    name = source.name(index)
    head, slash, tail = name.rpartition("/")
    stem = tail.rsplit(".", 1)[0] if "." in tail else tail
    return f"{head}{slash}{stem}.png"


def fitted(mask: Mask, target: Target) -> Mask:
    """Cuts and scales a mask as its image is cut and scaled (`sources/_decode.py`), each pixel the nearest one.

    Args:
        mask: [H, W].
        target: What the image is brought to.

    Returns:
        [side, side].
    """
    height, width = mask.shape
    side, shorter = target.side, min(height, width)
    if target.resize == "lanczos":
        top, left = (height - shorter) // 2, (width - shorter) // 2
        return _nearest(mask[top : top + shorter, left : left + shorter], side, side)
    if target.resize == "adm":
        halved = (height, width)
        while min(halved) >= 2 * side:
            halved = (halved[0] // 2, halved[1] // 2)
        tall, wide = (round(length * side / min(halved)) for length in halved)
        top, left = (tall - side) // 2, (wide - side) // 2
    else:
        tall, wide = (side if length == shorter else int(side * length / shorter) for length in (height, width))
        top, left = round((tall - side) / 2), round((wide - side) / 2)
    return _nearest(mask, tall, wide)[top : top + side, left : left + side]


def _nearest(mask: Mask, height: int, width: int) -> Mask:
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for old, new in zip(mask.shape, (height, width), strict=True)
    )
    return np.ascontiguousarray(mask[rows][:, columns])


def _class_names(folder: Path) -> tuple[str, ...] | None:
    path = folder / CLASS_FILE
    try:
        lines = read_text(path).splitlines()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); expected a class's name a line") from None
    names = tuple(line.strip() for line in lines if line.strip())
    if not 2 <= len(names) <= VOID or len(set(names)) < len(names):
        raise DataError(f"{path}: {len(names)} names; expected 2 to {VOID}, one a line and none twice, from class 0")
    return names


def _check_files(folder: Path, source: Source, files: dict[int, str]) -> None:
    """DataError where a mask is missing, or two images would share one."""
    missing = [index for index, name in files.items() if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"`masks={folder}`: {len(missing)} of {len(files)} images have no mask; the first, "
            f"{source.name(missing[0])}, needs {files[missing[0]]}"
        )
    if len(set(files.values())) < len(files):
        by_name: dict[str, int] = {}
        for index, name in files.items():
            if name in by_name:
                both = f"{source.name(by_name[name])} and {source.name(index)}"
                raise DataError(f"`masks={folder}`: {both} would both have the mask {name}; rename one of the images")
            by_name[name] = index


def _decoded(path: Path) -> Mask:
    try:
        with Image.open(io.BytesIO(_bytes(path)), formats=("PNG",)) as stored:
            if stored.mode not in ("L", "P"):
                raise DataError(
                    f"mask {path}: a PNG of mode {stored.mode}; expected 8 bits a pixel, grey or palette, the class's "
                    "number in each"
                )
            return np.asarray(stored)
    except DataError:
        raise
    except Exception as error:  # Pillow keeps no closed list of what damaged files raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"mask {path}: cannot be read as a PNG ({reason}); replace it") from None


def _bytes(path: Path) -> bytes:
    if (kind := irregular(path)) is not None:
        raise DataError(f"mask {path}: it is {kind}, no file; replace or remove it")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise DataError(f"mask {path}: {size} bytes; expected at most {MOST_BYTES}")
    return path.read_bytes()


def _check_size(mask: Mask, source: Source, index: int, name: str) -> None:
    try:
        size = source.stored_size(index)
    except DataError:  # an image that cannot be read is left out later, as any
        return
    if size is None:
        raise DataError(f"`masks=`: {source.path} does not tell the size of its images; give a folder, .zip or array")
    if mask.shape != size:
        raise DataError(
            f"mask {name}: {mask.shape[0]} × {mask.shape[1]} pixels, and its image has {size[0]} × {size[1]}; "
            "expected the same height and width"
        )


def _check_classes(there: NDArray[np.bool_], names: tuple[str, ...] | None, name: str) -> None:
    if names is None:
        return
    beyond = np.flatnonzero(there[len(names) : VOID])
    if len(beyond):
        raise DataError(
            f"mask {name}: class {len(names) + int(beyond[0])}, and {CLASS_FILE} names 0 to {len(names) - 1}; "
            f"correct one of them ({VOID} is void)"
        )
