"""Folders of the diffusers library: pipelines, what stands in their files, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import diffscope, write_pictures
from diffusers_folders import CPU, DATA, WEIGHTS, built, copied, golden, hooked, pipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffscope import families
from diffscope.checkpoints import Checkpoint, read
from diffscope.errors import CheckpointError, WeightsMismatch
from diffscope.families._latents import LatentScale
from diffscope.families.diffusers import DiffusersDenoiser


def test_a_pipeline_from_end_to_end(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "model")
    pictures = write_pictures(tmp_path / "pictures", 40)
    ran = diffscope(
        "sweep", folder, "--data", pictures, "--sigma", 0.5, "--sigma", 2, "--layer", "all", "--views", 8,
        "--augment", "none", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    result = ran.json
    found = read(str(folder))
    assert result["checkpoint"]["family"] == "diffusers"
    weights = (folder / "transformer" / WEIGHTS).read_bytes()
    assert result["checkpoint"]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert found.sha256() == result["checkpoint"]["sha256"]
    assert result["protocol"]["encoder"]
    assert [row["layer"] for row in result["rows"]] == ["transformer_blocks.0"] * 2 + ["transformer_blocks.1"] * 2
    for row in result["rows"]:
        assert row["icr"] is not None
        assert row["sigma"] == pytest.approx(row["sigma_requested"], rel=0.03)
        assert row["sigma"] != row["sigma_requested"]


def test_the_encoder_and_its_scale_are_the_pipeline_s(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "model")
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "scaling_factor": 0.5}))
    for path in (folder, folder / "transformer"):
        model = families.load(read(str(path)))
        assert isinstance(model, DiffusersDenoiser)
        model.use_encoder(None)
        assert model.encoder is not None
        assert model.latent_scale == LatentScale((0.5,))
        assert model.warnings == ()
        assert model.space.image_side == 64
    config.write_text(json.dumps({**json.loads(config.read_text()), "shift_factor": 0.5}))
    with pytest.raises(CheckpointError, match="shift_factor is not supported"):
        families.load(read(str(folder)))


def test_a_latent_model_without_encoder_asks_for_it() -> None:
    with pytest.raises(CheckpointError, match="`vae=PATH`"):
        families.load(read(str(DATA / "diffusers-dit"))).use_encoder(None)


def test_code_beside_a_pipeline_is_refused(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "model", transformer=["dit_own", "OwnDiT"])
    assert families.load(read(str(folder))).family == "diffusers"  # no such file: the name is not the folder's
    (folder / "transformer" / "dit_own.py").write_text("raise SystemExit('executed')")
    with pytest.raises(CheckpointError, match="never run") as caught:
        read(str(folder))
    assert "\n" not in str(caught.value)
    assert families.load(read(str(folder / "transformer"))).family == "diffusers"


def test_the_legacy_class_is_a_dit(tmp_path: Path) -> None:
    config = {"_class_name": "Transformer2DModel", "norm_eps": "absent", "cross_attention_dim": None}
    model = families.load(read(str(copied("diffusers-dit", tmp_path / "dit", config))))
    tensors = golden("diffusers-dit")
    with torch.inference_mode():
        found = dict(hooked(model).walk(tensors["in/x"], tensors["in/t"].float(), tensors["in/y"]))
    assert float((found["output"] - tensors["out/final"]).abs().max()) <= 1e-4
    other = copied("diffusers-dit", tmp_path / "other", {**config, "norm_type": "layer_norm"})
    with pytest.raises(CheckpointError, match="is a Transformer2DModel; supported: UNet2DModel"):
        read(str(other))


def test_attention_under_its_first_names(tmp_path: Path) -> None:
    """As in the published weights of google/ddpm-cifar10-32."""
    folder = copied("diffusers-unet", tmp_path / "unet")
    tensors = load_file(folder / WEIGHTS)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    named = {}
    for name, tensor in tensors.items():
        for new, first in old.items():
            name = name.replace(f".{new}.", f".{first}.")
        named[name] = tensor
    assert named.keys() != tensors.keys()
    save_file(named, folder / WEIGHTS)
    state = hooked(families.load(read(str(folder)))).module.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in tensors.items())


def as_bin(folder: Path) -> str:
    torch.save(load_file(folder / WEIGHTS), folder / "diffusion_pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    return "for there are no safetensors"


def as_fp16(folder: Path) -> str:
    half = {name: tensor.half() for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(half, folder / "diffusion_pytorch_model.fp16.safetensors")
    (folder / WEIGHTS).unlink()
    return "fp16.safetensors"


def as_shards(folder: Path) -> str:
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    table: dict[str, Any] = {}
    for number, part in enumerate((list(tensors)[:20], list(tensors)[20:]), 1):
        file = f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        table |= dict.fromkeys(part, file)
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": table}))
    return "index.json"


@pytest.mark.parametrize("change", [as_bin, as_fp16, as_shards])
def test_other_files_of_weights(change: Callable[[Path], str], tmp_path: Path) -> None:
    folder = copied("diffusers-dit", tmp_path / "dit")
    word = change(folder)
    found = read(str(folder))
    assert word in found.weights_reason
    contents = b"".join(
        path.read_bytes() for path in sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.bin"))
    )
    assert found.sha256() == hashlib.sha256(contents).hexdigest()
    state, expected = (hooked(m).module.state_dict() for m in (families.load(found), built("diffusers-dit")))
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=2**-11, atol=2**-24)  # fp16's rounding


def test_plain_names_come_before_variants(tmp_path: Path) -> None:
    folder = copied("diffusers-dit", tmp_path / "dit")
    shutil.copy(folder / WEIGHTS, folder / "diffusion_pytorch_model.fp16.safetensors")
    torch.save({}, folder / "diffusion_pytorch_model.bin")
    assert read(str(folder)).weights_reason == f"the weights of {WEIGHTS}"


def test_an_average_beside_the_network(tmp_path: Path) -> None:
    """What the library's training scripts leave: unet/ and unet_ema/ in checkpoint-STEP/."""
    folder = tmp_path / "checkpoint-1500"
    copied("diffusers-unet", folder / "unet")
    assert read(str(folder)).weights == "model"
    copied("diffusers-unet", folder / "unet_ema", {"decay": 0.9999})
    found = read(str(folder))
    assert (found.weights, found.step, found.step_unit) == ("ema", 1500, "steps")
    assert read(str(folder), "model").weights == "model"
    assert families.load(found).constructor == families.load(read(str(folder), "model")).constructor


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("conv_in.bias"), r"missing: conv_in\.bias"),
        (lambda t: t.update({"extra.bias": torch.ones(1)}), r"not expected: extra\.bias"),
        (lambda t: t.update({"conv_in.bias": torch.ones(3)}), r"other shape: conv_in\.bias \[3\] instead of \[8\]"),
    ],
)
def test_weights_that_do_not_fit(change: Callable[[dict[str, Tensor]], object], message: str, tmp_path: Path) -> None:
    folder = copied("diffusers-unet", tmp_path / "unet")
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(WeightsMismatch, match=message):
        families.load(read(str(folder)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "AutoencoderKL"}, "is a AutoencoderKL; supported: UNet2DModel"),
        ({"_class_name": "SiTTransformer2DModel"}, "not have SiT's own names"),
        ({"sample_size": [16, 8]}, "expected a square"),
        ({"sample_size": None}, "`config=sample_size=N`"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type is 'fourier'; expected 'positional'"),
        ({"class_embed_type": "timestep"}, "class_embed_type is 'timestep'; expected null"),
        ({"act_fn": "no-such"}, "no network can be built"),
        ({"norm_num_groups": 5}, "no network can be built"),
        ({"down_block_types": ["DownBlock2D"]}, "no network can be built"),
    ],
)
def test_configs_that_are_refused(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = copied("diffusers-unet", tmp_path / "unet", config)
    with pytest.raises(CheckpointError, match=message) as caught:
        families.load(read(str(folder)))
    assert "\n" not in str(caught.value)


def test_folders_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a folder with nothing in it"):
        read(str(tmp_path))
    folder = copied("diffusers-unet", tmp_path / "unet")
    (folder / f"{WEIGHTS}.index.json").write_text('{"weight_map": {"a": "../../secret.safetensors"}}')
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="does not name the weights' files"):
        read(str(folder))
    (folder / f"{WEIGHTS}.index.json").unlink()
    with pytest.raises(CheckpointError, match="no weights beside the config"):
        read(str(folder))
    (folder / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="not a readable JSON object"):
        read(str(folder))


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_conversion_of_sit_has_its_native_names(prefix: str, tmp_path: Path) -> None:
    """Its class is in no library and its code is not run: the weights go to the family `sit`."""
    native = {
        key.removeprefix("sd/"): value
        for key, value in load_file(DATA / "sit_velocity_learn_sigma.safetensors").items()
        if key.startswith("sd/")
    }
    folder = tmp_path / "transformer"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"_class_name": "SiTTransformer2DModel", "num_attention_heads": 3}))
    (folder / "transformer_sit.py").write_text("raise SystemExit('executed')")
    save_file({prefix + name: tensor for name, tensor in native.items()}, folder / WEIGHTS)
    model = families.load(read(str(folder)))
    assert (model.family, model.constructor["num_heads"]) == ("sit", 3)
    bare = Checkpoint("my-SiT.pt", "state-dict", native, "model", "")
    plain = families.load(bare, config={"num_heads": "3"})
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for (_, a), (_, b) in zip(
            model.walk(x, 1.0, model.label(None, CPU)), plain.walk(x, 1.0, plain.label(None, CPU)), strict=True
        ):
            assert torch.equal(a, b)
