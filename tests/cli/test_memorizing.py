"""`diffscope memorization` as it is typed: one checkpoint, a run, gates, refusals, and what comes of its files."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import DATA, Ran, command_line, diffscope, without_timing
from PIL import Image

from diffscope.studies.track.overlay import read_columns

SERIES = DATA / "series"
IMAGES = SERIES / "images.npz"
FIRST, LAST = (SERIES / f"snapshot-{step:07d}.safetensors" for step in (25_600, 409_600))
FAST = ("--steps", 4, "--batch-size", 4)
KEYS = [
    *("checkpoint", "step", "samples", "copies", "share", "share_low", "share_high", "criterion", "generalization"),
    *("copies_half", "share_half", "share_half_low", "share_half_high", "median_d1", "median_ratio"),
]


def memorization(*more: object, data: Path = IMAGES) -> Ran:
    return diffscope("memorization", *more, "--data", data, *FAST)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def ran(out: Path) -> Ran:
    """Two snapshots of a run."""
    return memorization(LAST, FIRST, "--samples", 8, "--out", out, "--json")


def test_a_run_gives_a_row_a_snapshot_by_step(ran: Ran, out: Path) -> None:
    assert ran.code == 0, ran.err
    rows = ran.json["rows"]
    assert [list(row) for row in rows] == [KEYS, KEYS]
    assert [(row["step"], row["samples"]) for row in rows] == [(25_600, 8), (409_600, 8)]
    assert [Path(row["checkpoint"]) for row in rows] == [FIRST, LAST]
    for row in rows:
        assert row["share_low"] <= row["share"] <= row["share_high"]
        assert row["share"] == row["copies"] / 8 <= row["share_half"]
        assert row["generalization"] == 1 - row["share"]
        assert row["criterion"] == "ratio<1/3"
    # Longer training on 64 images brings samples closer to them.
    assert rows[1]["median_ratio"] < rows[0]["median_ratio"]
    assert json.loads((out / "result.json").read_text()) == ran.json
    assert ran.json["command"] == "memorization"
    assert [Path(entry["path"]) for entry in ran.json["checkpoints"]] == [FIRST, LAST]
    assert ran.json["data"]["distinct"] == 64


def test_its_files_feed_track_and_other_tools(ran: Ran, out: Path) -> None:
    columns = read_columns(str(out / "result.json"))
    assert {"share", "share_low", "share_high", "median_ratio"} <= set(columns)
    assert not {"checkpoint", "criterion"} & set(columns)
    assert columns["share"] == tuple((row["step"], row["share"]) for row in ran.json["rows"])
    assert read_columns(str(out / "result.csv")) == columns
    with open(out / "result.csv", newline="", encoding="utf-8") as file:
        assert next(csv.reader(file)) == KEYS
    for name in ("samples", "pairs", "share"):
        with Image.open(out / f"{name}.png") as picture:
            assert picture.width == 1280
        assert (out / f"{name}.svg").stat().st_size > 1000
    tracked = diffscope(
        *("track", FIRST, SERIES / "snapshot-0204800.safetensors", LAST, "--data", IMAGES, "--sigma", 0.3),
        *("--views", 3, "--overlay", out / "result.json", "--column", "share", "--json"),
    )
    assert tracked.code == 0, tracked.err
    assert [column["column"] for column in tracked.json["overlay"]] == ["share"]
    assert tracked.json["overlay"][0]["low"][0] == [25_600, ran.json["rows"][0]["share_low"]]


def test_the_same_command_finds_its_records(ran: Ran, out: Path) -> None:
    pictures = {path: path.read_bytes() for path in (out / "pairs.png", out / "samples.svg", out / "result.csv")}
    again = memorization(SERIES, "--step-from", "-0(025600|409600)", "--samples", 8, "--out", out, "--json")
    # The other snapshots have no such step and are left out; those two are known.
    assert again.code == 0, again.err
    assert [row["share"] for row in again.json["rows"]] == [row["share"] for row in ran.json["rows"]]
    assert again.json["timing"]["snapshots_resumed"] == 2
    assert {path: path.read_bytes() for path in pictures} == pictures
    assert len([entry for entry in again.json["checkpoints"] if "why" in entry]) == 14
    assert "left out" in again.err


def test_another_result_is_not_replaced_in_silence(ran: Ran, out: Path) -> None:
    other = memorization(LAST, "--samples", 8, "--out", out, "--seed", 1)
    assert (other.code, other.out) == (1, "")
    assert "differ in seed: 0 and 1; choose another --out, or --overwrite" in other.err
    assert json.loads((out / "result.json").read_text())["protocol"]["seed"] == 0
    (out / "broken").mkdir()
    (out / "broken" / "result.json").write_text("[]")
    refused = memorization(LAST, "--samples", 4, "--out", out / "broken")
    assert (refused.code, "not a result of diffscope" in refused.err) == (1, True)
    assert memorization(LAST, "--samples", 4, "--out", out / "broken", "--overwrite").code == 0


def test_one_checkpoint_in_words(tmp_path: Path) -> None:
    ran = memorization(LAST, "--samples", 8, "--out", tmp_path, "--save-samples")
    assert ran.code == 0, ran.err
    words = " ".join(ran.out.split())
    assert "of 8 samples" in words
    assert "A copy has d1/d2 < 1/3" in words
    assert "Generalization score (1 - share):" in words
    assert not (tmp_path / "share.png").exists()
    with np.load(tmp_path / "samples-0409600.npz") as saved:
        assert (saved.files, saved["arr_0"].shape, saved["arr_0"].dtype) == (["arr_0"], (8, 16, 16, 1), np.uint8)
    # Its own samples as training images: they are all found again.
    again = memorization(LAST, "--samples", 8, "--quiet", data=tmp_path / "samples-0409600.npz")
    assert (again.code, again.out.split()[-2:]) == (0, ["share", "1"])


@pytest.mark.parametrize(
    ("gate", "code"), [("share>=0", 3), ("share>1", 0), ("median_ratio<2", 3), ("copies_half>8", 0)]
)
def test_gates_hold_on_rows(gate: str, code: int, ran: Ran, out: Path) -> None:
    held = memorization(LAST, FIRST, "--samples", 8, "--out", out, "--quiet", "--fail-if", gate)
    assert held.code == code, held.err
    assert [line.split()[-1] for line in held.out.splitlines()] == [f"{row['share']:.4g}" for row in ran.json["rows"]]
    if code == 3:
        assert "of step 25600 is" in held.err
        assert "of step 409600 is" in held.err


TOY = ("memorization", "toy:d=4,side=4", "--data", "synthetic:count=60", "--samples", 8, "--steps", 4)


def test_the_toy_model_needs_no_file(tmp_path: Path) -> None:
    ran = diffscope(*TOY, "--out", tmp_path, "--json")
    assert ran.code == 0, ran.err
    row = ran.json["rows"][0]
    assert (row["step"], row["share"]) == (None, 0)
    assert (tmp_path / "pairs.png").exists()
    # No step, no column of steps.
    assert "step" not in diffscope(*TOY).out.splitlines()[0]


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--encoder", "sscd.pt"), 2, "a TorchScript file is a program"),
        (("--allow-torchscript",), 2, "--allow-torchscript is for --encoder"),
        (("--encoder", "gone.pt", "--allow-torchscript"), 1, "gone.pt"),
        (("--save-samples",), 2, "--save-samples keeps them in --out"),
        (("--fail-if", "median_similarity>0.5"), 2, "no key 'median_similarity'"),
        (("--fail-if", "criterion==1"), 2, "no key 'criterion'"),
        (("--samples", 0), 2, "--samples 0"),
        (("--step-from", "("), 2, "not a regular expression"),
        (("--space", "features", "--sigma", 0.3), 2, "needs --threshold"),
        (("--class", 3), 1, "not class-conditional"),
        (("--quality",), 2, "--quality needs a noise level"),
        (("--holdout", "a.npz"), 2, "--holdout is for --quality"),
        (("--quality", "--sigma", 0.3, "--features-of", "gone.pt"), 1, "gone.pt"),
        (("--quality", "--sigma", 0.3, "--layer", "nothing"), 1, "nothing"),
        (("--fail-if", "fd>1"), 2, "no key 'fd'"),
        (("--encoder-features", "a.safetensors", "b.safetensors"), 1, "a.safetensors"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(more: tuple[object, ...], code: int, message: str) -> None:
    ran = memorization(LAST, *more)
    assert (ran.code, ran.out) == (code, ""), ran.err
    (line,) = ran.err.splitlines()
    assert message in line


def test_no_torchscript_is_read_without_the_flag(tmp_path: Path) -> None:
    """Not even opened: what is no program is refused in the same words."""
    (tmp_path / "encoder.pt").write_text("not a program")
    refused = memorization(LAST, "--encoder", tmp_path / "encoder.pt")
    assert (refused.code, "add --allow-torchscript" in refused.err) == (2, True)
    allowed = memorization(LAST, "--encoder", tmp_path / "encoder.pt", "--allow-torchscript")
    assert (allowed.code, "cannot be read as TorchScript" in allowed.err) == (1, True)


def test_features_have_keys_of_their_own() -> None:
    ran = memorization(
        *(LAST, "--samples", 4, "--space", "features", "--sigma", 0.3, "--threshold", 0.9),
        *("--fail-if", "median_similarity>=-1", "--json"),
    )
    assert ran.code == 3, ran.err
    row = ran.json["rows"][0]
    assert row["criterion"] == "cosine>0.9"
    assert -1 <= row["median_similarity"] <= 1
    assert ran.json["protocol"]["sigmas"] == [0.3]


def test_quality_feeds_track(tmp_path: Path) -> None:
    """Each measure of it can be gated, drawn beside ICR, and correlated with it."""
    middle = SERIES / "snapshot-0204800.safetensors"
    argv = (FIRST, middle, LAST, "--samples", 16, "--quality", "--sigma", 0.3, "--holdout", IMAGES)
    ran = memorization(*argv, "--out", tmp_path, "--fail-if", "authenticity_holdout<=1")
    assert ran.code == 3, ran.err
    for words in ("against", "training", "held-out", "KD", "Quality: 16 samples against 64 training images and 64"):
        assert words in ran.out
    assert "features of snapshot-0409600.safetensors (step 409,600): enc.8x8_block1, σ = 0.3" in " ".join(
        ran.out.split()
    )
    with Image.open(tmp_path / "quality.png") as picture:
        assert picture.width > 1280
    columns = read_columns(str(tmp_path / "result.csv"))
    assert columns == read_columns(str(tmp_path / "result.json"))
    assert {"fd", "fd_se", "kd_holdout", "kd_holdout_se", "recall", "coverage", "authenticity"} <= set(columns)
    tracked = diffscope(
        *("track", FIRST, middle, LAST, "--data", IMAGES, "--sigma", 0.3, "--views", 3, "--out", tmp_path / "track"),
        *("--overlay", tmp_path / "result.json", "--column", "fd", "--column", "authenticity", "--json"),
    )
    assert tracked.code == 0, tracked.err
    fd, authenticity = tracked.json["overlay"]
    assert (fd["column"], authenticity["column"]) == ("fd", "authenticity")
    assert fd["against"][0]["n"] == authenticity["against"][0]["n"] == 3
    assert fd["against"][0]["rank_correlation"] is not None
    assert len(fd["low"]) == len(fd["high"]) == 3


def test_latents_are_no_pictures(tmp_path: Path) -> None:
    np.savez(tmp_path / "latents.npz", mean=np.zeros((4, 4, 8, 8), np.float32))
    ran = memorization(LAST, data=tmp_path / "latents.npz")
    assert (ran.code, "holds latents" in ran.err) == (1, True)


def test_a_killed_run_gives_the_same_bytes(tmp_path: Path) -> None:
    """Killed while it draws; what stands on disk is not drawn again."""
    argv = ("memorization", FIRST, LAST, "--data", IMAGES, "--samples", 12, "--steps", 8, "--batch-size", 1)
    assert diffscope(*argv, "--out", tmp_path / "whole").code == 0
    process = subprocess.Popen(command_line(*argv, "--out", tmp_path / "parts"), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while len(drawn := list(tmp_path.glob("parts/cache/*/*.safetensors"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert drawn
    assert not (tmp_path / "parts" / "result.json").exists()
    before = {path: path.stat().st_mtime_ns for path in drawn}
    assert diffscope(*argv, "--out", tmp_path / "parts").code == 0
    assert {path: path.stat().st_mtime_ns for path in drawn} == before
    whole, parts = (read(tmp_path / name) for name in ("whole", "parts"))
    assert parts == whole


def read(folder: Path) -> dict[str, Any]:
    """All that a user looks at, but for the time it took, which the page has too."""
    files = (path for path in folder.iterdir() if path.is_file() and path.suffix != ".html")
    found: dict[str, Any] = {path.name: path.read_bytes() for path in files}
    found["result.json"] = without_timing(json.loads(found["result.json"]))
    return found
