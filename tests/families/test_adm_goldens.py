"""Guided- and improved-diffusion: the recorded networks, the released sizes, and what is asked of their files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from commands import DATA
from safetensors.torch import load_file
from torch import Tensor

from diffscope import families
from diffscope.checkpoints import Checkpoint, read
from diffscope.errors import CheckpointError, DiffscopeError, NoiseLevelError, UnknownFamily, UsageError
from diffscope.families._adm_releases import RELEASES, Release
from diffscope.families._building import build_on_meta
from diffscope.families.adm import infer_arguments, release_of, sigmas
from diffscope.families.base import Denoiser
from diffscope.families.networks.adm_unet import ADMUNet, AttentionBlock, ResBlock

FOLDER = DATA / "adm"
NAMES = ("adm_cond", "adm_new_order", "iddpm")
TOLERANCE = 2e-5
"""Of a tensor's largest value: float32 through some ten blocks, where another order of sums shows at 3e-6."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Golden:
    record: dict[str, Any]
    tensors: dict[str, Tensor]
    checkpoint: Checkpoint
    config: dict[str, str]
    """As the record's command line says it."""

    @property
    def label(self) -> Tensor | None:
        return self.tensors.get("in/y")


@cache
def golden(name: str) -> Golden:
    record = json.loads((FOLDER / f"{name}.json").read_text())
    said = record["args"].partition(" --class")[0].split("--config ")[1:]
    config = dict(part.strip().split("=") for part in said)
    return Golden(record, load_file(FOLDER / f"{name}.safetensors"), read(str(FOLDER / f"{name}.pt")), config)


@cache
def denoiser(name: str) -> Denoiser:
    return families.load(golden(name).checkpoint, config=golden(name).config)


def bare(path: str, tensors: Mapping[str, Tensor], **said: Any) -> Checkpoint:
    return Checkpoint(path, "state-dict", tensors, "model", "the file holds one set", **said)


def embedded(model: Denoiser, time: Tensor, label: Tensor | None) -> Tensor:
    assert isinstance(model.network, ADMUNet)
    return model.network.embed(time, label)


def gap(a: Tensor, b: Tensor) -> float:
    """max|a-b| / max|b|."""
    assert a.shape == b.shape
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_network_values(name: str) -> None:
    """Scaled input, embedding, every layer, the whole output and the denoised image at three levels."""
    found, model = golden(name), denoiser(name)
    x0, noise = found.tensors["in/x0"], found.tensors["in/noise"]
    compared = set()
    for k, sigma in enumerate(found.record["sigmas"]):
        x = x0 + sigma * noise
        time = torch.tensor([model.noise.to_native(sigma)])
        with torch.inference_mode():
            values = dict(model.walk(x, sigma, found.label))
            values["x_in"] = x * model.noise.input_scale(sigma)
            values["emb"] = embedded(model, time, found.label)
            values["output"] = model.network(values["x_in"], time, found.label)
            values["denoised"] = model.denoise(x, torch.tensor([sigma]), found.label)
        for key in (key for key in found.tensors if key.startswith(f"s{k}/")):
            part = key.partition("/")[2]
            expected = found.tensors[key]
            value = values[part].expand(expected.shape) if part == "emb" else values[part]
            assert gap(value, expected) <= TOLERANCE, f"{key}: {gap(value, expected):.1e}"
            compared.add(key)
    assert compared == {key for key in found.tensors if not key.startswith("in/")}


@pytest.mark.parametrize("name", NAMES)
def test_whole_file_to_features(name: str) -> None:
    """Spatial means on clean images: 1e-4 of each layer's largest."""
    record, model = golden(name).record, denoiser(name)
    images = torch.from_numpy(np.load(FOLDER / f"{name}.npy")).permute(0, 3, 1, 2).float() / 127.5 - 1
    chosen = record["feature_class"]
    label = model.label(None if chosen is None else torch.full((1,), chosen), CPU)
    for sigma, layers in record["features"].items():
        with torch.inference_mode():
            walked = dict(model.walk(images, float(sigma), label))
        assert list(walked) == record["layers"]
        for layer, expected in layers.items():
            assert gap(walked[layer].mean((2, 3)), torch.tensor(expected)) <= 1e-4, f"{layer} at {sigma}"


