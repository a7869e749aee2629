"""A number does not move: with batches, threads, repetition or interruption. And nothing is computed twice."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import EDM, EDM_CLASSES, LAYER, command_line, diffscope, prepared, without_timing
from safetensors import safe_open

from diffscope import api
from diffscope.errors import MemoryLimit, NonFinite, TooFewImages
from diffscope.families.base import Denoiser
from diffscope.measure.job import Job, sweep_levels
from diffscope.options.settings import Settings
from diffscope.results import Result, dumps
from diffscope.sources.folder import FolderSource
from diffscope.sources.synthetic import SyntheticSource
from diffscope.studies.sweep.sweep import sweep

TOY, DATA = "toy:d=8,side=8", "synthetic:count=200"
Counted = Callable[..., Any]


def job(checkpoint: str = TOY, data: object = DATA, **settings: Any) -> Job:
    return prepared(checkpoint, str(data), Settings(**{"augment": "none", "workers": 0, **settings}))


def measured(job: Job, folder: Path, command: str = "sweep") -> Result:
    result, run = sweep(job, command, folder=folder)
    run.parts.clear()
    return result


def text(result: Result) -> str:
    """The bytes of its file, but for the timing."""
    record = json.loads(dumps(result))
    return json.dumps(without_timing(record))


def counted(patch: pytest.MonkeyPatch, owner: type, name: str) -> list[tuple[Any, ...]]:
    """The calls of a method from now on."""
    calls: list[tuple[Any, ...]] = []
    method = getattr(owner, name)

    def counting(self: Any, *arguments: Any) -> Any:
        calls.append(arguments)
        return method(self, *arguments)

    patch.setattr(owner, name, counting)
    return calls


def test_batches_and_threads_do_not_move_a_number(pictures: Path, tmp_path: Path) -> None:
    def run(batch_size: int, workers: int) -> Result:
        settings = {"layer": (LAYER,), "sigma": (0.5,), "num_images": 72, "augment": "crop+flip+jitter"}
        return measured(job(EDM, pictures, batch_size=batch_size, workers=workers, **settings), tmp_path, "icr")

    results = {(batch_size, workers): run(batch_size, workers) for batch_size in (1, 7, 64) for workers in (0, 2)}
    values = [result.rows[0]["icr"] for result in results.values()]
    # Sums in float64; the network's float32 products are ordered otherwise in other batches.
    assert values == pytest.approx([values[0]] * 6, rel=1e-5)
    for batch_size in (1, 7, 64):
        assert text(results[batch_size, 0]) == text(results[batch_size, 2])
    assert text(results[7, 0]) == text(run(7, 0))


def test_the_same_command_twice_gives_the_same_bytes() -> None:
    command = ("sweep", TOY, "--data", DATA, "--augment", "none", "--num-levels", 5, "--self-check", "--json")
    a, b = diffscope(*command), diffscope(*command)
    assert (a.code, b.code) == (0, 0)
    assert json.dumps(without_timing(a.json)) == json.dumps(without_timing(b.json))
    # timing stands last.
    assert a.out.split('"timing"')[0] == b.out.split('"timing"')[0]


def test_killed_three_times_it_gives_the_same_bytes(tmp_path: Path) -> None:
    data, levels = "synthetic:count=960", (0.05, 0.2, 0.5, 1.0, 2.0, 8.0)
    options = [word for sigma in levels for word in ("--sigma", sigma)]
    # Small batches make a block last: there must be time to kill it.
    batches = ("--batch-size", 2, "--workers", 0, "--augment", "none")
    command = command_line("sweep", TOY, "--data", data, *options, *batches, "--out", tmp_path)
    seen: dict[str, tuple[int, int]] = {}
    for enough in (1, 5, 11):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(finished_parts(tmp_path)) < enough:
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        now = finished_parts(tmp_path)
        assert len(now) < 16
        # What was finished before was neither measured nor written again, and all of it is whole.
        assert {name: now[name] for name in seen} == seen
        seen = now
        for name in now:
            with safe_open(tmp_path / name, framework="np") as part:
                assert set(json.loads(part.metadata()["record"])) == {"task", "skipped"}
                assert all(np.isfinite(part.get_tensor(key)).all() for key in part.keys())  # noqa: SIM118
    assert not (tmp_path / "result.json").exists()

    same = job(TOY, data, sigma=levels, batch_size=2)
    with pytest.MonkeyPatch.context() as patch:
        reads = counted(patch, SyntheticSource, "read")
        result, run = sweep(same, "sweep", folder=tmp_path)
        assert {name: stat for name, stat in finished_parts(tmp_path).items() if name in seen} == seen
        run.parts.clear()
    assert (result.timing["blocks_resumed"], result.timing["blocks_measured"]) == (len(seen), 16 - len(seen))
    assert len(reads) == (16 - len(seen)) * 60
    assert text(result) == text(measured(same, tmp_path / "at once"))


def finished_parts(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of writing by name."""
    found = {}
    for path in folder.glob("parts-*/part-*.safetensors"):
        stat = os.stat(path)
        found[str(path.relative_to(folder))] = (stat.st_ino, stat.st_mtime_ns)
    return found


