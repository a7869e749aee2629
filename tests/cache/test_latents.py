"""Latents come back as they went or not at all; the cache stays within its bound and lets nothing in use go."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffscope.cache import contents, latents
from diffscope.cache.latents import Key, Latents, digest
from diffscope.cache.sizes import bytes_of, in_bytes, limit
from diffscope.errors import UsageError

SHAPE = (4, 8, 8)
ABOUT = {"vae": "a", "augment": "crop", "seed": 0, "shape": list(SHAPE)}
PLENTY = 10**9


class Said(list[str]):
    def __call__(self, text: str) -> None:
        self.append(text)


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, *SHAPE), dtype=np.float32)


def keys(count: int, views: int = 1, start: int = 0) -> list[Key]:
    images = range(start, start + count)
    return [(digest(np.full((2, 2), i)), i, view) for i in images for view in range(views)]


def opened(folder: Path, limit: int = PLENTY, say: Said | None = None, **about: Any) -> Latents:
    note = {"path": "a VAE"}
    return Latents(folder / "latents", {**ABOUT, **about}, limit, Said() if say is None else say, note)


def found(kept: Latents, wanted: list[Key]) -> list[bool]:
    return [row is not None for row in kept.read(wanted, SHAPE)]


def test_latents_come_back_to_the_last_bit(tmp_path: Path) -> None:
    made = rows(6)
    made[0, 0, 0] = [0.0, -0.0, np.inf, np.nan, 1e-45, 3.4e38, -1, 1]
    kept = opened(tmp_path)
    kept.write(keys(3, views=2), made)
    for reader in (kept, opened(tmp_path)):
        back = np.stack([row for row in reader.read(keys(3, views=2), SHAPE) if row is not None])
        assert back.tobytes() == made.tobytes()
    (last,) = opened(tmp_path).read(keys(3, views=2)[5:], SHAPE)
    assert last is not None
    assert last.tobytes() == made[5].tobytes()


def test_rows_out_of_memory_order(tmp_path: Path) -> None:
    kept, made = opened(tmp_path), np.asfortranarray(rows(2))
    kept.write(keys(2), made)
    np.testing.assert_array_equal(np.stack([row for row in kept.read(keys(2), SHAPE) if row is not None]), made)


def test_another_image_index_or_view_is_not_found(tmp_path: Path) -> None:
    kept, (key, other) = opened(tmp_path), keys(2)
    kept.write([key], rows(1))
    wanted = [key, (other[0], key[1], key[2]), (key[0], 7, key[2]), (key[0], key[1], 1)]
    assert found(kept, wanted) == [True, False, False, False]


@pytest.mark.parametrize("changed", [{"vae": "b"}, {"augment": "none"}, {"seed": 1}, {"new": None}])
def test_what_depends_on_something_else_is_another_set(tmp_path: Path, changed: dict[str, Any]) -> None:
    opened(tmp_path).write(keys(1), rows(1))
    assert found(opened(tmp_path, **changed), keys(1)) == [False]
    assert found(opened(tmp_path), keys(1)) == [True]


def test_an_image_is_its_values_shape_and_kind() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    kinds: list[np.ndarray] = [image.astype(np.int8), image.astype(np.float32)]
    others = [*kinds, image.reshape(2, 2, 3), image + 1, image[:2]]
    assert digest(image) == digest(np.asfortranarray(image))
    assert len({digest(image), *map(digest, others)}) == 6


def test_a_row_that_rotted_is_made_again(tmp_path: Path) -> None:
    say, made = Said(), rows(2)
    kept = opened(tmp_path, say=say)
    kept.write(keys(2), made)
    assert (found(kept, keys(2)), say) == ([True, True], [])
    for rot in ("data = zeroblob(length(data))", "data = (SELECT data FROM latents WHERE number = 0)", "view = 1"):
        with closing(sqlite3.connect(kept.folder / latents.FILE)) as connection, connection:
            connection.execute(f"UPDATE latents SET {rot} WHERE number = 1")
        assert found(kept, [*keys(2), (keys(2)[1][0], 1, 1)]) == [True, False, False], rot
        with closing(sqlite3.connect(kept.folder / latents.FILE)) as connection, connection:
            connection.execute("DELETE FROM latents WHERE view = 1")
        kept.write(keys(1, start=1), made[1:])
    assert found(kept, keys(2)) == [True, True]
    assert say == [f"{kept.folder / latents.FILE}: damaged on disk; the latents concerned are encoded again"]
    assert [row is None for row in kept.read(keys(2), (4, 8, 4))] == [True, True], "of another shape"


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    kept.write(keys(3), rows(3))
    path = kept.folder / latents.FILE
    del kept
    path.write_bytes(b"no database " * 1000)
    say = Said()
    kept = opened(tmp_path, say=say)
    assert found(kept, keys(3)) == [False] * 3
    kept.write(keys(3), rows(3))
    assert found(kept, keys(3)) == [True] * 3
    assert say == [f"{path}: damaged on disk; the latents concerned are encoded again"]


def test_damage_found_on_the_way_ends_the_cache_and_not_the_run(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    kept.write(keys(200), rows(200))
    path = kept.folder / latents.FILE
    del kept
    with path.open("r+b") as file:  # schema, what the set is, and the roots of table and index stand before
        file.seek(4 * 4096)
        file.write(b"\xff" * (path.stat().st_size - 4 * 4096))
    say = Said()
    kept = opened(tmp_path, say=say)
    for _ in range(2):
        assert found(kept, keys(200)) == [False] * 200
        kept.write(keys(200), rows(200))
    assert len(say) == 1
    assert "malformed" in say[0]
    again = opened(tmp_path, say=say)
    again.write(keys(200), rows(200))
    assert found(again, keys(200)) == [True] * 200
    assert len(say) == 1


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "latents").write_text("in the way")
    say = Said()
    kept = opened(tmp_path, say=say)
    kept.write(keys(2), rows(2))
    assert found(kept, keys(2)) == [False, False]
    assert len(say) == 1
    assert "latents cannot be kept there" in say[0]


def test_a_lock_that_nobody_lets_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "BUSY", 0.05)
    monkeypatch.setattr(latents._connected, "__defaults__", ("rwc", 0.05))
    say = Said()
    kept = opened(tmp_path, say=say)
    kept.write(keys(1), rows(1))
    with closing(sqlite3.connect(kept.folder / latents.FILE, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        kept.write(keys(2), rows(2))
        assert found(kept, keys(2)) == [False, False]
    assert len(say) == 1
    assert "locked" in say[0]
    assert found(opened(tmp_path), keys(2)) == [True, False]


def test_a_full_disk(tmp_path: Path) -> None:
    kept = opened(tmp_path, say=(say := Said()))
    kept.write(keys(1), rows(1))
    assert kept._connection is not None
    kept._connection.execute("PRAGMA max_page_count = 10")
    for _ in range(2):
        kept.write(keys(50), rows(50))
    assert len(say) == 1
    assert "full" in say[0]
    assert found(opened(tmp_path), keys(50)) == [True] + [False] * 49


def test_an_interruption_leaves_whole_batches(tmp_path: Path) -> None:
    """Ctrl-C between the rows of a batch."""
    kept = opened(tmp_path)
    kept.write(keys(1), rows(1))

    def interrupted(values: list[Key]) -> Iterator[Key]:
        yield values[0]
        raise KeyboardInterrupt

    assert kept._connection is not None
    real: sqlite3.Connection = kept._connection

    class Interrupting:
        in_transaction = property(lambda self: real.in_transaction)

        def execute(self, *arguments: Any) -> Any:
            return real.execute(*arguments)

        def executemany(self, statement: str, values: list[Any]) -> None:
            real.executemany(statement, interrupted(values))

    kept._connection = Interrupting()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        kept.write(keys(3), rows(3))
    assert found(kept, keys(3)) == [True, False, False]


WRITER = """
import sys, numpy as np
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_latents import keys, opened, rows
first, count = int(sys.argv[2]), int(sys.argv[3])
kept = opened(Path(sys.argv[1]), say=lambda text: print(text, flush=True))
for start in range(first, first + count, 5):
    kept.write(keys(5, start=start), rows(5, seed=start))
    print(start, flush=True)
