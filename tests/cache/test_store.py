"""A part is whole or not there, and comes back as it went."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from diffscope.cache.store import (
    Parts,
    Records,
    as_bytes,
    cache_folder,
    remove_unfinished,
    write_atomically,
    write_tensors,
)
from diffscope.errors import StoreError

HASH = "0123456789abcdef" * 4
ARRAYS = {
    "0/0/count": np.array(7, dtype=np.int64),
    "0/0/mean": np.arange(6, dtype=np.float64).reshape(2, 3),
    "0/1/mean": np.array([0.1, -0.0, 1e-300]),
    "1/0/mean": np.zeros((0, 3)),
}


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path, HASH)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_arrays_and_record_come_back(parts: Parts) -> None:
    record = {"skipped": [{"file": "ä.png", "why": "broken"}], "seconds": 1.5, "none": None}
    parts.write(0, ARRAYS, record)
    found = parts.read(0, "")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes(), "to the last bit, the sign of zero included"
    assert parts.record(0) == record


def test_a_number_comes_back_without_dimensions(parts: Parts) -> None:
    parts.write(0, {"n": np.array(3.5)}, {})
    assert parts.read(0, "")["n"].shape == ()


@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3).T, np.arange(10.0)[::2], np.asfortranarray(np.eye(3) + 1)]
)
def test_the_order_in_memory_does_not_matter(parts: Parts, array: np.ndarray) -> None:
    parts.write(0, {"a": array}, {})
    np.testing.assert_array_equal(parts.read(0, "")["a"], array)


def test_a_prefix_reads_its_own_and_is_cut_off(parts: Parts) -> None:
    parts.write(0, ARRAYS, {})
    assert parts.read(0, "0/0/").keys() == {"count", "mean"}
    np.testing.assert_array_equal(parts.read(0, "0/1/")["mean"], ARRAYS["0/1/mean"])
    assert parts.read(0, "2/") == {}


def test_finished_parts(parts: Parts) -> None:
    assert parts.finished() == set()
    for number in (0, 3, 1200):
        parts.write(number, ARRAYS, {"number": number})
    assert parts.finished() == {0, 3, 1200}
    assert [parts.record(number)["number"] for number in (0, 3, 1200)] == [0, 3, 1200]


def test_another_protocol_finds_nothing(parts: Parts, tmp_path: Path) -> None:
    parts.write(0, ARRAYS, {})
    assert Parts(tmp_path, "f" + HASH[1:]).finished() == set()
    assert Parts(tmp_path, HASH).finished() == {0}


def test_clear_forgets_this_run_alone(parts: Parts, tmp_path: Path) -> None:
    other = Parts(tmp_path, "f" + HASH[1:])
    for some in (parts, other):
        some.write(0, ARRAYS, {})
    parts.clear()
    assert parts.finished() == set()
    assert not parts.folder.exists()
    assert other.finished() == {0}
    parts.clear()


class Interrupted(BaseException):
    """What Ctrl-C is: no Exception."""


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("ours"), Interrupted()])
def test_a_failing_write_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    target = tmp_path / "new" / "result.bin"
    expected = StoreError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        write_atomically(target, fail)
    assert files(tmp_path) == []


def test_a_failing_write_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "result.bin"
    target.write_bytes(b"first")

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match=r"result\.bin: cannot be written: No space left on device"):
        write_atomically(target, fail)
    assert target.read_bytes() == b"first"
    assert files(tmp_path) == ["result.bin"]


def test_a_part_that_fails_is_not_finished(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("diffscope.cache.store.os.fsync", refuse)
    with pytest.raises(StoreError, match="Input/output error"):
        parts.write(0, ARRAYS, {})
    assert parts.finished() == set()
    assert files(parts.folder) == []


def test_the_name_appears_only_when_the_file_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "result.bin"

    def write(path: Path) -> None:
        path.write_bytes(b"whole")
        assert not target.exists()
        assert path.parent == target.parent, "a rename is atomic within one folder only"

    write_atomically(target, write)
    assert target.read_bytes() == b"whole"


def test_a_half_written_part_of_a_killed_run_is_not_finished(parts: Parts) -> None:
    parts.write(1, ARRAYS, {})
    (parts.folder / ".part-000.safetensors.4711.part").write_bytes(b"half")
    assert parts.finished() == {1}


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written") as caught:
        Parts(tmp_path / "file", HASH).write(0, ARRAYS, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"DIFFSCOPE_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/diffscope"),
        ({"HOME": "/c"}, "/c/.cache/diffscope"),
        ({"DIFFSCOPE_CACHE_DIR": "", "XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/diffscope"),
    ],
)
def test_where_the_cache_lies(variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DIFFSCOPE_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


# --- what the disk does to parts


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "a bit of the numbers":
        data[-3] ^= 4
    elif how == "a bit of the record":
        data[data.index(b"ready")] ^= 1
    elif how == "a bit of the length":
        data[2] ^= 16
    else:
        data = data[: {"nothing left": 0, "half of it": len(data) // 2, "all but one byte": len(data) - 1}[how]]
    path.write_bytes(data)


HOW = ["a bit of the numbers", "a bit of the record", "a bit of the length", "nothing left", "half of it",
       "all but one byte"]  # fmt: skip


@pytest.mark.parametrize("how", HOW)
def test_a_damaged_part_is_removed_and_said_to_be(tmp_path: Path, how: str) -> None:
    parts = Parts(tmp_path, HASH)
    for number in (3, 4):
        parts.write(number, ARRAYS, {"ready": True})
    damage(parts.folder / "part-003.safetensors", how)
    again, said = Parts(tmp_path, HASH), list[str]()
    assert again.finished() == {4}
    again.claim(said.append)
    assert len(said) == 1
    assert "part-003.safetensors damaged on disk" in said[0]
    assert files(parts.folder) == ["lock", "part-004.safetensors"]
    again.write(3, ARRAYS, {})
    assert again.finished() == {3, 4}


@pytest.mark.parametrize("how", HOW)
def test_a_part_that_is_damaged_while_it_is_needed_gives_no_number(parts: Parts, how: str) -> None:
    parts.write(0, ARRAYS, {"ready": True})
    damage(parts.folder / "part-000.safetensors", how)
    with pytest.raises(StoreError, match=r"part-000\.safetensors: damaged on disk") as caught:
        parts.record(0), parts.read(0, "")
    assert "\n" not in str(caught.value)


def test_an_exchanged_array_is_damage(parts: Parts, tmp_path: Path) -> None:
    """Checksums are of names and shapes as well."""
    parts.write(0, {"a": np.zeros(4), "b": np.ones(4)}, {})
    path = parts.folder / "part-000.safetensors"
    header = path.read_bytes()
    path.write_bytes(
        header.replace(b'"a": {"d', b'"_": {"d').replace(b'"b": {"d', b'"a": {"d').replace(b'"_": {', b'"b": {')
    )
    assert Parts(tmp_path, HASH).finished() == set()


@pytest.mark.parametrize("text", ["", "{}", '{"sigma": 0.3}', "[1]", '{"sigma": 0.31, "checksum": "deadbeef"}', "\0"])
def test_a_damaged_record_is_as_good_as_none_and_said(tmp_path: Path, text: str) -> None:
    said: list[str] = []
    records = Records(tmp_path, said.append)
    assert (records.read("mine"), said) == (None, [])
    record = {"sigma": 0.1 + 0.2, "path": "caf\udcff", "rows": [None, -0.0]}
    records.write("mine", record)
    assert (records.read("mine"), said) == (record, [])
    (tmp_path / "mine.json").write_text(text)
    assert records.read("mine") is None
    assert len(said) == 1
    assert "mine.json: damaged" in said[0]


def test_one_figure_changed_in_a_record_is_damage(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.write("mine", {"sigma": 0.25})
    path = tmp_path / "mine.json"
    path.write_text(path.read_text().replace("0.25", "0.35"))
    assert records.read("mine") is None


# --- what killed runs leave


def test_what_killed_runs_left_is_removed_and_what_is_in_work_is_not(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom diffscope.cache.store import unfinished_folder, write_atomically\n"
        "def write(path):\n    with unfinished_folder(Path(sys.argv[1])):\n        print('there', flush=True)\n"
        "        sys.stdin.read()\n"
        "write_atomically(Path(sys.argv[1]) / 'result', write)\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], **pipes) as killed,  # type: ignore[call-overload]
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], **pipes) as alive,  # type: ignore[call-overload]
    ):
        for process in (killed, alive):
            assert process.stdout.readline()
        (tmp_path / ".mine").touch()
        assert len(list(tmp_path.glob(".*"))) == 7
        killed.kill()
        killed.wait()
        remove_unfinished(tmp_path)
        left = sorted(path.name for path in tmp_path.iterdir())
        assert left == [f".diffscope.{alive.pid}.unfinished", ".mine", *in_work(alive.pid)]
        alive.communicate()
        assert alive.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine", "result"]


def in_work(pid: int) -> list[str]:
    return [f".result.{pid}.unfinished", f".result.{pid}.unfinished.lock"]


@pytest.mark.parametrize("gone", [0, 1])
def test_half_of_what_a_killed_run_left(tmp_path: Path, gone: int) -> None:
    """Killed before it took its lock, or after it renamed its file."""
    (tmp_path / in_work(4711)[1 - gone]).touch()
    remove_unfinished(tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_have_the_rights_that_the_user_gives(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        parts = Parts(tmp_path, HASH)
        parts.claim()
        parts.write(0, ARRAYS, {})
        Records(tmp_path).write("mine", {})
    finally:
        os.umask(before)
    found = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert found == dict.fromkeys(("lock", "part-000.safetensors", "mine.json"), 0o666 & ~umask)


def test_tensors_are_read_by_the_formats_own_library(tmp_path: Path) -> None:
    tensors: dict[str, Any] = {"a": np.arange(3, dtype=np.uint8), "ö": np.eye(2), "empty": np.zeros((0, 3), np.float16)}
    entries = {name: (array.dtype.name, array.shape, as_bytes(array)) for name, array in tensors.items()}
    write_tensors(tmp_path / "a", entries, {"who": "ä\n"})
    with safe_open(tmp_path / "a", framework="np") as file:
        assert file.metadata() == {"who": "ä\n"}
        assert set(file.keys()) == tensors.keys()
        for name, array in tensors.items():
            found = file.get_tensor(name)
            assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
