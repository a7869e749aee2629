"""`kinship` from end to end: its numbers by hand, its resumption, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import EDM, LAYER, Ran, diffscope, left_behind, refused
from safetensors.numpy import load_file

import diffscope as package
from diffscope.studies.kinship import alignment
from diffscope.studies.kinship.items import short_names

FEW = ("--num-images", 60)


@pytest.fixture(scope="module")
def session(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Path]:
    out = tmp_path_factory.mktemp("kinship")
    levels = ("--layer", f"{LAYER},enc.8x8_block0", "--sigma", "0.3,3")
    return diffscope("kinship", EDM, "--data", pictures, *FEW, *levels, "--beside", "pixels", "--out", out), out


def test_pairs_are_those_of_the_features(session: tuple[Ran, Path], pictures: Path, tmp_path: Path) -> None:
    ran, out = session
    assert ran.code == 0, ran.err
    record = json.loads((out / "result.json").read_text())
    names = [item["name"] for item in record["items"]]
    assert names == ["enc.8x8_block0 σ 0.3", "enc.8x8_block0 σ 3", f"{LAYER} σ 0.3", f"{LAYER} σ 3", "pixels"]
    assert [(row["a"], row["b"]) for row in record["rows"]] == [
        (names[a], names[b]) for b in range(5) for a in range(b)
    ]
    file = tmp_path / "f.safetensors"
    plain = ("--augment", "none", "--views", 1, "--sigma", 3, "--layer", f"{LAYER},enc.8x8_block0")
    assert diffscope("features", EDM, "--data", pictures, *FEW, *plain, "-o", file).code == 0
    tensors = load_file(file)
    x, y = tensors["enc.8x8_block0"][0, 0], tensors[LAYER][0, 0]
    row = next(row for row in record["rows"] if (row["a"], row["b"]) == (names[1], names[3]))
    found = alignment.cka(alignment.Centred(x), alignment.Centred(y))
    assert (row["cka"], row["cka_se"]) == pytest.approx((found.value, found.se), rel=1e-9)
    assert row["cka_high"] - row["cka"] == pytest.approx(1.959964 * found.se, rel=1e-5)
    near = alignment.alignment(alignment.neighbours(x, 10), alignment.neighbours(y, 10), 10)
    assert near.cknna is not None
    assert row["cknna"] == pytest.approx(near.cknna.value, rel=1e-9)
    assert (row["mutual_knn"], row["chance"], row["n"]) == (near.mutual.value, 10 / 59, 60)
    written = {"result.json", "result.csv", "report.html", "kinship.png", "kinship.svg"}
    assert {path.name for path in out.iterdir()} == written
    assert "Most alike by CKA" in ran.out
    assert "Nearest to pixels by CKNNA" in ran.out
    quiet = diffscope("kinship", EDM, "--data", pictures, *FEW, "--sigma", "0.3,3", "--quiet")
    assert quiet.out.startswith("σ 0.3 σ 3 cka 0.")


def test_two_checkpoints_of_other_families(pictures: Path) -> None:
    result = package.kinship([EDM, "toy:d=8,side=8"], data=pictures, sigma=0.5, num_images=60)
    assert [item["name"] for item in result.sections["items"]] == ["edm_ddpmpp", "toy:d=8,side=8"]
    (row,) = result.rows
    assert row["cka_low"] < row["cka"] < row["cka_high"] < 1
    assert len(result.checkpoints) == 2
    same = package.kinship([EDM, EDM], data=pictures, sigma=0.5, num_images=60)
    assert (same.rows[0]["cka"], same.rows[0]["mutual_knn"]) == pytest.approx((1, 1), abs=1e-12)


def test_a_run_that_is_stopped_goes_on(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"data": pictures, "sigma": (0.3, 1.0, 3.0), "num_images": 60, "out": tmp_path}
    whole = package.kinship(EDM, **options, beside="random")
    assert left_behind(tmp_path) == []
    (tmp_path / "result.json").unlink()
    compare, compared = alignment.cka, []

    def fails(*arguments: Any) -> Any:
        compared.append(1)
        if len(compared) == 4:
            raise KeyboardInterrupt
        return compare(*arguments)

    monkeypatch.setattr(alignment, "cka", fails)
    with pytest.raises(KeyboardInterrupt):
        package.kinship(EDM, **options, beside="random")
    monkeypatch.setattr(alignment, "neighbours", lambda *_: pytest.fail("they were there"))
    monkeypatch.setattr("diffscope.studies.features.kept.export", lambda *_: pytest.fail("they were there"))
    again = package.kinship(EDM, **options, beside="random")
    assert len(compared) == 7  # six pairs, one of them tried twice
    assert again.rows == whole.rows
    assert left_behind(tmp_path) == []


def test_batches_do_not_change_it(pictures: Path) -> None:
    """Networks round by the size of batches; six digits stay."""
    rows = [
        package.kinship(EDM, data=pictures, sigma=(0.3, 3), num_images=60, batch_size=size, beside="random").rows
        for size in (7, 60)
    ]
    for a, b in zip(*rows, strict=True):
        assert a["cka"] == pytest.approx(b["cka"], rel=1e-5)


def test_a_layer_of_one_feature_has_no_neighbours(pictures: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    save_file({"one": rng.standard_normal((200, 1)).astype(np.float32)}, tmp_path / "one.safetensors")
    ran = diffscope("kinship", EDM, "--data", pictures, *FEW, "--sigma", 1, "--beside", tmp_path / "one.safetensors", "--json")  # noqa: E501  # fmt: skip
    (row,) = ran.json["rows"]
    assert row["cka"] is not None
    assert (row["cknna"], row["mutual_knn"]) == (None, None)
    assert row["notes"][0].startswith("undefined: cknna: a single feature")


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ((), 2, ("--sigma S", "--num-levels K")),
        (("--sigma", 1), 2, ("2 to 400 representations", "1 are asked for")),
        (("--sigma", "1,2", "--num-images", 10), 1, ("10 images; 10 neighbours",)),
        (("--sigma", "1,2", "--max-memory", "1KB"), 1, ("--max-memory",)),
        (("--sigma", 1, "--beside", "pixels", "--beside", "pixels"), 2, ("expected each encoder once",)),
        (("--sigma", 1, "--beside", "x.pt"), 2, ("a TorchScript file is a program", "--allow-torchscript")),
        (("--sigma", 1, "--allow-torchscript"), 2, ("is for --beside FILE.pt",)),
        (("--sigma", 1, "--beside", "hf:/x"), 2, ("no encoder is spelled like that",)),
        (("--sigma", "1,2", "--k", 1), 2, ("expected at least 2",)),
    ],
)
def test_what_is_refused(options: tuple[object, ...], code: int, words: tuple[str, ...], pictures: Path) -> None:
    refused(diffscope("kinship", EDM, "--data", pictures, *options), code, *words)


def test_gates_and_what_a_run_takes(pictures: Path) -> None:
    command = ("kinship", EDM, "--data", pictures, *FEW, "--sigma", "0.3,3")
    assert diffscope(*command, "--fail-if", "cka>0").code == 3
    dry = diffscope(*command, "--beside", "pixels", "--dry-run")
    assert dry.code == 0
    assert "180 passes" in dry.out + dry.err


def test_names_are_as_short_as_tells_them_apart() -> None:
    assert short_names(["a/run/x.pt", "b/run/y.pt"]) == ["x", "y"]
    assert short_names(["a/x.pt", "b/x.pt"]) == ["a/x", "b/x"]
    assert short_names(["a/x.pt", "a/x.safetensors"]) == ["x.pt", "x.safetensors"]
    assert short_names(["x", "x"]) == ["x (1)", "x (2)"]
