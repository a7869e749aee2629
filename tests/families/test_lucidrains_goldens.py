"""denoising-diffusion-pytorch's U-Net against tensors of the genuine one, and what its Trainer's files do not say.

Tolerances are the reference's: 2e-5 of a tensor's largest value, 1e-4 for pooled features; ours are at 1.1e-6.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Ran, diffscope, refused
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffscope import families
from diffscope.checkpoints import Checkpoint, read
from diffscope.errors import CheckpointError, UsageError, WeightsMismatch
from diffscope.families._gaussian_diffusion import SCHEDULES
from diffscope.families.base import Denoiser
from diffscope.families.lucidrains import LucidrainsDenoiser

DATA = Path(__file__).parents[1] / "data" / "lucidrains"
NAMES = ("model-1", "selfcond-2", "groupnorm-3")
SIZE = {"image_size": "8"}
UNET = {**SIZE, "beta_schedule": "sigmoid", "timesteps": "200", "objective": "pred_v"}


@cache
def golden(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return json.loads((DATA / f"{name}.json").read_text()), load_file(DATA / f"{name}.safetensors")


@cache
def model(name: str) -> Denoiser:
    said = golden(name)[0]["args"].split("--config ")[1:]
    return families.load(read(str(DATA / f"{name}.pt")), config=dict(fact.split("=") for fact in map(str.strip, said)))


@cache
def averaged(name: str = "model-1") -> dict[str, Tensor]:
    return dict(read(str(DATA / f"{name}.pt")).tensors)


def unet() -> dict[str, Tensor]:
    return {n.removeprefix("model."): t for n, t in averaged().items() if n.startswith("model.")}


def bare(tensors: dict[str, Tensor]) -> Checkpoint:
    return Checkpoint("x.pt", "state-dict", tensors, "model", "the file holds one set")


def first(denoiser: Denoiser) -> Tensor:
    return denoiser.network.state_dict()["init_conv.weight"]


def close(found: Tensor, expected: Tensor, tolerance: float = 2e-5) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_every_layer(name: str) -> None:
    record, tensors = golden(name)
    denoiser = model(name)
    assert [layer.name for layer in denoiser.layers] == record["layers"]
    assert {layer.name: list(layer.shape) for layer in denoiser.layers} == record["shapes"]
    assert denoiser.default_layer == record["default_layer"]
    assert sum(p.numel() for p in denoiser.network.parameters()) == record["num_parameters"]
    with torch.inference_mode():
        time = torch.tensor([float(record["step"][1])])
        close(denoiser.network.time_mlp(time).expand(2, -1), tensors["s1/emb"])  # type: ignore[operator]
        walked = dict(denoiser.network.walk(tensors["s1/x_in"], time))
        for layer in record["layers"]:
            close(walked[layer], tensors[f"s1/{layer}"])


@pytest.mark.parametrize("name", NAMES)
def test_noise_levels_and_denoised_images(name: str) -> None:
    record, tensors = golden(name)
    denoiser = model(name)
    for k, (sigma, step) in enumerate(zip(record["sigmas"], record["step"], strict=True)):
        assert denoiser.noise.to_native(sigma) == step
        assert denoiser.noise.to_sigma(step) == pytest.approx(sigma, rel=1e-12)  # both from the file's float32 table
        x = tensors["in/x0"] + sigma * tensors["in/noise"]
        close(x * denoiser.noise.input_scale(sigma), tensors[f"s{k}/x_in"])
        with torch.inference_mode():
            close(denoiser.predict(x, torch.tensor([sigma]), None), tensors[f"s{k}/output"])
            close(denoiser.denoise(x, torch.tensor([sigma]), None), tensors[f"s{k}/denoised"])


@pytest.mark.parametrize("name", NAMES)
def test_pooled_features(name: str) -> None:
    record, _ = golden(name)
    denoiser = model(name)
    images = torch.from_numpy(np.load(DATA / f"{name}.npy")).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        for sigma, expected in record["features"].items():
            walked = dict(denoiser.walk(denoiser.encode(images, None), float(sigma), None))
            for layer, features in expected.items():
                close(walked[layer].mean((2, 3)), torch.tensor(features), 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_constructor_is_the_package_s_own(name: str) -> None:
    record, _ = golden(name)
    said = model(name).constructor
    given = {"dim_mults": [1, 2], **record["unet_kwargs"], **record["diffusion_kwargs"]}
    levels = len(given["dim_mults"])
    for key, value in given.items():
        if key in ("attn_heads", "attn_dim_head") and isinstance(value, int):
            value = [value] * levels
        if key in said:
            assert said[key] == value, key
    objective = record["diffusion_kwargs"].get("objective", "pred_v")
    schedule = record["diffusion_kwargs"].get("beta_schedule", "sigmoid")
    assert model(name).network_class == f"Unet({schedule}, {objective})"


@pytest.mark.parametrize("name", NAMES)
def test_a_trainer_s_file(name: str) -> None:
    checkpoint = read(str(DATA / f"{name}.pt"))
    assert (checkpoint.weights, checkpoint.step, checkpoint.step_unit) == ("ema", 2000, "steps")
    assert checkpoint.weights_reason.startswith("the file holds 'ema.ema_model.*' and 'model'; the EMA is the default")
    raw = read(str(DATA / f"{name}.pt"), "model")
    assert not raw.tensors["model.init_conv.weight"].any()  # the golden's raw weights are zeroed
    assert checkpoint.tensors["model.init_conv.weight"].any()


def test_the_average_s_own_wrapper_holds_both_sets(tmp_path: Path) -> None:
    """`torch.save(trainer.ema.state_dict())`, or the same as safetensors."""
    whole = torch.load(DATA / "model-1.pt", weights_only=True)["ema"]
    torch.save(whole, tmp_path / "ema.pt")
    save_file({name: tensor.clone() for name, tensor in whole.items()}, tmp_path / "ema.safetensors")
    for file in ("ema.pt", "ema.safetensors"):
        average = families.load(read(str(tmp_path / file)), config=SIZE)
        assert torch.equal(first(average), first(model("model-1")))
        raw = families.load(read(str(tmp_path / file), "model"), config=SIZE)
        assert not first(raw).any()


def test_a_bare_unet_is_asked_for_its_schedule_and_then_the_same() -> None:
    with pytest.raises(CheckpointError, match=r"image_size, beta_schedule, timesteps, objective stand in no tensor"):
        families.load(bare(unet()))
    with pytest.raises(CheckpointError, match=r"objective stands in no tensor; say `config=objective=pred_noise\|"):
        families.load(bare(unet()), config={key: value for key, value in UNET.items() if key != "objective"})
    found, whole = families.load(bare(unet()), config=UNET), model("model-1")
    assert found.constructor == whole.constructor
    # The last abar are some 1e-6, differences of numbers near 1: computed otherwise, they are 3e-6 off.
    assert found.noise.sigmas == pytest.approx(whole.noise.sigmas, rel=1e-5)  # type: ignore[attr-defined]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_by_name(schedule: str) -> None:
    """Linear and sigmoid end near 160 and 1e5 at a thousand steps; a cosine's last betas are cut at 0.999."""
    said = {**UNET, "beta_schedule": schedule, "timesteps": "1000"}
    noise = families.load(bare(unet()), config=said).noise
    assert len(noise.sigmas) == 1000  # type: ignore[attr-defined]
    assert noise.sigma_min < 0.05 < 100 < noise.sigma_max
    if schedule == "linear":  # the DDPM's own, as in diffusers and DiT
        assert (noise.sigma_min, noise.sigma_max) == pytest.approx((0.0100005, 157.407), rel=1e-4)


