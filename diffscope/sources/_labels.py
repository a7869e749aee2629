"""A labels file: a CSV with the columns `file` and `class`, for images of any source.

    file,class
    a/0001.png,cat
    "b, c/0002.png",dog

Names of files are those that the source gives its images: paths inside the folder, zip or tar, with forward slashes.
Classes that are all whole numbers are taken as they are; others are names, numbered in sorted order.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

import numpy as np

from diffscope.errors import DataError
from diffscope.names import visible
from diffscope.sources import _listing
from diffscope.sources._listing import Classes, by_name
from diffscope.textfile import read_text

COLUMNS = ("file", "class")


def of(names: Sequence[str], path: str, where: str) -> Classes:
    """Reads the classes of images.

    Args:
        names: Of all images of a source.
        path: Of the labels file. Its lines for other images are left out.
        where: The source, for errors.

    Returns:
        Those of every image, with names unless the file numbers them.

    Raises:
        DataError: It cannot be read, a line is wrong, or an image has no line.
    """
    said: dict[str, str] = {}
    for line, name, label in _lines(path):
        if said.setdefault(name, label) != label:
            raise _wrong(path, line, f"{name!r} is of class {said[name]!r} in a line before, of {label!r} here")
    if missing := [name for name in names if name not in said]:
        raise DataError(
            f"`labels={path}` has no line for {visible(missing[0])} ({len(missing)} of {len(names)} images are "
            f"missing). Expected every image, named as it is in {where}."
        )
    found = [said[name] for name in names]
    if all(label.isascii() and label.isdecimal() for label in found):
        numbers = [int(label[:20]) for label in found]
        _listing.check_range(min(numbers), max(numbers), path)
        return Classes(np.array(numbers, dtype=np.int64))
    return by_name(found)


def _lines(path: str) -> Iterator[tuple[int, str, str]]:
    """(number of the line, file, class) of each line below the first."""
    try:
        text = read_text(path, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DataError(
            f"`labels={path}` cannot be read: {reason}. Expected a CSV of {' and '.join(COLUMNS)}."
        ) from None
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        head = next(lines, [])
        if any(head.count(column) != 1 for column in COLUMNS):
            raise _wrong(path, 1, f"the columns are {', '.join(head)[:100] or 'none'}")
        file, label = (head.index(column) for column in COLUMNS)
        for row in lines:
            if not row:
                continue
            if len(row) != len(head):
                raise _wrong(path, lines.line_num, f"{len(row)} columns where the first line has {len(head)}")
            if not row[file] or not row[label]:
                raise _wrong(path, lines.line_num, f"its {COLUMNS[0] if not row[file] else COLUMNS[1]} is empty")
            yield lines.line_num, row[file].removeprefix("./"), row[label]
    except csv.Error as error:
        raise _wrong(path, lines.line_num, str(error)) from None


def _wrong(path: str, line: int, found: str) -> DataError:
    """Makes the error for a line."""
    return DataError(
        f"`labels={path}`, line {line}: {visible(found)}. Expected the columns {' and '.join(COLUMNS)}, named in the "
        "first line; names with commas in double quotes."
    )
