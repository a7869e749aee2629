"""What several augmentations, or numbers of images, say in words and pictures, from results whose answers are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import made_results
import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from diffscope.report.figures import canvas
from diffscope.report.figures import variation as pictures
from diffscope.report.words.variation import paragraphs, short
from diffscope.results import Result, Row

CHAIN = ["crop", "crop+flip", "crop+flip+jitter", "crop+flip+jitter+rotate", "crop+flip+jitter+rotate+center"]


def measured(row: Row, icr: float, raw: float) -> Row:
    values = {"icr": icr, "icr_low": icr - 0.02, "icr_high": icr + 0.02, "icr_raw": raw, "icr_gauss": 0.99 * icr}
    return row.having(**values)


def augmented(
    layers: int = 1, count: int = 12, recommended: Sequence[float | None] = (0.3, 0.3, 0.4, 0.4, 0.5)
) -> Result:
    """Longer chains have higher curves; None is a curve without a window."""
    made = made_results.sweep(layers, count)
    rows, windows = [], []
    for i, (name, sigma) in enumerate(zip(CHAIN, recommended, strict=True)):
        for row in made.rows:
            higher = row["icr"] + 0.03 * i
            rows.append(measured(row, higher, 0.9 * higher).having(augment=name))
        shape = "rising" if sigma is None else "u"
        windows += [dataclasses.replace(w, augment=name, sigma=sigma or 0.002, shape=shape) for w in made.window]
    return dataclasses.replace(made, rows=tuple(rows)).having(window=tuple(windows), varied="augment")


def counted(
    counts: Sequence[int] = (125, 250, 500, 1000, 2000), command: str = "icr", layers: int = 1, raw: float = 40.0
) -> Result:
    """The plug-in value is raw/N too small; below 200 images there is none."""
    made = made_results.sweep(layers, 1 if command == "icr" else 12)
    rows, windows = [], []
    for n in counts:
        for row in made.rows:
            known = measured(row, row["icr"], row["icr"] * (1 - raw / n))
            none = made_results.without_icr(row, f"too_few_images: {n} images")
            rows.append((known if n >= 200 else none).having(num_images=n))
        windows += [
            dataclasses.replace(w, num_images=n, **({} if n >= 200 else {"icr": None, "shape": None, "sigma": None}))
            for w in made.window
        ]
    windows = [] if command == "icr" else windows
    whole = dataclasses.replace(made, command=command, rows=tuple(rows))
    return whole.having(window=tuple(windows), varied="num_images")


def at_one_level(result: Result) -> Result:
    sigma = result.rows[5].sigma
    rows = [row for row in result.rows if row.sigma == sigma]
    return dataclasses.replace(result, command="icr", rows=tuple(rows)).having(window=())


CASES: dict[str, tuple[Result, list[str]]] = {
    "augmentations": (augmented(), ["icr"]),
    "augmentations of three layers": (augmented(3), ["icr"]),
    "augmentations of many layers": (augmented(20), ["icr"]),
    "augmentations at one level": (at_one_level(augmented()), ["icr"]),
    "augmentations at one level of three layers": (at_one_level(augmented(3)), ["icr"]),
    "augmentations at one level of many layers": (at_one_level(augmented(20)), ["icr"]),
    "numbers": (counted(), ["icr"]),
    "numbers of two layers": (counted(layers=2), ["icr"]),
    "numbers of a sweep": (counted(command="sweep"), ["icr", "images"]),
    "numbers of a sweep of four layers": (counted(command="sweep", layers=4), ["icr", "images"]),
    "many numbers": (counted(tuple(range(200, 2400, 200)), command="sweep"), ["icr", "images"]),
    "no icr at all": (counted((50, 100)), ["icr"]),
    "no icr at all in a sweep": (counted((50, 100), command="sweep"), ["icr", "images"]),
}


@pytest.mark.parametrize("case", CASES)
def test_pictures_are_complete_and_not_blank(case: str, tmp_path: Path) -> None:
    result, names = CASES[case]
    written = made_results.draw(result, tmp_path)
    assert [path.name for path in written] == [f"{name}.{kind}" for name in names for kind in ("png", "svg")]
    for path in written[::2]:
        picture = np.asarray(Image.open(path).convert("L"))
        assert 0.005 < (picture < 200).mean() < 0.5  # ink
        edges = (picture[:3], picture[-3:], picture[:, :3], picture[:, -3:])
        assert all(edge.min() == 255 for edge in edges)  # nothing is cut off


def texts(result: Result, name: str = "icr") -> str:
    with canvas.look():
        figure = pictures.figures(result)[name]
        figure.draw_without_rendering()  # ticks get their labels
        return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_pictures_say_which_curve_is_whose_and_has_a_window() -> None:
    said = texts(augmented(recommended=(None, 0.3, 0.4, 0.4, 0.5)))
    assert "crop: rising" in said
    assert "crop+flip: window, σ = 0.3" in said
    assert "\n+ jitter\n" in texts(at_one_level(augmented()))
    said = texts(counted(command="sweep"))
    assert "125 images: no ICR" in said
    assert "2,000 images: window, σ = 0.41" in said
    assert "3 other numbers" in texts(counted(tuple(range(200, 2400, 200)), command="sweep"))
    said = texts(counted())
    assert all(words in said for words in ("ICR raw", "ICR Gauss", "1,000", "too few images"))
    assert "too few images" not in texts(counted((250, 500)))


def test_windows_that_agree_and_that_do_not() -> None:
    # Twelve levels over four decades: a step is a factor of 2.31, log10 of it 0.364.
    [(heading, text)] = paragraphs(augmented(recommended=(0.3, 0.3, 0.4, 0.4, 0.5)))
    assert heading == "enc.8x8_block3:"
    assert "5 of 5 augmentations have a semantic window: crop at σ = 0.3 (95 % interval 0.208 to 0.434, window" in text
    assert "agree within 0.61 steps of σ (a step is a factor of 2.31)." in text  # log10(0.5/0.3)/0.364
    [(_, text)] = paragraphs(augmented(recommended=(None, None, 0.04, 0.3, 0.4)))
    assert "3 of 5 augmentations" in text
    assert "Not so crop: no semantic window, ICR rises with noise; crop+flip: no semantic" in text
    assert "do not agree: they lie 2.7 steps of σ apart" in text  # log10(10)/0.364
    assert "0.04 for crop+flip+jitter, 0.4 for crop+flip+jitter+rotate+center." in text
    [(_, text)] = paragraphs(augmented(recommended=(None,) * 5))
    assert text.startswith("None of 5 augmentations have a semantic window. Not so")
    assert "agree" not in text


def test_what_the_number_of_images_changes() -> None:
    [(heading, text)] = paragraphs(counted())
    assert heading.startswith("enc.8x8_block3, σ = ")
    assert "125 images do not determine ICR. From 250 to 2,000 images ICR changes by +0.0 %" in text
    assert "(ICR raw) by +16.7 %" in text  # (1 − 40/2000)/(1 − 40/250)
    assert "Every interval holds ICR at 2,000 images" in text
    assert "ICR raw lies within its interval there (-2.0 % against ICR)." in text
    [(_, text)] = paragraphs(counted(raw=200.0))
    assert "ICR raw has not converged there: -10.0 % against ICR." in text
    made = counted()
    off = [measured(row, 0.9, 0.9) if row.num_images == 500 else row for row in made.rows]
    [(_, text)] = paragraphs(dataclasses.replace(made, rows=tuple(off)))
    assert "outside the 95 % interval from 500." in text


def test_one_level_under_augmentations() -> None:
    [(_, text)] = paragraphs(at_one_level(augmented()))
    assert "lowest under crop (" in text
    assert "highest under crop+flip+jitter+rotate+center (" in text


def test_of_many_layers_the_best_are_told() -> None:
    assert len(paragraphs(augmented(20))) == 4
    assert len(paragraphs(augmented(3))) == 3


@pytest.mark.parametrize("case", CASES)
def test_every_case_is_printed(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    result, _ = CASES[case]
    made_results.show(result)
    said = " ".join(capsys.readouterr().out.split())
    assert [row.layer in said for row in result.rows].count(True) >= min(len(result.rows), 40)
    assert ("steps of σ" in said) == (result.command == "sweep" and "no icr" not in case)


def test_short_names() -> None:
    assert list(map(short, CHAIN)) == ["crop", "+ flip", "+ jitter", "+ rotate", "+ center"]
    assert short("1,000") == "1,000"
