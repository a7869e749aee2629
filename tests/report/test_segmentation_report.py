"""A probe of pixels in words, cells and pictures."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_results import draw, result, row, show

from diffscope.report.figures import segmentation as figures
from diffscope.report.views.base import view_of
from diffscope.report.words import segmentation as words
from diffscope.results import Result, Row, SegmentationRow

SIGMAS = (0.01, 0.1, 1.0, 10.0)


def level(sigma: float, both: bool, classes: int) -> Row:
    """MIoU of 0.6 at sigma 0.1 and less elsewhere; clean input is 0.1 better. The last class is in no test image."""
    values: dict[str, Any] = {}
    for prefix, more in (("", 0.0), *([("clean_", 0.1)] if both else [])):
        miou = 0.2 + more + 0.4 * math.exp(-(math.log10(sigma / 0.1) ** 2))
        for key, value in (
            ("miou", miou),
            ("pixel_accuracy", miou + 0.1),
            *((f"iou_{k}", miou - 0.01 * k) for k in range(classes - 1)),
        ):
            values |= {
                f"{prefix}{key}": value, f"{prefix}{key}_low": value - 0.05, f"{prefix}{key}_high": value + 0.05
            }  # fmt: skip
        values |= dict.fromkeys((f"{prefix}iou_{classes - 1}{end}" for end in ("", "_low", "_high")), None)
    if both:
        values |= {"clean_gain": 0.1, "clean_gain_low": 0.08, "clean_gain_high": 0.12}
    return Row(layer="a+b", sigma=sigma, t=0.0, n=40, d=48, **values, notes=("absent: no test image has class 3",))


def made(both: bool = True, classes: int = 4, levels: int = 4, head: str = "linear") -> Result:
    base = result([row("a", 0.1)])
    sigmas = SIGMAS if levels > 1 else (0.1,)
    names = [f"$name_{k}" for k in range(classes)]
    noisy = SegmentationRow("a+b", "noisy", 0.1, 0.0, 0.6, 0.55, 0.65, 0.1, 0.1, None, None, None)
    clean = replace(noisy, input="clean", miou=0.7, miou_low=None, low=0.01, gain=0.1, gain_low=0.08, gain_high=0.12)
    return replace(
        base,
        command="probe",
        rows=tuple(level(sigma, both, classes) for sigma in sigmas),
        data={**base.data, "classes": classes, "class_names": names, "train": 30, "test": 10},
        protocol={**base.protocol, "layers": ["a", "b"], "segmentation": {"pixel_head": head}},
        pictures=pictures(both, classes),
        sections={"segmentation": (noisy, clean) if both else (noisy,)},
    )


def pictures(both: bool, classes: int, count: int = 3) -> dict[str, Any]:
    draws = np.random.default_rng(0)
    masks = [[draws.integers(0, classes, (6, 6)).astype(np.uint8) for _ in range(count)] for _ in range(3)]
    masks[0][0][0] = 255
    images = [draws.integers(0, 256, (6, 6, 3)).astype(np.uint8) for _ in range(count)]
    return {"names": list("abc"), "images": images, "truth": masks[0], "predicted": masks[1 : 3 if both else 2]}


def test_the_findings_are_the_sections() -> None:
    head, noisy, clean = words.findings(made())
    assert head == "A linear head on 48 features a pixel, of a, b; 30 images to train on and 10 to test."
    assert "Noisy input: best mIoU 0.6000 (95 % interval [0.5500, 0.6500]) at σ = 0.1" in noisy
    assert "a peak between less and more noise: all other levels are worse" in noisy
    assert "Clean input: best mIoU 0.7000 at σ = 0.1, levels from σ = 0.01 to 0.1 cannot be told apart" in clean
    assert "peak" not in clean  # the lowest level measured may be as good
    assert "+0.1000 (95 % interval +0.0800 to +0.1200) beside noisy input" in clean
    assert words.findings(made(head="mlp"))[0].startswith("A vote of ten MLPs")


def test_tables_have_both_inputs_and_every_class_of_the_test_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(words.columns(made()))[2:] == [
        "noisy mIoU", "noisy 95 %", "noisy pixels", "clean mIoU", "clean 95 %", "clean pixels", "clean − noisy"
    ]  # fmt: skip
    assert list(words.columns(made(both=False)))[2:] == ["mIoU", "95 %", "pixels"]
    lines = words.class_lines(made())
    assert [line.name for line in lines] == ["$name_0", "$name_1", "$name_2"]
    assert lines[2].values == ("0.5800 [0.5300, 0.6300]", "0.6800 [0.6300, 0.7300]")
    show(made())
    out = capsys.readouterr().out
    assert "IoU, clean input, σ = 0.1" in out
    assert "+0.1000 [+0.0800, +0.1200]" in out
    assert out.count("no test image has class 3") == 1
    unnamed = replace(made(), data={**made().data, "class_names": None})
    assert words.class_lines(unnamed)[1].name == "class 1"


def test_a_quiet_line_ends_with_miou() -> None:
    assert view_of(made()).quiet(made())[1] == "a+b sigma 0.1 miou 0.6"
    assert view_of(made()).verdict(made()).endswith("clean input: best mIoU 0.7000 at σ = 0.1")


@pytest.mark.parametrize(
    ("whole", "names"),
    [
        (made(), {"segmentation", "classes", "masks"}),
        (made(both=False, classes=40), {"segmentation", "classes", "masks"}),
        (made(levels=1), {"classes", "masks"}),
        (replace(made(), pictures=None), {"segmentation", "classes"}),
    ],
    ids=["both inputs", "many classes", "one level", "read from a file"],
)
def test_pictures(whole: Result, names: set[str], tmp_path: Path) -> None:
    written = draw(whole, tmp_path)
    assert {path.name for path in written} == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}


def test_the_curves_are_the_rows() -> None:
    (axes,) = figures.figures(made())["segmentation"].axes
    drawn = [list(np.asarray(line.get_ydata())) for line in axes.get_lines()]
    for key in ("miou", "clean_miou"):
        assert [r[key] for r in made().rows] in drawn


def test_classes_have_colours_of_their_own() -> None:
    known = [figures.colour(k) for k in range(60)]
    assert len(set(known)) == 60
    assert figures.colour(255) not in known
    assert all(len(colour) == 7 for colour in known)
