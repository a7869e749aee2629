"""What is said and drawn of copies, from results made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import made_results
import numpy as np
import pytest
from PIL import Image

from diffscope.report.figures import memorization as figures
from diffscope.report.words import memorization
from diffscope.results import Result, Row
from diffscope.studies.memorization.copies import Criterion, Distances, Found, Similarities, measures


def row(found: Found, threshold: float, **place: Any) -> dict[str, Any]:
    kind = "ratio" if isinstance(found, Distances) else "cosine"
    return {"checkpoint": "runs/a.pt", "step": None, **place, "samples": len(found.image)} | measures(
        found, Criterion(kind, threshold)
    )


def by_ratio(*ratios: float) -> Distances:
    n = len(ratios)
    return Distances(np.arange(n), np.arange(n) % 2 == 1, np.array(ratios), np.ones(n))


def by_cosine(*cosines: float) -> Similarities:
    n = len(cosines)
    return Similarities(np.arange(n), np.zeros(n, bool), np.array(cosines))


def result(*rows: dict[str, Any], kind: str = "ratio", threshold: float = 1 / 3, **protocol: Any) -> Result:
    return Result(
        "0",
        "memorization",
        {},
        {},
        {"criterion": kind, "threshold": threshold, "mirror": True, "space": "pixels", **protocol},
        tuple(map(Row, rows)),
        sections={"pairs": [], "checkpoints": [{"path": "a", "step": r["step"], "step_unit": "images"} for r in rows]},
    )


def test_copies_in_words() -> None:
    said = memorization.finding(result(row(by_ratio(0.1, 0.2, 0.4, 0.9), 1 / 3)))
    assert said == (
        "2 of 4 samples copy a training image: 50 % (95 % interval 6.8 % to 93 %). A copy has d1/d2 < 1/3, of the "
        "pixel distances to the nearest and second nearest training image, mirror images counting as the same. "
        "Copies by the looser d1/d2 < 1/2: 3 (75 %). Generalization score (1 - share): 0.5000."
    )
    one = memorization.finding(result(row(by_ratio(0.1, 0.9), 1 / 3), mirror=False))
    assert one.startswith("1 of 2 samples copies a training image: 50 %")
    assert "mirror" not in one
    assert "Copies by d1/d2 < 1/2: 1 (50 %)." in memorization.finding(
        result(row(by_ratio(0.1, 0.9), 0.8), threshold=0.8)
    )


def test_no_copies_in_words() -> None:
    found = result(row(by_ratio(*[0.9] * 256), 1 / 3))
    said = memorization.finding(found)
    # 1 - 0.025^(1/256) = 1.43 %
    assert said.startswith("None of 256 samples copies a training image, and with 95 % confidence at most 1.4 % do.")
    assert "looser d1/d2 < 1/2: none." in said
    assert memorization.headline(found) == "no copies found"


def test_of_a_run_the_snapshot_with_most_copies_is_told() -> None:
    rows = [row(by_ratio(*r), 1 / 3, step=n) for n, r in ((1000, (0.9, 0.9)), (2000, (0.1, 0.9)), (3000, (0.1, 0.8)))]
    said = memorization.finding(result(*rows))
    assert said.startswith("At step 3,000, where they are most, 1 of 2 samples copies a training image: 50 %")
    assert memorization.headline(result(*rows)) == "copies found"
    assert memorization.finding(result(rows[0], rows[0])).startswith("None of 2 samples of any checkpoint copies")


@pytest.mark.parametrize(
    ("space", "words"),
    [("features", "the model's own features"), ("encoder", "the encoder's descriptors"), ("file", "the descriptors")],
)
def test_each_space_has_its_name(space: str, words: str) -> None:
    found = result(row(by_cosine(0.9, 0.1), 0.5), kind="cosine", threshold=0.5, space=space)
    assert f"A copy has a cosine above 0.5 with a training image in {words}" in memorization.finding(found)
    assert "looser" not in memorization.finding(found)


def test_columns_are_those_of_the_criterion() -> None:
    ratio, cosine = row(by_ratio(0.1, 0.9), 1 / 3, step=2000), row(by_cosine(0.9, 0.1), 0.5)
    columns = memorization.columns([ratio])
    assert list(columns) == [
        *("checkpoint", "step", "samples", "ratio<1/3", "95 % interval", "ratio<1/2", "its interval"),
        *("median d1", "median ratio"),
    ]
    shown = [show(ratio) for show in columns.values()]
    assert shown[:5] == ["a.pt", "2,000", "2", "0.5000", "[0.0126, 0.9874]"]
    assert list(memorization.columns([cosine])) == [
        *("checkpoint", "samples", "cosine>0.5", "95 % interval", "median cosine")
    ]
    # Half as the first measure is one measure.
    assert "its interval" not in memorization.columns([row(by_ratio(0.1), 1 / 2)])


def test_pictures_show_what_there_is() -> None:
    grey = np.arange(32, dtype=np.uint8).reshape(2, 1, 4, 4)
    assert np.array_equal(figures.pictures(grey), grey[:, 0])
    colour = np.zeros((2, 3, 4, 4), np.uint8)
    assert figures.pictures(colour).shape == (2, 4, 4, 3)
    floats = np.linspace(-3, 1, 32, dtype=np.float32).reshape(2, 1, 4, 4)
    drawn = figures.pictures(floats)
    assert (drawn.dtype, drawn.min(), drawn.max()) == (np.uint8, 0, 255)
    assert not figures.pictures(np.zeros((1, 1, 4, 4), np.float32)).any()


def pair(n: int, **value: Any) -> dict[str, Any]:
    return {
        "checkpoint": "runs/a.pt",
        "step": None,
        "sample": n,
        "image": str(n),
        "index": n,
        "mirrored": n == 1,
        **value,
    }


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 5, 16])
def test_grids_of_any_size(count: int, channels: int, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (count, channels, 6, 6), dtype=np.uint8)
    gallery = {"samples": images, "pair_samples": images, "pair_images": images}
    found = result(row(by_ratio(*[0.1] * count), 1 / 3))
    pairs = [pair(n, ratio=0.1 + 0.05 * n) for n in range(count)]
    found = replace(found.having(pairs=pairs), pictures={"checkpoint": "runs/a.pt", "step": None, **gallery})
    written = made_results.draw(found, tmp_path)
    assert [path.name for path in written] == ["samples.png", "samples.svg", "pairs.png", "pairs.svg"]
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.width >= 800
    (tmp_path / "again").mkdir()
    again = made_results.draw(found, tmp_path / "again")
    assert again[0].read_bytes() == written[0].read_bytes()


def test_frames_tell_copies_from_near_copies() -> None:
    found = result(row(by_ratio(0.1), 1 / 3))
    frames = [figures._frame(found, pair(0, ratio=ratio)) for ratio in (0.1, 0.4, 0.5)]
    assert frames == [figures.COPY, figures.LOOSER, None]
    similar = result(row(by_cosine(0.1), 0.5), kind="cosine", threshold=0.5)
    assert [figures._frame(similar, pair(0, similarity=s)) for s in (0.6, 0.5)] == [figures.COPY, None]

    def labels(*pairs: dict[str, Any]) -> list[str]:
        return [str(handle.get_label()) for handle in figures._pair_handles(found, pairs)]

    defined = "d₁, d₂: Euclidean distances of the sample to the nearest and second nearest training image"
    both = labels(pair(0, ratio=0.1), pair(1, ratio=0.4))
    assert both == ["copy: d₁/d₂ < 1/3", "d₁/d₂ < 1/2", "mirrored", defined]
    assert labels(pair(0, ratio=0.9)) == [defined]
    assert labels(pair(0, similarity=0.1)) == ["cosine: similarity of the two in features"]


def test_the_share_over_training_has_its_own_picture(tmp_path: Path) -> None:
    rows = [row(by_ratio(0.9, 0.1 if step > 1 else 0.9), 1 / 3, step=step * 1000) for step in range(3)]
    images = np.zeros((2, 1, 4, 4), np.uint8)
    gallery = {"samples": images, "pair_samples": images[:1], "pair_images": images[:1]}
    found = result(*rows).having(pairs=[pair(0, ratio=0.1) | {"step": 2000}])
    found = replace(found, pictures={"checkpoint": "runs/a.pt", "step": 2000, **gallery})
    written = made_results.draw(found, tmp_path)
    assert [path.stem for path in written] == ["samples"] * 2 + ["pairs"] * 2 + ["share"] * 2
