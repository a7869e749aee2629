"""Small text files of users and of earlier runs, read whole: never a device, and never without a limit."""

from __future__ import annotations

import errno
import os
import stat

MOST = 256 << 20
"""Bytes: a result of 200 snapshots × 28 layers × 12 levels has some 200 MB."""


def read_text(path: str | os.PathLike[str], encoding: str = "utf-8", piped: bool = False) -> str:
    """The text, line ends as they are. OSError, with a reason under `strerror`, where it is no regular file or a larger
    one than MOST; UnicodeDecodeError where it is no text. `piped` admits a pipe, as a shell's `<(command)` is one."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not (stat.S_ISREG(mode) or (piped and stat.S_ISFIFO(mode))):
        raise OSError(errno.EINVAL, "a pipe, socket or device, and not a file", path)
    with open(path, encoding=encoding, newline="") as file:
        if (size := os.fstat(file.fileno()).st_size) > MOST:
            raise OSError(errno.EFBIG, f"{size} bytes, where at most {MOST} are read", path)
        text = file.read(MOST)
        if len(text) == MOST and file.read(1):
            raise OSError(errno.EFBIG, f"more than {MOST} characters", path)
        return text
