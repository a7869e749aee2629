"""EDM2 against tensors of the original network: every layer, the denoised image, and the primitives one by one.

Tolerance 2e-5 of a tensor's largest value: float32 rounding of another order of operations is below 2e-6, and the
mildest of known mistakes (another epsilon, other weights in a concatenation) shows at 7e-4.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from diffscope import families
from diffscope.checkpoints import Checkpoint
from diffscope.errors import CheckpointError
from diffscope.families.edm2 import EDM2Denoiser
from diffscope.families.networks.edm2_unet import MPConv, mp_cat, mp_silu, mp_sum, normalize
from diffscope.families.networks.walk import OUTPUT

DATA = Path(__file__).parents[1] / "data" / "edm"
NAMES = ("edm2_cond", "edm2_uncond_latent")


def golden(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return json.loads((DATA / f"{name}.json").read_text()), load_file(DATA / f"{name}.safetensors")


def model(name: str) -> EDM2Denoiser:
    record, tensors = golden(name)
    state = {key[3:]: value for key, value in tensors.items() if key.startswith("sd/")}
    heads = {"channels_per_head": str(record["init_kwargs"]["channels_per_head"])}
    denoiser = families.load(Checkpoint("x.pkl", "edm-pickle", state, "ema", ""), config=heads)
    assert isinstance(denoiser, EDM2Denoiser)
    return denoiser


def close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_every_layer(name: str) -> None:
    record, tensors = golden(name)
    denoiser = model(name)
    seen = []
    with torch.inference_mode():
        for layer, found in denoiser.network.walk(
            tensors["mid/net_in"], tensors["mid/c_noise"], tensors.get("in/labels")
        ):
            seen.append(layer)
            if layer != "out_conv":  # its result is the output
                close(found, tensors["out/F_x" if layer == OUTPUT else f"out/{layer}"])
    assert [entry["name"] for entry in record["layers"]] == [layer for layer in seen if layer[:3] in ("enc", "dec")]
    assert list(denoiser.network.state_dict()) == [k[5:] for k in record["state_keys"] if k.startswith("unet.")]


@pytest.mark.parametrize("name", NAMES)
def test_the_denoised_image(name: str) -> None:
    _, tensors = golden(name)
    denoiser = model(name)
    with torch.inference_mode():
        close(denoiser.denoise(tensors["in/x"], tensors["in/sigma"], tensors.get("in/labels")), tensors["out/D_x"])
        if "alt/D_x_labels_none" in tensors:
            close(denoiser.denoise(tensors["in/x"], tensors["in/sigma"], None), tensors["alt/D_x_labels_none"])


@pytest.mark.parametrize("name", NAMES)
def test_upcast_weights_stay_near_those_kept_in_half_precision(name: str) -> None:
    """The original divides float16 gains in float16, which moves the result by about 1e-4: we compute in float32."""
    _, tensors = golden(name)
    with torch.inference_mode():
        found = model(name).denoise(tensors["in/x"], tensors["in/sigma"], tensors.get("in/labels"))
    assert 0 < (found - tensors["alt/D_x_params_kept_fp16"]).abs().max() < 1e-3


def test_primitives() -> None:
    _, t = golden("units_edm2")
    a, b, c, w = (t[f"mp/in/{name}"] for name in "abcw")
    conv = MPConv(6, 7, 3)
    conv.weight = torch.nn.Parameter(w)
    found = {
        "silu_a": mp_silu(a),
        "sum_ac_0.3": mp_sum(a, c, 0.3),
        "cat_ab_0.3": mp_cat(a, b, 0.3),
        "cat_ab_0.5": mp_cat(a, b, 0.5),
        "normalize_b_dim1": normalize(b, (1,)),
        "normalize_b_all": normalize(b, (1, 2, 3)),
        "conv_a_gain1": conv(a),
        "conv_a_gain0.5": conv(a, gain=0.5),
        "down_a_f11": F.avg_pool2d(a, 2),
        "up_a_f11": F.interpolate(a, scale_factor=2, mode="nearest"),
    }
    for name, value in found.items():
        close(value.detach(), t[f"mp/out/{name}"])
    # The recipe of a filter [1, 3, 3, 1] is the only one not used: no EDM2 model resamples with another than [1, 1].
    assert {key.removeprefix("mp/out/") for key in t if "/out/" in key} - set(found) == {"down_a_f1331"}


def test_another_head_size_is_asked_for() -> None:
    _, tensors = golden("edm2_cond")
    state = {key[3:]: value for key, value in tensors.items() if key.startswith("sd/")}
    with pytest.raises(CheckpointError, match="channels_per_head=N"):
        families.load(Checkpoint("x.pkl", "edm-pickle", state, "ema", ""))


def test_latents_are_brought_to_zero_mean_and_half_deviation() -> None:
    denoiser = model("edm2_uncond_latent")
    mean = torch.tensor([5.81, 3.25, 0.12, -2.15]).view(1, 4, 1, 1).expand(1, 4, 8, 8)
    deviation = torch.tensor([4.17, 4.62, 3.71, 3.28]).view(1, 4, 1, 1).expand(1, 4, 8, 8)
    torch.testing.assert_close(denoiser.scale_latents(mean, deviation, None), torch.zeros(1, 4, 8, 8))
    scaled = denoiser.scale_latents(mean, deviation, torch.ones(1, 4, 8, 8))
    torch.testing.assert_close(scaled, torch.full((1, 4, 8, 8), 0.5))
