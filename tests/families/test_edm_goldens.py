"""EDM's networks and preconditioners against the tensors that the genuine ones gave.

The walk is fed the recorded input of the network and every layer is compared; the denoiser is fed the noisy image and
its posterior mean is compared. Left out: `alt/D_x_augment`, for augmentation labels are never given at inference;
`ddpmpp_32_after_swap`, for the swap is no unit here and every whole DDPM++ network shows it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from diffscope import families
from diffscope.checkpoints import Checkpoint, read
from diffscope.families._building import build_on_meta
from diffscope.families._preconditioners import VEPrecond, iddpm_levels, iDDPMPrecond
from diffscope.families.base import Denoiser
from diffscope.families.edm import NETWORKS, infer_arguments
from diffscope.families.networks.dhariwal_unet import DhariwalUNet
from diffscope.families.networks.song_unet import SongUNet
from diffscope.families.networks.unet_blocks import Conv2d, PositionalEmbedding, UNetBlock, group_norm

DATA = Path(__file__).parents[1] / "data"
SHARED = Path(__file__).parents[3] / "shared" / "reference" / "golden" / "edm"
NAMES = [
    "ddpmpp_uncond_edm",
    "ddpmpp_cond_aug_edm",
    "ddpmpp_cond_vp",
    "ncsnpp_uncond_edm",
    "ncsnpp_uncond_ve",
    "songunet_skip_edm",
    "adm_cond_edm",
    "adm_cond_iddpm",
]
TOLERANCE = 2e-5
"""Of max|b| for each tensor: float32 rounding reaches 8e-6 where c_noise is near 1,000, real mistakes begin at 7e-4."""


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("bare", [False, True], ids=["kwargs", "inferred"])
def test_every_layer(name: str, bare: bool) -> None:
    _record, tensors = golden(name)
    network = denoiser(name, bare).network
    with torch.inference_mode():
        walked = dict(network.walk(tensors["mid/net_in"], tensors["mid/c_noise"], tensors.get("in/labels")))
    expected = {
        key.removeprefix("out/"): value for key, value in tensors.items() if key.startswith(("out/enc", "out/dec"))
    }
    assert len(expected) > 10
    for layer, value in expected.items():
        close(walked[layer], value, layer)
    close(walked["output"], tensors["out/F_x"], "F_x")


@pytest.mark.parametrize("bare", [False, True], ids=["kwargs", "inferred"])
def test_posterior_mean(name: str, bare: bool) -> None:
    _record, tensors = golden(name)
    close(denoised(denoiser(name, bare), tensors, tensors["in/sigma"]), tensors["out/D_x"], "D_x")


def test_posterior_mean_at_one_level_for_all(name: str) -> None:
    _record, tensors = golden(name)
    mean = denoised(denoiser(name), tensors, tensors["alt/sigma_scalar"])
    close(mean, tensors["alt/D_x_sigma_scalar"], "one sigma for all rows")


@pytest.mark.parametrize("name", [n for n in NAMES if "cond_" in n and "uncond" not in n])
def test_null_label_is_all_zero(name: str) -> None:
    _record, tensors = golden(name)
    assert not tensors["in/labels"][2].any()
    unlabelled = {**tensors, "in/labels": None}
    mean = denoised(denoiser(name), unlabelled, tensors["in/sigma"])
    close(mean, tensors["alt/D_x_labels_none"], "no label")
    close(mean[2], tensors["out/D_x"][2], "row 2, whose label is all zero")
    assert gap(mean[1], tensors["out/D_x"][1]) > TOLERANCE, "labels have no effect"


def test_what_the_blocks_are_fed(name: str) -> None:
    """The embedding, the scaled input, and the main path behind a side branch, which the walk does not yield."""
    _record, tensors = golden(name)
    model = denoiser(name)
    entries: dict[str, tuple[Tensor, ...]] = {}
    handles = [
        module.register_forward_pre_hook(lambda _module, args, n=f"{part}.{entry}": entries.__setitem__(n, args))
        for part in ("enc", "dec")
        for entry, module in getattr(model.network, part).items()
    ]
    denoised(model, tensors, tensors["in/sigma"])
    for handle in handles:
        handle.remove()
    names = [layer.name for layer in model.layers]
    close(entries[names[0]][0], tensors["mid/net_in"], "net_in")
    close(entries[names[1]][1][rounded(name) :], tensors["mid/emb"][rounded(name) :], "emb")
    streams = {key.removeprefix("stream/"): value for key, value in tensors.items() if key.startswith("stream/")}
    assert bool(streams) == ("ncsnpp" in name or "skip" in name)
    for layer, value in streams.items():
        close(entries[names[names.index(layer) + 1]][0], value, f"stream behind {layer}")


def test_names_of_layers_and_weights(name: str) -> None:
    record, _tensors = golden(name)
    model = denoiser(name)
    inner = [layer for layer in model.layers if layer.name.startswith(("enc.", "dec."))]
    assert [(layer.name, list(layer.shape)) for layer in inner] == [(r["name"], r["out_chw"]) for r in record["layers"]]
    outer = [layer.name for layer in model.layers[len(inner) :]]
    assert outer == (["out_norm", "out_conv"] if record["network_class"] == "DhariwalUNet" else [])
    heads = [getattr(model.network.get_submodule(layer.name), "heads", 0) for layer in inner]
    assert heads == [r["num_heads"] for r in record["layers"]]
    assert list(model.network.state_dict()) == [k.removeprefix("model.") for k in record["state_keys"] if k != "u"]
    counted = sum(parameter.numel() for parameter in model.network.parameters())
    assert counted == record["num_parameters"]


def test_weights_alone_tell_the_arguments(name: str) -> None:
    """All that the constructor was given, but for what has no effect on an untrained or attentionless layer."""
    record, tensors = golden(name)
    inferred = infer_arguments("x", weights(tensors))
    said = {"in_channels" if k == "img_channels" else k: v for k, v in record["init_kwargs"].items()}
    for key in said.keys() & inferred.keys() - {"attn_resolutions"}:
        assert inferred[key] == said[key], key
    # ADM below 64 channels attends nowhere, whatever was asked for.
    assert set(inferred["attn_resolutions"]) <= set(said["attn_resolutions"])


def test_preconditioner_and_range(name: str) -> None:
    record, tensors = golden(name)
    model, attributes = denoiser(name), record["precond_attributes"]
    assert type(model.noise).__name__ == record["class_name"]
    assert model.noise.sigma_max == pytest.approx(float(attributes["sigma_max"]), rel=1e-6)
    # VP's float32 attribute, 0.0009765625, has lost two digits; analytically it is 0.0010005.
    low = 0.0010005 if "vp" in name else float(attributes["sigma_min"])
    assert model.noise.sigma_min == pytest.approx(low, rel=1e-4)
    pairs = list(zip(tensors["in/sigma"].tolist(), tensors["mid/c_noise"].tolist(), strict=True))
    for sigma, c_noise in pairs[rounded(name) :]:
        assert model.noise.to_native(sigma) == pytest.approx(c_noise, abs=TOLERANCE * max(1, abs(c_noise)))


def test_another_preconditioner_is_told_apart() -> None:
    """The converse: the comparison sees a wrong preconditioner behind the right network."""
    record, tensors = golden("ddpmpp_uncond_edm")
    wrong = families.load(checkpoint(record, tensors, bare=True), config={"precond": "VPPrecond"})
    assert gap(denoised(wrong, tensors, tensors["in/sigma"]), tensors["out/D_x"]) > 100 * TOLERANCE


def test_iddpm_table() -> None:
    """To the last bit on the processor that made the golden. Another one's float32 sine is off by a unit in the last
    place, which a thousand steps of the recursion turn into 1e-6 (correctly rounded sines: 1.3e-5)."""
    _record, tensors = golden("adm_cond_iddpm")
    torch.testing.assert_close(iddpm_levels(0.001, 0.008, 1000), tensors["sd/u"], rtol=2e-5, atol=0)


def test_iddpm_rounds_as_the_reference() -> None:
    _record, tensors = golden("adm_cond_iddpm")
    noise = denoiser("adm_cond_iddpm").noise
    assert isinstance(noise, iDDPMPrecond)
    queries = tensors["in/round_query"].tolist()
    assert [noise.index(q) for q in queries] == tensors["out/round_index"].tolist()
    assert [noise.nearest(q) for q in queries] == tensors["out/round_sigma"].tolist()
    assert [noise.to_native(q) for q in queries] == (999 - tensors["out/round_index"]).tolist()


def test_iddpm_without_its_table() -> None:
    """A wrapper that was stripped took `u` with it; twice the channels still say what the network is."""
    record, tensors = golden("adm_cond_iddpm")
    model = families.load(checkpoint(record, {k: v for k, v in tensors.items() if k != "sd/u"}, bare=True))
    assert isinstance(model.noise, iDDPMPrecond)
    close(denoised(model, tensors, tensors["in/sigma"]), tensors["out/D_x"], "D_x")


def test_ve_range() -> None:
    noise = denoiser("ncsnpp_uncond_ve").noise
    assert isinstance(noise, VEPrecond)
    assert (noise.sigma_min, noise.sigma_max) == (0.02, 100.0)


UNITS = json.loads((DATA / "edm" / "units_edm.json").read_text())["units"]


@pytest.mark.parametrize("unit", UNITS)
def test_unit(unit: str) -> None:
    module, inputs, y = unit_case(unit)
    with torch.inference_mode():
        close(module(*inputs), y, unit)


def test_a_wrong_epsilon_is_told_apart() -> None:
    """The converse: inputs of low variance show an epsilon of 1e-5 where 1e-6 is right."""
    module, inputs, y = unit_case("groupnorm_c24_eps1e-6_lowvar")
    module.eps = 1e-5  # type: ignore[assignment]
    assert gap(module(*inputs), y) > 10 * TOLERANCE


@pytest.mark.parametrize(("endpoint", "key"), [(False, "adm_32"), (True, "ddpmpp_32_before_swap")])
def test_positional_embedding(endpoint: bool, key: str) -> None:
    tensors = load_file(DATA / "edm" / "units_edm.safetensors")
    close(PositionalEmbedding(32, endpoint)(tensors["embed/in/c_noise"]), tensors[f"embed/out/{key}"], key)


DDPMPP: dict[str, Any] = {"in_channels": 3, "out_channels": 3, "augment_dim": 9}
NCSNPP: dict[str, Any] = {
    **DDPMPP,
    "embedding_type": "fourier",
    "channel_mult_noise": 2,
    "encoder_type": "residual",
    "resample_filter": [1, 3, 3, 1],
}
CIFAR: dict[str, Any] = {"img_resolution": 32, "channel_mult": [2, 2, 2]}
ADM: dict[str, Any] = {"img_resolution": 64, "in_channels": 3, "label_dim": 1000}


@pytest.mark.parametrize(
    ("network", "arguments", "parameters", "tensors"),
    [  # reference/edm.md, section 8: the table of published files
        ("SongUNet", {**DDPMPP, **CIFAR, "label_dim": 10}, 55_735_299, 427),
        ("SongUNet", {**DDPMPP, **CIFAR}, 55_733_891, 425),
        ("SongUNet", {**NCSNPP, **CIFAR, "label_dim": 10}, 56_400_643, 434),
        ("SongUNet", {**NCSNPP, **CIFAR}, 56_397_827, 432),
        ("SongUNet", {**DDPMPP, "img_resolution": 64}, 61_805_571, 553),
        ("SongUNet", {**NCSNPP, "img_resolution": 64}, 62_761_091, 563),
        ("DhariwalUNet", {**ADM, "out_channels": 3}, 295_899_267, 553),
        ("DhariwalUNet", {**ADM, "out_channels": 6}, 295_904_454, 553),
    ],
)
def test_published_sizes(network: str, arguments: Mapping[str, Any], parameters: int, tensors: int) -> None:
    """Built on the meta device, which costs no memory; the names and shapes alone give the arguments back."""
    built = build_on_meta(lambda: NETWORKS[network](**arguments), "x")
    assert sum(p.numel() for p in built.parameters()) == parameters
    assert len(built.state_dict()) == tensors
    inferred = infer_arguments("x", built.state_dict())
    assert inferred.pop("model_type") == network
    assert {key: inferred[key] for key in arguments} == arguments


def test_published_layer_names() -> None:
    """reference/edm.md, section 9: CIFAR-10 DDPM++ is 36 layers long; heads are read off the blocks."""
    network = build_on_meta(lambda: SongUNet(**DDPMPP, **CIFAR), "x")
    names = [f"enc.{n}" for n in network.get_submodule("enc")._modules] + [
        f"dec.{n}" for n in network.get_submodule("dec")._modules
    ]
    assert (len(names), names[14], names[15], names[35]) == (
        36, "enc.8x8_block3", "dec.8x8_in0", "dec.32x32_aux_conv",
    )  # fmt: skip
    attending = [n for n in names if getattr(network.get_submodule(n), "heads", 0)]
    assert attending == [f"enc.16x16_block{i}" for i in range(4)] + ["dec.8x8_in0", "dec.16x16_block4"]


def test_adm_heads() -> None:
    network = build_on_meta(lambda: DhariwalUNet(**ADM, out_channels=3), "x")
    heads = {n: network.get_submodule(n).heads for n in ("enc.32x32_block0", "enc.16x16_block2", "dec.8x8_in0")}
    assert heads == {"enc.32x32_block0": 6, "enc.16x16_block2": 9, "dec.8x8_in0": 12}
    assert network.get_submodule("dec.8x8_in1").heads == 0
    assert network.get_submodule("dec.64x64_block3").heads == 0


@pytest.mark.parametrize("name", ["edm_ddpmpp", "edm_ncsnpp_cond"])
def test_whole_file_to_features(name: str) -> None:
    """A pickle of the original code, read, built and walked: spatial means of c_in·x, without noise and label."""
    record = json.loads((DATA / "containers" / f"{name}.json").read_text())
    images = torch.from_numpy(np.load(DATA / "containers" / f"{name}.npy")).permute(0, 3, 1, 2)
    model = families.load(read(str(DATA / "containers" / f"{name}.pkl")))
    for sigma, layers in record["features"].items():
        with torch.inference_mode():
            walked = dict(model.walk(images.float() / 127.5 - 1, float(sigma), model.label(None, torch.device("cpu"))))
        for layer in record["layers"]:
            close(walked[layer].mean((2, 3)), torch.tensor(layers[layer]), f"{layer} at {sigma}")


@cache
def golden(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The record and the tensors of a golden: the copy here, else the project's shared folder, else a skip."""
    for folder in (DATA / "edm", SHARED):
        if (folder / f"{name}.safetensors").is_file():
            record = json.loads((folder / f"{name}.json").read_text())
            return record, load_file(folder / f"{name}.safetensors")
    pytest.skip(f"{name} lies in the shared folder only, which is not here")


def weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's own, as a bare state dict; the table u is the preconditioner's."""
    names = [key for key in tensors if key.startswith("sd/model.")]
    return {key.removeprefix("sd/model."): tensors[key] for key in names}


def checkpoint(record: Mapping[str, Any], tensors: Mapping[str, Tensor], bare: bool) -> Checkpoint:
    """What reading a snapshot gives, or with `bare` a state dict that says nothing of itself."""
    state = {key.removeprefix("sd/"): value for key, value in tensors.items() if key.startswith("sd/")}
    order = [key for key in record["state_keys"] if key in state]
    state = {key: state[key] for key in order}
    if bare:
        return Checkpoint("weights.pt", "state-dict", state, "model", "the file holds one set")
    attributes = {k: math.inf if v == "inf" else v for k, v in record["precond_attributes"].items()}
    return Checkpoint(
        "network-snapshot-000001.pkl", "edm-pickle", state, "ema", "the file holds 'ema' alone",
        class_name=record["class_name"], network_class=record["network_class"],
        arguments=record["init_kwargs"], attributes=attributes,
    )  # fmt: skip


@cache
def denoiser(name: str, bare: bool = False) -> Denoiser:
    record, tensors = golden(name)
    # EDM, VP and VE preconditioners leave no trace in the weights; the user names them.
    asked = {"precond": record["class_name"]} if bare and record["class_name"] in ("VPPrecond", "VEPrecond") else {}
    return families.load(checkpoint(record, tensors, bare), config=asked)


def rounded(name: str) -> int:
    """Rows to leave out: the reference takes VP's ln(1 + σ²) in float32, 1 % off at σ = 0.002, where we are exact."""
    return 1 if "vp" in name else 0


