"""What a benchmark makes of its samples: counted FLOPs, made-up clocks, and the arithmetic of a forecast."""

# mypy: disable-error-code="arg-type, misc"

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import DATA, EDM, SIT_LATENTS, SIT_PIXELS, prepared
from torch.utils.flop_counter import FlopCounterMode

from diffscope import api
from diffscope.errors import DataError, MemoryLimit, NeedTwoViews
from diffscope.extraction import Batch, arithmetic, extractor
from diffscope.families.networks.autoencoder import Autoencoder
from diffscope.measure.job import Job
from diffscope.options.settings import Settings
from diffscope.studies.bench import benchmark as bench
from diffscope.studies.bench import machine_limit, stopwatch
from diffscope.studies.bench.benchmark import benchmark
from diffscope.studies.bench.machine_limit import Operation, conv_limit, convolution, linear, linear_limit
from diffscope.studies.bench.result import GATES, Benchmark, Stage, foretell
from diffscope.studies.bench.stopwatch import SAMPLES, Action, Stopwatch
from diffscope.studies.bench.walk_rate import Passes, repeated, walk_rate

CPU = torch.device("cpu")


class Time:
    """A clock that stands still but where something takes its time."""

    def __init__(self, tick: float = 0.0) -> None:
        self.now, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now

    def lasting(self, *seconds: float, size: float = 1.0, like: Action | None = None) -> Action:
        """An action whose calls take these seconds, the last for ever after."""
        left = list(seconds)

        def run() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return Action(run, size, like)


def test_the_first_sample_warms_up_and_the_median_of_the_others_counts() -> None:
    time = Time()
    action = time.lasting(9, 2, 1, 3, 3, 3, 2, 1, 3, 3)
    Stopwatch(CPU, time).alternate([action], 100)
    assert action.samples == [9, 2, 1, 3, 3, 3, 2, 1, 3, 3]
    assert (action.typical, action.fastest, len(action.kept)) == (3, 1, SAMPLES)


def test_what_is_short_is_repeated_until_it_can_be_timed() -> None:
    time, calls = Time(), Counter[str]()

    def run() -> None:
        calls["run"] += 1
        time.now += 0.01

    action = Action(run)
    Stopwatch(CPU, time).alternate([action], 100)
    assert calls["run"] == 1 + 10 * SAMPLES
    assert action.samples == pytest.approx([0.01] * (SAMPLES + 1))


def test_actions_take_turns() -> None:
    order: list[str] = []
    time = Time(0.1)
    actions = [Action(lambda name=name: order.append(name)) for name in "abc"]
    told: list[float] = []
    Stopwatch(CPU, time).alternate(actions, 100, told.append)
    assert order == list("abc") * (SAMPLES + 1)
    assert told == [1] * len(order)


def test_what_would_not_fit_into_the_time_is_left_out() -> None:
    """One image takes 2 s; 16 would take 32 of the 20 there are, 4 only 8, and then nothing but one fits."""
    time = Time()
    one = time.lasting(2)
    sixteen, four = time.lasting(32, size=16, like=one), time.lasting(8, size=4, like=one)
    Stopwatch(CPU, time).alternate([one, sixteen, four], 20)
    assert (len(one.samples), sixteen.samples, four.samples) == (2, [], [8, 8])
    assert sixteen.expected == 32


def test_what_nothing_is_known_of_is_timed_in_any_case() -> None:
    time = Time()
    slow, one = time.lasting(50), time.lasting(7)
    Stopwatch(CPU, time).alternate([slow, one], 10)
    assert (slow.samples, one.samples) == ([50], [7])
    assert slow.kept == [50]


def test_another_gauge_leaves_out_what_others_take() -> None:
    wall, own = Time(), Time()

    def run() -> None:
        wall.now += 3
        own.now += 1

    action = Action(run)
    Stopwatch(CPU, wall, own).alternate([action], 31)
    assert set(action.samples) == {1}
    assert set(action.elapsed) == {3}
    assert len(action.samples) == 10


def test_out_of_memory_ends_the_search_upwards() -> None:
    time, tried = Time(0.01), Counter[int]()

    def batch(size: int, like: Action | None = None) -> Action:
        def run() -> None:
            tried[size] += 1
            if size >= 4:
                raise torch.cuda.OutOfMemoryError("made up")

        return Action(run, size, like)

    one = batch(1)
    sizes = {1: one, **{size: batch(size, one) for size in (2, 4, 8, 16)}}
    bound = time.lasting(1)
    Stopwatch(CPU, time).alternate([bound, *sizes.values()], 1000)
    assert [size for size, action in sizes.items() if action.too_large] == [4, 8, 16]
    assert tried[4] == 1
    assert tried[8] == tried[16] == 0
    assert not bound.too_large


