"""A training run followed from the shell: a verdict, a gate, and a watch that sees each snapshot once."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from commands import DATA, Ran, command_line, diffscope, refused, without_timing

SERIES = DATA / "series"
SNAPSHOTS = sorted(SERIES.glob("*.safetensors"))
IMAGES = ("--data", SERIES / "images.npz", "--views", 3, "--workers", 0)
AT = (*IMAGES, "--sigma", 0.3)


def records(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of writing of each finished snapshot's record."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("track-*/*.json")}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("track")


@pytest.fixture(scope="module")
def whole(out: Path) -> Ran:
    """All snapshots with an overlay that rises where a memorizing run's copies do."""
    overlay = out / "copies.csv"
    copies = [max(0, k - 5) / 20 for k in range(1, 17)]
    lines = [f"{25_600 * k},{value}" for k, value in zip(range(1, 17), copies, strict=True)]
    overlay.write_text("\n".join(["step,copies", *lines]))
    return diffscope("track", SERIES, *AT, "--overlay", overlay, "--out", out)


def test_it_says_where_the_run_turned(whole: Ran, out: Path) -> None:
    assert whole.code == 0, whole.err
    record = json.loads((out / "result.json").read_text("utf-8"))
    (row,) = record["onset"]
    assert row["state"] == "turned"
    assert row["minimum"]["low_step"] <= row["minimum"]["step"] <= row["minimum"]["high_step"]
    assert row["keep_step"] < row["fired_at"]
    assert row["keep"] in {str(path) for path in SNAPSHOTS}
    assert "turned" in whole.out
    assert Path(row["keep"]).name in whole.out
    assert [r["step"] for r in record["rows"]] == [25_600 * k for k in range(1, 17)]
    assert {"icr", "icr_low", "icr_high", "trace_s", "trace_xi", "trace_s_l2", "trace_xi_l2", "alignment",
            "alignment_raw", "uniformity", "effective_rank", "replicates"} <= set(record["rows"][0])  # fmt: skip
    (column,) = record["overlay"]
    assert column["turn_step"] == 128_000
    (against,) = column["against"]
    assert against["n"] == 16
    assert against["lead"] == (128_000 - row["keep_step"]) // 25_600


def test_it_writes_table_and_pictures(whole: Ran, out: Path) -> None:
    table = list(csv.DictReader(io.StringIO((out / "result.csv").read_text("utf-8"))))
    assert [int(line["step"]) for line in table] == [25_600 * k for k in range(1, 17)]
    for name in ("icr", "traces", "companions"):
        assert (out / f"{name}.png").stat().st_size > 10_000
        assert (out / f"{name}.svg").stat().st_size > 10_000


def test_the_same_command_measures_nothing_and_gives_the_same(whole: Ran, out: Path) -> None:
    before, text = records(out), (out / "result.json").read_text("utf-8")
    again = diffscope("track", SERIES, *AT, "--overlay", out / "copies.csv", "--out", out, "--json")
    assert records(out) == before
    assert json.dumps(without_timing(again.json)) == json.dumps(without_timing(json.loads(text)))
    assert again.json["timing"]["snapshots_resumed"] == 16


def test_onset_is_a_gate(whole: Ran, out: Path) -> None:
    held = diffscope("track", SERIES, *AT, "--out", out, "--overwrite", "--fail-if", "onset", "--json")
    assert held.code == 3
    assert json.loads(held.out)["onset"][0]["state"] == "turned"
    assert "onset" in held.err.splitlines()[-1]
    early = diffscope("track", *SNAPSHOTS[:4], *AT, "--fail-if", "onset", "--quiet")
    assert early.code == 0, early.err
    assert len(early.out.splitlines()) == 4


def test_numbers_of_the_last_snapshot_are_gates() -> None:
    some = ("track", *SNAPSHOTS[:2], *AT, "--quiet")
    first, last = (float(line.split()[-1]) for line in diffscope(*some).out.splitlines())
    between = (first + last) / 2
    true, false = ("<", ">") if last < first else (">", "<")
    assert diffscope(*some, "--fail-if", f"icr{true}{between}").code == 3
    assert diffscope(*some, "--fail-if", f"icr{false}{between}").code == 0
    assert diffscope(*some, "--fail-if", "step>=51200").code == 3
    null = diffscope(*some, "--fail-if", "loss>0")
    assert (null.code, "null" in null.err) == (1, True)


