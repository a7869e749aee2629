"""`sweep --accuracy` from images to result: the rule is followed, nothing is measured twice, and no number moves."""

# mypy: disable-error-code="arg-type,assignment,attr-defined,index"

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import command_line, prepared, without_timing

from diffscope import api
from diffscope.cache.store import Parts
from diffscope.errors import (
    DataError,
    MemoryLimit,
    NeedTwoViews,
    ProtocolMismatch,
    RankDeficient,
    TooFewImages,
    UsageError,
    ZeroNoise,
)
from diffscope.extraction import Extractor, Inputs
from diffscope.families.base import Denoiser
from diffscope.families.toy import GaussianNetwork
from diffscope.measure.job import Job
from diffscope.measure.memory import total_passes
from diffscope.measure.progress import Listener
from diffscope.measure.tasks import Task
from diffscope.metrics.icr import estimate
from diffscope.moments import BlockAccumulator, Moments
from diffscope.options.settings import Settings
from diffscope.results import Result, dumps
from diffscope.seeding import permutation
from diffscope.sources.synthetic import SyntheticSource
from diffscope.studies.sweep.options import Accuracy
from diffscope.studies.sweep.stopping import Decision, Reading, curve, decide, looks, rule
from diffscope.studies.sweep.sweep import sweep
from diffscope.studies.sweep.window import semantic_window

TOY, IMAGES = "toy:d=8,side=8", 480
DATA = f"synthetic:count={IMAGES}"
LOOKS = (128, 240, IMAGES)
LEVELS = (0.02, 0.1, 0.18, 0.2, 0.22, 0.25, 1.0, 3.0)
"""Three about the lowest of the bowl below, which at 10 % go on for longer than the others, and one to the end."""


@pytest.fixture(autouse=True)
def ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy's 8 features are enough here for a level to be recommended."""
    monkeypatch.setattr("diffscope.measure.rows.FEWEST_FEATURES", 8)


@pytest.fixture
def bowl(monkeypatch: pytest.MonkeyPatch) -> None:
    """A toy whose ICR falls and rises again: below σ = 0.15 its features turn with every breath of noise."""

    def walk(self: GaussianNetwork, x: torch.Tensor, time: torch.Tensor, label: Any = None) -> Iterator[Any]:
        linear = torch.nn.functional.linear(x.flatten(1), self.projection)
        restless = 0.6 * torch.exp(-((time / 0.15) ** 2))[:, None] * torch.sin(1e3 * linear)
        yield "linear", linear + restless
        yield "wiener", x
        yield "output", x

    monkeypatch.setattr(GaussianNetwork, "walk", walk)


def job(accuracy: float | None = 0.1, data: str = DATA, checkpoint: str = TOY, **settings: Any) -> Job:
    chosen = {"augment": "none", "workers": 0, "sigma": LEVELS, **settings}
    return prepared(checkpoint, data, Settings(**chosen), options=(Accuracy(accuracy),))


def measured(job: Job, folder: Path, advanced: list[int] | None = None) -> Result:
    listener = Listener(advance=(advanced if advanced is not None else []).append)
    result, run = sweep(job, "sweep", listener, folder)
    run.parts.clear()
    assert result.accuracy is not None or job.options == (Accuracy(None),)
    return result


def text(result: Result) -> str:
    return json.dumps(without_timing(json.loads(dumps(result))))


def told(result: Result, layer: str = "linear") -> dict[str, Any]:
    assert result.accuracy is not None
    return dict(result.accuracy["layers"][layer])


