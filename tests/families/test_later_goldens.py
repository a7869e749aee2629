"""JiT, LightningDiT and REPA-E against the tensors that the genuine networks gave."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family_examples import DATA
from safetensors.torch import load_file
from torch import Tensor

from diffscope import families
from diffscope.checkpoints import Checkpoint, read
from diffscope.errors import NoiseLevelError
from diffscope.extraction import Extractor, Inputs
from diffscope.families.base import Denoiser
from diffscope.families.jit import ScaledLinear
from diffscope.families.networks.image_transformer import ImageTransformer
from diffscope.families.networks.transformer import DiffusionTransformer
from diffscope.families.networks.transformer_blocks import rotary_table
from diffscope.measure.opening import open_images, open_job
from diffscope.options.settings import Loading, Settings

TOLERANCE = 1e-5
"""Of each tensor's maximum, as the reference says; a second program came within 1.1e-6."""

CASES: dict[str, dict[str, str]] = {
    "jit/checkpoint-last": {"in_context_start": "2"},
    "jit/noise2": {"in_context_start": "1", "noise_scale": "2"},
    "lightningdit/0000100": {},
    "lightningdit/layernorm_qknorm": {},
    "lightningdit/latents": {},
    "repae/0000400": {"num_heads": "2"},
}


@dataclass(frozen=True)
class Golden:
    record: dict[str, Any]
    tensors: dict[str, Tensor]
    model: Denoiser

    @property
    def clean(self) -> Tensor:
        """Data in the network's input space."""
        return self.tensors["in/z" if "in/z" in self.tensors else "in/x0"]

    @property
    def label(self) -> Tensor:
        return self.tensors.get("in/y", torch.full((len(self.clean),), self.record["null_class"]))

    def levels(self) -> Iterator[tuple[float, Tensor, dict[str, Tensor]]]:
        """(sigma, data + sigma · noise, what the genuine network gave)"""
        for number, sigma in enumerate(self.record["sigmas"]):
            given = {k.split("/")[1]: v for k, v in self.tensors.items() if k.startswith(f"s{number}/")}
            yield sigma, self.clean + sigma * self.tensors["in/noise"], given


@cache
def golden(name: str) -> Golden:
    record = json.loads((DATA / f"{name}.json").read_text())
    model = families.load(read(str(DATA / f"{name}.pt")), config=CASES[name])
    return Golden(record, load_file(DATA / f"{name}.safetensors"), model)


def close(found: Tensor, expected: Tensor, what: str) -> None:
    assert found.shape == expected.shape, what
    assert float((found - expected).abs().max()) <= TOLERANCE * float(expected.abs().max()), what


@pytest.mark.parametrize("name", CASES)
def test_every_layer_and_the_output(name: str) -> None:
    case = golden(name)
    model = case.model
    for sigma, x, given in case.levels():
        assert model.noise.to_native(sigma) == pytest.approx(case.record["t"][str(sigma)], abs=1e-12)
        close(x * model.noise.input_scale(sigma), given.pop("x_in"), "x_in")
        level = torch.tensor([sigma])
        with torch.inference_mode():
            walked = dict(model.walk(x, sigma, case.label))
            close(model.denoise(x, level, case.label), given.pop("denoised"), "denoised")
            if "velocity" in given:
                close(model.predict(x, level, case.label), given.pop("velocity"), "velocity")
            if "t_embedder" in given:
                embedded = model.network.get_submodule("t_embedder")(torch.tensor([model.noise.to_native(sigma)]))
                close(embedded.expand(len(x), -1), given.pop("t_embedder"), "t_embedder")
        if "x_embedder" in given and model.family == "jit":
            # The genuine network adds the positions in place, to the tensor that was recorded.
            given["x_embedder"] = given["x_embedder"] - model.network.get_parameter("pos_embed")
        for layer, expected in given.items():
            close(walked[layer], expected[:, -walked[layer].shape[1] :], layer)


@pytest.mark.parametrize("name", ["jit/checkpoint-last", "jit/noise2"])
def test_class_tokens_lead_inside_the_network_alone(name: str) -> None:
    case = golden(name)
    kwargs, network = case.record["constructor_kwargs"], case.model.network
    start, count = kwargs["in_context_start"], kwargs["in_context_len"]
    inside: dict[str, Tensor] = {}
    blocks = network.get_submodule("blocks")
    handles = [
        block.register_forward_hook(lambda *a, number=number: inside.update({f"blocks.{number}": a[2]}))
        for number, block in blocks.named_children()
    ]
    sigma, x, given = list(case.levels())[1]
    with torch.inference_mode():
        walked = dict(case.model.walk(x, sigma, case.label))
    for handle in handles:
        handle.remove()
    for layer, whole in inside.items():
        close(whole, given[layer], layer)
        led = int(layer.partition(".")[2]) >= start
        assert whole.shape[1] - walked[layer].shape[1] == (count if led else 0)
        assert torch.equal(walked[layer], whole[:, count if led else 0 :])


def test_another_block_for_the_class_tokens_is_told_apart() -> None:
    """The converse: where they join shows, and nothing in the file says it."""
    case = golden("jit/checkpoint-last")
    other = families.load(read(str(DATA / "jit" / "checkpoint-last.pt")), config={"in_context_start": "1"})
    sigma, x, given = list(case.levels())[1]
    with torch.inference_mode():
        found = dict(other.walk(x, sigma, case.label))["blocks.3"]
    expected = given["blocks.3"][:, 6:]
    assert float((found - expected).abs().max()) > 100 * TOLERANCE * float(expected.abs().max())


