"""What a script may hang on: `--fail-if` and its exit codes, and which results may be compared."""

from __future__ import annotations

import json
import operator
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import EDM, FEW, Ran, diffscope, write_pictures

TOY = ("toy:d=8,side=4", "--data", "synthetic:count=200", "--augment", "none")


def one(*options: object) -> Ran:
    return diffscope("icr", *TOY, "--sigma", 0.5, "--json", *options)


@pytest.fixture(scope="module")
def measured() -> float:
    value: float = one().json["rows"][0]["icr"]
    return value


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`again` in two folders, and what differs from it in seed and images."""
    folder = tmp_path_factory.mktemp("results")
    for name, options in {
        "old": (),
        "again": (),
        "seed": ("--seed", 1),
        "data": ("--data", "synthetic:count=200,seed=1"),
        "level": ("--sigma", 7),
    }.items():
        stored(folder, name, "sweep", *TOY, "--sigma", 0.5, "--sigma", 2, *options)
    return folder


def stored(folder: Path, name: str, *command: object) -> str:
    """Without the time that figures take."""
    ran = diffscope(*command, "--json")
    assert ran.code == 0, ran.err
    path = folder / f"{name}.json"
    path.write_text(ran.out, "utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("op", "bound", "code"),
    [
        (">", 0.999, 3),
        (">", 1, 0),
        (">=", 1, 3),
        ("<", 1.001, 3),
        ("<", 1, 0),
        ("<=", 1, 3),
        ("==", 1, 3),
        ("!=", 1, 0),
        ("!=", 1.001, 3),
    ],
)
def test_a_bound_is_exact(op: str, bound: float, code: int, measured: float) -> None:
    gate = f"icr{op}{bound * measured!r}"
    ran = one("--fail-if", gate)
    assert ran.code == code
    assert ran.json["rows"][0]["icr"] == measured
    # As many digits as it takes for what is shown to be true.
    said = re.fullmatch(rf"--fail-if {re.escape(gate)}: icr of linear at sigma 0.5 is (0\.\d{{4,}})\n", ran.err)
    assert (said is not None) == bool(code), ran.err
    if said is not None:
        shown = float(said[1])
        assert shown == pytest.approx(measured, abs=5e-5)
        assert compare(op)(shown, bound * measured)


def compare(op: str) -> Callable[[float, float], bool]:
    names = {">": "gt", ">=": "ge", "<": "lt", "<=": "le", "==": "eq", "!=": "ne"}
    found: Callable[[float, float], bool] = getattr(operator, names[op])
    return found


def test_every_gate_that_holds_has_its_line() -> None:
    ran = one("--fail-if", "icr>0", "--fail-if", " rankme >= 1e0 ", "--fail-if", "n!=200", "--fail-if", "sigma==.5")
    assert (ran.code, ran.err.count("\n")) == (3, 3)
    assert ran.json["rows"]


def test_a_null_passes_no_gate() -> None:
    # 12 images have 12 degrees of freedom for 8 features: a number, but no interval.
    few = ("--num-images", 12)
    row = one(*few).json["rows"][0]
    assert (row["icr_high"], row["icr"] is None) == (None, False)
    for gates in (("icr_high<9",), ("icr>0", "icr_high<9")):
        ran = one(*few, *(word for gate in gates for word in ("--fail-if", gate)))
        assert (ran.code, ran.err.count("\n")) == (1, 1)
        assert "icr_high of linear at sigma 0.5 is null" in ran.err
        assert ran.json["rows"] == [row]


def test_gates_on_a_sweep_look_at_windows() -> None:
    sweep = ("sweep", *TOY, "--num-levels", 5, "--json")
    window = diffscope(*sweep).json["window"][0]
    # ICR of a linear map rises with noise: 1/(1 + m/σ²).
    assert window["shape"] == "rising"
    assert diffscope(*sweep, "--fail-if", "window==none").code == 3
    assert diffscope(*sweep, "--fail-if", f"icr>{window['icr']!r}").code == 0
    assert diffscope(*sweep, "--fail-if", f"icr>={window['icr']!r}").code == 3
    # A rising curve has no parabola, hence no error of its vertex.
    assert diffscope(*sweep, "--fail-if", "sigma_error>1").code == 1


def test_a_window_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffscope.results import WindowRow

    def found(job: Any, rows: Any) -> tuple[WindowRow, ...]:
        none = WindowRow("wiener", "flat", 1.0, 0.5, 2.0, 0.6)
        return none, WindowRow("linear", "u", 1.0, 0.5, 2.0, 0.5)

    monkeypatch.setattr("diffscope.studies.sweep.sweep.windows", found)
    sweep = ("sweep", *TOY, "--sigma", 1, "--json")
    assert diffscope(*sweep, "--fail-if", "window==none").code == 0
    ran = diffscope(*sweep, "--fail-if", "icr>0.55")
    assert (ran.code, ran.err) == (3, "--fail-if icr>0.55: icr of wiener at sigma 1 is 0.6\n")


def path_of(results: Path, name: str) -> str:
    return str(results / f"{name}.json")


def test_the_same_measurement_twice_has_not_changed(results: Path) -> None:
    ran = diffscope("compare", path_of(results, "old"), path_of(results, "again"), "--json", "--fail-if", "change>0%")
    assert ran.code == 0
    assert [(row["change"], row["p"], row["significant"]) for row in ran.json["rows"]] == [(0, 1, False)] * 2


@pytest.mark.parametrize(
    ("other", "words"),
    [("seed", ["seed: 0 and 1"]), ("data", ["data: "]), ("level", [])],
)
def test_what_may_not_be_compared(other: str, words: list[str], results: Path) -> None:
    ran = diffscope("compare", path_of(results, "old"), path_of(results, other), "--json")
    if other == "level":
        # Levels may be a subset: draws are shared.
        assert [row["sigma"] for row in ran.json["rows"]] == [0.5, 2]
        return
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert all(word in ran.err for word in words)


def test_images_that_differ_are_named(tmp_path: Path, pictures: Path) -> None:
    for name, folder in (("a", pictures), ("b", write_pictures(tmp_path / "pictures", 200, seed=1))):
        stored(tmp_path, name, "icr", EDM, "--data", folder, *FEW, "--sigma", 1)
    ran = diffscope("compare", path_of(tmp_path, "a"), path_of(tmp_path, "b"))
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "differ in data: " in ran.err


def scaled(results: Path, name: str, factor: float, scatter: float) -> str:
    """A result whose ICR is `factor` times that of `old`, with this standard error of the logarithm of the ratio."""
    record = json.loads(Path(path_of(results, "old")).read_text("utf-8"))
    for row in record["rows"]:
        row["icr"] *= factor
        # Half of the sixteen replicates up, half down: the jackknife's error is sqrt(15/16 · 16) times the step.
        row["replicates"] = [y + scatter / 15**0.5 * (-1) ** g for g, y in enumerate(row["replicates"])]
    path = results / f"{name}.json"
    path.write_text(json.dumps(record))
    return str(path)


@pytest.mark.parametrize(
    ("factor", "scatter", "gate", "code"),
    [
        (1.03, 0.001, "change>2%", 3),
        (1.03, 0.001, "change>0.02", 3),
        (1.03, 0.1, "change>2%", 0),  # beyond the bound, but not significant
        (1.03, 0.0125, "change>2%", 0),  # p = .032 by itself, .064 as one of two rows
        (1.01, 0.001, "change>2%", 0),  # significant, but within the bound
        (1.03, 0.001, "change<-2%", 0),
        (0.97, 0.001, "change<-2%", 3),
        (0.97, 0.1, "change<-2%", 0),
        (0.99, 0.001, "change<-2%", 0),
        (0.97, 0.001, "change>2%", 0),
    ],
)
def test_changes(factor: float, scatter: float, gate: str, code: int, results: Path) -> None:
    ran = diffscope("compare", path_of(results, "old"), scaled(results, "new", factor, scatter), "--fail-if", gate)
    assert ran.code == code
    assert ran.err.count(f"--fail-if {gate}: change of linear at sigma") == (2 if code else 0)


def test_numbers_of_a_comparison(results: Path) -> None:
    ran = diffscope("compare", path_of(results, "old"), scaled(results, "new", 1.03, 0.01), "--json")
    for row in ran.json["rows"]:
        assert row["change"] == pytest.approx(0.03)
        # t₁₅(0.975) = 2.1314
        assert row["change_high"] == pytest.approx(1.03 * 2.718281828 ** (2.13145 * 0.01) - 1, rel=1e-4)
        assert row["t"] == pytest.approx(2.9559, rel=1e-3)
        assert row["significant"] is True


def test_results_of_two_checkpoints_compare(tmp_path: Path, pictures: Path) -> None:
    # The same layer before and after training, so to speak: what differs is the checkpoint, and nothing else.
    changed = tmp_path / "changed.pkl"
    shutil.copy(EDM, changed)
    options = ("--data", pictures, *FEW, "--sigma", 1)
    first = stored(tmp_path, "a", "icr", EDM, *options)
    second = stored(tmp_path, "b", "icr", changed, *options, "--config", "sigma_data=0.7")
    ran = diffscope("compare", first, second, "--json")
    assert (ran.code, ran.err) == (0, "")
    (row,) = ran.json["rows"]
    assert row["change"] != 0
    assert row["change_low"] < row["change"] < row["change_high"]
    assert row["icr_new"] / row["icr_old"] - 1 == pytest.approx(row["change"])
