"""A probe in words, cells and pictures."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_results import draw, result, row, window

from diffscope.report.figures import probe as figures
from diffscope.report.spreadsheet import write_csv
from diffscope.report.words import probe
from diffscope.results import ProbeRow, Result, Row


def probed(layer: str, sigma: float, more: bool = False) -> Row:
    """Accuracy of 0.9 at sigma 0.1, falling with the distance in decades."""
    accuracy = 0.1 + 0.8 * math.exp(-(math.log10(sigma / 0.1) ** 2) / 3)

    def of(prefix: str) -> dict[str, Any]:
        return {
            f"{prefix}accuracy": accuracy,
            f"{prefix}accuracy_se": 0.02,
            f"{prefix}accuracy_low": accuracy - 0.04,
            f"{prefix}accuracy_high": accuracy + 0.04,
            f"{prefix}knn": accuracy - 0.05,
            f"{prefix}csnr": 1 + accuracy,
            f"{prefix}csnr_se": 0.03,
        }

    values = of("")
    if more:
        values |= of("clean_") | of("posterior_")
        for name in ("ensemble_accuracy", "accuracy_noise20", "ensemble_accuracy_noise20"):
            values |= {name: accuracy, f"{name}_low": accuracy - 0.03, f"{name}_high": accuracy + 0.03}
    known = row(layer, sigma)
    return known.having(**values)


def compared(layer: str, **other: Any) -> ProbeRow:
    found = ProbeRow(layer, 0.1, -0.5, 0.9, 0.05, 0.5, 0.41, 1, 0.61, -0.9, 0.01, 0.02, 0.1, 0.8)
    return replace(found, **other)


def made(layers: int = 1, count: int = 9, more: bool = False, **other: Any) -> Result:
    sigmas = [0.1 * 10 ** (k / 2) for k in range(-(count // 2), count - count // 2)]
    names = [f"enc.8x8_block{i}" for i in range(layers)]
    rows = [probed(name, sigma, more) for name in names for sigma in sigmas]
    best = min(sigmas, key=lambda sigma: abs(sigma - 0.1))
    found = tuple(compared(name, sigma=best, accuracy=0.9 - 0.01 * i, **other) for i, name in enumerate(names))
    base = result(rows, [window(name) for name in names])
    protocol = {**base.protocol, "input": "noisy", "probe": {"ensemble": 5}}
    return replace(base, command="probe", protocol=protocol).having(probe=found)


def test_the_verdict_names_both_optima_and_their_distance() -> None:
    text = probe.finding(made(), made().probe[0])
    assert "Best accuracy 0.9000" in text
    assert "ICR recommends σ = 0.41, 1.2 σ steps (0.61 decades) to more noise" in text
    assert "lowest 1 σ step above the probe's best level, which costs 0.0100 ± 0.0200 of accuracy" in text
    assert "with ICR −0.90" in text
    assert "with CSNR +0.80" in text


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"steps": 0}, "it is lowest at the probe's best level."),
        ({"steps": -2, "decades": -1.0}, "2 σ steps below the probe's best level"),
        ({"decades": -1.0}, "2 σ steps (1 decades) to less noise"),
    ],
)
def test_other_distances(other: dict[str, Any], words: str) -> None:
    whole = made(**other)
    assert words in probe.finding(whole, whole.probe[0])


def test_agreement_is_within_what_the_probe_can_tell() -> None:
    def headline(**other: Any) -> str:
        whole = made(**other)
        return probe.headline(whole.probe[0], whole.rows)

    assert headline() == "ICR finds the probe's best level"
    assert headline(steps=3) == "ICR is lowest elsewhere"
    assert headline(steps=None) == "no ICR"


def test_without_icr_nothing_is_said_of_it() -> None:
    gone = dict.fromkeys(("steps", "decades", "icr_sigma", "rank_correlation", "shortfall", "shortfall_se"))
    whole = made(**gone)
    assert "recommends" not in probe.finding(whole, whole.probe[0])


def test_columns_are_those_that_were_probed() -> None:
    assert list(probe.columns(made())) == [
        "layer", "σ", "t", "accuracy", "95 % interval", "k-NN", "ICR", "95 % of ICR", "CSNR"
    ]  # fmt: skip
    more = list(probe.columns(made(more=True)))
    assert more[9:] == ["clean accuracy", "posterior accuracy", "posterior CSNR", "ensemble", "at 20 % noise"]


def test_layers_are_ranked_by_accuracy() -> None:
    whole = made(layers=3)
    turned = whole.having(probe=whole.probe[::-1])
    assert [found.layer for found in probe.ranked(turned)] == [f"enc.8x8_block{i}" for i in range(3)]


@pytest.mark.parametrize(
    ("whole", "names"),
    [
        (made(), {"probe", "csnr"}),
        (made(layers=6), {"probe", "csnr"}),
        (made(more=True), {"probe", "csnr", "inputs", "labels"}),
        (made(count=1), set()),
    ],
    ids=["one layer", "many layers", "all that can be asked for", "one level"],
)
def test_pictures(whole: Result, names: set[str], tmp_path: Path) -> None:
    written = draw(whole, tmp_path)
    assert {path.name for path in written} == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    again = tmp_path / "again"
    again.mkdir()
    for path in draw(whole, again):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_the_picture_has_both_curves_in_panels_of_their_own() -> None:
    """On two axes of one panel their scales would say how alike they are."""
    whole = made()
    figure = figures.figures(whole)["probe"]
    above, below = figure.axes
    assert above.get_position().y0 > below.get_position().y0
    assert (above.get_ylabel(), below.get_ylabel()) == ("accuracy", "ICR (lower: more semantic)")
    drawn = [list(line.get_ydata()) for axes in (above, below) for line in axes.get_lines()]
    for key in ("accuracy", "knn", "icr"):
        assert [r[key] for r in whole.rows] in drawn
    assert len(above.collections) == 1  # a band each
    assert len(below.collections) == 1
    assert "recommends σ = 0.41" in below.get_title(loc="left")
    assert len(figures.figures(made(layers=3))["probe"].axes) == 6


@pytest.mark.parametrize(("levels", "said"), [(4, False), (5, True)])
def test_a_rank_correlation_is_told_from_five_levels_on(levels: int, said: bool) -> None:
    below = figures.figures(made(count=levels))["probe"].axes[1]
    assert ("rank correlation" in below.get_title(loc="left")) == said


def test_the_legend_names_the_layer_and_every_mark() -> None:
    (one,) = figures.figures(made())["probe"].legends
    assert [text.get_text() for text in one.get_texts()] == [
        "linear probe of enc.8x8_block0", "k-NN", "ICR of enc.8x8_block0", "recommended by ICR", "semantic window",
        "bands: 95 % intervals", "filled: best level",
    ]  # fmt: skip


def test_no_icr_at_all_is_drawn(tmp_path: Path) -> None:
    gone = dict.fromkeys(("icr", "icr_low", "icr_high"))
    whole = made(steps=None, icr_sigma=None, rank_correlation=None)
    rows = tuple(r.having(**gone) for r in whole.rows)
    assert draw(replace(whole, rows=rows).having(window=()), tmp_path)


def test_rows_are_a_table_for_spreadsheets(tmp_path: Path) -> None:
    write_csv(made().rows, tmp_path / "result.csv")
    head = (tmp_path / "result.csv").read_text().splitlines()[0].split(",")
    assert {"layer", "sigma", "accuracy", "accuracy_low", "knn", "csnr", "icr"} <= set(head)