@pytest.mark.parametrize("name", NAMES)
def test_names_shapes_and_noise(name: str) -> None:
    record, model = golden(name).record, denoiser(name)
    assert {layer.name: list(layer.shape) for layer in model.layers} == record["shapes"]
    assert [layer.name for layer in model.layers] == record["layers"]
    assert model.default_layer == record["default_layer"]
    assert sum(p.numel() for p in model.network.parameters()) == record["num_parameters"]
    assert (model.space.side, model.space.resize) == (8, "adm")
    for step, sigma in zip(record["step"], record["sigmas"], strict=True):
        fed = model.noise.to_native(sigma)
        assert fed == record["fed_time"][repr(sigma)] == step * model.noise.spacing
        assert model.noise.to_sigma(fed) == pytest.approx(sigma, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_tensors_tell_the_sizes(name: str) -> None:
    """All that the original constructor was given, but for what has no effect on one level (resblock_updown)."""
    said, sizes = golden(name).record["constructor_kwargs"], infer_arguments("x", golden(name).checkpoint.tensors)
    for key in said.keys() & sizes.keys() - ({"resblock_updown"} if name == "adm_new_order" else set()):
        assert sizes[key] == said[key], key


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("adm_cond", {"use_new_attention_order": "true"}),
        ("adm_cond", {"num_head_channels": "32"}),
        ("iddpm", {"num_heads": "2"}),
        ("iddpm", {"rescale_timesteps": "false"}),
    ],
)
def test_a_wrong_fact_is_told_apart(name: str, wrong: Mapping[str, str]) -> None:
    """The converse: the comparison sees what no tensor shows.

    Time as well, but in the embedding alone: `iddpm` is so narrow that each channel is a group of its own, and its
    norm takes off what the embedding shifts.
    """
    found = golden(name)
    model = families.load(found.checkpoint, config={**found.config, **wrong})
    sigma = found.record["sigmas"][1]
    x, time = found.tensors["in/x0"] + sigma * found.tensors["in/noise"], torch.tensor([model.noise.to_native(sigma)])
    with torch.inference_mode():
        middle = dict(model.walk(x, sigma, found.label))["middle_block"]
        embedding = embedded(model, time, found.label).expand(found.tensors["s1/emb"].shape)
    found_by = [gap(middle, found.tensors["s1/middle_block"]), gap(embedding, found.tensors["s1/emb"])]
    assert max(found_by) > 100 * TOLERANCE


def test_the_embedding_as_a_shift_is_a_bias_before_the_norm() -> None:
    """What no golden shows (see above): two channels a group, where a shift of single channels has an effect."""
    torch.manual_seed(0)
    block, x = ResBlock(64, 64, 16, scale_shift=False).requires_grad_(False), torch.randn(2, 64, 4, 4)
    condition = torch.randn(1, 16)
    linear = block.emb_layers["1"]
    assert isinstance(linear, torch.nn.Linear)
    shift = linear(condition)[0]
    shifted = block(x, condition)
    assert gap(block(x, 0 * condition), shifted) > 1e-3
    block.in_layers["2"].bias += shift
    linear.bias.zero_()
    assert gap(block(x, 0 * condition), shifted) < 1e-6


