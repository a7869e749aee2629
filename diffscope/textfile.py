"""Small text files of users and of earlier runs, read whole: never a pipe or a device, and never without a limit."""

from __future__ import annotations

import errno
import os
import stat

MOST = 256 << 20
"""Bytes: a result of 200 snapshots × 28 layers × 12 levels has some 200 MB."""


def read_text(path: str | os.PathLike[str], encoding: str = "utf-8") -> str:
    """The text, line ends as they are. OSError, with a reason under `strerror`, where it is no regular file or a larger
    one than MOST; UnicodeDecodeError where it is no text."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "a pipe, socket or device, and not a file", path)
    with open(path, encoding=encoding, newline="") as file:
        if (size := os.fstat(file.fileno()).st_size) > MOST:
            raise OSError(errno.EFBIG, f"{size} bytes, where at most {MOST} are read", path)
        return file.read(MOST)