@pytest.mark.parametrize("make", [convolution, linear])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_limits_count_their_flops(make: Callable[..., Operation], precision: str) -> None:
    operation = make(precision)
    with FlopCounterMode(display=False) as counter:
        operation.run()
    assert counter.get_total_flops() == operation.flops
    expected = {"convolution": 2 * 8 * 32 * 32 * 256 * 256 * 9, "linear": 2 * 2048 * 1152 * 4608}
    assert operation.flops == expected[operation.name]


def test_a_limit_is_its_fastest_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("convolution", "linear"):
        slow = Time().lasting(1)
        monkeypatch.setattr(machine_limit, name, lambda precision, device, run=slow.run: Operation("x", 10**9, run))

    def alternate(self: Stopwatch, actions: list[Action], seconds: float) -> None:
        assert (self.device, seconds) == (CPU, 5)
        actions[0].samples += [9.0, 2.0, 0.5, 1.0]

    monkeypatch.setattr(Stopwatch, "alternate", alternate)
    assert conv_limit("fp32") == linear_limit("fp32") == 2e9


def test_the_limits_are_computed_as_the_network_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the precision and under the arithmetic of the sweep."""
    asked: list[Any] = []

    def spied(precision: str, device: torch.device) -> Any:
        asked.append((precision, device.type))
        return arithmetic(precision, device)

    monkeypatch.setattr(machine_limit, "arithmetic", spied)
    monkeypatch.setattr(extractor, "arithmetic", spied)
    linear("bf16").run()
    walk_rate(api.load("toy:d=4,side=4")[1], precision="bf16", batch=2, seconds=0)
    assert set(asked) == {("bf16", "cpu")}


@pytest.mark.parametrize("path", [EDM, SIT_PIXELS])
@pytest.mark.parametrize("place", ["mid", "last"])
def test_flops_are_those_of_the_prefix(path: str, place: str) -> None:
    """As a walk that computes nothing counts them; attention included, which torch does not count on a CPU."""
    config = {"num_heads": "4"} if path == SIT_PIXELS else {}
    _, denoiser = api.load(path, config=config)
    layer = denoiser.layers[-1] if place == "last" else denoiser.layer("mid")
    rate = walk_rate(denoiser, layer.name, batch=1, seconds=0)
    assert rate.flops == layer.flops
    assert layer.flops < denoiser.layers[-1].flops or place == "last"
    assert rate.flops_per_second == rate.flops * rate.passes_per_second > 0


def test_a_batch_is_filled_with_the_images_at_hand() -> None:
    signal = torch.arange(4.0)[:, None]
    batch = repeated(Batch((7, 9), signal, signal + 10), images=3, views=2)
    assert batch.indices == (7, 9, 7)
    assert batch.signal.flatten().tolist() == [0, 1, 2, 3, 0, 1]
    assert batch.noise is not None
    assert batch.noise.flatten().tolist() == [10, 11, 12, 13, 10, 11]
    assert repeated(Batch((7,), signal[:2], None), images=2, views=2).noise is None


def stages(**seconds: float) -> list[Stage]:
    units = {"decode": "image", "views": "image", "VAE": "image", "network": "pass", "moments": "level"}
    return [Stage(name, units[name], s, s, s, SAMPLES) for name, s in seconds.items()]


def test_a_forecast_by_hand() -> None:
    """An image: 1 + 2 + 7 once, 3 views × 4 levels × 0.5 = 6 of passes, 4 levels × 1 = 4 of moments: 20 s."""
    found = foretell(stages(decode=1, views=2, VAE=7, network=0.5, moments=1), images=100, views=3, levels=4)
    assert found.seconds == 2000
    assert found.per_image == {"decode": 1, "views": 2, "VAE": 7, "network": 6, "moments": 4}
    assert found.bottleneck == "VAE"
    assert found.share_outside == pytest.approx(14 / 20)
    assert found.shares["network"] == pytest.approx(6 / 20)
    # More levels: the same encoding is shared by more passes.
    more = foretell(stages(decode=1, views=2, VAE=7, network=0.5, moments=1), images=100, views=3, levels=12)
    assert more.bottleneck == "network"
    assert more.seconds == 100 * (10 + 18 + 12)


def test_decoding_beside_a_device_costs_what_is_longer() -> None:
    few, many = stages(decode=1, network=5), stages(decode=9, network=5)
    assert foretell(few, images=10, views=1, levels=1, ahead=True).seconds == 50
    assert foretell(many, images=10, views=1, levels=1, ahead=True).seconds == 90
    assert foretell(many, images=10, views=1, levels=1).seconds == 140


def job(path: str = "toy:d=32,side=8", data: str = "synthetic:count=40", **settings: Any) -> Job:
    given = {"augment": "none", "num_levels": 3, "workers": 0} | settings
    return prepared(path, data, Settings(**given), config={"num_heads": "4"} if path == SIT_LATENTS else {})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Benchmark]:
    """A benchmark in which every sample takes a quarter of a second, and the machine's limits are 2 and 4 GFLOP/s."""
    monkeypatch.setattr(stopwatch, "SAMPLES", 1)
    monkeypatch.setattr(bench, "undisturbed", lambda device: None)
    for name, flops in (("convolution", 5 * 10**8), ("linear", 10**9)):
        made = Operation(name, flops, lambda: None)
        monkeypatch.setattr(bench, name, lambda precision, device, made=made: made)
    return lambda job, **more: benchmark(job, clock=Time(0.25), **more)