class Counted:
    """Views that the network was given by level, images that were decoded, and pieces that were written."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.views: dict[float, int] = {}
        self.reads: list[int] = []
        self.pieces: list[Task] = []
        walk, read, write = Denoiser.walk, SyntheticSource.read, Parts.write

        def walking(this: Denoiser, x: Any, sigma: float, *arguments: Any) -> Any:
            self.views[sigma] = self.views.get(sigma, 0) + len(x)
            return walk(this, x, sigma, *arguments)

        def reading(this: SyntheticSource, index: int, target: Any) -> np.ndarray:
            self.reads.append(index)
            return read(this, index, target)

        def writing(this: Parts, number: int, arrays: Any, record: Any) -> None:
            self.pieces.append(Task.from_json(record["task"]))
            write(this, number, arrays, record)

        patch.setattr(Denoiser, "walk", walking)
        patch.setattr(SyntheticSource, "read", reading)
        patch.setattr(Parts, "write", writing)

    @property
    def passes(self) -> int:
        return sum(self.views.values())


# --- what it spends


@pytest.mark.usefixtures("bowl")
def test_passes_are_those_that_were_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    this, counted, advanced = job(), Counted(monkeypatch), list[int]()
    result = measured(this, tmp_path, advanced)
    assert result.accuracy is not None
    assert result.accuracy["passes"] == counted.passes
    assert result.accuracy["passes_full"] == total_passes(this) == IMAGES * 2 * len(LEVELS)
    assert 2 * LOOKS[0] * len(LEVELS) < counted.passes < total_passes(this) / 2
    assert {row.sigma: row.n * 2 for row in result.rows} == counted.views
    assert {row.n for row in result.rows} == set(LOOKS)
    # To the full length of the bar, whatever was saved.
    assert sum(advanced) == total_passes(this)
    # Each image is decoded once, at whatever stage.
    assert sorted(counted.reads) == sorted(this.indices.tolist())
    assert (result.timing["blocks_measured"], result.timing["blocks_resumed"]) == (len(counted.pieces), 0)
    assert len(counted.pieces) == 16 * len(LOOKS)


@pytest.mark.usefixtures("bowl")
def test_it_ends_as_soon_as_the_accuracy_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted, advanced = Counted(monkeypatch), list[int]()
    result = measured(job(0.3), tmp_path, advanced)
    assert result.accuracy is not None
    assert result.accuracy["reached"]
    assert (result.data["used"], sorted({row.n for row in result.rows})) == (LOOKS[0], [LOOKS[0]])
    assert counted.passes == LOOKS[0] * 2 * len(LEVELS)
    assert sum(advanced) == IMAGES * 2 * len(LEVELS)
    assert (told(result)["icr_high"] - told(result)["icr_low"]) / 2 / told(result)["icr"] <= 0.3


@pytest.mark.usefixtures("bowl")
def test_few_images_are_one_look_and_the_plain_sweep(tmp_path: Path) -> None:
    assert looks(160, [8], 2) == (160,)
    staged = measured(job(0.1, "synthetic:count=160"), tmp_path)
    plain = measured(job(None, "synthetic:count=160"), tmp_path)
    ends = ("icr_low", "icr_high")
    for row, other in zip(staged.rows, plain.rows, strict=True):
        assert [row[end] for end in ends] == pytest.approx([other[end] for end in ends], rel=1e-12)
        assert row.having(**{end: other[end] for end in ends}) == other
    assert staged.accuracy is not None
    assert (staged.accuracy["looks"], staged.accuracy["passes"]) == ([160], staged.accuracy["passes_full"])
    (one,), (other,) = staged.window, plain.window
    assert (one.shape, one.near) == (other.shape, other.near)
    # Of the differences from the best, which are the same but for rounding.
    assert (one.icr, one.sigma, one.sigma_error) == pytest.approx((other.icr, other.sigma, other.sigma_error))
    assert (one.low, one.high) == pytest.approx((other.low, other.high))


def test_one_level_is_known_by_its_interval(tmp_path: Path) -> None:
    result = measured(job(0.15, sigma=(0.5,)), tmp_path)
    assert result.accuracy is not None
    assert result.accuracy["reached"]
    assert result.accuracy["passes"] < result.accuracy["passes_full"]
    assert (told(result)["sigma"], told(result)["images"]) == (0.5, result.rows[0].n)
    assert [note.split(":")[0] for note in result.window[0].notes] == ["few_levels"]


# --- what it says


@pytest.mark.usefixtures("bowl")
def test_a_level_that_stopped_has_the_numbers_of_its_first_images(tmp_path: Path) -> None:
    """Of the same permutation; image by image, so that no float32 product is ordered otherwise."""
    result = measured(job(batch_size=1), tmp_path)
    for images in LOOKS:
        plain = measured(job(None, num_images=images, batch_size=1), tmp_path)
        assert permutation(0, IMAGES)[:images].tolist() == job(None, num_images=images).indices.tolist()
        rows = {row.sigma: row for row in plain.rows}
        some = [row for row in result.rows if row.n == images]
        assert some
        for row in some:
            numbers, notes = row.metrics, row.notes
            assert notes == rows[row.sigma].notes
            for key, value in rows[row.sigma].metrics.items():
                if key.startswith("uniformity") and images > LOOKS[0]:
                    continue  # of pairs of images that came in one piece
                if key in ("icr_low", "icr_high"):  # wide enough for every look
                    assert abs(numbers[key] - numbers["icr"]) > abs(value - rows[row.sigma]["icr"])
                    continue
                expected = value if value is None else pytest.approx(value, rel=1e-10, abs=1e-10)
                assert numbers[key] == expected, key


@pytest.mark.usefixtures("bowl")
@pytest.mark.parametrize("accuracy", [0.03, 0.1, 0.2])
def test_it_does_what_the_rule_says_of_the_features(accuracy: float, tmp_path: Path) -> None:
    this = job(accuracy)
    result = measured(this, tmp_path)
    decision, tracks = by_the_rule(this, accuracy)
    verdict = decision.layers["linear"]
    assert verdict.best is not None
    assert result.accuracy is not None
    assert (result.accuracy["reached"], result.accuracy["reason"]) == (decision.reached, decision.reason)
    assert [row.n for row in result.rows] == [track[-1].images for track in tracks]
    assert told(result)["sigma"] == LEVELS[verdict.best]
    # Sums over images in another order.
    known = [told(result)[key] for key in ("icr", "icr_low", "icr_high")]
    assert known == pytest.approx([verdict.icr, verdict.low, verdict.high], rel=1e-5)
    window = semantic_window(LEVELS, *curve(tracks, verdict.best), minimum=verdict.best)
    (row,) = result.window
    assert row.shape == window.shape == "u"
    assert (row.near, row.notes) == (window.near, window.notes)
    assert (row.sigma, row.icr, row.sigma_error) == pytest.approx((window.sigma, window.icr, window.sigma_se), rel=1e-4)
    assert (row.low, row.high) == pytest.approx((window.low, window.high), rel=1e-4)
    assert row.icr == pytest.approx(told(result)["icr"], rel=1e-12)


def by_the_rule(job: Job, accuracy: float) -> tuple[Decision, list[list[Reading]]]:
    """All features at all levels, and the rule on as much of them as it asks for; the tracks of the levels."""
    views: dict[int, list[torch.Tensor]] = {}
    for features in Extractor(job.denoiser, Inputs(job.source, job.plan), job.plan).run(job.indices.tolist()):
        views.setdefault(features.level, []).append(features.z)
    z = {level: torch.cat(parts) for level, parts in views.items()}

    def reading(level: int, images: int) -> Reading:
        blocks = []
        for block in range(job.blocks):
            accumulator = BlockAccumulator(2, 8)
            accumulator.update(z[level][:images][block :: job.blocks])
            blocks.append(accumulator.finish())
        found = estimate(Moments.from_blocks(blocks))
        assert found.replicates is not None
        return Reading(found.icr, found.replicates, images)

    question = rule(accuracy, LEVELS, looks(len(job.indices), [8], 2), 2)
    tracks: list[list[Reading]] = [[] for _ in LEVELS]
    decision, going = None, frozenset(range(len(LEVELS)))
    for look, images in enumerate(question.looks):
        for level in going:
            tracks[level].append(reading(level, images))
        decision = decide(question, look, {"linear": tracks}, decision)
        going = decision.going
        if not going:
            break
    assert decision is not None
    return decision, tracks


@pytest.mark.usefixtures("bowl")
def test_several_layers_share_the_images_and_each_is_told(tmp_path: Path) -> None:
    result = measured(job(0.1, layer=("all",)), tmp_path)
    assert [window.layer for window in result.window] == ["linear", "wiener"]
    for window in result.window:
        known, rows = told(result, window.layer), {r.sigma: r for r in result.rows if r.layer == window.layer}
        best = rows[known["sigma"]]
        # The row, the window and what is known of the lowest ICR are of the same images.
        assert (known["images"], known["icr"]) == (best.n, pytest.approx(best["icr"], rel=1e-12))
        assert window.icr == pytest.approx(best["icr"], rel=1e-12)
        # One interval of one number, wherever it stands.
        assert (known["icr_low"], known["icr_high"]) == (best["icr_low"], best["icr_high"])
    # `linear` alone would have stopped the level that is the best of `wiener`.
    alone = measured(job(0.1), tmp_path)
    assert told(result, "wiener")["sigma"] == LEVELS[0]
    assert result.rows[0].n > alone.rows[0].n
    assert Result.from_json(json.loads(dumps(result))) == result


def test_a_layer_that_is_known_is_measured_no_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`linear` is known to 15 % at the second look; `wiener`, one number an image, has the same level go on."""
    counted = Counted(monkeypatch)
    result = measured(job(0.15, layer=("all",), sigma=(0.5, 1.0, 3.0)), tmp_path)
    assert {piece.layers for piece in counted.pieces if piece.start >= LOOKS[1]} == {(1,)}
    alone = measured(job(0.15, sigma=(0.5, 1.0, 3.0)), tmp_path)
    assert told(alone)["reached"]
    assert told(result) == told(alone)
    assert result.rows[0].n == LOOKS[1]
    assert max(row.n for row in result.rows if row.layer == "wiener") == IMAGES
    assert [row for row in result.rows if row.layer == "linear"] == list(alone.rows)
    assert result.window[0] == alone.window[0]


