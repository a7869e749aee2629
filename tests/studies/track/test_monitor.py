"""A monitor in a training loop: the numbers of `diffscope icr`, and a training that does not notice it."""

# mypy: disable-error-code="method-assign, misc, operator, var-annotated"

from __future__ import annotations

import copy
import os
import random
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import DATA, EDM, SIT_LATENTS, diffscope, without_timing
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import diffscope as package
from diffscope.cache.store import cache_folder
from diffscope.errors import (
    CheckpointError,
    DataError,
    DiffscopeError,
    NoiseLevelError,
    StoreError,
    TooFewImages,
    UnknownLayer,
    UsageError,
)
from diffscope.measure.snapshots import find_snapshots
from diffscope.results import Result, Row, dumps
from diffscope.studies.track.monitor import Monitor

SERIES = DATA / "series"
IMAGES = SERIES / "images.npz"
PICTURES = np.load(IMAGES)["images"]
SNAPSHOTS, _ = find_snapshots([str(SERIES)])
THIRD = str(SERIES / "snapshot-0076800.safetensors")
OPTIONS: dict[str, Any] = {"sigma": 0.3, "views": 3, "workers": 0}


class Preconditioned(nn.Module):
    """EDM's D(x; σ) = c_skip·x + c_out·F(c_in·x; ln σ/4), as a training script holds it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        assert sigma.shape == x.shape[:1]
        s = sigma[:, None, None, None]
        total = s**2 + 0.25
        out: Tensor = self.model(x / total.sqrt(), sigma.log() / 4)
        return 0.25 / total * x + 0.5 * s / total.sqrt() * out


class Tiny(nn.Module):
    """Dropout, batch statistics, and a draw of its own, each of which could disturb."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.head = nn.Conv2d(4, 1, 3, padding=1)
        self.draws = 1e-3
        self.breaks = False

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        if self.breaks:
            raise RuntimeError("out of memory")
        h = self.trunk(x + self.draws * torch.randn_like(x))
        return x + self.head(h) * sigma[:, None, None, None]  # type: ignore[no-any-return]


@pytest.fixture
def tiny() -> Tiny:
    """In the midst of training: gradients, running statistics, one part frozen and in evaluation mode."""
    torch.manual_seed(0)
    module = Tiny().train()
    module.head.eval().requires_grad_(False)
    module(torch.randn(8, 1, 16, 16), torch.ones(8)).square().mean().backward()
    return module


def monitor(images: Any = PICTURES, **said: Any) -> Monitor:
    found: Monitor = package.Monitor(images, **{**OPTIONS, **said})
    return found