print("done", flush=True)
"""


def writer(folder: Path, first: int, count: int) -> subprocess.Popen[str]:
    script = WRITER.format(tests=str(Path(__file__).parent))
    argv = [sys.executable, "-c", script, str(folder), str(first), str(count)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def test_a_killed_process_leaves_whole_batches(tmp_path: Path) -> None:
    with writer(tmp_path, 0, 10**6) as process:
        assert process.stdout is not None
        assert "50\n" in process.stdout, "it ended before"
        time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    say = Said()
    kept = opened(tmp_path, say=say)
    back = found(kept, keys(10_000))
    assert sum(back) >= 55
    assert sum(back) % 5 == 0
    assert back == sorted(back, reverse=True)
    kept.write(keys(1, start=20_000), rows(1))
    assert found(kept, keys(1, start=20_000)) == [True]
    assert say == []


def test_processes_write_at_once(tmp_path: Path) -> None:
    """Half of what each writes the other writes too, as two commands on the same images do."""
    with writer(tmp_path, 0, 150) as one, writer(tmp_path, 75, 150) as other:
        said = [process.communicate(timeout=60)[0].split() for process in (one, other)]
    assert [lines[-1] for lines in said] == ["done", "done"]
    assert [len(lines) for lines in said] == [31, 31], said
    kept = opened(tmp_path)
    for start in range(0, 225, 5):
        back = np.stack([row for row in kept.read(keys(5, start=start), SHAPE) if row is not None])
        assert back.tobytes() == rows(5, seed=start).tobytes()


def aged(kept: Latents, seconds: float) -> Path:
    """The set as if nobody had used it for so long; it is closed."""
    folder = kept.folder
    kept._release()
    then = time.time() - seconds
    for path in (*folder.iterdir(), folder):
        os.utime(path, (then, then))
    return folder


def filled(folder: Path, seed: int, count: int = 200) -> Latents:
    kept = opened(folder, seed=seed)
    kept.write(keys(count), rows(count))
    return kept


def test_the_set_used_longest_ago_makes_room(tmp_path: Path) -> None:
    """Each set takes 200 · 1 kB and a few pages."""
    old, older, used = filled(tmp_path, 1), filled(tmp_path, 2), filled(tmp_path, 3)
    size = latents.nbytes(used.folder)
    gone, stays = aged(older, 2000), aged(old, 1000)
    # The one in use is the oldest of all.
    for path in (*used.folder.iterdir(), used.folder):
        os.utime(path, (1, 1))
    kept, say = opened(tmp_path, limit=int(3.5 * size), say=(say := Said()), seed=4), say
    for start in range(0, 200, 20):
        kept.write(keys(20, start=start), rows(20))
    assert not gone.exists()
    assert stays.exists()
    assert found(kept, keys(200)) == [True] * 200
    assert found(used, keys(200)) == [True] * 200
    assert latents.nbytes(tmp_path) <= 3.5 * size
    assert say == []


def test_where_nothing_can_make_room_no_more_is_kept(tmp_path: Path) -> None:
    used = filled(tmp_path, 1)
    limit = int(1.5 * latents.nbytes(used.folder))
    say = Said()
    kept = opened(tmp_path, limit=limit, say=say, seed=2)
    for start in range(0, 200, 20):
        kept.write(keys(20, start=start), rows(20))
    back = found(kept, keys(200))
    assert 0 < sum(back) < 200
    assert back == sorted(back, reverse=True)
    assert latents.nbytes(tmp_path) <= limit
    assert len(say) == 1
    assert "DIFFSCOPE_CACHE_SIZE" in say[0]
    assert used.folder.exists()


def test_a_set_larger_than_the_bound_costs_no_other(tmp_path: Path) -> None:
    gone = aged(filled(tmp_path, 1), 1000)
    say = Said()
    opened(tmp_path, limit=2000, say=say, seed=2).write(keys(5), rows(5))
    assert len(say) == 1
    assert gone.exists()


@pytest.mark.parametrize(("text", "expected"), [("5GB", 5 * 10**9), ("0", 0), ("", 20 * 10**9), (None, 20 * 10**9)])
def test_the_bound(text: str | None, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(latents.LIMIT, raising=False)
    if text is not None:
        monkeypatch.setenv(latents.LIMIT, text)
    assert limit() == expected


def test_a_bound_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(latents.LIMIT, "much")
    with pytest.raises(UsageError, match="`DIFFSCOPE_CACHE_SIZE=much`: expected a size such as 8GB"):
        limit()


@pytest.mark.parametrize(
    ("text", "expected"), [("8GB", 8e9), ("500M", 5e8), ("1.5kB", 1500), (" 12 ", 12), ("2tb", 2e12), ("7b", 7)]
)
def test_sizes(text: str, expected: float) -> None:
    assert bytes_of(text, "--size") == expected


@pytest.mark.parametrize("text", ["", "GB", "0", "-1", "1..2", "5 apples", "1e9"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="--size"):
        bytes_of(text, "--size")


def test_sizes_are_written_in_three_digits_at_most() -> None:
    assert [in_bytes(n) for n in (0, 1234, 999_000, 12_345_678, 5 * 10**9)] == [
        "0 MB", "0.0012 MB", "1 MB", "12 MB", "5.0 GB"
    ]  # fmt: skip


def kinds(entries: list[contents.Entry]) -> dict[str, str]:
    return {entry.to_json()["name"]: entry.kind for entry in entries}


def made(folder: Path, name: str, size: int = 1000, age: float = 0.0) -> Path:
    place = folder / name
    place.mkdir(parents=True)
    (place / "file").write_bytes(b"x" * size)
    then = time.time() - age
    for path in (place / "file", place):
        os.utime(path, (then, then))
    return place


def test_contents(tmp_path: Path) -> None:
    assert contents.contents(tmp_path / "nothing") == []
    for age, name in enumerate(("track-0123", "track-levels", "memorization-4", "samples-5", "parts-6", "mine")):
        made(tmp_path, name, age=100 * (age + 1))
    (tmp_path / "parts-file").write_text("no folder")
    kept = opened(tmp_path)
    kept.write(keys(5, views=3), rows(15))
    found = contents.contents(tmp_path)
    assert list(kinds(found).items()) == [
        (f"latents/{kept.folder.name}", "latents"), ("track-0123", "track records"), ("track-levels", "track records"),
        ("memorization-4", "memorization records"), ("samples-5", "samples"), ("parts-6", "unfinished run"),
    ]  # fmt: skip
    record = found[0].to_json()
    assert {**ABOUT, "path": "a VAE", "images": 5, "views": 3}.items() <= record.items()
    assert record["bytes"] == latents.nbytes(kept.folder) > 15 * 1024
    assert found[5].to_json()["files"] == 1
    assert abs(found[5].used - (time.time() - 500)) < 10


def test_prune_by_age_and_by_size(tmp_path: Path) -> None:
    for number, age in enumerate((10, 20, 30, 40)):
        made(tmp_path, f"parts-{number}", age=age * 3600)
    made(tmp_path, "mine", age=10**6)

    def names(pruned: contents.Pruned) -> list[str]:
        return [entry.folder.name for entry in pruned.removed]

    assert names(contents.prune(tmp_path, older_than=35 * 3600)) == ["parts-3"]
    assert names(contents.prune(tmp_path, max_bytes=3000)) == []
    assert names(contents.prune(tmp_path, max_bytes=1500)) == ["parts-2", "parts-1"]
    assert names(contents.prune(tmp_path, older_than=-float("inf"))) == ["parts-0"]
    assert os.listdir(tmp_path) == ["mine"]


def test_samples_that_may_be_in_the_making_stay(tmp_path: Path) -> None:
    """A run that draws them holds no lock."""
    fresh, old = made(tmp_path, "samples-1"), made(tmp_path, "samples-2", age=7200)
    pruned = contents.prune(tmp_path, older_than=-float("inf"))
    assert [entry.folder for entry in pruned.held] == [fresh]
    assert not old.exists()


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """Another process in the middle of a run."""
    script = (
        "import sys, numpy as np\nfrom pathlib import Path\nfrom diffscope.cache.store import Parts\n"
        "parts = Parts(Path(sys.argv[1]), '0' * 64)\nparts.claim()\nparts.write(0, {'a': np.zeros(9)}, {})\n"
        "print(parts.folder, flush=True)\nsys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script, str(folder)], text=True, **pipes) as process:  # type: ignore[call-overload]
        yield Path(process.stdout.readline().strip())
        process.communicate()


def test_what_a_process_uses_stays(tmp_path: Path) -> None:
    kept, free = filled(tmp_path, 1), aged(filled(tmp_path, 2), 0)
    with claimed(tmp_path) as parts:
        pruned = contents.prune(tmp_path, older_than=-float("inf"))
        assert {entry.folder for entry in pruned.held} == {kept.folder, parts}
        assert [entry.folder for entry in pruned.removed] == [free]
        assert list(parts.glob("part-*"))
    assert found(kept, keys(200)) == [True] * 200
    kept._release()
    assert len(contents.prune(tmp_path, older_than=-float("inf")).removed) == 2
    assert contents.contents(tmp_path) == []


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = made(tmp_path, "outside")
    place = made(tmp_path / "cache", "parts-1")
    (place / "link").symlink_to(outside)
    (tmp_path / "cache" / "parts-2").symlink_to(outside)
    contents.prune(tmp_path / "cache", older_than=-float("inf"))
    assert (outside / "file").exists()
    assert not place.exists()


@pytest.mark.parametrize("record", [b"\xff", "{", "[1]", "null", '{"shape": [4, 8, 8]}'])
def test_a_set_that_no_longer_says_what_it_is_is_listed_all_the_same(record: str | bytes, tmp_path: Path) -> None:
    from diffscope.report.parts import table
    from diffscope.report.views.cache import COLUMNS

    kept = filled(tmp_path, 1)
    with closing(sqlite3.connect(kept.folder / latents.FILE)) as connection, connection:
        connection.execute("UPDATE about SET record = ?", [record])
    (entry,) = contents.contents(tmp_path)
    ((_, kind, holds, *_),) = table(COLUMNS, [entry.to_json()]).rows
    assert (kind, holds) == ("latents", "–")
