"""A part is whole or not there, and comes back as it went."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffscope.errors import StoreError
from diffscope.store import Parts, cache_folder, write_atomically

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

    monkeypatch.setattr("diffscope.store.os.fsync", refuse)
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
