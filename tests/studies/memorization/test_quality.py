"""Samples held against images as a whole: numbers that scipy gives of the same pictures, one judge for a whole run."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import DATA
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from test_memorization import SIDE, ideal, random_images, saved
from torch import Tensor, nn

import diffscope
from diffscope.encoders.torchscript import ScriptEncoder
from diffscope.errors import CheckpointError, DataError, UsageError
from diffscope.numerics import FloatArray
from diffscope.results import Result
from diffscope.studies.memorization import quality
from diffscope.studies.memorization.options import Choices
from diffscope.studies.memorization.references import KEYS, row_keys

SERIES = DATA / "series"
FIRST, LAST = (str(SERIES / f"snapshot-{step:07d}.safetensors") for step in (25_600, 409_600))
RUN: dict[str, Any] = {"samples": 20, "steps": 4, "quality": True, "sigma": 0.3}


class ForFid(nn.Module):
    """Called as Inception is for FID: bytes in, and features only where it is asked for them."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        assert x.dtype == torch.uint8
        pooled = nn.functional.avg_pool2d(x[:, :1].float(), 2).flatten(1)
        return pooled if return_features else torch.zeros_like(pooled)


def by_hand(images: np.ndarray) -> FloatArray:
    """The same features of uint8 [n, 1, S, S]."""
    return np.asarray(images.reshape(len(images), SIDE // 2, 2, SIDE // 2, 2).mean((2, 4)).reshape(len(images), -1))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("encoder") / "inception.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(ForFid()), path)
    return path


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return random_images(40)


def test_numbers_are_those_of_the_same_pictures(images: np.ndarray, encoder: str, tmp_path: Path) -> None:
    """Half of the samples are training images; everything is computed anew from the files that are written."""
    known = np.concatenate([images[:20], random_images(20, seed=1)])
    options: dict[str, Any] = {"encoder": encoder, "allow_torchscript": True, "out": tmp_path, "save_samples": True}
    data = saved(tmp_path / "images.npz", np.concatenate([images, images[:5]]))  # five of them twice
    result = diffscope.memorization(ideal(known), data, samples=64, quality=True, **options)
    row = result.rows[0]
    with np.load(tmp_path / "samples.npz") as file:
        x = by_hand(np.moveaxis(file["arr_0"], -1, 1))
    r = by_hand(images)
    a, b = np.cov(x, rowvar=False), np.cov(r, rowvar=False)
    frechet = ((x.mean(0) - r.mean(0)) ** 2).sum() + np.trace(a + b) - 2 * np.trace(sqrtm(a @ b)).real
    assert row["fd"] == pytest.approx(frechet, rel=1e-6)
    assert row["fd_infinity"] < row["fd"]
    xr, rr = cdist(x, r), cdist(r, r) + np.diag([np.inf] * len(r))
    assert row["authenticity"] == np.mean([d[d.argmin()] > rr[d.argmin()].min() for d in xr])
    assert row["precision"] == np.mean((xr <= np.sort(rr, axis=1)[:, 2]).any(1))
    assert row["coverage"] == np.mean(xr.min(0) <= np.sort(rr, axis=1)[:, 4])
    assert 0.25 < row["share"] < 0.75
    # The encoder is that of quality; copies are those of pixels, as without it.
    assert (row["criterion"], result.protocol["space"]) == ("ratio<1/3", "pixels")
    assert result.sections["quality"] == {"encoder": encoder, "references": 40, "features": 16}
    assert result.protocol["quality"]["reference"]["side"] is None


def test_the_encoder_may_be_that_of_both(images: np.ndarray, encoder: str, tmp_path: Path) -> None:
    data = saved(tmp_path / "images.npz", images)
    options: dict[str, Any] = {"encoder": encoder, "allow_torchscript": True, "quality": True, "space": "encoder"}
    row = diffscope.memorization(ideal(images), data, samples=8, threshold=0.999, **options).rows[0]
    assert (row["criterion"], row["share"], row["authenticity"]) == ("cosine>0.999", 1, 0)
    with pytest.raises(DataError, match=r"its own size; leave the side 64 out"):
        ScriptEncoder(encoder, 64, "cpu", 4)


def test_a_model_that_memorizes_is_told_from_one_that_does_not(images: np.ndarray, tmp_path: Path) -> None:
    """In its own features, of a network in memory; held-out images are of the same distribution."""
    data, others = saved(tmp_path / "a.npz", images), saved(tmp_path / "b.npz", random_images(40, seed=1))
    options: dict[str, Any] = {"samples": 40, "quality": True, "sigma": 0.5, "holdout": others}
    copied = diffscope.memorization(ideal(images), data, **options).rows[0]
    assert (copied["precision"], copied["authenticity"]) == (1, 0)
    # Copies are nearer to the training images than these to one another: below 0, which nothing else can be.
    assert copied["kd"] < 0
    assert copied["authenticity_holdout"] > 0.2
    assert copied["precision_se"] is None
    assert any(note.startswith("no_scatter: precision") for note in copied["notes"])
    fresh = diffscope.memorization(ideal(random_images(40, seed=2)), data, **options).rows[0]
    assert fresh["authenticity"] > 0.2
    assert list(fresh)[-len(row_keys(True)) - 1 :] == [*row_keys(True), "notes"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


def run(out: Path | None, *checkpoints: str, **more: Any) -> Result:
    return diffscope.memorization(checkpoints, SERIES / "images.npz", out=out, overwrite=True, **{**RUN, **more})


@pytest.fixture(scope="module")
def ran(out: Path) -> Result:
    return run(out, FIRST, LAST)


def test_all_are_measured_in_the_features_of_one(ran: Result) -> None:
    """Of the last, unless another is named: alone it is its own judge, and gives the same numbers."""
    told = ran.sections["quality"]
    assert (told["features_of"], told["step"], told["sigma"], told["references"]) == (LAST, 409_600, 0.3, 64)
    alone = run(None, LAST)
    assert {key: alone.rows[0][key] for key in KEYS} == {key: ran.rows[1][key] for key in KEYS}
    first = run(None, FIRST, features_of=LAST)
    assert {key: first.rows[0][key] for key in KEYS} == {key: ran.rows[0][key] for key in KEYS}
    assert first.protocol["quality"] == ran.protocol["quality"]
    other = run(None, FIRST)
    assert other.rows[0]["fd"] != ran.rows[0]["fd"]
    assert other.sections["quality"]["features_of"] == FIRST


def test_it_changes_nothing_else(ran: Result) -> None:
    plain = run(None, FIRST, LAST, quality=False, sigma=None)
    assert [dict(row) for row in plain.rows] == [{key: row[key] for key in plain.rows[0]} for row in ran.rows]
    assert "quality" not in plain.protocol
    assert "quality" not in plain.sections


def test_features_on_disk_are_not_computed_again(ran: Result, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a run was stopped before its records: all samples and features are there."""
    kept = sorted(out.glob("cache/features-*/*.safetensors"))
    assert len(kept) == 3  # of both snapshots and of the references
    for record in out.glob("cache/memorization-*/*.json"):
        record.unlink()
    kept[0].write_bytes(b"damaged")
    times = {path: path.stat().st_mtime_ns for path in kept[1:]}
    again = run(out, FIRST, LAST)
    assert again.rows == ran.rows
    assert {path: path.stat().st_mtime_ns for path in kept[1:]} == times
    # In parts they are the same, but for the last digits that go with the size of a batch.
    monkeypatch.setattr(quality, "PART", 7)
    parts = run(None, LAST)
    known = [key for key in KEYS if ran.rows[1][key] is not None]
    assert len(known) == 7
    assert [parts.rows[0][key] for key in known] == pytest.approx([ran.rows[1][key] for key in known], rel=1e-4)


def test_a_subset_of_the_references_is_seeded() -> None:
    few = run(None, LAST, num_references=5)
    row = few.rows[0]
    assert few.sections["quality"]["references"] == 5
    assert [row[key] for key in ("precision", "density", "coverage")] == [None] * 3
    assert row["kd"] is not None
    assert any(note.startswith("few_references: 5 references; neighbourhoods of 5 need 6") for note in row["notes"])
    assert run(None, LAST, num_references=5, seed=1).rows[0]["kd"] != row["kd"]


def test_few_samples_give_nulls_with_reasons() -> None:
    row = run(None, LAST, samples=3).rows[0]
    assert row["fd"] > 0
    assert [row[key] for key in ("fd_infinity", "fd_se", "precision", "recall", "authenticity")] == [None] * 5
    said = " ".join(row["notes"])
    assert "few_samples: 3 samples; neighbourhoods of 3 need 4" in said
    assert "no_extrapolation: fd of 3 samples is too large by an unknown amount; fd_infinity needs 48" in said
    assert "no_errors: 3 samples; standard errors need 16" in said
    alone = run(None, LAST, samples=1).rows[0]
    assert {alone[key] for key in KEYS} == {None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": True}, "`quality=` needs a noise level: .*or `encoder=FILE`"),
        ({"features_of": "a"}, "`features_of=` is for `quality=`"),
        ({"holdout": "a"}, "`holdout=` is for `quality=`"),
        ({"num_references": 0, "quality": True, "sigma": 1}, "`num_references=0`"),
        ({"space": "encoder"}, "is that of `encoder=FILE`, which is not given"),
        ({"space": "pixels", "encoder": "a", "allow_torchscript": True}, "one space at a time"),
        (
            {"quality": True, "encoder": "a", "allow_torchscript": True, "features_of": "b"},
            "quality is measured in one space",
        ),
        (
            {"quality": True, "encoder": "a", "allow_torchscript": True, "sigma": 0.3},
            "`sigma=` is for `space=features`",
        ),
    ],
)
def test_choices_that_contradict_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Choices(**options)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds arrays of floats, the training images are pictures"):
        run(None, LAST, holdout="synthetic:count=20")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"broken\.safetensors"):
        run(None, FIRST, LAST, features_of=tmp_path / "broken.safetensors")
