"""The next snapshot is read while one is computed: once, in a thread, and never more than two networks at a time."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import gc
import shutil
import threading
import weakref
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from commands import DATA

from diffscope.checkpoints import Checkpoint
from diffscope.errors import CheckpointError
from diffscope.families.base import Denoiser
from diffscope.measure import read_ahead
from diffscope.measure.read_ahead import ReadAhead
from diffscope.measure.snapshots import Snapshot, find_snapshots
from diffscope.options.settings import Loading, Settings
from diffscope.sources.base import open_source
from diffscope.studies.track import cell_gauge
from diffscope.studies.track.track import Tracker

SERIES = DATA / "series"
IMAGES = str(SERIES / "images.npz")
SNAPSHOTS = find_snapshots([str(SERIES)])[0][:4]
PATHS = [snapshot.path for snapshot in SNAPSHOTS]
WAIT = 30.0
"""Seconds after which what is waited for will not come."""


class Events:
    """What happened to which path in which order; the thread of each load, and the most networks at a time."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.happened: list[tuple[str, str]] = []
        self.in_main: dict[str, bool] = {}
        self.loaded: dict[str, threading.Event] = {}
        self.networks: list[weakref.ref[Any]] = []
        self.most = 0
        hashes, load = Checkpoint.sha256, read_ahead.load

        def hashing(checkpoint: Checkpoint) -> str:
            if "_digest" not in vars(checkpoint):
                self.happened.append(("hash", checkpoint.path))
            return hashes(checkpoint)

        def loading(path: str, how: Loading) -> tuple[Checkpoint, Denoiser]:
            self.happened.append(("load", path))
            self.in_main[path] = threading.current_thread() is threading.main_thread()
            found, denoiser = load(path, how)
            self.networks.append(weakref.ref(denoiser.network))
            self.most = max(self.most, sum(network() is not None for network in self.networks))
            self.loaded.setdefault(path, threading.Event()).set()
            return found, denoiser

        patch.setattr(Checkpoint, "sha256", hashing)
        patch.setattr(read_ahead, "load", loading)

    def of(self, kind: str) -> list[str]:
        return [path for what, path in self.happened if what == kind]

    def wait(self, path: str) -> bool:
        return self.loaded.setdefault(path, threading.Event()).wait(WAIT)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    return Events(monkeypatch)


def tracker(folder: Path) -> Tracker:
    settings = Settings(sigma=(0.3,), views=3, workers=0)
    return Tracker(source=open_source(IMAGES), settings=settings, folder=folder)


def while_measuring(patch: pytest.MonkeyPatch, do: Callable[[str], object]) -> list[str]:
    """Call `do` with the path in the midst of each measurement; the paths that were measured."""
    measured: list[str] = []
    measure = cell_gauge.measure

    def measuring(job: Any, *arguments: Any, **named: Any) -> Any:
        measured.append(job.checkpoint.path)
        do(job.checkpoint.path)
        return measure(job, *arguments, **named)

    patch.setattr(cell_gauge, "measure", measuring)
    return measured


# --- in a run


