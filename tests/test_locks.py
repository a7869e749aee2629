"""Claims and shares of folders among processes: who may use, who may remove, and what a killed process leaves."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import pytest

from diffscope import locks
from diffscope.cache.store import Parts, write_atomically
from diffscope.errors import StoreError


@contextmanager
def another(how: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that claims or shares a folder until its stdin ends or it is killed."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom diffscope import locks\n"
        f"held = locks.{how}(Path(sys.argv[1]))\nprint('held', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def ended(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def test_a_claim_keeps_others_off_until_its_process_dies(tmp_path: Path) -> None:
    with another("claim", tmp_path) as other:
        with pytest.raises(BlockingIOError):
            locks.claim(tmp_path)
        assert not locks.remove(tmp_path)
        ended(other)
        mine = locks.claim(tmp_path)
        assert not locks.remove(tmp_path)
        del mine
    assert locks.remove(tmp_path)


def test_users_share_and_removal_waits_for_the_last(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with another("share", folder) as first, another("share", folder) as second:
        leave = locks.share(folder)
        (folder / "data").touch()
        leave()
        assert not locks.remove(folder)
        ended(first)
        assert not locks.remove(folder)
        assert (folder / "data").exists()
        ended(second)
    assert locks.remove(folder)
    assert not folder.exists()


def test_what_killed_users_left_goes_when_another_comes(tmp_path: Path) -> None:
    with another("share", tmp_path) as other:
        ended(other)
    leave = locks.share(tmp_path)
    assert len([path for path in tmp_path.iterdir() if locks.is_lock(path.name)]) == 2
    leave()
    assert [path.name for path in tmp_path.iterdir()] == [locks.LOCK]


def test_a_user_comes_when_a_removal_has_ended(tmp_path: Path) -> None:
    """As long as the gate is held, whoever wants to use the folder waits."""
    gate = locks.claim(tmp_path / "a")
    left: list[bool] = []
    waiting = threading.Thread(target=lambda: (locks.share(tmp_path / "a")(), left.append(True)))
    waiting.start()
    waiting.join(0.1)
    assert left == []
    del gate
    waiting.join()
    assert left == [True]


def test_who_waits_in_vain_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.05)
    with another("claim", tmp_path), pytest.raises(BlockingIOError):
        locks.share(tmp_path)


def test_a_lock_is_on_the_folder_that_is_there(tmp_path: Path) -> None:
    """Removed and made again between opening and locking, a lock on the old file would hold nothing."""
    first = locks.share(tmp_path / "a")
    assert not locks.remove(tmp_path / "a")
    second = locks.share(tmp_path / "a")
    first()
    assert not locks.remove(tmp_path / "a")
    second()
    assert locks.remove(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    third = locks.share(tmp_path / "a")
    assert not locks.remove(tmp_path / "a")
    third()


@pytest.mark.parametrize("how", ["claim", "share"])
def test_a_folder_removed_before_it_is_locked_is_made_again(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, removed = filelock.lock_descriptor, list[bool]()

    def late(file: int, *, blocking: bool) -> bool:
        if not removed:
            shutil.rmtree(tmp_path / "a")
            removed.append(True)
        return lock(file, blocking=blocking)

    monkeypatch.setattr(filelock, "lock_descriptor", late)
    held = getattr(locks, how)(tmp_path / "a")
    assert removed
    assert not locks.remove(tmp_path / "a")
    del held


def test_a_file_removed_before_it_is_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another process that takes it for one that a killed run left."""
    lock, removed = filelock.lock_descriptor, list[bool]()

    def late(file: int, *, blocking: bool) -> bool:
        if not removed:
            for path in tmp_path.glob(".*"):
                path.unlink()
            removed.append(True)
        return lock(file, blocking=blocking)

    monkeypatch.setattr(filelock, "lock_descriptor", late)
    write_atomically(tmp_path / "result", lambda path: path.open("r+").close())
    assert removed
    assert os.listdir(tmp_path) == ["result"]


def test_a_claim_can_be_had_again_in_the_same_process(tmp_path: Path) -> None:
    """In a notebook the traceback of a call that failed keeps its claim."""
    first, second = Parts(tmp_path, "0" * 64), Parts(tmp_path, "0" * 64)
    first.claim()
    second.claim()
    del first
    assert not locks.remove(second.folder)
    second.clear()
    assert not second.folder.exists()
    third = Parts(tmp_path, "0" * 64)
    third.claim()
    assert not locks.remove(third.folder)


def test_a_claim_of_a_folder_that_was_removed_is_not_given_again(tmp_path: Path) -> None:
    first, second = Parts(tmp_path, "0" * 64), Parts(tmp_path, "0" * 64)
    first.claim()
    second.claim()
    second.clear()
    third = Parts(tmp_path, "0" * 64)
    third.claim()
    assert not locks.remove(third.folder)


@pytest.mark.parametrize(("number", "words"), [(errno.ENOLCK, "[Nn]o locks"), (errno.ENOSYS, "not implemented")])
def test_a_file_system_without_locks(tmp_path: Path, number: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is not begun there; a file is written all the same."""

    def none(file: int, *, blocking: bool) -> bool:
        raise OSError(number, os.strerror(number))

    def whole(path: Path) -> None:
        path.write_bytes(b"whole")

    monkeypatch.setattr(filelock, "lock_descriptor", none)
    with pytest.raises(StoreError, match=f"parts-0000.*cannot be written: .*{words}"):
        Parts(tmp_path, "0" * 64).claim()
    with pytest.raises(OSError, match=words):
        locks.share(tmp_path / "a")
    (tmp_path / ".left.1.unfinished").touch()
    write_atomically(tmp_path / "result", whole)
    assert (tmp_path / "result").read_bytes() == b"whole"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [".left.1.unfinished", "result"]


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").touch()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / locks.LOCK).symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="symbolic link"):
        locks.claim(tmp_path / "a")


def test_a_run_that_another_process_measures(tmp_path: Path) -> None:
    parts = Parts(tmp_path, "0" * 64)
    with another("claim", parts.folder), pytest.raises(StoreError, match="another process is measuring the same"):
        parts.claim()
