"""What is tried: a folder of files, and one command run in it."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

GIB = 1 << 30
MAX_PIXELS = 178_956_970
"""Pixels of the largest picture that is read by default, Pillow's own limit."""


class Odd(str):
    """Stands for what is no regular file: 'fifo', 'socket', 'folder', 'link:TARGET'; 'hole:N' is N bytes of nothing."""


Files = Mapping[str, "bytes | Odd"]
"""Relative name → content."""


@dataclass(frozen=True)
class Case:
    kind: str
    files: Files
    argv: tuple[str, ...]
    """Words of the command, whose paths are names of `files`."""
    changed: tuple[str, ...]
    """Files that may be damaged."""
    same_rows: bool = False
    """Whether the command, if it ends well, must print what it printed of the undamaged files."""
    pictures: bool = False
    """Whether pictures are read, which may be large when unpacked."""
    what: str = "undamaged"

    def with_files(self, files: Files, what: str) -> Case:
        return replace(self, files=files, what=what)

    @property
    def size(self) -> int:
        """Bytes of the files that may be damaged."""
        return sum(_size(content) for name, content in self.files.items() if name in self.changed)

    @property
    def budget(self) -> int:
        """Bytes that the command may take beyond the program itself."""
        return GIB + (4 * 3 * MAX_PIXELS if self.pictures else 2 * self.size)


def _size(content: bytes | Odd) -> int:
    if isinstance(content, Odd):
        return int(content[5:]) if content.startswith("hole:") else 0
    return len(content)


def write(files: Files, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, Odd):
            path.write_bytes(content)
        elif content == "fifo":
            os.mkfifo(path)
        elif content == "folder":
            path.mkdir()
        elif content == "socket":
            bound = socket.socket(socket.AF_UNIX)
            # The path of a socket may have 107 bytes: it is bound from within its folder.
            here = os.getcwd()
            os.chdir(path.parent)
            bound.bind(path.name)
            os.chdir(here)
            bound.close()
        elif content.startswith("link:"):
            path.symlink_to(content[5:])
        else:
            with open(path, "wb") as file:
                file.truncate(int(content.removeprefix("hole:")))


def remove(folder: Path) -> None:
    """With all that commands wrote there."""
    shutil.rmtree(folder, ignore_errors=True)