def test_a_refused_layer_is_named_and_asks_for_nothing(tmp_path: Path) -> None:
    # 64 features of `wiener` from 60 images; 8 of `linear`.
    settings = {"layer": ("all",), "pool": "flatten", "num_images": 60}
    result = measured(job(**settings), tmp_path)
    refused = [row for row in result.rows if row.layer == "wiener"]
    assert {(row.n, row["icr"]) for row in refused} == {(60, None)}
    assert all("too_few_images" in row.notes[0] for row in refused)
    assert result.accuracy is not None
    assert list(result.accuracy["layers"]) == ["linear"]
    assert result.window[1].notes == ("no_levels: no noise level has an ICR",)
    assert [row for row in result.rows if row.layer == "linear"] == list(measured(job(num_images=60), tmp_path).rows)
    with pytest.raises(TooFewImages, match="layer wiener"):
        measured(job(**{**settings, "layer": ("wiener",)}), tmp_path)


def test_a_layer_that_no_images_would_cure_asks_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 copies of one channel: it has no ICR at any level, and `linear` spends what it would alone."""
    walk = GaussianNetwork.walk

    def copying(self: GaussianNetwork, x: torch.Tensor, time: torch.Tensor, label: Any = None) -> Iterator[Any]:
        for name, activation in walk(self, x, time, label):
            yield name, activation[:, :, :1, :1].expand_as(activation) if name == "wiener" else activation

    monkeypatch.setattr(GaussianNetwork, "walk", copying)
    settings = {"pool": "flatten", "sigma": (0.45, 0.6, 3.0)}
    result = measured(job(0.1, layer=("all",), **settings), tmp_path)
    assert result.accuracy is not None
    assert list(result.accuracy["layers"]) == ["linear"]
    first, *_ = result.accuracy["looks"]
    assert first < IMAGES / 2
    given = {"linear": (IMAGES, first, first), "wiener": (first, first, first)}
    assert [(row.layer, row.n) for row in result.rows] == [(name, n) for name, all_n in given.items() for n in all_n]
    assert all("rank_deficient" in row.notes[0] for row in result.rows[3:])
    assert result.window[1].notes == ("no_levels: no noise level has an ICR",)
    # Alone it is an error, as in a plain sweep, and as soon as that is seen.
    counted = Counted(monkeypatch)
    with pytest.raises(RankDeficient, match="64 channels have rank 1"):
        measured(job(0.1, layer=("wiener",), **settings), tmp_path)
    assert len(counted.reads) == first


def test_a_level_without_an_icr_neither_stops_the_run_nor_wins(tmp_path: Path) -> None:
    """At σ = 1e-9 the views are equal to the last bit, and at 1e6 there is nothing but noise."""
    result = measured(job(0.1, sigma=(1e-9, 0.2, 0.5, 1e6)), tmp_path)
    silent, *others = result.rows
    assert (silent["icr"], silent["replicates"]) == (None, None)
    assert "zero_noise" in silent.notes[0]
    assert others[-1]["icr"] == pytest.approx(1, abs=0.1)
    assert told(result)["sigma"] == 0.2
    assert "levels_skipped" in result.window[0].notes[0]
    with pytest.raises(ZeroNoise, match="the views of every image have the same features"):
        measured(job(0.1, sigma=(1e-10, 1e-9)), tmp_path)


# --- images that cannot be read


def broken(patch: pytest.MonkeyPatch, *indices: int) -> None:
    read = SyntheticSource.read

    def reading(self: SyntheticSource, index: int, target: Any) -> np.ndarray:
        if index in indices:
            raise DataError(f"image {index}: damaged")
        return read(self, index, target)

    patch.setattr(SyntheticSource, "read", reading)


@pytest.mark.usefixtures("bowl")
def test_unreadable_images_are_left_out_of_the_stage_that_they_are_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    this = job()
    early, late = int(this.indices[5]), int(this.indices[LOOKS[1] + 3])
    broken(monkeypatch, early, late)
    result = measured(this, tmp_path)
    assert {entry["file"] for entry in result.data["skipped"]} == {f"{early:08d}", f"{late:08d}"}
    assert len(result.data["skipped"]) == 2
    assert result.data["used"] == IMAGES - 2
    assert {row.n for row in result.rows} == {LOOKS[0] - 1, LOOKS[1] - 1, IMAGES - 2}
    with pytest.raises(DataError, match=f"image {early}: damaged"):
        measured(job(strict=True), tmp_path)


# --- nothing moves a number


def test_batches_and_threads_do_not_move_a_number(tmp_path: Path) -> None:
    def run(size: int, workers: int = 0) -> Result:
        return measured(job(0.05, sigma=(0.45, 0.46, 0.48, 0.6, 3.0), batch_size=size, workers=workers), tmp_path)

    results = {(size, workers): run(size, workers) for size in (1, 7) for workers in (0, 2)}
    first = results[1, 0]
    for (size, _), result in results.items():
        assert text(result) == text(results[size, 0])
        assert [row.n for row in result.rows] == [row.n for row in first.rows]
        # A network's float32 products are ordered otherwise in other batches.
        assert [row["icr"] for row in result.rows] == pytest.approx([row["icr"] for row in first.rows], rel=1e-6)
    assert len({row.n for row in first.rows}) > 1
    assert text(run(7)) == text(results[7, 0])


def finished(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of writing by name."""
    return {
        path.name: ((stat := os.stat(path)).st_ino, stat.st_mtime_ns)
        for path in folder.glob("parts-*/part-*.safetensors")
    }