def test_a_command_is_run_at_the_onset_and_its_failure_is_ours(out: Path, whole: Ran, tmp_path: Path) -> None:
    told = tmp_path / "told"
    said = f'echo "$DIFFSCOPE_STEP $DIFFSCOPE_KEEP_STEP $DIFFSCOPE_KEEP" > {told}'
    assert diffscope("track", SERIES, *AT, "--out", out, "--overwrite", "--on-onset", said).code == 0
    step, keep_step, keep = told.read_text().split()
    assert int(keep_step) < int(step)
    assert os.path.exists(keep)
    failing = diffscope("track", SERIES, *AT, "--out", out, "--overwrite", "--on-onset", "exit 7")
    assert (failing.code, "exit code 7" in failing.err) == (1, True)
    assert diffscope("track", *SNAPSHOTS[:3], *AT, "--on-onset", f"rm {told}").code == 0
    assert told.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "--watch DIR"),
        ([SNAPSHOTS[0], "--watch", SERIES], 2, "not both"),
        ([SNAPSHOTS[0], "--rule", "lucky"], 2, "long"),
        ([SNAPSHOTS[0], "--step-from", "("], 2, "regular expression"),
        ([SNAPSHOTS[0], "--fail-if", "onset>2"], 2, "onset"),
        (["--watch", SERIES, "--every", 0], 2, "--every"),
        (["absent.pt"], 1, "no such file"),
        ([SNAPSHOTS[0], "--overlay", "absent.csv"], 1, "absent.csv"),
        (["--watch", "absent"], 1, "absent"),
    ],
)
def test_what_is_wrong_ends_in_one_line(arguments: list[object], code: int, words: str) -> None:
    ran = diffscope("track", *arguments, *AT)
    assert (ran.code, ran.out) == (code, "")
    lines = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert words in lines[0]
    assert "bug" not in lines[0]


def test_a_broken_snapshot_is_said_and_skipped(tmp_path: Path) -> None:
    for path in SNAPSHOTS[:2]:
        shutil.copy(path, tmp_path)
    (tmp_path / "snapshot-0076800.safetensors").write_bytes(SNAPSHOTS[2].read_bytes()[:5000])
    ran = diffscope("track", tmp_path, *AT, "--json")
    assert ran.code == 0
    assert "left out" in ran.err
    assert [row["step"] for row in ran.json["rows"]] == [25_600, 51_200]
    assert [entry["path"] for entry in ran.json["checkpoints"] if "why" in entry] == [
        str(tmp_path / "snapshot-0076800.safetensors")
    ]
    assert diffscope("track", tmp_path, *AT, "--strict").code == 1


def test_a_result_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    assert diffscope("track", SNAPSHOTS[0], *AT, "--out", tmp_path).code == 0
    other = diffscope("track", SNAPSHOTS[0], *IMAGES, "--sigma", 0.5, "--out", tmp_path)
    assert other.code == 1
    assert "sigmas" in other.err
    assert diffscope("track", *SNAPSHOTS[:2], *AT, "--out", tmp_path).code == 0  # more of the same is welcome


def test_compare_leaves_series_alone(out: Path, whole: Ran) -> None:
    ran = diffscope("compare", out / "result.json", out / "result.json")
    assert (ran.code, "icr or sweep" in ran.err) == (1, True)