def pooled(name: str, data: str, settings: Settings) -> dict[tuple[float, str], np.ndarray]:
    """Features as the extractor streams them, of all images in order; (sigma, layer) → (N, d)."""
    job = open_job(str(DATA / f"{name}.pt"), open_images(settings, data), settings, Loading(config=CASES[name]))
    inputs = Inputs(job.source, job.plan)
    found: dict[tuple[float, str], np.ndarray] = {}
    for part in Extractor(job.denoiser, inputs, job.plan).run(range(len(job.source))):
        key = (job.plan.sigmas[part.level], job.plan.layers[part.layer].name)
        found[key] = part.z[:, 0].numpy()
    return found


DATA_OF = {
    "jit/checkpoint-last": "jit/checkpoint-last.npy",
    "jit/noise2": "jit/noise2.npy",
    "lightningdit/0000100": "lightningdit/0000100.npy",
    "lightningdit/layernorm_qknorm": "lightningdit/layernorm_qknorm.npy",
    "lightningdit/latents": "lightningdit",
    "repae/0000400": "",
}


@pytest.mark.parametrize("name", CASES)
def test_pooled_features_of_clean_images(name: str, tmp_path: Path) -> None:
    record = golden(name).record
    data = str(DATA / DATA_OF[name])
    if name.startswith("repae"):
        data = str(tmp_path / "latents.npz")
        np.savez(data, mean=golden(name).tensors["in/latents"].numpy())
    settings = Settings(layer=("all",), sigma=tuple(record["sigmas"]), input="clean", augment="none")
    found = pooled(name, data, settings)
    for sigma, layers in record["features"].items():
        for layer, expected in layers.items():
            close(
                torch.from_numpy(found[float(sigma), layer]),
                torch.tensor(expected, dtype=torch.float32),
                f"{sigma} {layer}",
            )


def test_the_stored_rotary_tables_are_the_formula() -> None:
    """1e-7: the tables are float32."""
    for name, grid, width in (("0000100", 8, 8), ("latents", 4, 12)):
        network = golden(f"lightningdit/{name}").model.network
        for part, table in zip(("cos", "sin"), rotary_table(grid, width), strict=True):
            stored = network.get_buffer(f"feat_rope.freqs_{part}")
            torch.testing.assert_close(table, stored, rtol=0, atol=1e-7)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_the_scale_of_the_noise(scale: float) -> None:
    path = ScaledLinear(scale)
    assert path.to_sigma(0.5) == scale
    assert path.to_sigma(0.0) == float("inf")
    assert path.to_sigma(1.0) == 0
    # z = t·(data + sigma·noise) is t·data + (1 - t)·scale·noise
    assert path.input_scale(3.0) * 3.0 == pytest.approx(scale * (1 - path.to_native(3.0)), rel=1e-12)
    with pytest.raises(NoiseLevelError, match="from 0 to 1"):
        path.to_sigma(1.5)


JIT_SIZES = [
    ("B/16", 256, 16, 768, 12, 12, 128, 4, 131_320_320, 183),
    ("L/16", 256, 16, 1024, 24, 16, 128, 8, 459_139_808, 351),
    ("H/32", 512, 32, 1280, 32, 16, 256, 10, 956_383_296, 463),
]


@pytest.mark.parametrize(
    ("size", "side", "patch", "width", "depth", "heads", "bottleneck", "start", "parameters", "count"), JIT_SIZES
)
def test_published_sizes_of_jit(
    size: str, side: int, patch: int, width: int, depth: int, heads: int, bottleneck: int, start: int,
    parameters: int, count: int,
) -> None:  # fmt: skip
    """On the meta device, so that the largest costs nothing."""
    with torch.device("meta"):
        network = ImageTransformer(
            side, patch, 3, bottleneck, width, depth, heads, int(4 * width * 2 / 3), 1001, 32, start
        )
    tensors = network.state_dict()
    assert (sum(t.numel() for t in tensors.values()), len(tensors)) == (parameters, count)
    model = outline(f"JiT-{size.replace('/', '-')}.pth", {f"net.{name}": t for name, t in tensors.items()})
    assert (model.family, model.constructor["in_context_start"], model.constructor["num_heads"]) == (
        "jit", start, heads,
    )  # fmt: skip
    assert model.constructor["noise_scale"] == side / 256
    assert model.layer("mid").name == f"blocks.{depth // 2 - 1}"
    assert model.layer("mid").shape == ((side // patch) ** 2, width)


@pytest.mark.parametrize(
    ("depth", "width", "heads", "patch", "parameters"),
    [(12, 768, 12, 1, 130_556_192), (28, 1152, 16, 1, 675_256_736), (24, 1536, 24, 1, 1_029_401_120)],
    ids=["B/1", "XL/1", "1p0B/1"],
)
def test_published_sizes_of_lightningdit(depth: int, width: int, heads: int, patch: int, parameters: int) -> None:
    with torch.device("meta"):
        network = DiffusionTransformer(
            16, patch, 32, 32, width, depth, heads, 1001, 8 / 3, rms_norm=True, swiglu=True, rotary=True
        )
    assert sum(p.numel() for p in network.parameters()) == parameters, "beside the two rotary tables"
    tensors = network.state_dict()
    model = outline("lightningdit-imagenet256.pt", tensors)
    assert (model.family, model.constructor["num_heads"]) == ("lightningdit", heads)
    assert (model.space.side, model.space.image_side, model.latent_scale) == (16, 256, None)
    assert model.layer("mid").name == f"blocks.{depth // 2 - 1}"


def outline(name: str, tensors: Mapping[str, Tensor]) -> Denoiser:
    return families.load(Checkpoint(name, "state-dict", dict(tensors), "ema", "the file holds 'ema' alone"))
