"""`--augment all` and `--num-images 500,1000,2000` as a user and a script meet them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from commands import EDM, FEW, LAYER, Ran, diffscope, without_timing

TOY = ("toy:d=8,side=4", "--data", "synthetic:count=200", "--augment", "none")
COUNTS = (*TOY, "--sigma", 0.5, "--num-images", "9,60,200")
CHAIN = ["crop", "crop+flip", "crop+flip+jitter", "crop+flip+jitter+rotate", "crop+flip+jitter+rotate+center"]


def refused(ran: Ran, code: int, *words: str) -> None:
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1), ran.err
    assert ran.err.startswith("error: ")
    assert not [word for word in words if word not in ran.err], ran.err


@pytest.fixture(scope="module")
def augmented(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    out = tmp_path_factory.mktemp("augmented")
    options = ("--layer", LAYER, "--num-images", 144, "--sigma", 0.1, "--sigma", 0.5, "--sigma", 2)
    return out, diffscope("sweep", EDM, "--data", pictures, *options, "--augment", "all", "--out", out)


def test_one_document_with_a_key_more(augmented: tuple[Path, Ran]) -> None:
    out, ran = augmented
    assert ran.code == 0, ran.err
    record = json.loads((out / "result.json").read_text("utf-8"))
    assert (record["command"], record["varied"]) == ("sweep", "augment")
    assert [(row["augment"], row["sigma"]) for row in record["rows"]] == [(a, s) for a in CHAIN for s in (0.1, 0.5, 2)]
    assert [(row["augment"], row["layer"]) for row in record["window"]] == [(a, LAYER) for a in CHAIN]
    assert (record["protocol"]["augment"], record["protocol"]["images"]) == (CHAIN, 144)
    assert not {"num_images"} & {key for row in (*record["rows"], *record["window"]) for key in row}
    with open(out / "result.csv", newline="", encoding="utf-8") as file:
        assert [line["augment"] for line in csv.DictReader(file)] == [a for a in CHAIN for _ in range(3)]
    assert {path.name for path in out.iterdir()} == {"result.json", "result.csv", "icr.png", "icr.svg", "report.html"}


def test_tables_and_a_paragraph(augmented: tuple[Path, Ran]) -> None:
    _, ran = augmented
    assert "+ flip   + jitter   + rotate   + center" in ran.out
    assert all(f"\n{' ' * len(LAYER)}   {name}" in ran.out for name in CHAIN[1:])
    assert f"{LAYER}: " in ran.out
    assert "of 5 augmentations have a semantic window" in ran.out


def test_numbers_of_images_and_nulls() -> None:
    ran = diffscope("icr", *COUNTS, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert (ran.json["varied"], ran.json["protocol"]["images"]) == ("num_images", [9, 60, 200])
    assert [(row["num_images"], row["icr"] is None) for row in ran.json["rows"]] == [
        (9, True), (60, False), (200, False)
    ]  # fmt: skip
    assert "too_few_images" in ran.json["rows"][0]["notes"][0]
    assert ran.json["data"]["used"] == 200
    quiet = diffscope("icr", *COUNTS, "--quiet")
    assert [line.split()[-4:] for line in quiet.out.splitlines()] == [
        ["sigma", "0.5", "icr", "null" if row["icr"] is None else f"{row['icr']:.4g}"] for row in ran.json["rows"]
    ]
    told = diffscope("icr", *COUNTS)
    assert "9 images do not determine ICR." in told.out
    assert "From 60 to 200 images ICR changes by" in told.out
    # The order in which they are given says nothing.
    assert without_timing(diffscope("icr", *COUNTS[:-1], "200,9, 60", "--json").json) == without_timing(ran.json)


def test_one_number_is_the_ordinary_measurement() -> None:
    ran = diffscope("icr", *TOY, "--sigma", 0.5, "--num-images", 60, "--json")
    (row,) = ran.json["rows"]
    assert not {"num_images", "augment"} & {*row, "varied" if "varied" in ran.json else ""}
    assert ran.json["protocol"]["images"] == 60
    assert {**diffscope("icr", *COUNTS, "--json").json["rows"][1], "num_images": 60} == {**row, "num_images": 60}


def test_gates_hold_for_every_member() -> None:
    rows = diffscope("icr", *COUNTS[:-1], "60,200", "--json").json["rows"]
    values = sorted(row["icr"] for row in rows)
    gate = ("--fail-if", f"icr>{(values[0] + values[1]) / 2!r}")
    ran = diffscope("icr", *COUNTS[:-1], "60,200", *gate, "--json")
    above = max(rows, key=lambda row: row["icr"])
    assert ran.code == 3
    assert f"(num_images {above['num_images']}) is {above['icr']:.4g}" in ran.err
    assert ran.err.count(" is ") == 1
    # A null passes no gate, as ever.
    assert diffscope("icr", *COUNTS, "--fail-if", "icr>9").code == 1
    sweep = ("sweep", *TOY, "--num-levels", 5, "--num-images", "60,200", "--json")
    assert diffscope(*sweep, "--fail-if", "window==none").code == 3
    assert diffscope(*sweep, "--fail-if", "icr>9").code == 0


def test_what_is_refused(pictures: Path) -> None:
    icr = ("icr", *TOY, "--sigma", 0.5)
    both = ("icr", EDM, "--data", pictures, "--sigma", 1, "--augment", "all", "--num-images", "60,200")
    refused(diffscope(*both), 2, "--augment all with --num-images 60,200", "one of the two")
    for counts in ("60,", "60,many", "60,60", "-5", "1e3", ""):
        refused(diffscope(*icr, "--num-images", counts), 2, f"--num-images {counts}".strip())
    refused(diffscope(*icr, "--num-images", "0,60"), 2, "--num-images 0", "at least 1")
    refused(diffscope(*icr, "--num-images", "60,900"), 1, "--num-images 900", "200 images")
    refused(diffscope(*icr, "--num-images", "4,9"), 1, "9 images")
    refused(diffscope("icr", *TOY[:3], "--sigma", 1, "--augment", "all"), 2, "--augment none")


@pytest.mark.parametrize("command", [("features", "-o", "f.safetensors"), ("track",)])
def test_other_commands_take_one_value(command: tuple[str, ...], pictures: Path) -> None:
    name, *options = command
    asked = (name, EDM, "--data", pictures, "--sigma", 1, *options)
    refused(diffscope(*asked, "--num-images", "60,200"), 2, "--num-images 60,200", "sweep and icr")
    refused(diffscope(*asked, "--augment", "all"), 2, "--augment all", "crop+flip")


def test_compare_names_what_does_not_fit(augmented: tuple[Path, Ran], pictures: Path, tmp_path: Path) -> None:
    out, _ = augmented
    path = out / "result.json"
    one = diffscope("icr", EDM, "--data", pictures, *FEW, "--sigma", 0.5, "--out", tmp_path)
    assert one.code == 0
    words = ("a result of sweep over --augment holds several measurements", "give results of one")
    refused(diffscope("compare", path, path), 1, *words)
    refused(diffscope("compare", tmp_path / "result.json", path), 1, *words)
    # Nor is the one replaced by the other in silence.
    again = ("icr", EDM, "--data", pictures, *FEW[:2], *FEW[4:], "--sigma", 0.5, "--out", tmp_path)
    refused(diffscope(*again, "--augment", "all"), 1, "augment", "--overwrite")


def test_a_summary_for_github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert diffscope("icr", *COUNTS).code == 0
    lines = summary.read_text("utf-8").splitlines()
    assert lines[2].startswith("| layer | σ | images |")
    assert [line.split("|")[3].strip() for line in lines[4:7]] == ["9", "60", "200"]
    assert any(line.startswith("- **linear, σ = 0.5:** 9 images do not determine ICR.") for line in lines)


def test_help_says_that_each_is_measured_anew() -> None:
    for name in ("icr", "sweep"):
        words = " ".join(diffscope(name, "--help").out.split())
        assert "500,1000,2000" in words
        assert "anew" in words
    assert "500,1000" not in diffscope("features", "--help").out