def test_an_error_keeps_what_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, some = job(sigma=(1.0,)), job(sigma=(1.0,))
    fifth = int(whole.block(5)[0])
    read = SyntheticSource.read

    def failing(self: SyntheticSource, index: int, target: Any) -> np.ndarray:
        if index == fifth:
            raise OSError("the disk has gone")
        return read(self, index, target)

    monkeypatch.setattr(SyntheticSource, "read", failing)
    with pytest.raises(OSError, match="the disk has gone"):
        sweep(some, "icr", folder=tmp_path)
    assert len(finished_parts(tmp_path)) == 5
    monkeypatch.setattr(SyntheticSource, "read", read)
    said: list[str] = []
    advanced: list[int] = []
    result, _ = sweep(some, "icr", api.Listener(advanced.append, said.append), tmp_path)
    assert result.timing["blocks_resumed"] == 5
    assert said == ["5 of 16 blocks were measured before; going on from there"]
    assert sum(advanced) == 200 * 2
    assert text(result) == text(measured(whole, tmp_path / "other", "icr"))


def test_another_protocol_does_not_go_on_from_here(tmp_path: Path) -> None:
    sweep(job(sigma=(1.0,)), "icr", folder=tmp_path)
    for settings in ({"sigma": (1.0, 2.0)}, {"sigma": (1.0,), "seed": 1}, {"sigma": (1.0,), "views": 3}):
        result, _ = sweep(job(**settings), "icr", folder=tmp_path)
        assert result.timing["blocks_resumed"] == 0
    # Batches and threads change no number, hence no protocol.
    result, _ = sweep(job(sigma=(1.0,), batch_size=3, workers=1), "icr", folder=tmp_path)
    assert result.timing["blocks_resumed"] == 16


