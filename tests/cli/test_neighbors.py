"""Neighbours from the shell: a grid, shares, gates, and a run that is stopped and goes on."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from commands import DATA, EDM, LAYER, Ran, command_line, diffscope, without_timing

import diffscope as package

SERIES = DATA / "series"
SNAPSHOTS = sorted(SERIES.glob("*.safetensors"))
FEW = ("--layer", LAYER, "--views", 3, "--workers", 0)
AT = (*FEW, "--sigma", 0.3)
ROW = {"checkpoint", "step", "layer", "sigma", "component", "k", "same_class", "same_class_se", "chance", "icr"}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("neighbors")


@pytest.fixture(scope="module")
def whole(out: Path, pictures: Path) -> Ran:
    query = ("--query", 3, "--query", "dog/0001.png")
    return diffscope("neighbors", EDM, "--data", pictures, *AT, *query, "--k", 3, "--clusters", "--out", out)


def test_it_says_and_draws(whole: Ran, out: Path) -> None:
    assert whole.code == 0, whole.err
    assert "same class @3" in whole.out
    assert "where chance is" in whole.out
    assert whole.err.startswith("200 images × 3 views")
    for name in ("neighbors", "clusters"):
        assert (out / f"{name}.png").stat().st_size > 10_000
        assert (out / f"{name}.svg").stat().st_size > 10_000
    pictures = {f"{name}.{kind}" for name in ("neighbors", "clusters") for kind in ("png", "svg")}
    written = {"result.json", "result.csv", "report.html", *pictures}  # no features are left
    assert {path.name for path in out.iterdir()} == written
    line, _ = csv.DictReader(io.StringIO((out / "result.csv").read_text("utf-8")))
    assert set(line) >= ROW


def test_the_result_says_who(whole: Ran, out: Path) -> None:
    record = json.loads((out / "result.json").read_text("utf-8"))
    assert record["command"] == "neighbors"
    assert [row["component"] for row in record["rows"]] == ["s", "xi"]
    for row in record["rows"]:
        assert set(row) >= ROW
        assert (row["n"], row["k"], row["queries"], row["d"]) == (200, 3, 200, 32 * 8 * 8)
        assert row["chance"] == pytest.approx(99 / 199)
    (grid,) = record["grid"]
    assert [query["name"] for query in grid["queries"]] == ["cat/0006.png", "dog/0001.png"]
    assert grid["queries"][0]["image"] == 3
    for query in grid["queries"]:
        assert query["s"]["view"] is None
        assert query["xi"]["view"] in (0, 1, 2)
        for component in ("s", "xi"):
            near = query[component]["neighbors"]
            similarity = [one["similarity"] for one in near]
            assert len(near) == 3
            assert similarity == sorted(similarity, reverse=True)
            assert query["image"] not in {one["image"] for one in near}
            assert all(one["label"] == (0 if one["name"].startswith("cat") else 1) for one in near)
    assert len(record["clusters"][0]["images"]) == 2
    assert record["protocol"]["neighbors"]["first_view"] == "the image as it is"


def test_the_same_again_is_welcome_and_another_protocol_is_not(whole: Ran, out: Path, pictures: Path) -> None:
    query = ("--query", 3, "--query", "dog/0001.png", "--clusters")
    before = json.loads((out / "result.json").read_text("utf-8"))
    again = diffscope("neighbors", EDM, "--data", pictures, *AT, *query, "--k", 3, "--out", out, "--json")
    assert again.code == 0, again.err
    assert without_timing(again.json) == without_timing(before)
    other = diffscope("neighbors", EDM, "--data", pictures, *AT, "--k", 4, "--out", out)
    assert (other.code, "--overwrite" in other.err) == (1, True)
    assert json.loads((out / "result.json").read_text("utf-8"))["rows"][0]["k"] == 3


def test_several_checkpoints_stand_by_step(tmp_path: Path) -> None:
    data = ("--data", SERIES / "images.npz", "--views", 3, "--workers", 0, "--sigma", 0.3, "--pool", "mean")
    ran = diffscope(
        "neighbors", SNAPSHOTS[2], SNAPSHOTS[0], *data, "--rows", 2, "--clusters", "--out", tmp_path, "--json"
    )
    assert ran.code == 0, ran.err
    record = ran.json
    assert [(row["step"], row["component"]) for row in record["rows"]] == [
        (25_600, "s"), (25_600, "xi"), (76_800, "s"), (76_800, "xi"),
    ]  # fmt: skip
    first, second = record["grid"]
    assert [query["image"] for query in first["queries"]] == [query["image"] for query in second["queries"]]
    assert record["protocol"]["checkpoint"] is None
    measured = diffscope("icr", SNAPSHOTS[0], "--data", SERIES / "images.npz", "--sigma", 0.3, "--workers", 0, "--json")
    assert record["rows"][0]["icr"] == measured.json["rows"][0]["icr"]
    assert (tmp_path / "neighbors.png").exists()


def test_without_labels_the_grid_alone(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    command = ("neighbors", EDM, "--data", tmp_path / "images.npy", *AT)
    ran = diffscope(*command)
    assert ran.code == 0, ran.err
    assert "no_labels" in ran.out
    assert "00000" in ran.out  # the neighbours' names
    assert "no pictures without --out" in ran.err
    assert diffscope(*command, "--out", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "neighbors.svg").exists()
    gate = diffscope(*command, "--fail-if", "same_class<0.3")
    assert (gate.code, "null" in gate.err) == (1, True)


def test_a_share_is_a_gate(pictures: Path) -> None:
    command = ("neighbors", EDM, "--data", pictures, *AT, "--num-images", 60, "--quiet")
    ran = diffscope(*command)
    by_s, by_xi = (float(line.split()[-1]) for line in ran.out.splitlines())
    assert diffscope(*command, "--fail-if", f"same_class<{by_s + 0.01}").code == 3
    assert diffscope(*command, "--fail-if", f"same_class<{by_s - 0.01}").code == 0
    assert diffscope(*command, "--fail-if", f"same_class_xi>{by_xi - 0.01}").code == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "diffscope sweep"),
        (["--sigma", 0.3, "--sigma", 0.4], 2, "one noise level"),
        (["--sigma", 0.3, "--layer", "all"], 2, "one --layer"),
        (["--sigma", 0.3, "--k", 0], 2, "--k 0"),
        (["--sigma", 0.3, "--rows", 0], 2, "--rows 0"),
        (["--sigma", 0.3, "--num-queries", 0], 2, "--num-queries 0"),
        (["--sigma", 0.3, "--fail-if", "share<1"], 2, "share"),
        (["--sigma", 0.3, "--views", 1], 2, "at least 2"),
        (["--sigma", 0.3, "--query", "absent.png"], 1, "absent.png"),
        (["--sigma", 0.3, "--query", 200], 1, "0 to 199"),
        (["--sigma", 0.3, "--k", 200], 1, "201"),
        (["--sigma", 0.3, "--max-memory", "1kB"], 1, "--max-memory"),
    ],
)
def test_what_is_wrong_ends_in_one_line(arguments: list[object], code: int, words: str, pictures: Path) -> None:
    ran = diffscope("neighbors", EDM, "--data", pictures, *arguments)
    assert (ran.code, ran.out) == (code, "")
    lines = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert words in lines[0]
    assert "bug" not in lines[0]


def test_the_paper_s_views_are_the_default() -> None:
    helped = " ".join(diffscope("neighbors", "--help").out.split())
    for said in ("default: 15", "default: flatten", "default: (all)"):
        assert said in helped


def test_interrupted_it_goes_on(tmp_path: Path, pictures: Path) -> None:
    command = ("neighbors", EDM, "--data", pictures, *AT, "--num-queries", 20, "--batch-size", 1, "--num-images", 100)
    process = subprocess.Popen(command_line(*command, "--out", tmp_path / "cut"), stderr=subprocess.PIPE, text=True)
    started = time.monotonic()
    while process.poll() is None and time.monotonic() - started < 60:
        with contextlib.suppress(FileNotFoundError):  # a folder may go while it is looked through
            if len(list((tmp_path / "cut").glob("parts-*/part-*"))) >= 18:  # of ICR there are 16
                break
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    again = diffscope(*command, "--out", tmp_path / "cut", "--json")
    assert "going on from there" in again.err
    assert diffscope(*command, "--out", tmp_path / "whole").code == 0
    assert without_timing(again.json) == without_timing(json.loads((tmp_path / "whole/result.json").read_text("utf-8")))
    for name in ("result.csv", "neighbors.png", "neighbors.svg"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list((tmp_path / "cut").glob("parts-*"))


def test_from_python(tmp_path: Path, pictures: Path) -> None:
    result = package.neighbors(
        EDM, pictures, sigma=0.3, query=["3", "dog/0001.png"], k=2, layer=(LAYER,), num_images=50, views=3, workers=0,
        out=tmp_path,
    )  # fmt: skip
    assert [row["component"] for row in result.rows] == ["s", "xi"]
    assert result.sections["grid"][0]["queries"][0]["image"] == 3
    written = {"result.json", "result.csv", "report.html", "neighbors.png", "neighbors.svg"}
    assert {path.name for path in tmp_path.iterdir()} == written
