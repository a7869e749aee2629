"""Several results in one figure: curves, what they differ in, and what is refused."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import diffscope

import diffscope as package
from diffscope.errors import DataError
from diffscope.report.figures import canvas
from diffscope.report.views.base import view_of
from diffscope.results import Minimum, OnsetRow, Record, Result, Row, WindowRow
from diffscope.studies.compare.together import distinct, together

LEVELS = (0.1, 0.3, 1.0)


def sweep(layers: int = 1, icr: float = 0.4, **protocol: Any) -> Result:
    rows = [
        Row(layer=f"b.{i}", sigma=s, t=s, n=9, d=4, icr=v, icr_low=v - 0.1, icr_high=v + 0.1, replicates=None, notes=[])
        for i in range(layers)
        for s, v in zip(LEVELS, (icr + 0.2 + 0.01 * i, icr + 0.01 * i, 0.9), strict=True)
    ]
    window = WindowRow("b.0", "u", 0.29, low=0.2, high=0.5, practical_low=0.2, practical_high=0.5, lowest_sigma=0.3,
                       near=(0.3,), icr=icr, t=0.29, sigma_error=0.1, notes=())  # fmt: skip
    checkpoint, data = {"path": "a.pt"}, {"path": "d", "skipped": []}
    return Result("0", "sweep", checkpoint, data, {"views": 2, **protocol}, tuple(rows), {"window": (window,)})


def track(fired: int | None = 300, unit: str = "images", lowest: float = 0.3) -> Result:
    steps = (100, 200, 300)
    rows = [
        Row(checkpoint=f"{step}.pt", step=step, layer="m", sigma=0.3, t=0.3, n=9, d=4, icr=v, icr_low=v, icr_high=v)
        for step, v in zip(steps, (0.5, lowest, 0.4), strict=True)
    ]
    minimum = Minimum(200, lowest, 200, 200)
    onset = OnsetRow("m", 0.3, "turned", minimum, fired, None, None, None, "200.pt", 200, "short", None, None, None, ())
    listed = tuple({"path": f"{step}.pt", "step": step, "step_unit": unit} for step in steps)
    sections = {"onset": (onset,), "checkpoints": listed}
    return Result("0", "track", {"path": "run"}, {"path": "d", "skipped": []}, {}, tuple(rows), sections)


def written(folder: Path, **results: Result) -> list[str]:
    for name, result in results.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "result.json").write_text(json.dumps(result.to_json()))
    return [str(folder / name) for name in results]


def drawn(record: Record) -> canvas.Figure:
    with canvas.look():
        return view_of(record).figures(record)["icr"]


def legend(figure: canvas.Figure) -> list[str]:
    return [text.get_text() for one in figure.legends for text in one.get_texts()]


def curves_of(figure: canvas.Figure) -> list[list[float]]:
    return [list(line.get_ydata()) for line in figure.axes[0].get_lines() if len(line.get_xdata()) == len(LEVELS)]


def test_sweeps_are_curves_with_bands_their_lowest_points_and_recommended_levels(tmp_path: Path) -> None:
    record = together(written(tmp_path, many=sweep(icr=0.2), few=sweep(icr=0.5)))
    assert [(curve["result"], curve["icr"], curve["at"], curve["recommended"]) for curve in record["curves"]] == [
        ("many", 0.2, 0.3, 0.29), ("few", 0.5, 0.3, 0.29),
    ]  # fmt: skip
    figure = drawn(record)
    assert np.allclose(curves_of(figure), [[0.4, 0.2, 0.9], [0.7, 0.5, 0.9]])
    bands = [band.get_paths()[0].get_extents() for band in figure.axes[0].collections]
    assert [(round(band.y0, 9), round(band.y1, 9)) for band in bands] == [(0.1, 1.0), (0.4, 1.0)]
    assert figure.axes[0].get_title() == "b.0"
    assert legend(figure) == [
        "many", "few", "bands: 95 % intervals", "filled: lowest measured", "recommended σ, in its colour",
    ]  # fmt: skip


def test_of_many_layers_those_are_drawn_that_all_have_or_the_best_of_each(tmp_path: Path) -> None:
    paths = written(tmp_path, one=sweep(1), all=sweep(12), other=sweep(12, icr=0.3))
    assert legend(drawn(together(paths)))[:3] == ["one", "all", "other"]
    assert drawn(together(paths)).axes[0].get_title() == "b.0"
    assert legend(drawn(together(paths[1:])))[:2] == ["all", "other"]
    elsewhere = sweep(1)
    elsewhere = replace(elsewhere, rows=tuple(row.having(layer="c") for row in elsewhere.rows))
    paths += written(tmp_path, elsewhere=elsewhere)
    assert "elsewhere: c" in legend(drawn(together(paths)))


def test_runs_stand_over_their_steps_with_the_step_at_which_the_rule_fired() -> None:
    record = together([track(), track(fired=None, lowest=0.2)])
    assert [curve["result"] for curve in record["curves"]] == ["run (1)", "run (2)"]
    assert [curve["fired_at"] for curve in record["curves"]] == [300, None]
    figure = drawn(record)
    assert figure.axes[0].get_xlabel() == "training images seen"
    assert figure.axes[0].get_title() == "m, σ = 0.3"
    assert "memorization onset fired" in legend(figure)
    assert "memorization onset fired" not in legend(drawn(together([track(fired=None)] * 2)))


def test_what_protocols_differ_in_is_said() -> None:
    record = together([sweep(sigmas=[0.1], checkpoint="a"), sweep(sigmas=[0.2], checkpoint="b", views=4, pool="mean")])
    assert record["unlike"] == ["views", "pool"]
    assert "protocols differ in views, pool" in legend(drawn(record))
    assert together([sweep(), sweep()])["unlike"] == []


@pytest.mark.parametrize(
    ("results", "found"),
    [
        ([sweep(), track()], "curves over noise and over training"),
        ([track(), track(unit="steps")], "steps count different things"),
        ([sweep(), replace(sweep(), command="neighbors")], "a result of neighbors"),
        ([sweep(), sweep().having(varied="augment")], "several values of --augment"),
        ([sweep(), replace(sweep(), rows=tuple(row.having(icr=None) for row in sweep().rows))], "no row has an ICR"),
    ],
)
def test_what_does_not_belong_together_is_refused(results: list[Result], found: str) -> None:
    with pytest.raises(DataError, match=found) as error:
        together(results)
    assert "\n" not in str(error.value)


def test_names_are_as_short_as_they_can_be() -> None:
    assert distinct(["runs/a/result.json", "runs/b"]) == ["a", "b"]
    assert distinct(["a/sweep", "b/sweep/result.json"]) == ["a/sweep", "b/sweep"]
    assert distinct(["x", "y", "x"]) == ["x (1)", "y", "x (3)"]


def test_from_the_command_line_and_from_python(tmp_path: Path) -> None:
    paths = written(tmp_path, a=sweep(icr=0.2), b=sweep(icr=0.5), c=sweep(icr=0.4))
    ran = diffscope("compare", *paths, "--figure", "--out", tmp_path / "out", "--format", "svg,pdf", "--size", "column")
    assert ran.code == 0, ran.err
    assert "ICR is lowest in a, b.0: 0.2000 at σ = 0.3" in " ".join(ran.out.split())
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"icr.svg", "icr.pdf", "result.json", "result.csv"} <= names
    assert "icr.png" not in names
    with (tmp_path / "out" / "result.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 9
    assert (lines[1]["result"], lines[1]["sigma"], lines[1]["icr"]) == ("a", "0.3", "0.2")
    record = package.compare(paths[0], paths[1], paths[2:], figure=True)
    assert record["curves"] == diffscope("compare", *paths, "--figure", "--json").json["curves"]
    assert record.plot(size="column").get_figwidth() == 3.25


def test_differences_stay_of_two(tmp_path: Path) -> None:
    paths = written(tmp_path, a=sweep(), b=sweep(), c=sweep())
    ran = diffscope("compare", *paths)
    assert (ran.code, "differences are of two; several in one picture: --figure" in ran.err) == (2, True)
    ran = diffscope("compare", *paths[:2], "--figure", "--fail-if", "change>2%")
    assert (ran.code, "leave --figure out" in ran.err) == (2, True)
    ran = diffscope("compare", *paths[:2], "--size", "wide")
    assert (ran.code, "--size wide: expected column, page or a width" in ran.err) == (2, True)
