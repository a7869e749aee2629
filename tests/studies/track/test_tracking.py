# mypy: disable-error-code="union-attr"
"""A run's snapshots under one measure: the same draws for all, each measured once, whatever happens in between."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import DATA, without_timing
from safetensors.numpy import load_file, save_file

from diffscope import api
from diffscope.cache.store import Records
from diffscope.errors import CheckpointError, TooFewImages, UnknownLayer
from diffscope.extraction import Inputs
from diffscope.measure.opening import open_job
from diffscope.measure.snapshots import Snapshot, find_snapshots
from diffscope.numerics import power_law
from diffscope.options.settings import Loading, Settings
from diffscope.results import Result, Row, dumps
from diffscope.sources.base import open_source
from diffscope.studies.track import cell_gauge
from diffscope.studies.track.loss import denoising_loss, plain
from diffscope.studies.track.track import Tracker

SERIES = DATA / "series"
IMAGES = str(SERIES / "images.npz")
SNAPSHOTS, _ = find_snapshots([str(SERIES)])
SETTINGS = Settings(sigma=(0.3,), views=3, workers=0)


def tracker(folder: Path, settings: Settings = SETTINGS, **more: Any) -> Tracker:
    return Tracker(source=open_source(IMAGES), settings=settings, folder=folder, **more)


def tracked(folder: Path, snapshots: Sequence[Snapshot], settings: Settings = SETTINGS, **more: Any) -> Result:
    following = tracker(folder, settings, **more)
    for snapshot in snapshots:
        following.take(snapshot)
    return following.result()


def text(result: Result) -> str:
    return json.dumps(without_timing(json.loads(dumps(result))))


def counted(patch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the checkpoints measured from now on."""
    measured: list[str] = []
    measure = cell_gauge.measure

    def counting(job: Any, *arguments: Any, **named: Any) -> Any:
        measured.append(job.checkpoint.path)
        return measure(job, *arguments, **named)

    patch.setattr(cell_gauge, "measure", counting)
    return measured


def test_rows_are_those_of_icr_on_each_snapshot(tmp_path: Path) -> None:
    result = tracked(tmp_path, SNAPSHOTS[::8])
    for row, snapshot in zip(result.rows, SNAPSHOTS[::8], strict=True):
        alone = api.function("icr")(snapshot.path, IMAGES, sigma=0.3, views=3, workers=0).rows[0]
        assert (row.checkpoint, row.step) == (snapshot.path, snapshot.step)
        assert row.metrics == alone.metrics
        assert row.metrics["alignment_raw"] == pytest.approx(2 * row.metrics["trace_xi"], rel=1e-12)
    assert result.protocol["checkpoint"] is None
    assert Result.from_json(json.loads(dumps(result))) == result


def test_the_run_that_memorizes_turns_and_its_first_half_does_not(tmp_path: Path) -> None:
    whole = tracked(tmp_path, SNAPSHOTS)
    (row,) = whole.onset
    assert row.state == "turned"
    assert row.minimum is not None
    assert 51_200 <= row.minimum.step <= 153_600
    assert row.fired_at is not None
    assert row.fired_at > row.minimum.step
    (early,) = tracked(tmp_path, SNAPSHOTS[:4]).onset
    assert early.state != "turned"


def test_the_order_of_arrival_changes_nothing(tmp_path: Path) -> None:
    some = SNAPSHOTS[:3]
    assert text(tracked(tmp_path / "a", some)) == text(tracked(tmp_path / "b", some[::-1]))


def test_a_second_run_measures_nothing_and_a_third_only_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tracked(tmp_path, SNAPSHOTS[:3])
    measured = counted(monkeypatch)
    again = tracked(tmp_path, SNAPSHOTS[:3])
    assert (text(again), measured) == (text(first), [])
    assert again.timing["snapshots_resumed"] == 3
    tracked(tmp_path, SNAPSHOTS[:4])
    assert measured == [SNAPSHOTS[3].path]


def test_other_settings_are_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracked(tmp_path, SNAPSHOTS[:1])
    measured = counted(monkeypatch)
    tracked(tmp_path, SNAPSHOTS[:1], Settings(sigma=(0.3,), views=4, workers=0))
    assert len(measured) == 1


