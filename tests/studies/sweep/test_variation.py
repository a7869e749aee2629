"""Several measurements as one result: each is what it is alone, subsets are nested, and nothing is measured twice."""

# mypy: disable-error-code="attr-defined, type-var"

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from commands import EDM, LAYER, prepared

from diffscope.errors import DataError, RankDeficient, TooFewImages
from diffscope.extraction import Extractor
from diffscope.families.toy import ToyDenoiser
from diffscope.measure.job import Job
from diffscope.options.settings import AUGMENTATIONS, Settings
from diffscope.results import Result
from diffscope.studies.sweep import variation
from diffscope.studies.sweep.sweep import sweep
from diffscope.studies.sweep.variation import Members, measure_all, vary

SIGMA = 0.5


def toy(**settings: Any) -> Job:
    chosen = {"augment": "none", "workers": 0, "sigma": (SIGMA,), **settings}
    return prepared("toy:d=32,side=8", "synthetic:count=3000", Settings(**chosen))


def measured(varied: Members, folder: Path, command: str = "icr") -> Result:
    result, parts = measure_all(varied, command, folder=folder)
    for part in parts:
        part.clear()
    return result


def alone(job: Job, folder: Path, command: str = "icr") -> Result:
    result, run = sweep(job, command, folder=folder)
    run.parts.clear()
    return result


def test_the_plug_in_value_comes_from_below_while_icr_stays_on_the_closed_form(tmp_path: Path) -> None:
    job = toy()
    assert isinstance(job.denoiser, ToyDenoiser)
    true = job.denoiser.closed_form_icr(SIGMA)
    rows = measured(vary(job, "num_images", (150, 400, 1000, 3000)), tmp_path).rows
    assert [(row.num_images, row.n) for row in rows] == [(n, n) for n in (150, 400, 1000, 3000)]
    raw = [row["icr_raw"] for row in rows]
    assert raw == sorted(raw)
    # E[T] of the plug-in is c = ν/(ν − d − 1) too large: at 150 images, d = 32, by 28 %.
    for row in rows:
        bound = 1 / (1 + (1 / true - 1 + 0.5) * row.n / (row.n - 33) - 0.5)
        assert row["icr_raw"] == pytest.approx(bound, rel=0.05)
        assert abs(row["icr"] - true) < 3 * row["icr_se"]
        assert row["icr"] == pytest.approx(true, rel=0.05)
    assert raw[0] < 0.85 * true


def test_subsets_are_nested() -> None:
    jobs = vary(toy(seed=3), "num_images", (100, 500, 2000)).jobs
    for small, large in pairwise(jobs):
        assert large.indices[: len(small.indices)].tolist() == small.indices.tolist()


@pytest.mark.parametrize("command", ["icr", "sweep"])
def test_a_member_is_what_it_is_alone_to_the_last_bit(command: str, tmp_path: Path) -> None:
    levels = {"sigma": (0.2, 0.5, 2.0)}
    both = measured(vary(toy(**levels), "num_images", (200, 300)), tmp_path, command)
    for count in (200, 300):
        one = alone(toy(**levels, num_images=count), tmp_path, command)
        rows = [row.having(num_images=None) for row in both.rows if row.num_images == count]
        windows = [dataclasses.replace(row, num_images=None) for row in both.window if row.num_images == count]
        assert (tuple(rows), tuple(windows)) == (one.rows, one.window)
    assert not list(tmp_path.iterdir())


def test_every_augmentation_is_measured_on_the_same_images(pictures: Path, tmp_path: Path) -> None:
    settings = Settings(layer=(LAYER,), sigma=(SIGMA,), num_images=144, workers=0)
    job = prepared(EDM, str(pictures), settings)
    varied = vary(job, "augment", AUGMENTATIONS[1:])
    assert len({tuple(one.indices.tolist()) for one in varied.jobs}) == 1
    result = measured(varied, tmp_path)
    assert [row.augment for row in result.rows] == list(AUGMENTATIONS[1:])
    assert len({row["icr"] for row in result.rows}) == 5
    # What else is changed between views is contamination.
    assert result.rows[0]["icr"] < result.rows[1]["icr"] < result.rows[2]["icr"]
    (one,) = alone(prepared(EDM, str(pictures), settings), tmp_path).rows
    assert result.rows[2].having(augment=None) == one


