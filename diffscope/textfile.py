"""Small text files of users and of earlier runs, read whole: never a device, and never without a limit. And what lies
at a path, before anybody opens it: a pipe would wait for ever, a device has no end.
"""

from __future__ import annotations

import errno
import os
import stat

MOST = 256 << 20
"""Bytes: a result of 200 snapshots × 28 layers × 12 levels has some 200 MB."""


_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def irregular(path: str | os.PathLike[str]) -> str | None:
    """What lies there if it is no regular file; None where it is one. OSError where nothing is."""
    mode = os.stat(path).st_mode
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "something else")


def read_text(path: str | os.PathLike[str], encoding: str = "utf-8", piped: bool = False) -> str:
    """The text, line ends as they are. OSError, with a reason under `strerror`, where it is no regular file or a larger
    one than MOST; UnicodeDecodeError where it is no text. `piped` admits a pipe, as a shell's `<(command)` is one."""
    kind = irregular(path)
    if kind == _KINDS[stat.S_IFDIR]:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if kind is not None and not (piped and kind == _KINDS[stat.S_IFIFO]):
        raise OSError(errno.EINVAL, "a pipe, socket or device, and not a file", path)
    with open(path, encoding=encoding, newline="") as file:
        if (size := os.fstat(file.fileno()).st_size) > MOST:
            raise OSError(errno.EFBIG, f"{size} bytes, where at most {MOST} are read", path)
        text = file.read(MOST)
        if len(text) == MOST and file.read(1):
            raise OSError(errno.EFBIG, f"more than {MOST} characters", path)
        return text
