"""Reads files on disk. Only a regular file is ever opened: a pipe would wait for ever, a device has no end."""

from __future__ import annotations

import errno
import os

from diffscope.errors import DataError, Exhausted
from diffscope.textfile import irregular

_OURS = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""Errors that are no fault of the file."""


def read(path: str | os.PathLike[str], name: str, most: int) -> bytes:
    """Reads a whole file; DataError, with `name`, where it cannot be read or has more than `most` bytes."""
    try:
        if (kind := irregular(path)) is not None:
            raise DataError(f"Cannot read {name}: it is {kind}, no file. Replace or remove it.")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise too_large(name, size, most)
            return file.read(size)
    except OSError as error:
        raise unreadable(name, error) from error


def unreadable(name: str, error: OSError) -> DataError | Exhausted:
    """Makes the error for a file that the system does not give."""
    if error.errno in _OURS:
        return Exhausted(f"{name} could not be opened: {error.strerror}. Leaving it out would change the numbers.")
    return DataError(f"Cannot read {name}: {error.strerror or error}. Replace or remove the file.")


def too_large(name: str, size: int, most: int) -> DataError:
    """Makes the error for a file of more than `most` bytes."""
    return DataError(
        f"Cannot read {name} ({size} bytes): expected at most {most}. Replace or remove it; pictures grow with "
        "`max_pixels=`."
    )
