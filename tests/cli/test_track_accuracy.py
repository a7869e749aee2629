"""`diffscope track --accuracy`: the first snapshot says how many images all of them are given."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import DATA, Ran, diffscope, without_timing
from processes import together

import diffscope as package
from diffscope.measure.run import TaskRun
from diffscope.measure.tasks import Task
from diffscope.studies.sweep.stopping import interval, looks, spent
from diffscope.studies.track.track import Tracker

SERIES = DATA / "series"
SNAPSHOTS = [sorted(SERIES.glob("*.safetensors"))[k] for k in (1, 4, 15)]
IMAGES = ("--data", Path(package.__file__).parent / "demo" / "images.zip", "--workers", 0)
AT = (*IMAGES, "--num-images", 320, "--sigma", 0.3)
LOOKS = looks(320, [32], 2)


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("accuracy")


@pytest.fixture(scope="module")
def ran(out: Path) -> Ran:
    return diffscope("track", *SNAPSHOTS, *AT, "--accuracy", "16%", "--out", out)


@pytest.fixture(scope="module")
def record(ran: Ran, out: Path) -> Any:
    assert ran.code == 0, ran.err
    return json.loads((out / "result.json").read_text("utf-8"))


def test_all_snapshots_have_the_images_that_the_first_one_needs(record: Any, ran: Ran, out: Path) -> None:
    told = record["accuracy"]
    assert (told["asked"], told["looks"]) == (0.16, list(LOOKS))
    assert told["images"] == LOOKS[1]
    plain = diffscope("track", *SNAPSHOTS, *AT, "--num-images", told["images"], "--json").json
    assert record["protocol"] == plain["protocol"]
    assert record["onset"] == plain["onset"]
    error = spent(LOOKS)[1]
    for row, other in zip(record["rows"], plain["rows"], strict=True):
        assert (row["n"], row["icr"], row["replicates"]) == (told["images"], other["icr"], other["replicates"])
        # Wide enough for all looks.
        assert (row["icr_low"], row["icr_high"]) == interval(row["icr"], row["replicates"], 2, error)
        assert row["icr_low"] < other["icr_low"] < other["icr_high"] < row["icr_high"]
    halves = [(row["icr_high"] - row["icr_low"]) / 2 / row["icr"] for row in record["rows"]]
    assert halves[0] <= 0.16
    assert told["reached"] == (max(halves) <= 0.16)
    assert f"All snapshots were given the same {LOOKS[1]} images" in words(ran.out)
    assert ran.err.count("is known to") == 2
    assert not list(out.glob("parts-*"))


def test_a_watch_comes_to_the_same(record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSCOPE_CACHE_DIR", str(tmp_path / "cache"))
    last = SNAPSHOTS[-1].stem.split("-")[1].lstrip("0")
    runs = tmp_path / "runs"
    runs.mkdir()
    for path in SNAPSHOTS:
        shutil.copy(path, runs)
    watched = diffscope(
        "track", "--watch", runs, *AT, "--accuracy", "16%", "--every", 0.1, "--rule", "short",
        "--fail-if", f"step>={last}", "--json",
    )  # fmt: skip
    assert watched.code == 3, watched.err
    rows = watched.json["rows"]
    assert [row["icr_low"] for row in rows] == [row["icr_low"] for row in record["rows"]]
    assert watched.json["accuracy"] == record["accuracy"]


def test_two_processes_come_to_the_bytes_of_one(record: Any, tmp_path: Path) -> None:
    cache = {"DIFFSCOPE_CACHE_DIR": str(tmp_path)}
    command = ("track", *SNAPSHOTS, *AT, "--accuracy", "16%", "--json")
    first, other = together(2, *command, **cache)
    assert (first.code, other) == (0, Ran(0, "", "")), first.err
    assert without_timing(first.json) == without_timing(record)
    # The choice is kept beside the records: nothing is looked at again.
    again, other = together(2, *command, **cache)
    assert without_timing(again.json) == without_timing(record)
    assert "is known to" not in again.err
    assert again.json["timing"]["snapshots_resumed"] == 3


def test_the_alarm_is_known_as_all_its_cells_together(tmp_path: Path) -> None:
    command = ("track", *SNAPSHOTS[:2], *IMAGES, "--num-images", 320, "--accuracy", "20%", "--out", tmp_path)
    ran = diffscope(*command, "--json")
    assert ran.code == 0, ran.err
    points, told = ran.json["alarm"][0]["points"], ran.json["accuracy"]
    assert told["images"] < 320
    assert {row["n"] for row in ran.json["rows"]} == {told["images"]}
    half = (points[0]["icr_high"] - points[0]["icr_low"]) / 2 / points[0]["icr"]
    assert half <= 0.2
    cells = [row for row in ran.json["rows"] if row["step"] == points[0]["step"]]
    assert max((row["icr_high"] - row["icr_low"]) / 2 / row["icr"] for row in cells) > half


def test_what_was_not_reached_says_how_many_images_would_do() -> None:
    ran = diffscope("track", *SNAPSHOTS[:2], *AT, "--accuracy", "1%")
    assert ran.code == 0, ran.err
    assert "Images: Accuracy not reached: step" in words(ran.out)
    assert "after 320 of 320 images (asked for 1 %); about" in words(ran.out)


@pytest.mark.parametrize("accuracy", ["2x", "0", "100%"])
def test_no_share(accuracy: str) -> None:
    ran = diffscope("track", *SNAPSHOTS, *AT, f"--accuracy={accuracy}")
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert "expected a share of ICR such as" in ran.err


def test_a_broken_first_snapshot_leaves_the_choice_to_the_next(tmp_path: Path, record: Any) -> None:
    broken = tmp_path / "snapshot-0000100.safetensors"
    broken.write_bytes(SNAPSHOTS[0].read_bytes()[:-5000])
    ran = diffscope("track", broken, *SNAPSHOTS, *AT, "--accuracy", "16%", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["accuracy"] == record["accuracy"]
    assert ran.err.count("left out") == 1


def test_what_the_choice_measured_is_measured_once(
    record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    measure = TaskRun._measure

    def counting(self: TaskRun, task: Task) -> Any:
        measured.append(len(self.job.indices))
        return measure(self, task)

    monkeypatch.setattr(TaskRun, "_measure", counting)
    command = ("track", *SNAPSHOTS, *AT, "--accuracy", "16%", "--json")
    monkeypatch.setenv("DIFFSCOPE_CACHE_DIR", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "take", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert diffscope(*command).code == 130
    assert measured == [LOOKS[0]] * 16 + [LOOKS[1]] * 16
    ran = diffscope(*command)
    assert without_timing(ran.json) == without_timing(record)
    assert measured[32:] == [LOOKS[1]] * 16 * (len(SNAPSHOTS) - 1)