def test_killed_in_every_stage_it_gives_the_same_bytes(tmp_path: Path) -> None:
    # Large images make a block last, at one level too: there must be time to kill it.
    checkpoint, sigmas = "toy:d=8,side=96", (0.02, 0.03, 0.5)
    levels = [word for sigma in sigmas for word in ("--sigma", sigma)]
    settings = ("--accuracy", "1%", "--batch-size", 2, "--workers", 0, "--augment", "none")
    command = command_line("sweep", checkpoint, "--data", DATA, *levels, *settings, "--out", tmp_path)
    seen: dict[str, tuple[int, int]] = {}
    for stage in range(len(LOOKS)):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(finished(tmp_path)) < 16 * stage + 2:
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        now = finished(tmp_path)
        assert len(now) < 16 * (stage + 1)
        # What was finished before was neither measured nor written again.
        assert {name: now[name] for name in seen} == seen
        seen = now
    assert not (tmp_path / "result.json").exists()

    same = job(0.01, checkpoint=checkpoint, batch_size=2, sigma=sigmas)
    with pytest.MonkeyPatch.context() as patch:
        counted, advanced = Counted(patch), list[int]()
        result, run = sweep(same, "sweep", Listener(advance=advanced.append), tmp_path)
        assert {name: stat for name, stat in finished(tmp_path).items() if name in seen} == seen
        run.parts.clear()
    assert result.accuracy is not None
    resumed, fresh = len(seen), len(counted.pieces)
    assert (result.timing["blocks_resumed"], result.timing["blocks_measured"]) == (resumed, fresh)
    assert resumed + fresh == 16 * len(LOOKS)
    # The last stage alone, and of it no more than was missing.
    assert {piece.stop for piece in counted.pieces} == {IMAGES}
    assert counted.passes == sum(piece.passes(same) for piece in counted.pieces) < result.accuracy["passes"]
    assert sum(advanced) == total_passes(same)
    assert text(result) == text(measured(same, tmp_path / "at once"))