def test_a_failure_in_the_midst_costs_one_snapshot_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tracked(tmp_path / "whole", SNAPSHOTS[:3])
    with monkeypatch.context() as patch:
        measured = counted(patch)
        following = tracker(tmp_path / "cut")
        following.take(SNAPSHOTS[0])
        patch.setattr(Records, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            following.take(SNAPSHOTS[1])
    measured = counted(monkeypatch)
    assert text(tracked(tmp_path / "cut", SNAPSHOTS[:3])) == text(whole)
    assert measured == [SNAPSHOTS[1].path, SNAPSHOTS[2].path]


def test_images_are_decoded_once_for_all(tmp_path: Path) -> None:
    following = tracker(tmp_path)
    reads: list[int] = []
    read = type(following.source).read
    following.source.read = lambda index, target: (reads.append(index), read(following.source, index, target))[1]  # type: ignore[method-assign]
    for snapshot in SNAPSHOTS[:3]:
        following.take(snapshot)
    assert sorted(reads) == list(range(64))


def damaged(folder: Path, make: str) -> Path:
    """A snapshot that cannot be followed with the others."""
    path = folder / "snapshot-9999999.safetensors"
    tensors = load_file(SERIES / "snapshot-0025600.safetensors")
    about = {"step": "9999999", "step_unit": "images", "family": "edm"}
    if make == "diverged":
        tensors = {name: np.full_like(value, np.nan) for name, value in tensors.items()}
    if make == "missing tensors":
        tensors.pop("enc.8x8_block1.conv0.weight")
    if make == "another network":
        return Path(shutil.copy(Path(api.__file__).parent / "demo" / "unet.safetensors", folder / "other.safetensors"))
    save_file(tensors, path, metadata=about)
    return path


@pytest.mark.parametrize("make", ["diverged", "missing tensors", "another network"])
def test_a_broken_snapshot_is_left_out_with_its_reason(make: str, tmp_path: Path) -> None:
    bad = Snapshot(str(damaged(tmp_path, make)), 9_999_999, "images")
    result = tracked(tmp_path, [SNAPSHOTS[0], bad, SNAPSHOTS[1]])
    assert [row.step for row in result.rows] == [SNAPSHOTS[0].step, SNAPSHOTS[1].step]
    (left_out,) = [entry for entry in result.checkpoints if "why" in entry]
    assert left_out["path"] == bad.path
    assert bad.path in left_out["why"]
    strict = Settings(sigma=(0.3,), views=3, workers=0, strict=True)
    with pytest.raises(CheckpointError, match=bad.path):
        tracked(tmp_path, [SNAPSHOTS[0], bad], strict)


def test_a_fault_of_the_settings_is_no_fault_of_a_snapshot(tmp_path: Path) -> None:
    with pytest.raises(TooFewImages, match="views"):
        tracked(tmp_path, SNAPSHOTS[:1], Settings(sigma=(0.3,), num_images=20, views=2))
    with pytest.raises(UnknownLayer):
        tracked(tmp_path, SNAPSHOTS[:1], Settings(sigma=(0.3,), layer=("nowhere",)))


def test_a_level_is_chosen_once_for_a_run(tmp_path: Path) -> None:
    settings = Settings(views=3, workers=0)
    following = tracker(tmp_path, settings)
    following.choose_level(SNAPSHOTS[:5])
    (sigma,) = following.settings.sigma
    swept = api.function("sweep")(SNAPSHOTS[2].path, IMAGES, views=3, workers=0)
    assert sigma == pytest.approx(swept.window[0].high, rel=5e-3)
    later = tracker(tmp_path, settings)
    later.choose_level(SNAPSHOTS)  # another one is in the middle now
    assert later.settings.sigma == (sigma,)
    assert SNAPSHOTS[2].path in str(later._notes)


def test_a_level_that_is_given_is_kept(tmp_path: Path) -> None:
    following = tracker(tmp_path)
    following.choose_level(SNAPSHOTS)
    assert following.settings == SETTINGS


def test_held_out_images_give_their_icr_and_both_losses(tmp_path: Path) -> None:
    arrays = np.load(IMAGES)
    np.savez(tmp_path / "other.npz", images=arrays["images"][:, ::-1].copy())
    other = str(tmp_path / "other.npz")
    result = tracked(tmp_path, [SNAPSHOTS[0], SNAPSHOTS[-1]], holdout=open_source(other))
    for row in result.rows:
        alone = api.function("icr")(str(row.checkpoint), other, sigma=0.3, views=3, workers=0).rows[0]
        assert row["icr_holdout"] == alone["icr"]
        assert row["loss"] > 0
        assert row["loss_se"] > 0
    first, last = result.rows
    assert last["loss"] < first["loss"]
    assert last["loss_holdout"] > last["loss"]  # upside down is not what it was trained on
    assert result.data["holdout"]["fingerprint"] != result.data["fingerprint"]


def test_the_loss_is_that_of_the_toy_in_closed_form() -> None:
    """Of a Gaussian of variance v, the posterior mean leaves vσ²/(v + σ²)."""
    settings = Settings(augment="none", sigma=(0.5, 2.0))
    job = open_job("toy:d=8,side=8", open_source("synthetic:count=400"), settings, Loading())
    measured = denoising_loss(job, Inputs(job.source, plain(job.plan)), lambda passes: None)
    v = power_law(64, 1.0)
    for loss, sigma in zip(measured, (0.5, 2.0), strict=True):
        assert loss.mean == pytest.approx(np.mean(v * sigma**2 / (v + sigma**2)), abs=4 * loss.se)


def test_rows_can_be_told_apart_in_json() -> None:
    row = Row(layer="mid", sigma=0.3, t=0.3, n=1, d=1, icr=0.5, checkpoint="a.pt", step=3)
    record = row.to_json()
    assert list(record)[:2] == ["checkpoint", "step"]
    assert Row(record) == row
    assert "step" not in Row(layer="mid", sigma=0.3, t=0.3, n=1, d=1).to_json()
