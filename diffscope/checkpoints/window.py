"""A stretch of bytes in an open file, read forwards and never past its end.

Every length that a checkpoint declares is compared with the bytes that are left before anything is allocated, so a
few bytes of file cannot ask for gigabytes of memory.
"""

from __future__ import annotations

import io
from typing import BinaryIO

from diffscope.errors import CheckpointError

CHUNK = 1 << 16  # opcodes are one byte each: they are served from a buffer of this many bytes


class Window:
    """Bytes `start` to `end` of a file. Windows on one file do not disturb each other.

    Args:
        file: Open for reading, in binary.
        start: First byte.
        end: Behind the last byte.
    """

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self._file = file
        self._chunk = b""
        self._origin = start
        self.start = start
        self.position = start
        self.end = end

    @classmethod
    def on_bytes(cls, data: bytes) -> Window:
        """Makes a window on bytes in memory."""
        return cls(io.BytesIO(data), 0, len(data))

    @property
    def left(self) -> int:
        """Number of bytes that are not read yet."""
        return self.end - self.position

    def read(self, count: int) -> bytes:
        """Reads on.

        Args:
            count: Number of bytes.

        Returns:
            The next `count` bytes.

        Raises:
            CheckpointError: If fewer are left.
        """
        self.expect(count)
        begin = self.position - self._origin
        piece = self._chunk[begin : begin + count]
        if len(piece) < count:
            self._file.seek(self.position)
            self._origin = self.position
            self._chunk = self._file.read(max(count, min(CHUNK, self.left)))
            piece = self._chunk[:count]
            if count > CHUNK:
                self._chunk = b""
        if len(piece) < count:
            raise _truncated(self.position, "the file became shorter while it was read")
        self.position += count
        return piece

    def line(self, limit: int) -> bytes:
        """Reads up to the next newline, which is dropped.

        Args:
            limit: Largest length, in bytes.

        Returns:
            The line.

        Raises:
            CheckpointError: If it is longer, or has no end.
        """
        start = self.position
        piece = self.read(min(limit + 1, self.left))
        end = piece.find(b"\n")
        if end < 0 and len(piece) > limit:
            raise CheckpointError(f"damaged pickle at byte {start}: a name of more than {limit} bytes")
        if end < 0:
            raise _truncated(start, "a name without an end")
        self.position = start + end + 1
        return piece[:end]

    def rewound(self) -> Window:
        """Gives the same bytes, from their beginning."""
        return Window(self._file, self.start, self.end)

    def cut(self, count: int) -> Window:
        """Takes the next bytes as a window of their own, unread.

        Args:
            count: Number of bytes.

        Returns:
            The window.

        Raises:
            CheckpointError: If fewer are left.
        """
        self.expect(count)
        piece = Window(self._file, self.position, self.position + count)
        self.position += count
        return piece

    def fill(self, buffer: memoryview) -> None:
        """Copies the whole window straight into a buffer.

        Args:
            buffer: As long as the window.

        Raises:
            CheckpointError: If the file became shorter meanwhile.
        """
        assert len(buffer) == self.end - self.start
        self._file.seek(self.start)
        done = 0
        while done < len(buffer):
            count = self._file.readinto(buffer[done:])  # type: ignore[attr-defined]
            if not count:
                raise _truncated(self.start + done, "the file became shorter while it was read")
            done += count

    def expect(self, count: int) -> None:
        """Checks that enough bytes are left.

        Args:
            count: Number of bytes.

        Raises:
            CheckpointError: If fewer are left, or `count` is negative.
        """
        if count < 0 or count > self.left:
            raise _truncated(self.position, f"{count} more bytes are declared and {self.left} are there")


def _truncated(position: int, found: str) -> CheckpointError:
    """Makes the error to raise where a file ends too early."""
    return CheckpointError(f"damaged or cut short at byte {position}: {found}; fetch or copy the file again")