def test_the_protocol_lists_what_differs_and_nothing_else(tmp_path: Path) -> None:
    varied = vary(toy(), "num_images", (40, 200, 300))
    protocol, single = varied.protocol, varied.jobs[0].protocol.to_json()
    assert protocol["images"] == [40, 200, 300]
    assert protocol["blocks"] == [8, 16, 16]
    assert len(set(protocol["data"])) == 3
    assert {key for key in single if single[key] != protocol[key]} == {"images", "data", "blocks", "hash"}
    assert protocol["hash"] != vary(toy(), "num_images", (40, 200, 301)).protocol["hash"]
    assert protocol == vary(toy(batch_size=7), "num_images", (40, 200, 300)).protocol


def test_too_few_images_are_null_rows_with_the_reason(tmp_path: Path) -> None:
    result = measured(vary(toy(sigma=(0.2, 0.5)), "num_images", (20, 33, 200)), tmp_path, "sweep")
    assert [row["icr"] is None for row in result.rows] == [True] * 4 + [False] * 2
    assert [row.n for row in result.rows] == [20, 20, 33, 33, 200, 200]
    for row in result.rows[:4]:
        assert set(row.metrics) == set(result.rows[-1].metrics)
        assert row.notes[0].startswith(f"too_few_images: {row.n} images")
    assert [(w.num_images, w.icr is None) for w in result.window] == [(20, True), (33, True), (200, False)]
    assert Result.from_json(result.to_json()) == result


def test_too_few_everywhere_is_the_usual_error_of_the_most_images(tmp_path: Path) -> None:
    with pytest.raises(TooFewImages, match="30 images"):
        measure_all(vary(toy(), "num_images", (20, 30)), "icr", folder=tmp_path)


def test_a_member_that_fails_after_its_measurement_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(job: Job, *arguments: Any) -> Any:
        if len(job.indices) == 200:
            sweep(job, *arguments)
            raise RankDeficient("layer linear: 3 of 32 channels")
        return sweep(job, *arguments)

    monkeypatch.setattr(variation, "sweep", failing)
    result = measured(vary(toy(), "num_images", (100, 200, 300)), tmp_path)
    assert [row.notes[:1] for row in result.rows if row["icr"] is None] == [
        ("rank_deficient: layer linear: 3 of 32 channels",)
    ]
    assert result.timing["blocks_measured"] == 32
    assert not list(tmp_path.iterdir())


def test_more_images_than_there_are() -> None:
    with pytest.raises(DataError, match=r"`num_images=5000`: synthetic:count=3000 has 3000 images"):
        vary(toy(), "num_images", (100, 5000))


def test_what_was_finished_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopping: Callable[[int], None]
) -> None:
    whole = measured(vary(toy(), "num_images", (100, 200, 300)), tmp_path / "whole")
    stopping(40)  # in the third of three members of 16 blocks
    with pytest.raises(KeyboardInterrupt):
        measure_all(vary(toy(), "num_images", (100, 200, 300)), "icr", folder=tmp_path)
    monkeypatch.undo()
    again = measured(vary(toy(), "num_images", (100, 200, 300)), tmp_path)
    assert (again.timing["blocks_measured"], again.timing["blocks_resumed"]) == (8, 40)
    assert again.rows == whole.rows
    # Of one member alone as well: its blocks are those of the ordinary command.
    assert not list(tmp_path.glob("parts-*"))


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Ctrl-C after so many blocks."""

    def after(blocks: int) -> None:
        left, run = [blocks], Extractor.run

        def one_less(self: Extractor, indices: Any, skipped: Any = None) -> Any:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return run(self, indices, skipped)

        monkeypatch.setattr(Extractor, "run", one_less)

    return after