def test_images_in_zero_to_one() -> None:
    with_range = families.load(bare(averaged()), config={**SIZE, "auto_normalize": "false"})
    images = torch.linspace(-1, 1, 192).view(1, 3, 8, 8)
    assert (float(with_range.encode(images, None).min()), float(with_range.encode(images, None).max())) == (0, 1)
    torch.testing.assert_close(with_range.decode(with_range.encode(images, None)), images)
    assert model("model-1").encode(images, None) is images


def changed(**tensors: Tensor | None) -> Checkpoint:
    found = {**averaged(), **{name: tensor for name, tensor in tensors.items() if tensor is not None}}
    return bare({name: tensor for name, tensor in found.items() if tensors.get(name, tensor) is not None})


def test_loss_weights_of_one_s_own_do_not_tell_the_objective() -> None:
    odd = changed(loss_weight=torch.full((200,), 0.7))
    with pytest.raises(CheckpointError, match="loss_weight does not tell what the network predicts"):
        families.load(odd, config=SIZE)
    found = families.load(odd, config={**SIZE, "objective": "pred_x0"})
    assert (found.constructor["objective"], "pred_x0 as given" in found.evidence) == ("pred_x0", True)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"objective": "pred_x0"}, "the file's own loss_weight is that of pred_v"),
        ({"timesteps": "1000"}, "the file's own table has 200 steps"),
        ({"beta_schedule": "linear"}, "the file's own table of noise levels is another"),
        ({"image_size": "7"}, "expected a multiple of 2"),
        ({"auto_normalize": "maybe"}, "expected one of true, false"),
    ],
)
def test_what_contradicts_the_file(config: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        families.load(bare(averaged()), config={**SIZE, **config})


def test_groups_are_asked_for() -> None:
    checkpoint = read(str(DATA / "groupnorm-3.pt"))
    with pytest.raises(CheckpointError, match=r"resnet_block_groups stands in no tensor.*8 groups where nobody set"):
        families.load(checkpoint, config=SIZE)
    with pytest.raises(UsageError, match="width 8 is no multiple"):
        families.load(checkpoint, config={**SIZE, "resnet_block_groups": "3"})
    other = families.load(checkpoint, config={**SIZE, "resnet_block_groups": "8"})
    _, tensors = golden("groupnorm-3")
    with torch.inference_mode():
        found = other.network(tensors["s1/x_in"], torch.tensor([90.0]))
    assert float((found - tensors["s1/output"]).abs().max()) > 1e-2  # the converse: other groups show


def table(*values: float) -> Tensor:
    return torch.tensor(values)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"alphas_cumprod": table(0.9, 0.95, 0.1)}, "runs from 0.9 to 0.1; expected it to fall strictly"),
        ({"alphas_cumprod": table(0.9, 0.5, 0.0)}, "expected it to fall strictly"),
        ({"alphas_cumprod": table(0.9, 0.5).half()}, r"is float16 \[2\]; expected float32"),
        ({"model.time_mlp.0.weights": table(1.0)}, "learned or random Fourier features"),
        ({"model.null_classes_emb": table(1.0)}, "classifier-free guidance"),
        ({"model.downs.0.2.fn.norm.g": table(1.0)}, "the layout of a release before 1.8"),
        ({"model.downs.0.2.mem_kv": None}, r"downs\.0\.2\.mem_kv is missing, as before release 1\.9"),
        ({"model.final_conv.weight": torch.zeros(6, 8, 1, 1)}, "one that learns its variance"),
        ({"model.final_conv.weight": torch.zeros(2, 8, 1, 1)}, "2 output channels for 3 input channels"),
        ({"model.mid_attn.mem_kv": torch.zeros(2, 2)}, "not a whole U-Net of denoising-diffusion-pytorch"),
    ],
)  # fmt: skip
def test_other_networks_are_refused_in_one_line(tensors: dict[str, Tensor | None], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        families.load(changed(**tensors), config=SIZE)
    assert "\n" not in str(caught.value)


def test_a_tensor_too_few() -> None:
    with pytest.raises(WeightsMismatch, match=r"missing: ups\.1\.0\.block1\.proj\.bias"):
        families.load(changed(**{"model.ups.1.0.block1.proj.bias": None}), config=SIZE)


def test_a_lightning_module_s_attribute_is_taken_off() -> None:
    found = families.load(bare({f"diffusion.{name}": tensor for name, tensor in averaged().items()}), config=SIZE)
    assert isinstance(found, LucidrainsDenoiser)
    assert found.constructor == model("model-1").constructor


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "model.safetensors"
    assert diffscope("convert", DATA / "model-1.pt", out, "--config", "image_size=8").code == 0
    return out


def measured(command: str, checkpoint: object, pictures: Path, *more: object) -> Ran:
    return diffscope(command, checkpoint, "--data", pictures, "--num-images", 64, "--workers", 0, "--json", *more)


def test_from_the_command_line(pictures: Path, converted: Path) -> None:
    refused(diffscope("inspect", DATA / "model-1.pt"), 1, "image_size stands in no tensor", "--config image_size=N")
    inspected = diffscope("inspect", DATA / "selfcond-2.pt", "--config", "image_size=8", "--json").json
    assert (inspected["family"], inspected["step"]) == ("lucidrains", 2000)
    assert "gets zeros for its own estimate" in inspected["warnings"][0]
    ran = measured("icr", DATA / "model-1.pt", pictures, "--config", "image_size=8", "--sigma", 0.5)
    (row,) = ran.json["rows"]
    assert (row["layer"], row["t"], row["d"]) == ("downs.1.3", 58, 16)
    assert row["sigma"] == pytest.approx(0.49607, abs=1e-5)
    again = measured("icr", converted, pictures, "--sigma", 0.5)
    assert again.json["rows"][0]["icr"] == row["icr"]
    swept = measured("sweep", converted, pictures, "--num-levels", 4)
    assert len(swept.json["rows"]) == 4


def test_track_takes_steps_from_the_files(pictures: Path, tmp_path: Path) -> None:
    """The number in `model-N.pt` is a milestone; the step stands in the file."""
    top = torch.load(DATA / "model-1.pt", weights_only=True)
    for milestone, step in ((1, 700), (2, 1400)):
        for name in ("init_conv.weight", "mid_block1.block1.proj.weight"):
            top["ema"][f"ema_model.model.{name}"] *= 1.1
        torch.save({**top, "step": step}, tmp_path / f"model-{milestone}.pt")
    ran = measured("track", tmp_path, pictures, "--config", "image_size=8", "--sigma", 0.5)
    assert ran.code == 0, ran.err
    assert [row["step"] for row in ran.json["rows"]] == [700, 1400]
    assert ran.json["rows"][0]["icr"] != ran.json["rows"][1]["icr"]