def denoised(model: Denoiser, tensors: Mapping[str, Tensor | None], sigma: Tensor) -> Tensor:
    x = tensors["in/x"]
    assert x is not None
    with torch.inference_mode():
        return model.denoise(x, sigma, tensors.get("in/labels"))


def unit_case(unit: str) -> tuple[nn.Module, list[Tensor], Tensor]:
    """The module with the unit's weights, its inputs and its output."""
    tensors = load_file(DATA / "edm" / "units_edm.safetensors")
    inputs = [tensors[f"{unit}/in/{key}"] for key in ("x", "emb") if f"{unit}/in/{key}" in tensors]
    module = unit_module(UNITS[unit], inputs)
    prefix = f"{unit}/sd/"
    module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    return module.requires_grad_(False), inputs, tensors[f"{unit}/out/y"]


def unit_module(settings: Mapping[str, Any], inputs: list[Tensor]) -> nn.Module:
    if "num_channels" in settings:
        norm = group_norm(settings["num_channels"], settings["eps"])
        assert norm.num_groups == settings["groups"]
        return norm
    if "style" in settings:
        resample: Any = next((mode for mode in ("up", "down") if settings.get(mode)), None)
        channels = settings["in_channels"], settings["out_channels"], inputs[1].shape[1]
        block = UNetBlock(*channels, settings.get("num_heads", 0), resample, scale_shift=settings["style"] == "adm")
        assert block.norm0.eps == settings["eps"]
        return block
    kernel, fused = settings["kernel"], settings.get("fused", False)
    return Conv2d(5, 6 if kernel else 5, kernel, settings["mode"], settings["filter"], fused_down=fused)


def gap(a: Tensor, b: Tensor) -> float:
    """max|a-b| / max|b|."""
    assert a.shape == b.shape
    return float((a - b).abs().max() / b.abs().max())


def close(a: Tensor, b: Tensor, what: str) -> None:
    assert gap(a, b) <= TOLERANCE, f"{what}: {gap(a, b):.1e}"