@pytest.mark.parametrize(
    ("layers", "sigmas"), [((LAYER,), (0.5,)), (("all",), (0.1, 0.5, 2.0)), ((LAYER, "dec.8x8_in0"), (0.5, 1.0))]
)
def test_every_image_is_decoded_once(
    layers: tuple[str, ...], sigmas: tuple[float, ...], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    this = job(EDM, pictures, layer=layers, sigma=sigmas, batch_size=16)
    reads = counted(monkeypatch, FolderSource, "read")
    walks = counted(monkeypatch, Denoiser, "walk")
    result = measured(this, tmp_path)
    assert sorted(index for index, _ in reads) == list(range(200))
    assert len(result.rows) == len(this.plan.layers) * len(sigmas)
    # 16 blocks of 12 or 13 images are a batch each, at every level; all layers come from one walk.
    assert len(walks) == 16 * len(sigmas)
    assert sum(len(x) for x, *_ in walks) == 200 * 2 * len(sigmas)


def test_a_layer_that_is_too_wide_does_not_stop_the_others(tmp_path: Path) -> None:
    # 8 features of `linear`, 64 of `wiener`, from 48 images.
    settings = {"pool": "flatten", "num_images": 48, "sigma": (0.5, 1.0)}
    result = measured(job(layer=("all",), **settings), tmp_path)
    assert [(row.layer, row.sigma, row.n, row.d) for row in result.rows] == [
        ("linear", 0.5, 48, 8),
        ("linear", 1.0, 48, 8),
        ("wiener", 0.5, 48, 64),
        ("wiener", 1.0, 48, 64),
    ]
    for row in result.rows[:2]:
        assert row["icr"] is not None
    for row in result.rows[2:]:
        # The same keys, all of them null.
        assert set(row.metrics) == set(result.rows[0].metrics)
        assert set(row.metrics.values()) == {None}
        (note,) = row.notes
        assert note.startswith("too_few_images: 48 images × 2 views cannot determine 64 channels")
    alone = measured(job(layer=("linear",), **settings), tmp_path)
    assert alone.rows == result.rows[:2]
    with pytest.raises(TooFewImages, match="layer wiener: 48 images"):
        measured(job(layer=("wiener",), **settings), tmp_path)


def test_a_feature_that_is_not_finite_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = SyntheticSource.read

    def broken(self: SyntheticSource, index: int, target: Any) -> np.ndarray:
        image = read(self, index, target)
        return image * np.float32(np.inf if index == 137 else 1)

    monkeypatch.setattr(SyntheticSource, "read", broken)
    for sigmas in ((0.5,), (0.5, 2.0)):
        with pytest.raises(NonFinite, match=r"image 00000137: features of layer linear at sigma 0\.5 are not finite"):
            measured(job(sigma=sigmas), tmp_path)


def test_memory_is_checked_before_any_image_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = counted(monkeypatch, SyntheticSource, "read")
    with pytest.raises(MemoryLimit, match=r"more than `max_memory=` 0\.02 MB"):
        measured(job(sigma=(1.0,), max_memory=20_000), tmp_path)
    assert not reads
    assert not list(tmp_path.iterdir())


def test_half_of_the_images_agree_with_all(tmp_path: Path) -> None:
    (row,) = sweep(job(sigma=(0.5,)), "icr", folder=tmp_path, check=True)[0].rows
    assert row["icr_half"] / row["icr"] - 1 == pytest.approx(row["half_change"])
    assert row["half_change_low"] < 0 < row["half_change_high"]
    assert not [note for note in row.notes if "self_check" in note]
    plain = measured(job(sigma=(0.5,)), tmp_path).rows[0]
    assert {key: row[key] for key in plain.metrics} == plain.metrics


def test_halves_that_disagree_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    this = job(sigma=(0.5,))
    other_half = {int(index) for block in range(8, 16) for index in this.block(block)}
    read = SyntheticSource.read

    def brighter(self: SyntheticSource, index: int, target: Any) -> np.ndarray:
        return read(self, index, target) * np.float32(4 if index in other_half else 1)

    monkeypatch.setattr(SyntheticSource, "read", brighter)
    (row,) = sweep(this, "icr", folder=tmp_path, check=True)[0].rows
    # Signal that is only in the other half: the first half finds more contamination.
    assert row["half_change_low"] > 0
    assert [note for note in row.notes if note.startswith("self_check_failed: ")]


def test_half_of_few_images_says_why_it_says_nothing(tmp_path: Path) -> None:
    (row,) = sweep(job(sigma=(0.5,), num_images=16), "icr", folder=tmp_path, check=True)[0].rows
    assert row["icr"] is not None
    assert row["icr_half"] is row["half_change"] is row["half_change_low"] is None


def test_the_check_of_a_layer_behind_a_refused_one(tmp_path: Path) -> None:
    """`linear` has too many channels and comes first: what is checked must be `wiener`'s moments all the same."""
    settings = {"checkpoint": "toy:d=64,side=8", "data": "synthetic:count=48,seed=0", "sigma": (0.5,)}
    both = sweep(job(layer=("all",), **settings), "icr", folder=tmp_path / "both", check=True)[0].rows
    (alone,) = sweep(job(layer=("wiener",), **settings), "icr", folder=tmp_path / "alone", check=True)[0].rows
    refused, checked = both
    assert (refused.layer, refused["icr"], refused["icr_half"]) == ("linear", None, None)
    assert checked["icr_half"] is not None
    assert checked == alone


def test_levels_are_log_spaced_over_the_models_range() -> None:
    _, edm = api.load(EDM)
    levels = np.array(sweep_levels(edm, 12))
    assert (levels[0], levels[-1], len(levels)) == (0.002, 20, 12)
    assert np.diff(np.log(levels)) == pytest.approx([np.log(1e4) / 11] * 11, rel=1e-4)
    _, vp = api.load(EDM_CLASSES, config={"precond": "VPPrecond"})
    bounded = sweep_levels(vp, 5)
    assert bounded[0] == max(0.002, vp.noise.sigma_min)
    assert bounded[-1] == min(20, vp.noise.sigma_max)
    assert sweep_levels(edm, 1) == (0.2,)


def test_levels_are_sorted_and_taken_once() -> None:
    levels = job(sigma=(2.0, 0.5, 2.0), t=(1.0,)).levels
    assert [level.sigma for level in levels] == [0.5, 1.0, 2.0]
    assert [level.requested for level in levels] == [None] * 3
    # EDM is fed ln(sigma)/4.
    (level,) = prepared(EDM, DATA, Settings(t=(0.0,))).levels
    assert (level.sigma, level.t) == (1, 0)


def test_discrete_levels_say_what_was_asked_for(pictures: Path, tmp_path: Path) -> None:
    options = ("--config", "precond=iDDPMPrecond", "--class", 1, "--num-images", 96, "--views", 3)
    command = ("icr", EDM_CLASSES, "--data", pictures, *options, "--json")
    ran = diffscope(*command, "--sigma", 0.4)
    assert (ran.code, ran.err) == (0, "")
    (row,) = ran.json["rows"]
    assert row["sigma_requested"] == 0.4
    assert row["sigma"] == pytest.approx(0.4, rel=0.02)
    assert row["sigma"] != 0.4
    assert ran.json["protocol"]["sigmas"] == [row["sigma"]]
    # A level that exists is used as it is.
    again = diffscope(*command, "--sigma", row["sigma"]).json["rows"][0]
    assert again == {**row, "sigma_requested": row["sigma"]}
    (level,) = job(sigma=(1.0,)).levels
    assert level.requested is None
