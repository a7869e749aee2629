"""The memory plan: what is measured together fits, few passes are repeated, and no number moves."""

# mypy: disable-error-code="arg-type, call-arg"

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import EDM, LAYER, diffscope, prepared, without_timing

from diffscope import api
from diffscope.errors import MemoryLimit
from diffscope.families.base import Denoiser, Layer
from diffscope.measure.job import Job, Level
from diffscope.measure.memory import Round, described, passes_at_once, passes_of, rounds, total_passes
from diffscope.measure.tasks import Task, whole_blocks
from diffscope.moments import accumulator_nbytes, nbytes
from diffscope.options.settings import Settings
from diffscope.results import Result, dumps
from diffscope.studies.sweep.sweep import sweep

GB = 10**9
LAYERS = ("enc.16x16_conv", "enc.16x16_block1", "enc.8x8_block0", LAYER, "dec.8x8_in0", "dec.8x8_in1", "dec.8x8_block0")
"""Two of 16 features, five of 32."""
TWO_LEVELS = 2 * (5 * accumulator_nbytes(2, 32) + 2 * accumulator_nbytes(2, 16))
CELL = accumulator_nbytes(2, 32)
SIGMAS = (0.2, 0.5, 2.0)


def job(pictures: Path, layers: tuple[str, ...] = LAYERS, **settings: Any) -> Job:
    chosen = {"augment": "none", "workers": 0, "num_images": 144, "sigma": SIGMAS, "batch_size": 8, **settings}
    return prepared(EDM, str(pictures), Settings(layer=layers, **chosen))


def shaped(widths: list[int], levels: int, limit: int, views: int = 2, blocks: int = 16) -> Job:
    """A job of these shapes; it could not be run."""
    toy = prepared("toy:d=8,side=8", "synthetic:count=64", Settings(max_memory=limit, views=views))
    at = tuple(Level(float(number), float(number), None) for number in range(1, levels + 1))
    layers = tuple(Layer(f"layer{number}", (width,)) for number, width in enumerate(widths))
    plan = replace(toy.plan, layers=layers, sigmas=tuple(level.sigma for level in at))
    return replace(toy, plan=plan, levels=at, blocks=blocks)


def memory(this: Job, one: Round) -> int:
    widths = [this.plan.width(this.plan.layers[layer]) for layer in one[0].layers]
    return len(one[0].levels) * sum(accumulator_nbytes(this.plan.views, width) for width in widths)


