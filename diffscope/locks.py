"""Who is at a folder: each of those who use it holds a lock file of its own there, whoever removes it holds them all.

A lock is the operating system's on an open file and ends with its process, however that ends. On Windows an open file
can be neither removed nor renamed: what is removed there is closed just before.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

LOCK = "lock"
"""Whoever has this file alone decides who else may come; users have it while they enter."""

PATIENCE = 2.0
"""Seconds that a user waits for a folder in removal; it then begins with an empty one."""


class Claim:
    """A folder that this process has to itself while this object lives."""

    def __init__(self, lock: int) -> None:
        self.lock = lock
        weakref.finalize(self, os.close, lock)


_claims: weakref.WeakValueDictionary[Path, Claim] = weakref.WeakValueDictionary()


def claim(folder: Path) -> Claim:
    """Have a folder, which is made where it is not there; BlockingIOError where another process has it.

    Whoever asks again in this process is given the same claim: what keeps the first may be no more than the traceback
    of a call that failed.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder.resolve() / LOCK
        known = _claims.get(path)
        if known is not None and _is_at(known.lock, path):
            return known
        with contextlib.suppress(FileNotFoundError):  # removed since it was made
            _claims[path] = found = Claim(_take(path))
            return found


def share(folder: Path) -> Callable[[], None]:
    """Use a folder, which is made where it is not there; gives what ends the use.

    BlockingIOError where somebody is removing it all the while, another OSError where it cannot be written.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return _enter(folder)
        except FileNotFoundError:  # removed since it was made
            continue
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def remove(folder: Path) -> bool:
    """Remove a folder and all in it, unless some process uses it or it cannot be removed; whether it is gone."""
    try:
        gate = _take(folder / LOCK, create=False)
    except FileNotFoundError:
        return _emptied(folder)
    except OSError:
        return False
    if _left_by_all(folder) and _emptied(folder, but=LOCK):
        with contextlib.suppress(OSError):
            _unlink(folder / LOCK, gate)  # the last: until then nobody can begin to use what is half gone
            folder.rmdir()
    else:
        os.close(gate)
    return not folder.exists()


@contextlib.contextmanager
def file_in_work(path: Path) -> Iterator[None]:
    """Make an empty file, or empty it, and show others that it is in work, by a lock that lies beside it."""
    beside, lock = _beside(path), None
    with contextlib.suppress(OSError):  # a file system without locks, or one that refuses the file as well
        lock = _take(beside)
    try:
        path.write_bytes(b"")
        yield
    finally:
        with contextlib.suppress(OSError):
            _unlink(beside, lock)


def unlink(path: Path) -> None:
    """Remove a file, and the lock beside it, unless some process has it in work."""
    beside = _beside(path)
    fresh = not beside.exists()
    with contextlib.suppress(OSError):
        try:
            lock = _take(beside)
        except OSError as error:
            if fresh and not isinstance(error, BlockingIOError):  # a file system without locks
                beside.unlink()
            return
        try:
            path.unlink(missing_ok=True)
        finally:
            _unlink(beside, lock)


def is_lock(name: str) -> bool:
    """Whether a file in a folder that is shared or claimed is one of its locks."""
    return name == LOCK or name.startswith(f"{LOCK}-")


def _enter(folder: Path) -> Callable[[], None]:
    """Use a folder; BlockingIOError where another process has its gate, FileNotFoundError where it has gone."""
    gate = _take(folder / LOCK)
    try:
        _left_by_all(folder)
        mine = folder / f"{LOCK}-{uuid.uuid4().hex}"
        lock = _take(mine)
        os.utime(folder / LOCK)  # when it was last used
    finally:
        os.close(gate)

    def leave() -> None:
        with contextlib.suppress(OSError):
            _unlink(mine, lock)

    return leave


def _left_by_all(folder: Path) -> bool:
    """Whether nobody uses a folder whose gate is ours; what killed users left is removed."""
    left = True
    for path in list(folder.glob(f"{LOCK}-*")):
        try:
            _unlink(path, _take(path, create=False))
        except FileNotFoundError:
            continue
        except OSError:
            left = False
    return left


def _emptied(folder: Path, but: str = "") -> bool:
    """Remove what is in a folder, and the folder itself if nothing is to stay; whether that went well."""
    try:
        for path in list(folder.iterdir()):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != but:
                path.unlink()
        if not but:
            folder.rmdir()
    except OSError:
        return not folder.exists()
    return True


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.{LOCK}")


def _take(path: Path, create: bool = True) -> int:
    """A lock file, open and held by nobody else until it is closed or this process ends; else BlockingIOError."""
    from filelock import lock_descriptor

    while True:
        lock = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0) | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if not lock_descriptor(lock, blocking=False):
                raise BlockingIOError(errno.EAGAIN, "another process holds its lock", str(path))
            if _is_at(lock, path):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # removed before it was locked: a lock on it would hold nothing


def _unlink(path: Path, lock: int | None) -> None:
    """Remove a lock file and let go of it."""
    try:
        if os.name != "nt":
            path.unlink(missing_ok=True)
    finally:
        if lock is not None:
            os.close(lock)
    if os.name == "nt":
        path.unlink(missing_ok=True)


def _is_at(lock: int, path: Path) -> bool:
    """Whether an open file is still the one of this name: it may have been removed before it was locked."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(lock), os.stat(path))
    return False