def test_a_benchmark_of_the_toy(quick: Callable[..., Benchmark]) -> None:
    found = quick(job())
    record = found.to_json()
    assert [(stage["stage"], stage["unit"]) for stage in record["stages"]] == [
        ("decode", "image"), ("views", "image"), ("network", "pass"), ("moments", "level"),
    ]  # fmt: skip
    assert sum(stage["share"] for stage in record["stages"]) == pytest.approx(1)
    # 40 images are decoded at a time, 16 made into views and added up, 32 passes make a batch: each in 0.25 s.
    assert [stage["per_second"] for stage in record["stages"]] == pytest.approx([160, 64, 128, 64])
    assert record["settings"] == {
        "layers": ["linear"], "precision": "fp32", "augment": "none", "input": "noisy", "pool": "mean",
        "batch_size": 16, "workers": 0,
    }  # fmt: skip
    network = {"layer": "linear", "flops": 2 * 64 * 32, "passes_per_second": 128, "flops_per_second": 128 * 4096}
    assert record["network"] == pytest.approx(network)
    assert record["limit"] == {"operation": "linear", "convolution": 2e9, "linear": 4e9}
    assert record["share"] == pytest.approx(128 * 4096 / 4e9)
    forecast = {"images": 40, "views": 2, "levels": 3, "passes": 240}
    seconds = 40 * (1 / 160 + 1 / 64 + 3 * (2 / 128 + 1 / 64))
    assert record["forecast"] == pytest.approx(forecast | {"seconds": seconds})
    outside = 1 - 6 / 128 / (seconds / 40)
    assert record["share_outside"] == pytest.approx(outside)
    assert record["bottleneck"] == "network"
    assert set(found.gated()) == {"layer", *GATES}
    assert quick(job(), images=50_000).forecast.images == 50_000


def test_batch_sizes(quick: Callable[..., Benchmark]) -> None:
    """Where every batch takes as long, the largest is the fastest: 64 views, against 32 by default."""
    sizes = quick(job()).to_json()["batch_size"]
    assert [tried["images"] for tried in sizes["tried"]] == [1, 2, 4, 8, 16, 32]
    assert [tried["passes_per_second"] for tried in sizes["tried"]] == pytest.approx([8, 16, 32, 64, 128, 256])
    assert (sizes["used"], sizes["best"], sizes["recommended"]) == (16, 32, 32)
    assert sizes["gain"] == pytest.approx(1)
    own = quick(job(views=5, batch_size=12)).to_json()["batch_size"]
    assert [tried["images"] for tried in own["tried"]] == [1, 2, 4, 8, 12]
    assert (own["used"], own["best"], own["recommended"], own["gain"]) == (12, 12, 12, 0)


def test_a_gain_within_three_percent_is_not_worth_a_word(quick: Callable[..., Benchmark]) -> None:
    found = quick(job())
    *others, used, largest = found.tried
    for factor, recommended in ((1.02, 16), (1.04, 32)):
        faster = dataclasses.replace(largest, passes_per_second=factor * 128)
        sizes = dataclasses.replace(found, tried=(*others, used, faster)).to_json()["batch_size"]
        assert (sizes["best"], sizes["recommended"]) == (32, recommended)
        assert sizes["gain"] == pytest.approx(factor - 1)


