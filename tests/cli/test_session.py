"""A session with a published kind of file: what is it, is it any good at one level, at all levels, what changed?"""

from __future__ import annotations

import csv
import io
import json
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import EDM, FEW, LAYER, Ran, diffscope, without_timing
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

from diffscope.cli import run

KEYS = {"diffscope", "schema", "command", "checkpoint", "data", "protocol", "rows", "window", "timing"}
ROW = {
    *("layer", "sigma", "t", "n", "d", "notes", "replicates"),
    *("icr", "icr_se", "icr_low", "icr_high", "icr_raw", "icr_gauss", "kappa_ratio"),
    *("trace_s", "trace_xi", "effective_rank", "rankme", "lidar", "alpha_req", "alignment", "uniformity"),
}
LEVELS = ("--sigma", 0.05, "--sigma", 0.2, "--sigma", 0.5, "--sigma", 2, "--sigma", 8)


@dataclass(frozen=True)
class Session:
    folder: Path
    inspected: Ran
    icr: Ran
    sweep: Ran
    swept: dict[str, Any]
    features: Ran
    compared: Ran


@pytest.fixture(scope="module")
def session(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = tmp_path_factory.mktemp("session")
    result = folder / "sweep" / "result.json"
    inspected = diffscope("inspect", EDM, "--json")
    icr = diffscope("icr", EDM, "--data", pictures, *FEW, "--sigma", 0.5, "--json")
    sweep = diffscope("sweep", EDM, "--data", pictures, *FEW, *LEVELS, "--out", result.parent)
    features = diffscope(
        "features", EDM, "--data", pictures, *FEW, "--sigma", 2, "--sigma", 0.5, "-o", folder / "f.safetensors"
    )
    compared = diffscope("compare", result, result, "--json")
    return Session(folder, inspected, icr, sweep, json.loads(result.read_text("utf-8")), features, compared)


def test_every_command_succeeds(session: Session) -> None:
    ran = [session.inspected, session.icr, session.sweep, session.features, session.compared]
    assert [(r.code, r.err) for r in ran if r not in (session.sweep, session.features)] == [(0, "")] * 3
    assert (session.sweep.code, session.features.code) == (0, 0)


def test_inspect_says_what_the_file_is(session: Session) -> None:
    record = session.inspected.json
    assert (record["family"], record["default_layer"], record["weights"]) == ("edm", LAYER, "ema")
    assert (record["input"]["kind"], record["input"]["side"], record["classes"]["count"]) == ("pixels", 16, 0)
    layers = {layer["name"]: layer for layer in record["layers"]}
    first, *_, last = layers
    assert (first[:4], last[:4]) == ("enc.", "dec.")
    share = layers[LAYER].pop("share")
    assert layers[LAYER] == {"name": LAYER, "shape": [32, 8, 8], "features": 32}
    assert layers[first]["share"] < share < layers[last]["share"] == 1
    told = diffscope("inspect", EDM)
    assert told.code == 0
    assert all(name in told.out for name in layers)


def test_json_is_the_result_and_nothing_else(session: Session, pictures: Path) -> None:
    result = session.icr.json
    assert set(result) >= KEYS
    assert (result["diffscope"], result["schema"], result["command"]) == ("0.1.0", 1, "icr")
    assert set(result["checkpoint"]) >= {"path", "sha256", "family", "class", "parameters", "step"}
    assert result["checkpoint"]["path"] == EDM
    assert set(result["data"]) == {"path", "revision", "count", "used", "skipped", "fingerprint"}
    assert (result["data"]["path"], result["data"]["count"], result["data"]["used"]) == (str(pictures), 200, 144)
    assert len(result["protocol"]["hash"]) == 64
    protocol = {key: result["protocol"][key] for key in ("augment", "views", "images", "precision", "layers", "sigmas")}
    expected = {"augment": "none", "views": 2, "images": 144, "precision": "fp32", "layers": [LAYER], "sigmas": [0.5]}
    assert protocol == expected
    assert set(result["timing"]) >= {"seconds", "images_per_second"}
    (row,) = result["rows"]
    assert set(row) >= ROW
    assert (row["layer"], row["sigma"], row["n"], row["d"], len(row["replicates"])) == (LAYER, 0.5, 144, 32, 16)
    assert row["t"] == pytest.approx(np.log(0.5) / 4)
    assert row["icr_low"] < row["icr"] < row["icr_high"]
    assert row["icr_raw"] < row["icr"]
    assert result["window"] == []


def test_a_sweep_has_a_row_a_level_and_a_window_a_layer(session: Session) -> None:
    swept = session.swept
    assert swept["command"] == "sweep"
    assert [(row["layer"], row["sigma"]) for row in swept["rows"]] == [(LAYER, s) for s in (0.05, 0.2, 0.5, 2, 8)]
    (window,) = swept["window"]
    assert set(window) >= {"layer", "shape", "sigma", "low", "high", "icr", "notes"}
    assert window["shape"] in ("u", "rising", "falling", "flat", None)
    assert LAYER in session.sweep.out
    assert "ICR" in session.sweep.out


def test_icr_and_sweep_agree_at_one_level(session: Session) -> None:
    (alone,) = session.icr.json["rows"]
    (among,) = [row for row in session.swept["rows"] if row["sigma"] == 0.5]
    assert among == alone


def test_files_of_a_result(session: Session) -> None:
    folder = session.folder / "sweep"
    assert {"result.json", "result.csv"} <= {path.name for path in folder.iterdir()}
    pictures = list(folder.glob("*.png"))
    assert pictures
    assert all(picture.with_suffix(".svg").exists() for picture in pictures)
    for picture in pictures:
        with Image.open(picture) as image:
            low, high = image.convert("L").getextrema()
            assert low < high
            assert min(image.size) >= 300
    assert not [path.name for path in folder.iterdir() if path.name.startswith((".", "parts"))]
    assert all(f"wrote {folder / name}" in session.sweep.err for name in ("result.json", "result.csv"))


def test_the_table_holds_the_numbers_of_the_json(session: Session) -> None:
    with open(session.folder / "sweep" / "result.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(session.swept["rows"])
    for line, row in zip(table, session.swept["rows"], strict=True):
        assert line.pop("notes") == "; ".join(row["notes"])
        assert line.pop("layer") == row["layer"]
        for key, text in line.items():
            assert (None if text == "" else float(text)) == row[key], key


def test_features_are_what_the_numbers_come_from(session: Session, pictures: Path) -> None:
    path = session.folder / "f.safetensors"
    tensors = load_file(path)
    assert set(tensors) == {LAYER, "sigma", "index", "label"}
    z = tensors[LAYER]
    assert (z.shape, z.dtype) == ((2, 2, 144, 32), np.dtype("float32"))
    assert tensors["sigma"].tolist() == [0.5, 2]
    index, label = tensors["index"], tensors["label"]
    assert (index.shape, index.dtype, label.shape, label.dtype) == ((144,), np.int64, (144,), np.int64)
    assert (np.diff(index) > 0).all()
    # cat/ holds the even numbers and comes first.
    assert label.tolist() == (index >= 100).astype(int).tolist()
    with safe_open(path, framework="np") as file:
        protocol = json.loads(file.metadata()["protocol"])
    differing = {key for key, value in session.icr.json["protocol"].items() if value != protocol[key]}
    assert differing == {"sigmas", "hash"}

    (row,) = session.icr.json["rows"]
    raw, gauss = icr_of_two_views(z[0].astype(float))
    # Moments here are of float32 features in float64 as there; 1e-4 is what is promised.
    assert row["icr_raw"] == pytest.approx(raw, rel=1e-4)
    assert row["icr_gauss"] == pytest.approx(gauss, rel=1e-4)
    assert f"{LAYER} 2 x 2 x 144 x 32" in session.features.out


def icr_of_two_views(z: np.ndarray) -> tuple[float, float]:
    """Plug-in and Gaussian ICR of (2, N, d), by the textbook: sums and differences of the views."""
    plus, minus = (z[0] + z[1]) / np.sqrt(2), (z[0] - z[1]) / np.sqrt(2)
    n, d = plus.shape
    plus = plus - plus.mean(0)
    trace = np.trace(np.linalg.solve(minus.T @ minus / n, plus.T @ plus / (n - 1))) / d
    return 2 / (1 + trace), 2 / (1 + trace * (n - d - 1) / n)


def test_a_result_does_not_differ_from_itself(session: Session) -> None:
    record = session.compared.json
    assert (record["command"], len(record["rows"])) == ("compare", 5)
    for row in record["rows"]:
        assert (row["change"], row["change_low"], row["change_high"], row["p"]) == (0, 0, 0, 1)
        assert row["significant"] is False
    path = session.folder / "sweep" / "result.json"
    told = diffscope("compare", path, path)
    assert (told.code, told.err) == (0, "")
    assert told.out.count("no difference") == 5


def test_the_same_command_again_is_no_other_protocol(session: Session, pictures: Path, tmp_path: Path) -> None:
    out = session.folder / "sweep"
    again = diffscope("sweep", EDM, "--data", pictures, *FEW, *LEVELS, "--out", out, "--json")
    assert again.code == 0
    assert without_timing(again.json) == without_timing(session.swept)


def test_quiet_prints_labelled_numbers(session: Session, pictures: Path) -> None:
    quiet = diffscope("icr", EDM, "--data", pictures, *FEW, "--sigma", 0.5, "--quiet")
    assert (quiet.code, quiet.err) == (0, "")
    row = session.icr.json["rows"][0]
    assert quiet.out == f"{row['layer']} sigma 0.5 icr {row['icr']:.4g}\n"


def test_nothing_moves_or_shines_where_no_terminal_is(session: Session, pictures: Path) -> None:
    assert session.icr.err == ""
    assert "\r" not in session.sweep.err + session.sweep.out
    assert "\x1b" not in session.sweep.err + session.sweep.out


def test_colour_as_the_environment_says(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    path = session.folder / "sweep" / "result.json"
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in diffscope("compare", path, path).out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in diffscope("compare", path, path).out


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_json_on_a_stream_that_knows_not_all_characters(encoding: str, tmp_path: Path) -> None:
    # Names that no encoding knows come from file systems; JSON has an escape for each of them.
    odd = tmp_path / "größe→\udcff.pkl"
    odd.symlink_to(EDM)
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    with redirect_stdout(stream):
        assert run(["inspect", str(odd), "--json"]) == 0
    stream.flush()
    assert json.loads(stream.buffer.getvalue().decode(encoding))["path"] == str(odd)


def test_a_summary_for_github(session: Session, pictures: Path, tmp_path: Path, monkeypatch: Any) -> None:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert diffscope("icr", EDM, "--data", pictures, *FEW, "--sigma", 0.5).code == 0
    lines = summary.read_text("utf-8").splitlines()
    assert lines[0] == f"### diffscope icr: {EDM} on {pictures}"
    assert any(line.startswith("| ") and LAYER in line for line in lines)
