"""SiT's network, paths and image encoder against the tensors that the genuine ones gave.

DiT and REPA are no families yet; their goldens hold the trunk that SiT shares with them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffscope import families
from diffscope.checkpoints import Checkpoint, read
from diffscope.errors import CheckpointError, NoiseLevelError, UsageError
from diffscope.families import repa
from diffscope.families import sit as sit_family
from diffscope.families._transformers import LATENT_SCALE, infer_shape
from diffscope.families.base import Denoiser
from diffscope.families.networks.autoencoder import Autoencoder
from diffscope.families.networks.transformer import DiffusionTransformer, TimeEmbedding, position_table
from diffscope.families.networks.walk import OUTPUT, Walk, WalkedNetwork
from diffscope.families.sit import SiTDenoiser

DATA = Path(__file__).parents[1] / "data" / "sit"
SHARED = Path(__file__).parents[3] / "shared" / "reference" / "golden" / "sit"
NETWORKS = ["sit_velocity", "sit_velocity_learn_sigma", "sit_patch4", "dit", "repa", "repa_qk_norm"]
LEVELS: dict[str, Any] = json.loads((DATA / "noise_levels.json").read_text())
RELATIVE, ABSOLUTE = 1e-6, 1e-4
"""Relative L2 and largest difference: float32 rounding is 4e-7; a wrong LayerNorm eps begins at 1.5e-6."""
LATE = 5e-6
"""Relative L2 at times up to 999: where a processor's float32 exponential is off by a unit in the last place, the angle
is by 6e-5. The one that made the goldens comes to 1.1e-6 of the correctly rounded one."""


@pytest.mark.parametrize("name", NETWORKS)
def test_every_part(name: str) -> None:
    record, tensors = golden(name)
    found = parts(transformer(name), tensors)
    expected = {k.removeprefix("out/"): v for k, v in tensors.items() if k.startswith("out/")}
    # REPA's projectors hang beside the trunk and are not built; `final` is cut from `final_full` by the family.
    compared = [k for k in expected if not k.startswith("zs.") and k != "final"]
    assert len(compared) == 6 + 3 * record["depth"]
    for key in compared:
        close(found[key], expected[key], key, LATE if name == "dit" else RELATIVE)


@pytest.mark.parametrize("name", [n for n in NETWORKS if n.startswith("sit")])
def test_the_family_builds_it(name: str) -> None:
    record, tensors = golden(name)
    kwargs = record["constructor_kwargs"]
    model = sit(name)
    assert [layer.name for layer in model.layers] == [
        "x_embedder", *(f"blocks.{i}" for i in range(record["depth"])), "final_layer",
    ]  # fmt: skip
    assert model.classes.count == 10
    assert model.classes.null == (record["null_class_index"] is not None)
    assert model.constructor["out_channels"] == 4 * (2 if kwargs["learn_sigma"] else 1)
    assert (model.space.kind, model.space.side, model.space.image_side) == (
        "latents", kwargs["input_size"], 8 * kwargs["input_size"],
    )  # fmt: skip
    with torch.inference_mode():
        output = model.network(tensors["in/x"], tensors["in/t"], tensors["in/y"])
    close(output[:, :4], tensors["out/final"], "final")


def test_null_class_is_the_last_row() -> None:
    model = sit("sit_velocity_learn_sigma")
    null = model.label(None, torch.device("cpu"))
    assert null is not None
    assert null.tolist() == [10]
    with pytest.raises(UsageError, match="no null class"):
        sit("sit_patch4").label(None, torch.device("cpu"))


def test_another_epsilon_of_the_qk_norm_is_told_apart() -> None:
    """The converse: 1e-6 where 1e-5 is right shows in the attention, at 1.5e-6."""
    _record, tensors = golden("repa_qk_norm")
    network = transformer("repa_qk_norm")
    for name, module in network.named_modules():
        if name.endswith(("q_norm", "k_norm")):
            module.eps = 1e-6
    found = parts(network, tensors)
    assert distance(found["blocks.0.attn"], tensors["out/blocks.0.attn"]) > RELATIVE


def test_wrong_heads_are_told_apart() -> None:
    record, tensors = golden("sit_patch4")
    assert record["constructor_kwargs"]["num_heads"] == 4
    found = parts(transformer("sit_patch4", num_heads=1), tensors)
    assert distance(found["blocks.0"], tensors["out/blocks.0"]) > 1e-3


@pytest.mark.parametrize("weights", ["ema", "model"])
def test_training_dump(weights: str) -> None:
    tensors = load_file(DATA / "train_dump.safetensors")
    model = families.load(read(str(DATA / "train_dump.pt"), weights), config={"num_heads": "3"})
    assert (model.family, model.network_class) == ("sit", "SiT(Linear, velocity)")
    assert model.evidence.startswith("the training arguments name a SiT path")
    assert model.warnings == ()
    assert (model.classes.count, model.classes.null) == (10, True)
    with torch.inference_mode():
        walked = dict(model.network.walk(tensors["in/x"], tensors["in/t"], tensors["in/y"]))
    for block in ("blocks.0", "blocks.1"):
        close(walked[block], tensors[f"out_{weights}/{block}"], block)
    close(walked["output"][:, :4], tensors[f"out_{weights}/final"], "final")


def test_time_vector() -> None:
    """Cosines first, denominator 128; equal to float32 rounding of t·w at t up to 999."""
    tensors = load_file(DATA / "embeddings.safetensors")
    embedding = TimeEmbedding(256, 8)
    embedding.mlp = nn.Sequential(nn.Identity())
    vector = embedding(tensors["in/t"])
    close(vector, tensors["out/time_native_256"], "native", LATE)
    assert distance(vector, tensors["out/time_diffusers_dit_256"]) > 1e-2


@pytest.mark.parametrize("width", [48, 64])
def test_position_table(width: int) -> None:
    table = load_file(DATA / "embeddings.safetensors")[f"out/pos_embed/D{width}_grid4"]
    assert torch.equal(position_table(width, 4)[0], table)


def test_position_table_of_the_largest_model() -> None:
    record = json.loads((DATA / "embeddings.json").read_text())
    table = position_table(1152, 16)[0]
    for spot in record["pos_embed_XL2_256_spot_values"]:
        assert float(table[spot["token"], spot["channel"]]) == pytest.approx(spot["value"], abs=record["tolerance"])
    assert float(table.double().sum()) == pytest.approx(record["pos_embed_XL2_256_sum"], rel=1e-9)


PATHS = {**sit_family.PATHS, **repa.PATHS}
PATH_KEYS = {
    "sit_linear": "Linear", "sit_gvp": "GVP", "sit_vp": "VP", "repa_linear": "linear", "repa_cosine": "cosine",
}  # fmt: skip


@pytest.mark.parametrize("key", PATH_KEYS)
def test_noise_levels_from_time(key: str) -> None:
    """1e-14 and 1e-10: the vectors are float64, and VP's carry the cancellation in sqrt(1 - alpha²)."""
    path = PATHS[PATH_KEYS[key]]()
    for row in LEVELS[key]["forward"]:
        if row["sigma"] is None:
            assert path.to_sigma(row["t"]) == float("inf")
            with pytest.raises(NoiseLevelError, match="outside this model's range"):
                path.check(path.to_sigma(row["t"]))
            continue
        sigma = path.to_sigma(row["t"])
        assert sigma == pytest.approx(row["sigma"], rel=1e-10)
        assert path.input_scale(sigma) == pytest.approx(row["alpha"], abs=1e-14)


