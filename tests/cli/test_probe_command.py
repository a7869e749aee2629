"""`diffscope probe` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import EDM, FEW, LAYER, Ran, diffscope, without_timing

LEVELS = ("--sigma", 0.3, "--sigma", 1, "--sigma", 3)


@pytest.fixture(scope="module")
def session(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Path]:
    out = tmp_path_factory.mktemp("probe")
    return diffscope("probe", EDM, "--data", pictures, *FEW, *LEVELS, "--out", out), out


def test_a_probe_prints_and_writes(session: tuple[Ran, Path]) -> None:
    ran, out = session
    assert ran.code == 0
    assert "accuracy" in ran.out.splitlines()[0]
    assert "Best accuracy" in ran.out
    assert "ICR recommends" in " ".join(ran.out.split())
    names = {path.name for path in out.iterdir()}
    pictures = {f"{name}.{kind}" for name in ("probe", "csnr") for kind in ("png", "svg")}
    assert names == {"result.json", "result.csv", "report.html", *pictures}
    record = json.loads((out / "result.json").read_text())
    assert record["command"] == "probe"
    assert [row["sigma"] for row in record["rows"]] == [0.3, 1, 3]
    assert record["probe"][0]["layer"] == LAYER
    assert record["protocol"]["probe"]["solver"] == "sklearn"


def test_json_is_the_same_and_quiet_is_the_numbers(session: tuple[Ran, Path], pictures: Path) -> None:
    record = json.loads((session[1] / "result.json").read_text())
    printed = diffscope("probe", EDM, "--data", pictures, *FEW, *LEVELS, "--json")
    assert without_timing(printed.json) == without_timing(record)
    quiet = diffscope("probe", EDM, "--data", pictures, *FEW, *LEVELS, "--quiet")
    assert [line.split()[-2:] for line in quiet.out.splitlines()] == [
        ["accuracy", f"{row['accuracy']:.4g}"] for row in record["rows"]
    ]


def test_another_protocol_does_not_replace_it(session: tuple[Ran, Path], pictures: Path) -> None:
    again = diffscope("probe", EDM, "--data", pictures, *FEW, *LEVELS, "--out", session[1], "--knn", 5)
    assert again.code == 1
    assert "probe" in again.err
    assert "--overwrite" in again.err


def test_gates_look_at_the_best_level(session: tuple[Ran, Path], pictures: Path) -> None:
    record = json.loads((session[1] / "result.json").read_text())
    accuracies = [row["accuracy"] for row in record["rows"]]
    assert min(accuracies) < max(accuracies)
    command = ("probe", EDM, "--data", pictures, *FEW, *LEVELS, "--quiet", "--fail-if")
    assert diffscope(*command, f"accuracy<{max(accuracies)}").code == 0
    held = diffscope(*command, f"accuracy<={max(accuracies)}")
    assert held.code == 3
    assert f"sigma {record['probe'][0]['sigma']:.4g}" in held.err
    assert diffscope(*command, "accuracyy<0.5").code == 2


def test_all_that_can_be_asked_for(pictures: Path, tmp_path: Path) -> None:
    asked = ("--input", "both", "--posterior", "--label-noise", "0.2,0.4", "--ensemble", 3, "--solver", "torch")
    ran = diffscope("probe", EDM, "--data", pictures, *FEW, *LEVELS, *asked, "--views", 1, "--out", tmp_path)
    assert ran.code == 0, ran.err
    keys = json.loads((tmp_path / "result.json").read_text())["rows"][0]
    for key in ("accuracy_noise20", "ensemble_accuracy_noise40", "clean_accuracy", "posterior_csnr"):
        assert keys[key] is not None
    assert keys["icr"] is None
    assert any(note.startswith("no_icr") for note in keys["notes"])
    assert {"inputs.png", "labels.png"} <= {path.name for path in tmp_path.iterdir()}


def test_no_labels_is_one_clear_line(tmp_path: Path) -> None:
    np.save(tmp_path / "plain.npy", np.zeros((40, 20, 20, 3), np.uint8))
    ran = diffscope("probe", EDM, "--data", tmp_path / "plain.npy", "--sigma", 1)
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 1
    assert "has none; expected class folders, a dataset.json" in ran.err


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (("--label-noise", "much"), "--label-noise much"),
        (("--input", "blurred"), "--input blurred"),
        (("--ensemble", 2), "--ensemble 2"),
    ],
)
def test_wrong_usage(wrong: tuple[object, ...], why: str, pictures: Path) -> None:
    ran = diffscope("probe", EDM, "--data", pictures, *FEW, *LEVELS, *wrong)
    assert ran.code == 2
    assert why in ran.err