def test_killed_at_random_moments_it_gives_the_same_bytes(tmp_path: Path) -> None:
    paths = SNAPSHOTS[:6]
    command = command_line("track", *paths, *AT, "--batch-size", 2, "--out", tmp_path / "cut")
    seen: dict[str, tuple[int, int]] = {}
    for kill in range(4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(records(tmp_path / "cut")) < min(kill + 1, 5) and process.poll() is None:
            time.sleep(0.002)
        time.sleep(random.Random(kill).uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        now = records(tmp_path / "cut")
        assert {name: now[name] for name in seen} == seen  # neither measured nor written again
        seen = now
    assert diffscope("track", *paths, *AT, "--batch-size", 2, "--out", tmp_path / "cut").code == 0
    assert diffscope("track", *paths, *AT, "--batch-size", 2, "--out", tmp_path / "whole").code == 0
    a, b = (json.loads((tmp_path / name / "result.json").read_text("utf-8")) for name in ("cut", "whole"))
    assert json.dumps(without_timing(a)) == json.dumps(without_timing(b))
    assert {name: records(tmp_path / "cut")[name] for name in seen} == seen
    for name in ("result.csv", "icr.png", "icr.svg"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@contextmanager
def slow_writer(to: Path, pause: float) -> Iterator[None]:
    """Copies the snapshots into a folder one after another, each in pieces, as a slow disk would."""

    def write() -> None:
        for path in SNAPSHOTS:
            data = path.read_bytes()
            with open(to / path.name, "wb", buffering=0) as file:
                for start in range(0, len(data), len(data) // 3 + 1):
                    file.write(data[start : start + len(data) // 3 + 1])
                    time.sleep(pause)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.mark.parametrize("pause", [0.02, 0.3], ids=["faster than a look", "slower than a look"])
def test_watch_measures_each_snapshot_once_and_stops_the_training(pause: float, tmp_path: Path) -> None:
    runs, told = tmp_path / "runs", tmp_path / "told"
    out = ("--out", tmp_path / "out") if pause > 0.1 else ()
    runs.mkdir()
    (runs / "snapshot-0000100.safetensors").write_bytes(b"never finished")
    (runs / ".hidden.safetensors").write_bytes(b"")
    with slow_writer(runs, pause):
        ran = diffscope(
            "track", "--watch", runs, *AT, "--every", 0.1, "--rule", "short", *out, "--json",
            "--on-onset", f"echo $DIFFSCOPE_KEEP_STEP >> {told}", "--fail-if", "onset",
        )  # fmt: skip
    assert ran.code == 3, ran.err
    record = ran.json
    if out:
        assert json.loads((tmp_path / "out" / "result.json").read_text("utf-8"))["rows"] == record["rows"]
        assert "renews itself" not in (tmp_path / "out" / "report.html").read_text("utf-8").partition("<script")[0]
    steps = [row["step"] for row in record["rows"]]
    (row,) = record["onset"]
    assert steps == [25_600 * k for k in range(1, len(steps) + 1)]  # each once, up to the onset
    assert row["fired_at"] == steps[-1]
    assert told.read_text().split() == [str(row["keep_step"])]
    whole = diffscope("track", *SNAPSHOTS[: len(steps)], *AT, "--rule", "short", "--json")
    assert [r["icr"] for r in whole.json["rows"]] == [r["icr"] for r in record["rows"]]


def test_watch_prints_a_line_for_each_snapshot_as_it_is_measured(tmp_path: Path) -> None:
    for path in SNAPSHOTS[:3]:
        shutil.copy(path, tmp_path)
    ran = diffscope("track", "--watch", tmp_path, *AT, "--every", 0.1, "--fail-if", "step>60000")
    assert ran.code == 3
    assert [k for k in (25_600, 51_200, 76_800) if f"{k:,}" in ran.out.split("checkpoint")[0]] == [
        25_600,
        51_200,
        76_800,
    ]


def test_interrupting_a_watch_loses_nothing(tmp_path: Path) -> None:
    for path in SNAPSHOTS[:2]:
        shutil.copy(path, tmp_path)
    command = command_line("track", "--watch", tmp_path, *AT, "--every", 0.1, "--out", tmp_path / "out", "--json")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    page = tmp_path / "out" / "report.html"
    while len(records(tmp_path / "out")) < 2 or not page.exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    assert "renews itself every 10 s" in page.read_text("utf-8")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "renews itself" not in page.read_text("utf-8").partition("<script")[0]
    assert [row["step"] for row in json.loads(out)["rows"]] == [25_600, 51_200]


def test_held_out_images_stand_beside(tmp_path: Path) -> None:
    pixels = np.load(SERIES / "images.npz")["images"]
    np.savez(tmp_path / "held.npz", images=pixels[:, ::-1])
    ran = diffscope("track", *SNAPSHOTS[:2], *AT, "--holdout", tmp_path / "held.npz", "--json")
    assert ran.code == 0
    assert {"loss", "loss_se", "loss_holdout", "loss_holdout_se", "icr_holdout"} <= set(ran.json["rows"][0])
    assert ran.json["data"]["holdout"]["count"] == 64


def test_as_many_held_out_images_as_tracked_ones_unless_told_otherwise(tmp_path: Path) -> None:
    pixels = np.load(SERIES / "images.npz")["images"]
    np.savez(tmp_path / "held.npz", images=np.concatenate([pixels, pixels[:, ::-1]]))
    command = ("track", SNAPSHOTS[0], *AT, "--holdout", tmp_path / "held.npz", "--json")
    ran = diffscope(*command)
    assert (ran.json["data"]["used"], ran.json["data"]["holdout"]["used"]) == (64, 64)
    told = "64 of 128 held-out images, for 64 are tracked; `num_holdout=` sets it"
    assert told.replace("`num_holdout=`", "--num-holdout") in ran.err
    assert told in ran.json["warnings"]
    ran = diffscope(*command, "--num-holdout", 100)
    assert (ran.json["data"]["used"], ran.json["data"]["holdout"]["used"]) == (64, 100)
    assert "--num-holdout" not in ran.err
    refused(diffscope(*command, "--num-holdout", 0), 2, "--num-holdout 0", "at least 1")
    refused(diffscope("track", SNAPSHOTS[0], *AT, "--num-holdout", 5), 2, "--num-holdout 5", "--holdout DATA")


def test_without_a_level_one_is_chosen_and_said(tmp_path: Path) -> None:
    ran = diffscope("track", *SNAPSHOTS[:3], *IMAGES, "--rule", "short", "--out", tmp_path, "--json")
    assert "was chosen by a sweep" in ran.err
    assert any("was chosen by a sweep" in line for line in ran.json["warnings"])
    again = diffscope("track", *SNAPSHOTS[:4], *IMAGES, "--rule", "short", "--out", tmp_path, "--json")
    assert {row["sigma"] for row in again.json["rows"]} == {row["sigma"] for row in ran.json["rows"]}