@pytest.mark.parametrize("key", PATH_KEYS)
def test_noise_levels_to_time(key: str) -> None:
    path = PATHS[PATH_KEYS[key]]()
    assert path.sigma_max == pytest.approx(LEVELS[key]["sigma_max"] or float("inf"), rel=1e-10)
    for row in LEVELS[key]["inverse"]:
        if row["t"] is None:
            with pytest.raises(NoiseLevelError, match=r"up to 152\.167"):
                path.check(row["sigma"])
            continue
        assert path.check(row["sigma"]) == row["sigma"]
        assert path.to_native(row["sigma"]) == pytest.approx(row["t"], abs=1e-14)
        assert path.input_scale(row["sigma"]) == pytest.approx(row["alpha"], abs=1e-14)


class Recorded(WalkedNetwork):
    """Gives a recorded velocity and keeps what it was fed."""

    trunk = ()

    def __init__(self, velocity: Tensor) -> None:
        super().__init__()
        self.velocity = velocity

    def walk(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Walk:
        self.fed = x, time
        yield OUTPUT, self.velocity


@pytest.mark.parametrize("key", PATH_KEYS)
def test_posterior_mean_of_the_worked_example(key: str) -> None:
    """A velocity that is exact for one pair of data and noise gives these data back; float64, hence 1e-9."""
    example = LEVELS["worked_example"]
    data, noise = (torch.tensor(example[k], dtype=torch.float64) for k in ("data", "noise"))
    times = torch.tensor(example[key].get("t_repa", example["t_sit"]), dtype=torch.float64)
    x_t, velocity = (torch.tensor(example[key][k], dtype=torch.float64) for k in ("x_t", "velocity"))
    path = PATHS[PATH_KEYS[key]]()
    network = Recorded(velocity[:, :, None, None])
    model = sit("sit_patch4")
    denoiser = SiTDenoiser(
        "SiT", network, model.space, path, model.classes, model.layers, "blocks.0", "", {"prediction": "velocity"}
    )
    sigma = torch.tensor([path.to_sigma(t) for t in times.tolist()], dtype=torch.float64)
    mean = denoiser.denoise((data + sigma[:, None] * noise)[:, :, None, None], sigma, None)
    torch.testing.assert_close(mean[:, :, 0, 0], data, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(network.fed[0][:, :, 0, 0], x_t, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(network.fed[1], times, rtol=1e-9, atol=1e-9)


@cache
def vae() -> Autoencoder:
    return Autoencoder(str(DATA / "diffusers-vae"))


def test_image_encoder() -> None:
    tensors = load_file(DATA / "diffusers-vae.safetensors")
    encoder = vae()
    assert (encoder.factor, encoder.image_channels, encoder.latent_channels) == (8, 3, 4)
    with torch.inference_mode():
        mean, std = encoder.posterior(tensors["in/x"])
    close(mean, tensors["out/mean"], "mean")
    close(std, tensors["out/std"], "std")


def test_image_encoder_in_a_latent_model() -> None:
    tensors = load_file(DATA / "diffusers-vae.safetensors")
    model = fresh_sit("sit_patch4")
    assert model.encoder is None
    model.use_encoder(str(DATA / "diffusers-vae"))
    assert (model.space.side, model.space.image_side, model.space.image_channels) == (16, 128, 3)
    with torch.inference_mode():
        mode = model.encode(tensors["in/x"], None)
        sample = model.encode(tensors["in/x"], tensors["in/eps"])
    close(mode, tensors["out/mode_scaled"], "mode")
    close(sample, tensors["out/sample_scaled"], "sample")
    mean, std = tensors["out/repa_moments"].chunk(2, dim=1)
    close(model.scale_latents(mean, std, tensors["in/eps"]), tensors["out/sample_scaled"], "latents made beforehand")
    assert LATENT_SCALE == 0.18215


def test_a_latent_model_asks_for_its_encoder() -> None:
    with pytest.raises(CheckpointError, match="`vae=PATH`"):
        fresh_sit("sit_patch4").use_encoder(None)


def test_a_pixel_model_takes_no_encoder() -> None:
    model = families.load(read("toy:d=4,side=4"))
    model.use_encoder(None)
    with pytest.raises(CheckpointError, match="works on pixels"):
        model.use_encoder(str(DATA / "diffusers-vae"))


def test_the_fingerprint_is_of_the_weights(tmp_path: Path) -> None:
    folder = changed_vae(tmp_path, lambda weights: weights["quant_conv.bias"].add_(1))
    assert Autoencoder(str(DATA / "diffusers-vae")).fingerprint() == vae().fingerprint()
    assert Autoencoder(str(folder)).fingerprint() != vae().fingerprint()


def test_missing_weights_are_an_error(tmp_path: Path) -> None:
    """diffusers itself only logs them and goes on with whatever the memory held."""
    folder = changed_vae(tmp_path, lambda weights: weights.pop("quant_conv.bias"))
    with pytest.raises(CheckpointError, match=r"missing_keys \['quant_conv.bias'\]"):
        Autoencoder(str(folder))


def test_surplus_weights_are_an_error(tmp_path: Path) -> None:
    folder = changed_vae(tmp_path, lambda weights: weights.update({"other.bias": torch.ones(1)}))
    with pytest.raises(CheckpointError, match=r"unexpected_keys \['other.bias'\]"):
        Autoencoder(str(folder))


def test_misshapen_weights_are_an_error(tmp_path: Path) -> None:
    folder = changed_vae(tmp_path, lambda weights: weights.update({"quant_conv.bias": torch.ones(3)}))
    with pytest.raises(CheckpointError, match="quant_conv") as caught:
        Autoencoder(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "expected a diffusers folder"),
        ('{"_class_name": "UNet2DModel"}', "UNet2DModel, expected AutoencoderKL"),
        ("[1]", "not a readable JSON object"),
        ("{", "not a readable JSON object"),
        ('{"_class_name": "AutoencoderKL"}', "cannot be read as an AutoencoderKL"),
    ],
)
def test_a_folder_that_is_no_encoder(tmp_path: Path, config: str | None, message: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match=message) as caught:
        Autoencoder(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_hub_reference_is_answered() -> None:
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set and it is not in the cache"):
        Autoencoder("hf://stabilityai/sd-vae-ft-ema")


@cache
def golden(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The record and the tensors of a golden: the copy here, else the project's shared folder, else a skip."""
    for folder in (DATA, SHARED):
        if (folder / f"{name}.safetensors").is_file():
            return json.loads((folder / f"{name}.json").read_text()), load_file(folder / f"{name}.safetensors")
    pytest.skip(f"{name} lies in the shared folder only, which is not here")


def state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = {key.removeprefix("sd/"): value for key, value in tensors.items() if key.startswith("sd/")}
    return {key: value for key, value in named.items() if not key.startswith("projectors.")}


def transformer(name: str, num_heads: int | None = None) -> DiffusionTransformer:
    record, tensors = golden(name)
    shape = infer_shape(name, state(tensors))
    network = DiffusionTransformer(**shape, num_heads=num_heads or record["constructor_kwargs"]["num_heads"])
    network.load_state_dict(state(tensors))
    return network.eval().requires_grad_(False)


def fresh_sit(name: str) -> Denoiser:
    record, tensors = golden(name)
    kwargs = record["constructor_kwargs"]
    config = {key: str(kwargs[key]) for key in ("num_heads", "num_classes")}
    return families.load(Checkpoint(f"{name}.pt", "state-dict", state(tensors), "model", ""), "sit", config)


@cache
def sit(name: str) -> Denoiser:
    return fresh_sit(name)


def parts(network: DiffusionTransformer, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the walk yields and, by hooks, what it does not, under the goldens' names."""
    found: dict[str, Tensor] = {}
    watched = [
        "t_embedder",
        "y_embedder",
        *(f"blocks.{i}.{p}" for i in range(len(network.blocks)) for p in ("attn", "mlp")),
    ]
    for name in watched:
        network.get_submodule(name).register_forward_hook(lambda _m, _args, out, n=name: found.__setitem__(n, out))
    network.blocks[0].register_forward_pre_hook(lambda _m, args: found.__setitem__("tokens_in", args[0]))
    with torch.inference_mode():
        for name, activation in network.walk(tensors["in/x"], tensors["in/t"], tensors["in/y"]):
            found["final_full" if name == OUTPUT else name] = activation
    return found


def changed_vae(tmp_path: Path, change: Any) -> Path:
    folder = tmp_path / "vae"
    shutil.copytree(DATA / "diffusers-vae", folder)
    file = folder / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    change(weights)
    file.unlink()
    save_file(weights, file, metadata={"format": "pt"})
    return folder


def distance(a: Tensor, b: Tensor) -> float:
    """Relative L2."""
    assert a.shape == b.shape
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def close(a: Tensor, b: Tensor, what: str, relative: float = RELATIVE) -> None:
    assert distance(a, b) <= relative, f"{what}: relative L2 {distance(a, b):.1e}"
    assert float((a - b).abs().max()) <= ABSOLUTE, what