def test_a_batch_that_would_take_too_long_is_not_tried(
    quick: Callable[..., Benchmark], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "NETWORK_SECONDS", 7.0)
    found = quick(job())
    sizes = found.to_json()["batch_size"]
    used = next(tried for tried in sizes["tried"] if tried["images"] == 16)
    assert used == {"images": 16, "passes_per_second": None, "why": "about 12 s a batch"}
    assert sizes["gain"] is None
    measured = max(tried["images"] for tried in sizes["tried"] if tried["passes_per_second"])
    assert (sizes["best"], sizes["recommended"]) == (measured, measured)
    # The forecast goes by the largest batch that there was time for.
    assert found.walk.passes_per_second == pytest.approx(2 * measured / 0.25)


def test_a_network_without_products_has_no_share(quick: Callable[..., Benchmark]) -> None:
    found = quick(job(layer=("wiener",)))
    without = dataclasses.replace(found, walk=dataclasses.replace(found.walk, flops=0))
    assert without.to_json()["share"] is None
    assert found.to_json()["limit"]["operation"] == "convolution"  # (1, 8, 8) is a map


def test_a_busy_machine_is_told(quick: Callable[..., Benchmark]) -> None:
    found = quick(job())
    calm = tuple(dataclasses.replace(stage, elapsed=1.1 * stage.fastest) for stage in found.stages)
    assert dataclasses.replace(found, stages=calm).notes == ()
    slow = tuple(dataclasses.replace(stage, elapsed=4 * stage.fastest) for stage in found.stages)
    (note,) = dataclasses.replace(found, stages=slow).notes
    assert note.startswith("busy: the median of the network's samples took 4.0 times as long")


def test_latents_are_encoded_by_the_vae(
    quick: Callable[..., Benchmark], pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    posterior = Autoencoder.posterior

    def counted(self: Autoencoder, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        encoded.append(len(images))
        return posterior(self, images)

    monkeypatch.setattr(Autoencoder, "posterior", counted)
    vae = str(DATA / "sit" / "diffusers-vae")
    settings = Settings(num_images=4, batch_size=4, num_levels=2, workers=0)
    latent = prepared(SIT_LATENTS, str(pictures), settings, config={"num_heads": "4"}, vae=vae)
    found = quick(latent)
    assert [stage.name for stage in found.stages] == ["decode", "views", "VAE", "network", "moments"]
    # Two samples each of one image and of the four of a batch, two views of each: no other stage encodes.
    assert encoded == [2, 8, 2, 8]
    assert found.to_json()["limit"]["operation"] == "linear"


def test_what_is_measured_is_what_a_sweep_runs(
    quick: Callable[..., Benchmark], pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every image that is decoded, every pass: through the source and the walk, at the plan's layer and no further."""
    opened = job(EDM, str(pictures), augment="crop+flip+jitter", num_images=20)
    read: list[int] = []
    source_read = type(opened.source).read

    def spied(self: Any, index: int, target: Any) -> Any:
        read.append(index)
        return source_read(self, index, target)

    monkeypatch.setattr(type(opened.source), "read", spied)
    ran: list[str] = []
    for name in ("enc.8x8_block1", "dec.8x8_in0"):
        opened.denoiser.network.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    quick(opened)
    assert set(read) == set(opened.indices.tolist())
    assert set(ran) == {"enc.8x8_block1"}


def test_images_that_cannot_be_read(quick: Callable[..., Benchmark], tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of its images can be decoded"):
        quick(job(data=str(tmp_path)))


def test_one_view_has_no_moments(quick: Callable[..., Benchmark]) -> None:
    with pytest.raises(NeedTwoViews):
        quick(job(views=1))


def test_a_device_that_does_not_hold_one_image(
    quick: Callable[..., Benchmark], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(self: Passes, images: int) -> list[Any]:
        raise torch.cuda.OutOfMemoryError("made up")

    monkeypatch.setattr(Passes, "run", run)
    with pytest.raises(MemoryLimit, match="does not hold one image"):
        quick(job())


def test_progress_says_what_is_measured(quick: Callable[..., Benchmark]) -> None:
    told: list[tuple[str, float]] = []

    @contextmanager
    def progress(total: int, what: str, unit: str) -> Any:
        yield lambda n: told.append((what, n))

    quick(job(), progress=progress)
    assert list(dict.fromkeys(what for what, _ in told)) == ["decode", "views", "network", "moments"]
