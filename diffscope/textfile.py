"""Small text files of users and of earlier runs, read whole: never a device, and never without a limit.

`irregular` says what lies at a path before anybody opens it: a pipe would block for ever, a device has no end.
"""

from __future__ import annotations

import errno
import os
import stat

MOST = 256 << 20
"""Most bytes of a text file: a result of 200 snapshots × 28 layers × 12 levels has some 200 MB."""


_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def irregular(path: str | os.PathLike[str]) -> str | None:
    """Says what lies at a path if it is not a regular file.

    Args:
        path: Any path; links are followed.

    Returns:
        "a pipe", "a socket", "a device", "a folder" or "something else"; None for a regular file.

    Raises:
        OSError: If nothing is there.
    """
    mode = os.stat(path).st_mode
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "something else")


def read_text(path: str | os.PathLike[str], encoding: str = "utf-8", piped: bool = False) -> str:
    """Reads a whole text file, line ends as they are.

    Args:
        path: A regular file of at most MOST bytes.
        encoding: Of the text.
        piped: Also accept a pipe, such as a shell's `<(command)`.

    Returns:
        The text.

    Raises:
        OSError: If it is no regular file, or larger than MOST; `strerror` says which.
        UnicodeDecodeError: If it is not text in this encoding.
    """
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