@pytest.mark.usefixtures("bowl")
def test_an_error_in_a_later_stage_keeps_what_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    this, said = job(), list[str]()
    late = int(this.indices[LOOKS[0]])
    with monkeypatch.context() as patch:
        read = SyntheticSource.read

        def failing(self: SyntheticSource, index: int, target: Any) -> np.ndarray:
            if index == late:
                raise OSError("the disk has gone")
            return read(self, index, target)

        patch.setattr(SyntheticSource, "read", failing)
        with pytest.raises(OSError, match="the disk has gone"):
            sweep(this, "sweep", folder=tmp_path)
    assert len(finished(tmp_path)) == 16
    result, _ = sweep(this, "sweep", Listener(say=said.append), tmp_path)
    assert result.timing["blocks_resumed"] == 16
    going = [line for line in said if "noise levels go on" in line]
    assert len(going) == len({row.n for row in result.rows}) - 1
    assert going[0].startswith(f"after {LOOKS[0]} images ")
    again, run = sweep(this, "sweep", folder=tmp_path)
    run.parts.clear()
    assert again.timing["blocks_measured"] == 0
    assert text(again) == text(result) == text(measured(this, tmp_path / "at once"))


def test_levels_do_not_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    measured(job(0.02, sigma=(0.45, 0.5, 0.55, 1.0, 3.0)), tmp_path)
    by_stage = {piece.start: set(piece.levels) for piece in counted.pieces}
    assert all(by_stage[later] <= by_stage[earlier] for earlier, later in pairwise(sorted(by_stage)))


