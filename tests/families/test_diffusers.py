"""Networks of the diffusers library: the goldens' activations, the schedulers' tables, hooks that leave no trace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers_folders import CPU, DATA, LINEAR, WEIGHTS, built, copied, golden, hooked, scheduler
from safetensors.torch import load_file, save_file
from torch import nn

from diffscope import families
from diffscope.checkpoints import read
from diffscope.errors import CheckpointError, UsageError
from diffscope.families._schedules import sigmas

LEVELS: dict[str, Any] = json.loads((DATA / "noise_levels.json").read_text())
TABLES = {
    "diffusers_ddpm_linear": LINEAR,
    "diffusers_scaled_linear": {**LINEAR, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
    "diffusers_squaredcos_cap_v2": {**LINEAR, "beta_schedule": "squaredcos_cap_v2"},
}


@pytest.mark.parametrize(("name", "count"), [("diffusers-unet", 12), ("diffusers-dit", 3)])
def test_every_layer_is_that_of_the_golden(name: str, count: int) -> None:
    tensors = golden(name)
    with torch.inference_mode():
        found = dict(hooked(built(name)).walk(tensors["in/x"], tensors["in/t"].float(), tensors.get("in/y")))
    compared = 0
    for layer, value in {"final": found.pop("output"), **found}.items():
        expected = tensors.get(f"out/{layer}")
        if expected is None:
            continue
        compared += 1
        difference = value - expected
        assert float(difference.abs().max()) <= 1e-4, layer
        # At times near 999 a unit in the last place of a processor's float32 exponential is 6e-5 of an angle.
        assert float(difference.norm() / expected.norm()) <= (1e-5 if name == "diffusers-dit" else 1e-6), layer
    assert compared == count


def test_layers_and_what_is_said_of_them() -> None:
    unet, dit = built("diffusers-unet"), built("diffusers-dit")
    names = [layer.name for layer in unet.layers]
    assert names[:3] == ["conv_in", "down_blocks.0.resnets.0", "down_blocks.0"]
    assert names[-2:] == ["conv_norm_out", "conv_out"]
    assert names.index("mid_block.resnets.0") < names.index("mid_block.attentions.0") < names.index("mid_block")
    assert unet.layer("mid").name == "down_blocks.2"
    assert dit.layer("mid").name == "transformer_blocks.0"
    assert [layer.shape for layer in dit.layers] == [(16, 48)] * 2
    assert (dit.classes.count, dit.classes.null) == (10, True)
    assert dit.label(None, CPU).tolist() == [10]  # type: ignore[union-attr]
    assert "denominator 127" in dit.evidence
    assert (unet.classes.count, unet.label(None, CPU)) == (0, None)
    assert (dit.space.kind, unet.space.kind, unet.space.side) == ("latents", "pixels", 16)
    assert "DDPM's 1000 linear betas" in unet.warnings[0]


def test_the_default_of_28_blocks_is_the_fourteenth(tmp_path: Path) -> None:
    folder = copied("diffusers-dit", tmp_path / "dit", {"num_layers": 28})
    tensors = load_file(folder / WEIGHTS)
    first = {k: v for k, v in tensors.items() if k.startswith("transformer_blocks.0.")}
    more = {k.replace(".0.", f".{n}.", 1): v.clone() for n in range(2, 28) for k, v in first.items()}
    save_file({**tensors, **more}, folder / WEIGHTS)
    assert families.load(read(str(folder))).layer("mid").name == "transformer_blocks.13"


@pytest.mark.parametrize("key", TABLES)
def test_noise_levels_are_the_library_s(key: str, tmp_path: Path) -> None:
    record = LEVELS[key]
    table = sigmas(TABLES[key])
    for row in record["forward"]:
        assert table[row["t"]] == pytest.approx(row["sigma"], rel=1e-9)
    folder = scheduler(copied("diffusers-unet", tmp_path / "unet"), _class_name="DDPMScheduler", **TABLES[key])
    noise = families.load(read(str(folder))).noise
    assert (noise.sigma_min, noise.sigma_max) == pytest.approx((record["sigma_min"], record["sigma_max"]), rel=1e-9)
    for row in record["inverse"]:
        if row["t_nearest"] is not None:
            assert noise.to_native(noise.check(row["sigma"])) == row["t_nearest"]
            assert noise.check(row["sigma"]) == pytest.approx(row["sigma_at_nearest"], rel=1e-9)


def test_the_table_is_that_of_the_library_itself() -> None:
    from diffusers import DDPMScheduler

    for said in TABLES.values():
        scheduler: Any = DDPMScheduler(**said)
        left = scheduler.alphas_cumprod.double()
        assert sigmas(said) == pytest.approx(((1 - left) / left).sqrt().tolist(), rel=1e-12)


def test_the_first_spelling_of_a_scheduler(tmp_path: Path) -> None:
    """google/ddpm-cifar10-32 was published with it, beside the network in one folder."""
    folder = copied("diffusers-unet", tmp_path / "old")
    scheduler(folder, _class_name="GaussianDDPMScheduler", timesteps=50, beta_start=1e-4, beta_end=0.02)
    (folder / "model_index.json").write_text('{"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]}')
    model = families.load(read(str(folder)))
    assert model.constructor["schedule"]["num_train_timesteps"] == 50
    assert model.noise.to_sigma(49) == model.noise.sigma_max
    assert model.warnings == ()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEulerDiscreteScheduler"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule is 'sigmoid'; expected one of linear, scaled_linear"),
        ({"prediction_type": "flow_prediction"}, "expected one of epsilon, v_prediction"),
        ({"beta_end": "much"}, "beta_end is 'much'; expected a number above 0"),
        ({"beta_end": 2.0}, "beta_end is 2.0; expected a number above 0"),
        ({"trained_betas": [0.1, "x"]}, "numbers between 0 and 1"),
    ],
)
def test_other_noise_is_refused(said: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = scheduler(copied("diffusers-unet", tmp_path / "unet"), **said)
    with pytest.raises(CheckpointError, match=message) as caught:
        families.load(read(str(folder)))
    assert "\n" not in str(caught.value)


def test_trained_betas_are_taken_as_they_are(tmp_path: Path) -> None:
    folder = scheduler(copied("diffusers-unet", tmp_path / "unet"), trained_betas=[0.5, 0.5])
    noise = families.load(read(str(folder))).noise
    assert (noise.sigma_min, noise.sigma_max) == pytest.approx((1, 3**0.5))


def test_config_says_what_no_file_does() -> None:
    model = families.load(read(str(DATA / "diffusers-unet")), config={"beta_schedule": "squaredcos_cap_v2"})
    assert model.noise.sigma_max == pytest.approx(20291.302933247258, rel=1e-9)
    assert model.warnings == ()
    with pytest.raises(UsageError, match="many`: expected one of"):
        families.load(read(str(DATA / "diffusers-unet")), config={"prediction_type": "many"})


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_posterior_mean_of_a_perfect_network(prediction: str) -> None:
    """A network that answers exactly what it was trained for gives the data back."""
    data, noise = torch.randn(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model = families.load(read(str(DATA / "diffusers-unet")), config={"prediction_type": prediction})
    sigma = model.noise.check(0.7)
    alpha = model.noise.input_scale(sigma)
    answer = {"epsilon": noise, "v_prediction": alpha * noise - sigma * alpha * data, "sample": data}[prediction]
    hooked(model).call = lambda module, x, time, label: answer
    found = model.denoise(data + sigma * noise, torch.tensor([sigma]), None)
    torch.testing.assert_close(found, data, rtol=0, atol=1e-5)


def counting(network: nn.Module) -> Iterator[list[str]]:
    executed: list[str] = []
    leaves = [(name, part) for name, part in network.named_modules() if not list(part.children())]
    handles = [p.register_forward_hook(lambda *_, name=name: executed.append(name)) for name, p in leaves]
    yield executed
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("name", ["diffusers-unet", "diffusers-dit"])
def test_nothing_after_the_deepest_layer_is_computed(name: str) -> None:
    model = built(name)
    tensors = golden(name)
    x, label = tensors["in/x"][:1], model.label(None, CPU)
    with torch.inference_mode():
        whole = dict(model.walk(x, 1.0, label))
        counted = counting(hooked(model).module)
        executed = next(counted)
        hooked(model)(x, torch.tensor([258.0]), label)
        every = list(executed)
        for wanted in ([model.layers[0].name], [model.default_layer], [model.default_layer, model.layers[0].name]):
            executed.clear()
            found = dict(model.walk(x, 1.0, label, wanted))
            assert set(found) == set(wanted)
            assert executed == every[: len(executed)]
            assert executed[-1].startswith(model.default_layer if len(wanted) > 1 else wanted[0])
            assert len(executed) < len(every)
            assert all(torch.equal(found[layer], whole[layer]) for layer in wanted)
        next(counted, None)


def traces(module: nn.Module) -> list[bool]:
    for part in module.modules():
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
    return [part.training for part in module.modules()]


@pytest.mark.parametrize("ending", ["normal", "early", "closed", "dropped", "exception"])
def test_hooks_come_off_and_flags_stay(ending: str) -> None:
    model = families.load(read(str(DATA / "diffusers-unet")))
    module = hooked(model).module
    for number, part in enumerate(module.modules()):
        part.training = number % 3 == 0
    before, x = traces(module), golden("diffusers-unet")["in/x"]
    if ending == "exception":
        with pytest.raises(RuntimeError, match="channels"):
            next(model.walk(x[:, :2], 1.0, None))
    else:
        walk = model.walk(x, 1.0, None, ["down_blocks.1"] if ending == "early" else None)
        assert next(walk)[0] == ("down_blocks.1" if ending == "early" else "conv_in")
        if ending == "closed":
            walk.close()  # type: ignore[attr-defined]
        elif ending == "dropped":
            del walk
        else:
            list(walk)
    assert traces(module) == before


def test_classes_of_a_unet(tmp_path: Path) -> None:
    folder = copied("diffusers-unet", tmp_path / "unet", {"num_class_embeds": 5})
    save_file({**load_file(folder / WEIGHTS), "class_embedding.weight": torch.ones(5, 32)}, folder / WEIGHTS)
    model = families.load(read(str(folder)))
    assert (model.classes.count, model.classes.null) == (5, False)
    with pytest.raises(UsageError, match="no null class"):
        model.label(None, CPU)
    with torch.inference_mode():
        found = dict(model.walk(torch.zeros(3, 3, 16, 16), 1.0, model.label(torch.tensor([1, 2, 4]), CPU)))
    assert found["conv_out"].shape == (3, 3, 16, 16)


def test_precision() -> None:
    model = families.load(read(str(DATA / "diffusers-dit")))
    tensors = golden("diffusers-dit")
    x, label = tensors["in/x"], model.label(None, CPU)
    with torch.inference_mode():
        exact = dict(model.walk(x, 1.0, label))
        model.network.set_precision(torch.bfloat16)
        rounded = dict(model.walk(x, 1.0, label))
    for name, value in rounded.items():
        assert value.dtype == torch.bfloat16
        assert float((value.float() - exact[name]).norm() / exact[name].norm()) < 0.02
    with pytest.raises(UsageError, match="load the checkpoint again"):
        model.network.set_precision(torch.float16)
