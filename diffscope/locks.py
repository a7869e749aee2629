"""Who is at a folder: those who use it share its lock, whoever removes it has the lock alone.

The lock is a file in the folder and ends with its process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

LOCK = "lock"

PATIENCE = 2.0
"""Seconds that a user waits for a folder in removal; it then begins with an empty one."""


def share(folder: Path) -> Callable[[], None]:
    """Use a folder, which is made where it is not there; gives what ends the use.

    BlockingIOError where somebody is removing it all the while, another OSError where it cannot be written.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # removed since the line above
            continue
        try:
            _take(lock, exclusive=False)
            if _is_at(lock, folder / LOCK):
                os.utime(folder / LOCK)  # when it was last used
                return lambda: os.close(lock)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(lock)
                raise
            time.sleep(0.02)
        except OSError:
            os.close(lock)
            raise
        os.close(lock)


def remove(folder: Path) -> bool:
    """Remove a folder and all in it, unless some process uses it or it cannot be removed; whether it is gone."""
    try:
        lock = os.open(folder / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return _emptied(folder)
    except OSError:
        return False
    try:
        _take(lock, exclusive=True)
        return _emptied(folder)
    except OSError:
        return False
    finally:
        os.close(lock)


@contextlib.contextmanager
def file_in_work(path: Path) -> Iterator[None]:
    """Make an empty file, or empty it, and show others that it is in work."""
    try:
        import fcntl
    except ImportError:  # Windows: a file that is open can be neither removed nor renamed there
        path.write_bytes(b"")
        yield
        return
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_SH)
        if _is_at(file, path):
            break
        os.close(file)  # removed as left by a killed run, before it was locked
    try:
        yield
    finally:
        os.close(file)


def unlink(path: Path) -> None:
    """Remove a file, unless some process holds it."""
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        try:
            _take(file, exclusive=True)
            path.unlink()
        finally:
            os.close(file)


def claim(lock: int) -> None:
    """Have an open lock file alone until it is closed, or this process ends; BlockingIOError where another has it."""
    try:
        import fcntl
    except ImportError:  # Windows: two processes at one run are then on their own
        return
    fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _emptied(folder: Path) -> bool:
    """The lock's file goes last: until then nobody can begin to use what is half gone."""
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()
    return not folder.exists()


def _take(lock: int, exclusive: bool) -> None:
    """BlockingIOError where another holds it."""
    try:
        import fcntl
    except ImportError:  # Windows: files that are open cannot be removed there anyway
        return
    # flock also keeps users in one process apart, which lockf does not. Runs' parts are claimed with lockf: who
    # removes asks for both.
    fcntl.flock(lock, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    if exclusive:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except PermissionError as error:  # what some systems say for BlockingIOError
            raise BlockingIOError(error.errno, error.strerror) from None


def _is_at(lock: int, path: Path) -> bool:
    """Whether an open file is still the one of this name: it may have been removed before it was locked."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(lock), os.stat(path))
    return False