@pytest.mark.parametrize(
    ("schedule", "steps", "first", "middle", "last"),
    [  # reference: the page's table
        ("linear", 1000, 0.010000500038, 3.442967112531, 157.407280818),
        ("linear", 4000, 0.005000062501, 3.420377331938, 153.450188954),
        ("cosine", 1000, 0.006425412771, 1.015550550520, 20291.1696100),
        ("cosine", 4000, 0.003141005595, 1.013178874576, 81164.6477356),
    ],
)
def test_noise_levels(schedule: str, steps: int, first: float, middle: float, last: float) -> None:
    levels = sigmas(schedule, steps)
    assert len(levels) == steps
    assert (levels[0], levels[steps // 2], levels[-1]) == pytest.approx((first, middle, last), rel=1e-9)


def test_rescaled_time_is_fed_and_taken() -> None:
    noise = denoiser("iddpm").noise
    assert noise.spacing == 0.25
    assert noise.to_sigma(375.25) > noise.to_sigma(375)
    for wrong in (0.3, -0.25, 1000):
        with pytest.raises(NoiseLevelError, match=r"expected a multiple of 0\.25 from 0 to 999\.75"):
            noise.to_sigma(wrong)


def test_the_two_orders_of_attention_differ_in_rows_alone() -> None:
    """Rows put from [q, k, v] of each head to all q, all k, all v: the same result by the other order."""
    torch.manual_seed(0)
    legacy, new = (AttentionBlock(64, 4, new_order=order).requires_grad_(False) for order in (False, True))
    state = legacy.state_dict()
    new.load_state_dict(state)
    x = torch.randn(2, 64, 4, 4)
    assert gap(new(x), legacy(x)) > 1e-3
    for key in ("qkv.weight", "qkv.bias"):
        state[key] = state[key].unflatten(0, (4, 3, 16)).transpose(0, 1).flatten(0, 2)
    new.load_state_dict(state)
    assert gap(new(x), legacy(x)) < 1e-6


PARAMETERS = {
    "64x64_diffusion": 295_904_454, "128x128_diffusion": 421_529_606, "256x256_diffusion": 553_838_086,
    "256x256_diffusion_uncond": 552_814_086, "512x512_diffusion": 558_997_638,
    "imagenet64_uncond_100M_1500K": 121_063_942, "imagenet64_cond_270M_250K": 273_049_350,
    "cifar10_uncond_50M_500K": 52_546_438, "lsun_uncond_100M_1200K_bs128": 113_676_678,
}  # fmt: skip


def outline(release: Release) -> dict[str, Tensor]:
    """The released network's tensors, on the meta device."""
    heads = {key: value for key, value in release.settings.items() if key.startswith("num_head")}
    network = build_on_meta(lambda: ADMUNet(in_channels=3, out_channels=6, **release.sizes, **heads), "x")
    return dict(network.state_dict())


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.files[0])
def test_released_networks(release: Release) -> None:
    """Sizes and settings from the outline alone: sides and heads as the README's flags have them."""
    file = release.files[0]
    tensors = outline(release)
    assert release_of(infer_arguments("x", tensors)) is release
    model = families.load(bare(f"{file}.pt", tensors))
    assert sum(p.numel() for p in model.network.parameters()) == PARAMETERS[file]
    assert model.warnings == ()
    assert f"the released {file}.pt" in model.evidence
    side = 64 if "imagenet64" in file else 32 if "cifar" in file else 256 if "lsun" in file else int(file.split("x")[0])
    assert model.space.side == side
    assert model.constructor.items() >= {**release.sizes, **release.settings}.items()
    assert model.classes.count == (release.sizes["num_classes"] or 0)
    assert model.classes.null == (release.sizes["num_classes"] is None)


def test_layers_of_64x64_diffusion() -> None:
    """The page's example, §7."""
    model = families.load(bare("64x64_diffusion.pt", outline(RELEASES[0])))
    shapes = {layer.name: layer.shape for layer in model.layers}
    assert shapes["input_blocks.3"] == (192, 64, 64)
    assert shapes["input_blocks.4"] == (192, 32, 32)
    assert shapes["input_blocks.11"] == (576, 16, 16)
    assert shapes["output_blocks.3"] == (768, 16, 16)
    assert shapes["output_blocks.11"] == (384, 64, 64)
    assert model.default_layer == "input_blocks.15"
    assert shapes["input_blocks.15"] == shapes["middle_block"] == (768, 8, 8)


def test_the_sizes_of_a_release_under_another_name_are_said() -> None:
    model = families.load(bare("ema_0.9999_050000.pt", outline(RELEASES[5])), config={"noise_schedule": "linear"})
    assert model.constructor["num_heads"] == 4
    assert model.constructor["noise_schedule"] == "linear"
    (warning,) = model.warnings
    assert warning == (
        "no tensor tells image_size=64, num_heads=4, use_new_attention_order=False, diffusion_steps=4000, "
        "rescale_timesteps=True, predict_xstart=False: assumed, as of the released imagenet64_uncond_100M_1500K, whose "
        "sizes these are (`config=KEY=VALUE`)"
    )


def test_what_no_tensor_tells_is_asked_for_at_once() -> None:
    with pytest.raises(
        CheckpointError, match=r"`config=image_size=N`.*32: `config=num_heads=N` or `config=num_head_ch"
    ):
        families.load(golden("adm_cond").checkpoint)
    with pytest.raises(CheckpointError, match=r"step · 1000/4000 .*`config=rescale_timesteps=true` or false"):
        families.load(
            golden("iddpm").checkpoint, config={"image_size": "8", "num_heads": "4", "diffusion_steps": "4000"}
        )


def test_what_is_assumed_is_said() -> None:
    (warning,) = denoiser("adm_cond").warnings
    assert "use_new_attention_order=False, noise_schedule=linear, diffusion_steps=1000, predict_xstart=False" in warning
    found = golden("adm_cond")
    one_head = families.load(found.checkpoint, config={"image_size": "8", "num_heads": "1", "predict_xstart": "False"})
    assert "no tensor tells noise_schedule=linear, diffusion_steps=1000: " in one_head.warnings[0]


def test_predict_xstart() -> None:
    found = golden("iddpm")
    model = families.load(found.checkpoint, config={**found.config, "predict_xstart": "true"})
    sigma = found.record["sigmas"][1]
    with torch.inference_mode():
        mean = model.denoise(found.tensors["in/x0"] + sigma * found.tensors["in/noise"], torch.tensor([sigma]), None)
    assert gap(mean, found.tensors["s1/output"][:, :3]) <= TOLERANCE


def test_there_is_no_null_class() -> None:
    model = denoiser("adm_cond")
    assert (model.classes.count, model.classes.null, model.classes.null_trained) == (5, False, False)
    with pytest.raises(UsageError, match="no null class"):
        model.label(None, CPU)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"image_size": "7"}, "expected a multiple of 2"),
        ({"num_heads": "2"}, "expected one of the two"),
        ({"num_head_channels": "12"}, "num_head_channels is 12, but attention has 32 channels"),
        ({"noise_schedule": "sigmoid"}, "expected one of linear, cosine"),
        ({"diffusion_steps": "10", "rescale_timesteps": "true"}, "leave no signal"),
        ({"use_new_attention_order": "maybe"}, "expected true or false"),
    ],
)
def test_wrong_facts_are_refused(config: Mapping[str, str], message: str) -> None:
    found = golden("adm_cond")
    with pytest.raises(UsageError, match=message):
        families.load(found.checkpoint, config={**found.config, **config})