@cache
def alone() -> Row:
    """`diffscope icr` on the third snapshot."""
    return package.icr(THIRD, str(IMAGES), **OPTIONS).rows[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("images", [PICTURES, PICTURES[..., 0], torch.from_numpy(PICTURES), str(IMAGES), IMAGES])
def test_the_row_is_that_of_icr_on_the_same_weights(images: Any) -> None:
    _, denoiser = package.load(THIRD)
    row = monitor(images)(denoiser, 76_800)
    expected = alone()
    assert (row.layer, row.sigma, row.t, row.n, row.d) == (expected.layer, 0.3, expected.t, 64, expected.d)
    assert row.metrics == expected.metrics
    assert row.step == 76_800


def test_a_module_that_takes_x_and_sigma_has_the_same_icr() -> None:
    """Its input is scaled by float32 arithmetic of its own: 1e-7 there, and no more than 1e-6 of the ICR."""
    _, denoiser = package.load(THIRD)
    module = Preconditioned(denoiser.network)
    for name in (denoiser.default_layer, f"model.{denoiser.default_layer}"):
        row = monitor(layer=name)(module)
        assert row.layer == f"model.{denoiser.default_layer}"
        assert row["icr"] == pytest.approx(alone()["icr"], rel=1e-6)


def test_a_module_with_another_call_is_told_how(tiny: Tiny) -> None:
    class Swapped(Tiny):
        def forward(self, sigma: Tensor, *, noisy: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(noisy, sigma)

    tiny.__class__ = Swapped
    with pytest.raises(UsageError, match="sigma_to_input"):
        monitor(layer="head")(tiny)
    told = monitor(layer="head", sigma_to_input=lambda x, sigma: ((sigma,), {"noisy": x}))
    assert told(tiny)["icr"] is not None


def test_a_path_needs_the_network_s_input_to_be_said(tiny: Tiny) -> None:
    with pytest.raises(UsageError, match="channels=3, side=32"):
        monitor(IMAGES)(tiny)
    assert monitor(IMAGES, channels=1, side=16, layer="trunk.1")(tiny).d == 4


def test_a_container_can_be_the_layer(tiny: Tiny) -> None:
    torch.manual_seed(1)
    expected = monitor(layer="trunk.2")(tiny)
    for module, name in ((tiny, "trunk"), (nn.ModuleDict({"inner": tiny}), "trunk")):
        torch.manual_seed(1)
        module.forward = tiny.forward
        assert monitor(layer=name)(module).metrics == expected.metrics


@pytest.mark.parametrize(
    "around", [nn.DataParallel, AveragedModel, lambda module: torch.compile(AveragedModel(module), backend="eager")]
)
def test_what_stands_around_a_module_does_not_show(tiny: Tiny, around: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(1)
    expected = monitor(layer="head")(tiny)
    torch.manual_seed(1)
    assert monitor(layer="head")(around(tiny)) == expected


def state_of(module: nn.Module) -> Iterator[Any]:
    """All that a training could notice."""
    for name, tensor in module.state_dict().items():
        yield name, tensor.tolist()
    for name, parameter in module.named_parameters():
        grad = None if parameter.grad is None else parameter.grad.tolist()
        yield name, parameter.requires_grad, grad, parameter.is_inference()
    for part in module.modules():
        yield part.training, len(part._forward_hooks), len(part._forward_pre_hooks)
    yield torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()
    yield torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_float32_matmul_precision()
    yield torch.is_autocast_enabled("cpu"), torch.get_num_threads()


def test_training_is_not_disturbed(tiny: Tiny) -> None:
    handle = tiny.head.register_forward_hook(lambda *_: None)
    before, twin = list(state_of(tiny)), copy.deepcopy(tiny)
    assert monitor(layer="trunk.1")(tiny)["icr"] is not None
    assert list(state_of(tiny)) == before
    handle.remove()
    # The next step is the one that it would have been.
    losses = []
    for module in (twin, tiny):
        module.zero_grad()
        torch.manual_seed(3)
        loss = module(torch.randn(8, 1, 16, 16), torch.ones(8)).square().mean()
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == losses[1]
    assert torch.equal(twin.trunk[0].weight.grad, tiny.trunk[0].weight.grad)  # type: ignore[arg-type]


def test_a_denoiser_in_training_is_not_disturbed() -> None:
    _, denoiser = package.load(THIRD)
    expected = monitor()(denoiser)
    denoiser.network.train().requires_grad_(True)
    modes: list[bool] = []
    for part in denoiser.network.modules():
        part.register_forward_hook(lambda part, *_: modes.append(part.training))
    before = list(state_of(denoiser.network))
    assert monitor()(denoiser).metrics == expected.metrics
    assert list(state_of(denoiser.network)) == before
    assert modes
    assert not any(modes)


def test_an_error_inside_disturbs_nothing(tiny: Tiny) -> None:
    watching = monitor(layer="trunk.1")
    watching(tiny)
    tiny.breaks = True
    before = list(state_of(tiny))
    with pytest.raises(RuntimeError, match="out of memory"):
        watching(tiny)
    assert list(state_of(tiny)) == before
    with pytest.raises(UsageError, match="out of memory"):
        monitor(layer="trunk.1")(tiny)
    assert list(state_of(tiny)) == before


@pytest.mark.parametrize("context", [torch.autocast("cpu", torch.bfloat16), torch.no_grad(), torch.inference_mode()])
def test_what_the_loop_stands_in_changes_no_number(tiny: Tiny, context: Any) -> None:
    tiny.draws = 0
    expected = monitor(layer="head")(tiny)
    with context:
        before = list(state_of(tiny))
        assert monitor(layer="head")(tiny) == expected
        assert list(state_of(tiny)) == before


def test_images_are_decoded_once(tiny: Tiny) -> None:
    watching = monitor()
    source, reads = watching._tracker.source, list[int]()
    read = source.read
    source.read = lambda index, target: (reads.append(index), read(index, target))[1]  # type: ignore[method-assign]
    for _ in range(3):
        watching(tiny)
    assert sorted(reads) == list(range(64))


def test_nothing_is_left_on_disk(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = sorted(cache_folder().iterdir()) if cache_folder().exists() else []
    watching = monitor(layer="trunk.1")
    watching(tiny)
    tiny.trunk[0].weight.data.fill_(float("nan"))
    assert watching(tiny)["icr"] is None
    assert os.listdir(tmp_path) == []
    assert (sorted(cache_folder().iterdir()) if cache_folder().exists() else []) == before


@pytest.mark.parametrize("first", [True, False])
def test_a_network_that_diverged_gives_nulls_and_training_goes_on(first: bool) -> None:
    _, denoiser = package.load(THIRD)
    watching = monitor()
    if not first:
        watching(denoiser, 1)
    sound = copy.deepcopy(denoiser.network.state_dict())
    for parameter in denoiser.network.parameters():
        parameter.fill_(float("nan"))
    row = watching(denoiser, 2)
    assert (row.layer, row.t, row.n, row.d) == (denoiser.default_layer, denoiser.noise.to_native(0.3), 64, 24)
    assert set(row.metrics) == set(alone().metrics)
    assert not any(row.metrics.values())
    assert row.notes[0].startswith("not_measured: live:EDMPrecond(SongUNet)/2: image ")
    assert "not finite" in row.notes[0]
    assert watching.onset.state == "unclear"
    assert [row.step for row in watching.rows] == ([] if first else [1])
    denoiser.network.load_state_dict(sound)
    assert watching(denoiser, 3)["icr"] == alone()["icr"]
    result = watching.result()
    assert [row.step for row in result.rows] == ([3] if first else [1, 3])
    assert [entry["path"] for entry in result.checkpoints if "why" in entry] == ["live:EDMPrecond(SongUNet)/2"]
    assert '"why"' in dumps(result)


def test_another_network_gives_nulls_that_say_so() -> None:
    _, denoiser = package.load(THIRD)
    watching = monitor(layer="enc.8x8_block1", channels=1, side=16)
    watching(denoiser, 1)
    row = watching(Preconditioned(denoiser.network), 2)
    assert row["icr"] is None
    assert "differ in family" in row.notes[0]


def test_a_run_that_memorizes_turns_and_its_first_quarter_does_not() -> None:
    watching = monitor(views=5, rule="short")
    states = []
    for snapshot in SNAPSHOTS:
        row = watching(package.load(snapshot.path)[1], snapshot.step)
        assert row["icr"] > 0
        states.append(watching.onset.state)
    assert "turned" not in states[:4]
    assert states[-1] == "turned"
    onset = watching.onset
    assert onset.fired_at is not None
    assert onset.minimum is not None
    assert onset.fired_at > onset.minimum.step
    # What it says at a step is what it says of the run up to there, without a second look.
    assert states.index("turned") == [s.step for s in SNAPSHOTS].index(onset.fired_at)
    result = watching.result()
    assert Result.from_json(result.to_json()) == result
    assert result.onset == (onset,)
    assert result.rows == watching.rows
    assert result.checkpoint["path"] == "live:EDMPrecond(SongUNet)"


def test_steps_are_counted_where_they_are_not_given_and_replaced_where_they_come_again(tiny: Tiny) -> None:
    watching = monitor(layer="head")
    assert watching.rows == ()
    assert watching.onset.state == "unclear"
    assert [watching(tiny).step for _ in range(2)] == [1, 2]
    assert watching(tiny, np.int64(10)).step == 10  # type: ignore[arg-type]
    with torch.no_grad():
        tiny.trunk[0].weight.mul_(2)
    again = watching(tiny, 2)
    assert [row.step for row in watching.rows] == [1, 2, 10]
    assert watching.rows[1] == again


def test_auto_is_the_long_rule_of_a_run_that_goes_on(tiny: Tiny) -> None:
    watching = monitor(rule="auto", layer="head")
    watching(tiny)
    assert watching.onset.rule == "long"


def test_what_is_refused_before_training(tmp_path: Path) -> None:
    def refused(error: type[DiffscopeError], message: str, images: Any = PICTURES, **said: Any) -> None:
        with pytest.raises(error, match=message) as caught:
            monitor(images, **said)
        assert "\n" not in str(caught.value)

    refused(DataError, "move the channels last", torch.zeros(9, 3, 16, 16, dtype=torch.uint8))
    refused(DataError, "move the channels last", np.zeros((9, 1, 16, 16), np.uint8))
    refused(DataError, r"float32 \[9, 16, 16, 3\]\. Expected uint8", torch.zeros(9, 16, 16, 3))
    refused(DataError, "12 × 16 are not square", np.zeros((9, 12, 16, 3), np.uint8))
    refused(DataError, "Nothing at", str(tmp_path / "gone.npz"))
    refused(UsageError, "no rule 'shrot'", rule="shrot")
    refused(UsageError, "above 0", sigma=-1.0)
    refused(UsageError, "where it is; leave out device", device="cuda")
    with pytest.raises(TypeError, match="viewz"):
        monitor(viewz=3)


def test_what_is_refused_at_the_first_call(tiny: Tiny) -> None:
    _, denoiser = package.load(THIRD)
    with pytest.raises(UnknownLayer, match="close: trunk"):
        monitor(layer="trunk.9")(tiny)
    with pytest.raises(UsageError, match="give the denoiser that holds it"):
        monitor()(denoiser.network)
    with pytest.raises(UsageError, match="bf16 would round"):
        monitor(precision="bf16")(denoiser)
    with pytest.raises(UsageError, match="run as it is, in float32"):
        monitor(precision="bf16")(tiny)
    with pytest.raises(TooFewImages):
        monitor(num_images=20, views=2)(denoiser)
    with pytest.raises(NoiseLevelError):
        monitor(sigma=2)(package.wrap(tiny, side=16, channels=1, sigma_range=(0.1, 1)))
    with pytest.raises(CheckpointError, match="image encoder"):
        monitor()(package.load(SIT_LATENTS, config={"num_heads": "2"})[1])


def test_track_is_that_of_the_command_line(tmp_path: Path) -> None:
    files = [Path(snapshot.path) for snapshot in SNAPSHOTS[:2]]
    result = package.track(files, IMAGES, out=tmp_path, **OPTIONS)
    ran = diffscope("track", *files, "--data", IMAGES, "--sigma", 0.3, "--views", 3, "--json")
    assert without_timing(result.to_json()) == without_timing(ran.json)
    again = package.track(files, IMAGES, out=tmp_path, **OPTIONS)
    assert (again.timing["snapshots_measured"], again.timing["snapshots_resumed"]) == (0, 2)
    assert again.rows == result.rows


def test_track_takes_a_folder_and_chooses_the_level(tmp_path: Path) -> None:
    for snapshot in SNAPSHOTS[:2]:
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / Path(snapshot.path).name).symlink_to(snapshot.path)
    (tmp_path / "run" / "notes.pt").write_text("no checkpoint")
    result = package.track(tmp_path / "run", IMAGES, out=tmp_path / "out", views=3, rule="short", workers=0)
    assert [row.step for row in result.rows] == [snapshot.step for snapshot in SNAPSHOTS[:2]]
    assert any("was chosen by a sweep" in warning for warning in result.warnings)
    (left_out,) = [entry for entry in result.checkpoints if "why" in entry]
    assert "notes.pt" in left_out["path"]


def test_track_refuses_before_it_measures() -> None:
    with pytest.raises(UsageError, match="`rule=shrot`: expected auto, alarm, long or short"):
        package.track(SERIES, IMAGES, sigma=0.3, rule="shrot")
    with pytest.raises(UsageError, match="`step_from=`"):
        package.track(SERIES, IMAGES, sigma=0.3, step_from="(")
    with pytest.raises(CheckpointError, match="training step"):
        package.track(EDM, IMAGES, sigma=0.3)


def test_it_is_due_as_often_as_its_share_of_the_time_allows(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    watching = monitor(layer="head", share=0.1)
    assert watching.due()
    tiny.register_forward_hook(lambda *_: clock.__setitem__(0, 103.0))
    watching(tiny)
    assert not watching.due()
    clock[0] = 103.0 + 26.9  # three seconds are a tenth of thirty
    assert not watching.due()
    clock[0] += 0.2
    assert watching.due()
    with pytest.raises(UsageError, match="`share=0`"):
        monitor(share=0)


def test_steps_are_a_cadence_of_its_own() -> None:
    watching = monitor(every=3)
    # A step is asked for more than once where gradients are accumulated.
    assert [step for step in (0, 0, 1, 2, 3, 3, 4, 6, 6, 6, 7) if watching.due(step)] == [0, 3, 6]
    with pytest.raises(UsageError, match=r"`every=3` counts steps: say due\(step\)"):
        watching.due()
    with pytest.raises(UsageError, match="`every=0`"):
        monitor(every=0)


def test_what_it_logs_is_what_it_measures_and_a_failure_is_a_warning(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    class Heard:
        def __init__(self, specs: tuple[str, ...], title: str) -> None:
            assert (specs, title) == (("wandb",), "diffscope monitor")

        def result(self, result: Any) -> None:
            told.append(result.shown_rows[-1]["icr"])
            if len(told) == 2:
                raise StoreError("`log=wandb`: no network")

        def close(self) -> None:
            told.append("closed")

    monkeypatch.setattr("diffscope.studies.track.monitor.Log", Heard)
    watching = monitor(layer="head", log="wandb")
    first = watching(tiny, 1)
    with pytest.warns(UserWarning, match="no network; training goes on"):
        second = watching(tiny, 2)
    watching.close()
    assert told == [first["icr"], second["icr"], "closed"]


def test_a_destination_that_nobody_knows_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match=r"`log=csv:x`: expected tensorboard:DIR"):
        monitor(log="csv:x")


def test_without_a_level_it_is_the_alarm_of_track() -> None:
    watching = package.Monitor(PICTURES, workers=0)
    assert watching.onset.state == "unclear"
    rows = []
    for snapshot in SNAPSHOTS[1:4]:
        _, denoiser = package.load(str(snapshot.path))
        rows.append(watching(denoiser, snapshot.step))
    tracked = package.track([str(snapshot.path) for snapshot in SNAPSHOTS[1:4]], IMAGES, workers=0)
    assert [row["icr"] for row in rows] == [row["icr"] for row in tracked.shown_rows]
    (verdict,) = tracked.onset
    assert (watching.onset.state, watching.onset.fired_at) == (verdict.state, verdict.fired_at) == ("turned", 102_400)
    alarm = watching.result().alarm
    assert alarm is not None
    assert tracked.alarm is not None
    assert alarm.points == tracked.alarm.points


def test_a_live_network_that_says_what_it_predicts_is_watched_by_its_loss_too(tiny: Tiny) -> None:
    alone = package.Monitor(PICTURES, layer="head", rule="alarm", workers=0)
    alone(tiny, 1)
    told = package.Monitor(PICTURES, layer="head", rule="alarm", posterior_mean=tiny, workers=0)
    told(tiny, 1)
    for watching, quantities in ((alone, ["icr"]), (told, ["icr", "loss_views"])):
        alarm = watching.result().alarm
        assert alarm is not None
        assert [limit.quantity for limit in alarm.limits] == quantities
    with pytest.raises(UsageError, match="at which noise level"):
        package.Monitor(PICTURES, layer="head", rule="long")
