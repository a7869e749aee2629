"""The embedded checkpoints and images: small, whole, and enough for a first look without a network."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from commands import diffscope

from diffscope import demo
from diffscope.commands import demo as command
from diffscope.options.settings import Settings
from diffscope.sources.base import open_source

FOLDER = Path(demo.__file__).parent
MODELS = ["unet.safetensors", "sit.safetensors"]

pytestmark = pytest.mark.skipif(
    not all((FOLDER / name).exists() for name in (*MODELS, "images.zip")), reason="nothing embedded in this checkout"
)


def test_embedded_files_are_small() -> None:
    assert sum((FOLDER / name).stat().st_size for name in MODELS) <= 4e6
    assert (FOLDER / "images.zip").stat().st_size <= 4e6


def test_embedded_images_have_classes() -> None:
    source = open_source(str(FOLDER / "images.zip"))
    assert len(source) == 2000
    assert source.labels is not None
    assert sorted(set(source.labels.tolist())) == list(range(10))
    with zipfile.ZipFile(FOLDER / "images.zip") as archive:
        assert archive.testzip() is None


@pytest.mark.parametrize(("name", "family"), [(MODELS[0], "edm"), (MODELS[1], "sit")])
def test_embedded_models_are_known(name: str, family: str) -> None:
    ran = diffscope("inspect", FOLDER / name, "--json")
    assert (ran.code, ran.err) == (0, "")
    record = ran.json
    assert (record["family"], record["input"]["kind"]) == (family, "pixels")
    assert record["step"] > 0


@pytest.mark.parametrize("name", MODELS)
def test_a_short_sweep(name: str) -> None:
    command = ("sweep", FOLDER / name, "--data", FOLDER / "images.zip", "--num-images", 300, "--json")
    ran = diffscope(*command, "--sigma", 0.05, "--sigma", 0.5, "--sigma", 5)
    assert (ran.code, ran.err) == (0, "")
    rows = ran.json["rows"]
    assert [row["sigma"] for row in rows] == [0.05, 0.5, 5]
    assert all(0 < row["icr_low"] < row["icr"] < row["icr_high"] < 1.2 for row in rows)


@pytest.mark.slow
def test_neighbours_by_what_views_share_are_of_the_class() -> None:
    """Above those by the residual, by more than three standard errors, as on the demo's own grid."""
    at = ("--sigma", 0.0393, "--num-images", 200, "--pool", "mean", "--workers", 0)
    ran = diffscope("neighbors", FOLDER / MODELS[0], "--data", FOLDER / "images.zip", *at, "--json")
    assert ran.code == 0, ran.err
    by_s, by_xi = ran.json["rows"]
    error = (by_s["same_class_se"] ** 2 + by_xi["same_class_se"] ** 2) ** 0.5
    assert by_s["same_class"] - by_xi["same_class"] > 3 * error
    assert by_s["same_class"] > 3 * by_s["chance"]


def test_json_is_one_document_though_there_are_two_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "SWEPT", Settings(num_images=150, num_levels=5))
    monkeypatch.setattr(command, "NEIGHBORS", Settings(num_images=40, views=4, pool="mean"))
    ran = diffscope("demo", "--json", "--out", tmp_path)
    assert (ran.code, ran.json["command"]) == (0, "sweep")
    assert (tmp_path / "neighbors" / "result.json").exists()