def test_any_plan_fits_and_is_whole() -> None:
    rng = random.Random(0)
    refused = 0
    for _ in range(400):
        widths = [rng.choice((3, 16, 64, 192, 384, 768, 1152)) for _ in range(rng.randint(1, 40))]
        levels, views = rng.randint(1, 20), rng.choice((2, 2, 3, 8))
        limit = int(10 ** rng.uniform(5, 10.5))
        this = shaped(widths, levels, limit, views, rng.choice((4, 8, 16)))
        try:
            chosen = rounds(this)
        except MemoryLimit:
            refused += 1
            reading = (2 * this.blocks + 8) * nbytes(views, max(widths))
            assert max(reading, accumulator_nbytes(views, max(widths))) > limit
            continue
        assert all(memory(this, one) <= limit for one in chosen)
        # Every cell once, and neighbours together.
        cells = [(level, layer) for one in chosen for level in one[0].levels for layer in one[0].layers]
        assert sorted(cells) == [(level, layer) for level in range(levels) for layer in range(len(widths))]
        for axis in ("levels", "layers"):
            for run in (getattr(one[0], axis) for one in chosen):
                assert list(run) == list(range(run[0], run[-1] + 1))
        # Levels first: layers are parted only where one level with all of them is too much.
        parted = len({one[0].layers for one in chosen})
        assert (parted > 1) == (sum(accumulator_nbytes(views, width) for width in widths) > limit)
        # Each layer's levels are measured at one walk a portion: passes are repeated for parted layers alone.
        assert passes_of(this, chosen) == parted * passes_at_once(this)
        # With one group of levels fewer, one would be too large.
        groups = len({one[0].levels for one in chosen})
        if groups > 1:
            larger = tuple(range(-(-levels // (groups - 1))))
            assert any(memory(this, whole_blocks(this, larger, one[0].layers)) > limit for one in chosen)
    assert 20 < refused < 300


def test_a_published_network_fits_into_8_gb() -> None:
    """28 layers × 12 levels of SiT-XL: 27 MB a cell, 8.9 GB together."""
    this = shaped([1152] * 28, 12, 8 * GB)
    chosen = rounds(this)
    assert [(len(one[0].levels), len(one[0].layers)) for one in chosen] == [(6, 28), (6, 28)]
    assert max(memory(this, one) for one in chosen) <= 8 * GB
    assert passes_of(this, chosen) == passes_at_once(this)
    assert rounds(shaped([1152] * 28, 12, 9 * GB)) == [
        [Task(block, 0, 64, tuple(range(12)), tuple(range(28))) for block in range(16)]
    ]
    # In a gigabyte, rows can still be read; in half of one, they cannot.
    small = shaped([1152] * 28, 12, GB)
    assert all(memory(small, one) <= GB for one in rounds(small))
    with pytest.raises(MemoryLimit, match=r"at one noise level need 850 MB, more than `max_memory=` 500 MB; "):
        rounds(shaped([1152] * 28, 12, GB // 2))


def test_what_is_said_of_a_plan() -> None:
    this = shaped([1152] * 28, 12, 8 * GB)
    assert described(this, rounds(this)) == (
        "the moments need 8.9 GB, more than `max_memory=8.0 GB`: measured in 2 portions of at most 6 noise levels"
    )
    layers = shaped([768] * 40, 4, 400 * 10**6)
    assert described(layers, rounds(layers)) == (
        "the moments need 2.1 GB, more than `max_memory=400 MB`: measured in 8 portions of at most 1 noise level and "
        "30 layers; the network is run 2 times as often"
    )
    assert described(this, rounds(this)[:1]) is None


def text(result: Result) -> str:
    return json.dumps(without_timing(json.loads(dumps(result))))


def walks(patch: pytest.MonkeyPatch, fail_at: int | None = None) -> list[tuple[int, float]]:
    """Of each walk the views and the level; the one of that number breaks."""
    seen: list[tuple[int, float]] = []
    walk = Denoiser.walk

    def counting(self: Denoiser, x: Any, sigma: float, *arguments: Any) -> Any:
        seen.append((len(x), sigma))
        if len(seen) == fail_at:
            raise OSError("the disk has gone")
        return walk(self, x, sigma, *arguments)

    patch.setattr(Denoiser, "walk", counting)
    return seen


@pytest.fixture(scope="module")
def at_once(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return text(sweep(job(pictures), "sweep", folder=tmp_path_factory.mktemp("whole"))[0])


@pytest.mark.parametrize(
    ("limit", "grouped"),
    [(TWO_LEVELS, [(1, 7), (2, 7)]), (5 * CELL, [(1, 6)] * 3 + [(1, 1)] * 3)],
)
def test_memory_moves_no_number(
    limit: int, grouped: list[tuple[int, int]], pictures: Path, at_once: str, tmp_path: Path, monkeypatch: Any
) -> None:
    this = job(pictures, max_memory=limit)
    assert [(len(one[0].levels), len(one[0].layers)) for one in rounds(this)] == grouped
    repeated = 2 if len(grouped) > 2 else 1
    assert total_passes(this) == repeated * 144 * 2 * 3
    seen, advanced, said = walks(monkeypatch), list[int](), list[str]()
    result, run = sweep(this, "sweep", api.Listener(advanced.append, said.append), tmp_path)
    assert text(result) == at_once
    assert sum(views for views, _ in seen) == total_passes(this) == sum(advanced)
    assert (result.timing["passes"], result.timing["portions"]) == (total_passes(this), len(grouped))
    assert said == [described(this, rounds(this))]
    # What was read has left the disk.
    assert not list(run.parts.folder.glob("part-*"))


@pytest.mark.parametrize("check", [False, True])
def test_a_finished_portion_is_not_measured_again(
    check: bool, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    this = job(pictures, max_memory=TWO_LEVELS)
    first, second = (len(one[0].levels) for one in rounds(this))
    batches = sum(-(-len(this.block(number)) // 8) for number in range(16))
    with monkeypatch.context() as patch:
        walks(patch, fail_at=batches * first + 3 * 2 * second + 1)
        with pytest.raises(OSError, match="the disk has gone"):
            sweep(this, "sweep", folder=tmp_path)
    (folder,) = tmp_path.glob("parts-*")
    assert len(list(folder.glob("rows-*.json"))) == 1
    assert len(list(folder.glob("part-*"))) == 3
    with monkeypatch.context() as patch:
        seen, advanced = walks(patch), list[int]()
        # What is added to rows is in no portion that was measured without: it is then measured again.
        result, _ = sweep(this, "sweep", api.Listener(advanced.append), tmp_path, check)
    left = 144 - sum(len(this.block(number)) for number in range(3))
    assert sum(views for views, _ in seen) == 2 * (left * second + (144 * first if check else 0))
    assert sum(advanced) == total_passes(this)
    assert result.timing["blocks_resumed"] == (3 if check else 16 + 3)
    whole, _ = sweep(job(pictures), "sweep", None, tmp_path / "whole", check)
    assert text(result) == text(whole)


def test_another_memory_goes_on_from_what_is_there(
    pictures: Path, at_once: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of all cells, measured with much memory, serve a run with little: only what lacks is measured."""
    with monkeypatch.context() as patch:
        walks(patch, fail_at=5 * 2 * 3 + 1)
        with pytest.raises(OSError, match="the disk has gone"):
            sweep(job(pictures), "sweep", folder=tmp_path)
    small = job(pictures, max_memory=5 * CELL)
    seen = walks(monkeypatch)
    result, _ = sweep(small, "sweep", folder=tmp_path)
    left = 144 - sum(len(small.block(number)) for number in range(5))
    assert sum(views for views, _ in seen) == 2 * 2 * 3 * left
    assert text(result) == at_once


def test_a_layer_that_is_refused_needs_no_memory(tmp_path: Path) -> None:
    """`wiener` has 64 features flattened, too many for 48 images; the memory would not hold them either."""
    wide, narrow = accumulator_nbytes(2, 64), accumulator_nbytes(2, 8)
    limit = str((wide + narrow) // 2)
    command = ("toy:d=8,side=8", "--data", "synthetic:count=48", "--augment", "none", "--layer", "all", "--pool",
               "flatten", "--sigma", 0.5, "--max-memory", limit)  # fmt: skip
    ran = diffscope("icr", *command, "--json")
    assert ran.code == 0, ran.err
    assert [row["icr"] is None for row in ran.json["rows"]] == [False, True]
    # Features are written as they come.
    assert diffscope("features", *command, "-o", tmp_path / "f.safetensors", "--max-memory", "1kB").code == 0


def test_too_little_memory_is_said_with_what_to_do(pictures: Path, tmp_path: Path) -> None:
    ran = diffscope("icr", EDM, "--data", pictures, "--layer", LAYER, "--sigma", 0.5, "--max-memory", "100kB")
    assert (ran.code, ran.out) == (1, "")
    assert re.fullmatch(
        r"error: the moments of one layer at one noise level need 0\.69 MB, more than --max-memory 0\.1 MB; "
        r"take a narrower layer, --pool mean, or a larger --max-memory\n",
        ran.err,
    )