def test_another_accuracy_is_another_run(tmp_path: Path) -> None:
    sweep(job(0.1), "sweep", folder=tmp_path)
    for accuracy in (0.2, None):
        assert sweep(job(accuracy), "sweep", folder=tmp_path)[0].timing["blocks_resumed"] == 0


# --- what it refuses


def test_moments_that_do_not_fit_together(tmp_path: Path) -> None:
    with pytest.raises(MemoryLimit, match="`accuracy=` looks at all levels together"):
        measured(job(max_memory=60_000), tmp_path)
    assert not list(tmp_path.glob("parts-*/part-*"))


def test_one_view_has_no_icr(tmp_path: Path) -> None:
    with pytest.raises(NeedTwoViews):
        measured(job(views=1), tmp_path)


@pytest.mark.parametrize("accuracy", [0.0, -0.02, 1.0, 2.0, float("nan")])
def test_an_accuracy_that_is_no_share(accuracy: float) -> None:
    with pytest.raises(UsageError, match=r"`accuracy=.*`: expected a share of ICR such as 2%"):
        api.function("sweep")(TOY, DATA, accuracy=accuracy)


@pytest.mark.parametrize(("command", "check"), [("icr", False), ("sweep", True)])
def test_what_needs_all_images_at_all_levels_has_no_accuracy(command: str, check: bool, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="an accuracy is for a sweep to reach"):
        sweep(job(0.3, sigma=(0.5,)), command, folder=tmp_path, check=check)


# --- compared


def test_rows_of_unequal_images_are_not_compared(tmp_path: Path) -> None:
    """Networks may need other numbers of images; levels that both saw as often are compared in pairs as ever."""
    levels = (0.45, 0.46, 0.48, 0.6, 3.0)
    old, new = (measured(job(0.1, checkpoint=f"toy:d={d},side=8", sigma=levels), tmp_path) for d in (8, 12))
    assert [row.n for row in old.rows] == [480, 128, 128, 128, 128]
    assert [row.n for row in new.rows] == [240, 128, 128, 128, 128]
    unequal, *others = api.function("compare")(old, new)["rows"]
    assert {unequal[key] for key in ("change", "change_low", "change_high", "t", "p", "significant")} == {None}
    (note,) = unequal["notes"]
    assert note.startswith("unequal_images: 480 and 240 images are behind the two; ")
    assert all(record["change"] is not None and not record["notes"] for record in others)
    with pytest.raises(ProtocolMismatch, match=r"accuracy: 0\.1 and null"):
        api.function("compare")(old, measured(job(None, sigma=levels), tmp_path))
