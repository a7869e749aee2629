"""Files of guided- and improved-diffusion from the command line: each recorded container, and a run's two sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from commands import DATA, Ran, diffscope, refused, write_pictures

from diffscope.families.adm import sigmas

FOLDER = DATA / "adm"
SAID = {
    name: json.loads((FOLDER / f"{name}.json").read_text())["args"].split()
    for name in ("adm_cond", "adm_new_order", "iddpm")
}
"""The options as the records have them: what no tensor tells, and a class where there are some."""


def facts(name: str) -> list[str]:
    """Without the class."""
    return [word for word in SAID[name] if word not in ("--class", "2")]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), 64)


def measured(pictures: Path, *argv: object) -> Ran:
    return diffscope(*argv, "--data", pictures, "--augment", "none", "--views", 5, "--json")


@pytest.mark.parametrize("name", SAID)
def test_inspect_names_what_the_record_says(name: str) -> None:
    record = json.loads((FOLDER / f"{name}.json").read_text())
    found = diffscope("inspect", FOLDER / f"{name}.pt", *facts(name), "--json").json
    assert (found["family"], found["parameters"]) == ("adm", record["num_parameters"])
    assert [layer["name"] for layer in found["layers"]] == record["layers"]
    assert found["default_layer"] == record["default_layer"]
    assert found["classes"] == {
        "count": record["constructor_kwargs"].get("num_classes", 0),
        "null": record["feature_class"] is None,
        "null_trained": None if record["feature_class"] is None else False,
    }


@pytest.mark.parametrize("name", SAID)
def test_icr_and_sweep(name: str, pictures: Path) -> None:
    ran = measured(pictures, "icr", FOLDER / f"{name}.pt", *SAID[name], "--sigma", 0.5)
    (row,) = ran.json["rows"]
    assert 0 < row["icr"] < 1
    assert "assumed, as the training code's default" in ran.err
    swept = measured(pictures, "sweep", FOLDER / f"{name}.pt", *SAID[name], "--sigma", "0.1,0.5,2").json
    assert [r["icr"] for r in swept["rows"]][1] == row["icr"]


def test_the_time_fed_is_the_time_taken(pictures: Path) -> None:
    (row,) = measured(pictures, "icr", FOLDER / "iddpm.pt", *SAID["iddpm"], "--t", 375.25).json["rows"]
    assert row["t"] == 375.25
    assert row["sigma"] == sigmas("cosine", 4000)[1501]


def test_no_null_class(pictures: Path) -> None:
    ran = diffscope("icr", FOLDER / "adm_cond.pt", *facts("adm_cond"), "--data", pictures, "--sigma", 0.5)
    refused(ran, 1, "this model has no null class; use --class label or --class INT")


def test_what_is_missing_is_asked_for() -> None:
    refused(diffscope("inspect", FOLDER / "iddpm.pt"), 1, "--config image_size=N", "--config num_heads=N")


def test_convert_keeps_the_numbers(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    assert diffscope("convert", FOLDER / "iddpm.pt", out, *SAID["iddpm"]).code == 0
    before, after = (
        measured(pictures, "icr", *given, "--sigma", 0.5).json["rows"]
        for given in ((FOLDER / "iddpm.pt", *SAID["iddpm"]), (out,))
    )
    assert before == after


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw weights, averages and optimisers of two steps, the averages a little larger."""
    folder = tmp_path_factory.mktemp("run")
    state = torch.load(FOLDER / "adm_cond.pt", weights_only=True)
    for step in (10, 20):
        for kind, factor in (("model", 1.0), ("ema_0.9999_", 1.1)):
            torch.save({key: factor * value.float() for key, value in state.items()}, folder / f"{kind}{step:06d}.pt")
        torch.save({"state": {}, "param_groups": []}, folder / f"opt{step:06d}.pt")
    return folder


def test_track_takes_one_kind_in_order(training: Path, pictures: Path) -> None:
    """Strict: what is passed over is no fault of the run."""
    for weights, kind in (("ema", "ema_0.9999_"), ("model", "model")):
        ran = measured(pictures, "track", training, *SAID["adm_cond"], "--sigma", 0.5, "--weights", weights, "--strict")
        rows = ran.json["rows"]
        assert [row["step"] for row in rows] == [10, 20]
        assert [Path(row["checkpoint"]).name for row in rows] == [f"{kind}000010.pt", f"{kind}000020.pt"]
        assert ran.json["checkpoint"]["weights"] == weights


def test_track_refuses_a_mixed_series(training: Path, pictures: Path) -> None:
    mixed = (training / "model000010.pt", training / "ema_0.9999_000020.pt")
    ran = diffscope("track", *mixed, *SAID["adm_cond"], "--data", pictures, "--sigma", 0.5)
    refused(ran, 1, "different weights of a run in one series", "raw weights", "rate 0.9999")
    ran = diffscope("inspect", mixed[1], *facts("adm_cond"), "--weights", "model")
    refused(ran, 1, "give model000020.pt, or use --weights ema")
