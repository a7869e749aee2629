"""Members of tar files by their place: the headers are read once, and later the bytes asked for alone.

Only plain files that lie in the tar as they are: links, sparse files and devices are none.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

from diffscope.errors import DataError
from diffscope.sources import _files

MOST_AT_ONCE = 1 << 20
"""Bytes of one header; names that are longer than 100 characters have further ones."""


@dataclass(frozen=True)
class Member:
    """Where a file lies in a tar."""

    name: str
    start: int
    size: int
    content: bytes | None = None
    """Of one that was read as it was met."""


def members(path: str, small: Callable[[str], bool], most: int) -> Iterator[Member]:
    """Lists the files of a tar.

    Args:
        path: Of the tar.
        small: Whether to read a file of that name at once.
        most: Bytes that such a file may have; larger ones are left unread.

    Yields:
        Its plain files, in its order.

    Raises:
        DataError: It is no tar, compressed, or cut short.
        Exhausted: File handles ran out.
    """
    before = -1
    try:
        with open(path, "rb") as file, tarfile.open(path, "r:", cast(BinaryIO, _Bounded(file))) as archive:
            while (found := archive.next()) is not None:
                if found.offset <= before or found.size < 0:
                    raise DataError("its headers lead backwards")
                before = found.offset
                archive.members = []  # type: ignore[attr-defined] # it would hold them all
                if found.isreg() and not found.issparse():
                    content = None
                    if found.size <= most and small(found.name):
                        file.seek(found.offset_data)
                        content = file.read(found.size)
                    yield Member(found.name, found.offset_data, found.size, content)
            _check_end(file, archive.offset)
    except MemoryError:
        raise
    except OSError as error:
        raise _files.unreadable(path, error) from error
    # Besides TarError: ValueError, UnicodeDecodeError and RecursionError of damaged headers.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"Cannot read {path} as a tar: {reason}. Was it copied completely? If it is compressed, unpack it "
            "(gunzip): images are read from the middle of it."
        ) from error


def _check_end(file: BinaryIO, place: int) -> None:
    """DataError where there is something else than the end: tarfile takes a damaged header for one."""
    file.seek(place)
    if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise DataError(f"the header at byte {place} is damaged")


def read(path: str, member: Member, name: str, most: int) -> bytes:
    """Reads a member; DataError, with `name`, where it has more than `most` bytes or the tar ends before."""
    if member.size > most:
        raise _files.too_large(name, member.size, most)
    try:
        with open(path, "rb") as file:
            file.seek(member.start)
            data = file.read(member.size)
    except OSError as error:
        raise _files.unreadable(name, error) from error
    if len(data) < member.size:
        raise DataError(f"Cannot read {name}: {path} ends before it does. Was it copied completely?")
    return data


class _Bounded:
    """A file of which no header takes more than a header needs."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, count: int = -1) -> bytes:
        """Reads at most `count` bytes; DataError where that is more than MOST_AT_ONCE."""
        if not 0 <= count <= MOST_AT_ONCE:
            raise DataError(f"a header of {count} bytes")
        return self._file.read(count)