def test_the_next_is_read_while_one_is_measured(
    events: Events, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    following = dict(pairwise(PATHS))
    seen: dict[str, bool] = {}

    def until_the_next_is_there(path: str) -> None:
        if path in following:
            seen[path] = events.wait(following[path])

    measured = while_measuring(monkeypatch, until_the_next_is_there)
    taken = [found for found, _ in tracker(tmp_path).take_all(SNAPSHOTS)]
    assert taken == SNAPSHOTS
    assert measured == PATHS
    # It came although the measurement would not go on without it: so it was read beside it, by another thread.
    assert seen == dict.fromkeys(PATHS[:-1], True)
    assert events.in_main == {PATHS[0]: True, **dict.fromkeys(PATHS[1:], False)}
    # Each once, also of those that were read ahead.
    assert sorted(events.of("load")) == sorted(events.of("hash")) == PATHS


def test_two_networks_at_most(events: Events, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(path: str) -> None:
        gc.collect()
        alive = sum(network() is not None for network in events.networks)
        assert alive <= 2

    while_measuring(monkeypatch, wait)
    gc.collect()
    for _ in tracker(tmp_path).take_all([*SNAPSHOTS, *find_snapshots([str(SERIES)])[0][4:5]]):
        pass
    assert len(events.networks) == 5
    assert events.most <= 2
    gc.collect()
    assert not any(network() for network in events.networks)


def test_the_numbers_are_those_of_one_after_the_other(tmp_path: Path) -> None:
    ahead, plain = tracker(tmp_path / "ahead"), tracker(tmp_path / "plain")
    for _ in ahead.take_all(SNAPSHOTS):
        pass
    for snapshot in SNAPSHOTS:
        plain.take(snapshot)
    assert ahead.result().rows == plain.result().rows
    assert ahead.result().checkpoints == plain.result().checkpoints


def test_records_that_were_found_are_not_loaded(events: Events, tmp_path: Path) -> None:
    for _ in tracker(tmp_path).take_all(SNAPSHOTS):
        pass
    events.happened.clear()
    again = tracker(tmp_path)
    for _ in again.take_all(SNAPSHOTS):
        pass
    assert again.result().timing["snapshots_resumed"] == 4
    assert sorted(events.of("hash")) == PATHS
    # The first says which records are this run's; the second may be on its way before that.
    assert set(events.of("load")) <= set(PATHS[:2])
    assert events.of("load").count(PATHS[0]) == 1


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_damaged_one_is_left_out_at_its_turn(place: int, events: Events, tmp_path: Path) -> None:
    paths = [shutil.copy(path, tmp_path) for path in PATHS[:3]]
    snapshots = [Snapshot(str(path), one.step, one.unit) for path, one in zip(paths, SNAPSHOTS, strict=False)]
    Path(paths[place]).write_bytes(b"damaged")
    following = tracker(tmp_path / "records")
    seen = []
    for snapshot, measured in following.take_all(snapshots):
        seen.append((snapshot.path, measured is None))
        # Known when it is its turn, not before.
        assert set(following.left_out) == {path for path, missing in seen if missing}
    assert [missing for _, missing in seen] == [number == place for number in range(3)]
    assert str(paths[place]) in following.left_out[str(paths[place])]
    sound = sorted(str(path) for number, path in enumerate(paths) if number != place)
    assert sorted(events.of("load")) == sound


def test_one_that_is_never_asked_for_is_let_go(events: Events, tmp_path: Path) -> None:
    """Two files of one step: the second is left out without a look at it, though it was read ahead."""
    twin = Snapshot(shutil.copy(PATHS[1], tmp_path / "twin.safetensors"), SNAPSHOTS[0].step, SNAPSHOTS[0].unit)
    following = tracker(tmp_path / "records")
    for snapshot, measured in following.take_all([SNAPSHOTS[0], twin, *SNAPSHOTS[1:]]):
        assert (measured is None) == (snapshot is twin)
    assert list(following.left_out) == [twin.path]
    assert events.most <= 2
    assert [events.of("load").count(path) for path in PATHS] == [1] * 4
    gc.collect()
    assert not any(network() for network in events.networks)


# --- alone


def test_what_was_not_started_is_read_when_it_is_asked_for(events: Events) -> None:
    ahead = ReadAhead(Loading())
    sha = ahead.sha256(PATHS[0])
    checkpoint, denoiser = ahead.loaded(PATHS[0])
    assert (checkpoint.sha256(), checkpoint.path) == (sha, PATHS[0])
    assert denoiser.layers
    assert events.happened == [("hash", PATHS[0]), ("load", PATHS[0])]
    assert events.in_main == {PATHS[0]: True}
    # Asked for again it is read again: it may be another file by now.
    ahead.sha256(PATHS[0])
    assert events.of("hash") == [PATHS[0]] * 2
    assert ahead.loaded(PATHS[1])[0].sha256() != sha


def test_the_hash_is_that_of_the_file_as_it_was_read(events: Events, tmp_path: Path) -> None:
    path = shutil.copy(PATHS[0], tmp_path / "snapshot.safetensors")
    ahead = ReadAhead(Loading())
    ahead.start(path, lambda sha: False)
    assert events.wait(path)
    shutil.copy(PATHS[1], path)
    first = ahead.loaded(path)[0].sha256()
    assert first == ReadAhead(Loading()).sha256(PATHS[0])
    # What was given out is not kept.
    assert ahead.sha256(path) == ReadAhead(Loading()).sha256(PATHS[1])


def test_what_is_known_by_its_hash_is_loaded_only_if_it_is_wanted_all_the_same(events: Events) -> None:
    asked: list[str] = []
    ahead = ReadAhead(Loading())
    ahead.start(PATHS[0], lambda sha: not asked.append(sha))
    sha = ahead.sha256(PATHS[0])
    ahead.start(PATHS[1], lambda sha: True)
    ahead.sha256(PATHS[1])
    assert asked == [sha]
    assert events.of("load") == []
    assert ahead.loaded(PATHS[1])[0].path == PATHS[1]
    assert events.in_main == {PATHS[1]: True}


def test_an_error_waits_for_its_turn(tmp_path: Path) -> None:
    bad = str(tmp_path / "bad.safetensors")
    Path(bad).write_bytes(b"damaged")
    ahead = ReadAhead(Loading())
    ahead.start(bad, lambda sha: False)
    ahead.start(PATHS[0], lambda sha: False)
    with pytest.raises(CheckpointError, match=r"bad\.safetensors"):
        ahead.sha256(bad)
    with pytest.raises(CheckpointError, match=r"bad\.safetensors"):
        ahead.loaded(bad)
    assert ahead.loaded(PATHS[0])[0].path == PATHS[0]