def widened(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> None:
    tensors[name] = torch.zeros(shape)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: widened(t, "input_blocks.0.0.weight", (32, 6, 3, 3)), "6 channels: a super-resolution network"),
        (lambda t: widened(t, "input_blocks.0.0.weight", (32, 4, 3, 3)), "4 channels: another network"),
        (lambda t: widened(t, "out.2.weight", (5, 32, 3, 3)), "5 output channels for 3"),
        (lambda t: [t.pop(n) for n in list(t) if n.startswith("input_blocks.1.")], "3 input blocks, 4 output blocks"),
        (lambda t: t.pop("input_blocks.1.0.emb_layers.1.weight"), "not a whole U-Net"),
        (lambda t: t.pop("input_blocks.1.0.emb_layers.1.bias"), r"missing: input_blocks\.1\.0\.emb_layers\.1\.bias"),
        (lambda t: widened(t, "label_emb.weight", (5,)), r"other shape: label_emb\.weight"),
        (lambda t: widened(t, "time_embed.0.weight", (128, 33)), "expected an even number|other shape"),
        (lambda t: widened(t, "middle_block.1.qkv.weight", (0, 32, 1)), "is empty"),
        (lambda t: widened(t, "time_embed.0.weight", (128,)), "not a whole U-Net"),
    ],
)  # fmt: skip
def test_other_networks_are_refused(change: Callable[[dict[str, Tensor]], object], message: str) -> None:
    found = golden("adm_cond")
    tensors = dict(found.checkpoint.tensors)
    change(tensors)
    with pytest.raises(DiffscopeError, match=message) as caught:
        families.load(bare("x.pt", tensors), config=found.config)
    assert "\n" not in str(caught.value)


def test_look_alikes_are_named() -> None:
    tensors = golden("adm_cond").checkpoint.tensors
    latent = {f"model.diffusion_model.{name}": tensor for name, tensor in tensors.items()}
    with pytest.raises(UnknownFamily, match="latent diffusion"):
        families.load(bare("ldm.ckpt", latent))
    encoder = {name: tensor for name, tensor in tensors.items() if not name.startswith("output_blocks.")}
    encoder |= {f"out.2.{name}.weight": torch.ones(4, 4, 1) for name in ("qkv_proj", "c_proj")}
    del encoder["out.2.weight"]
    with pytest.raises(UnknownFamily, match="classifier"):
        families.load(bare("64x64_classifier.pt", encoder))
