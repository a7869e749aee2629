"""`convert`: weights come back bit by bit, and the file then says what it is without being told again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffscope import families
from diffscope.checkpoints import read
from diffscope.cli import run
from diffscope.errors import CheckpointError, UsageError
from diffscope.studies.convert import convert

DATA = Path(__file__).parents[1] / "data"
FILES = {
    "edm pickle": ("containers/edm_ddpmpp.pkl", None, {}),
    "edm fourier": ("containers/edm_ncsnpp_cond.pkl", None, {}),
    "adm": ("adm/adm_new_order.pt", None, {"image_size": "8", "num_heads": "4", "use_new_attention_order": "true"}),
    "sit bare": ("containers/sit_bare.pt", "sit", {"num_heads": "4", "path_type": "GVP"}),
    "sit dump": ("sit/train_dump.pt", None, {"num_heads": "3"}),
    "jit": ("jit/noise2.pt", None, {"in_context_start": "1", "noise_scale": "2"}),
    "lightningdit": ("lightningdit/latents.pt", None, {"latent_multiplier": "0.5"}),
    "repa-e": ("repae/0000400.pt", None, {"num_heads": "2"}),
    "lucidrains": ("lucidrains/groupnorm-3.pt", None, {"image_size": "8", "resnet_block_groups": "4"}),
    "repa dump": ("sit/repa_dump.pt", None, {"num_heads": "2"}),
}


@pytest.mark.parametrize("name", FILES)
def test_a_converted_file_is_the_same_model(name: str, tmp_path: Path) -> None:
    file, family, config = FILES[name]
    checkpoint = read(str(DATA / file))
    before = families.load(checkpoint, family, config)
    convert(checkpoint, before, tmp_path / "out.safetensors")
    after = families.load(read(str(tmp_path / "out.safetensors")))
    assert (after.family, after.constructor, after.layers) == (before.family, before.constructor, before.layers)
    assert (after.noise.native, after.classes) == (before.noise.native, before.classes)
    assert (after.noise.to_native(0.5), after.latent_scale) == (before.noise.to_native(0.5), before.latent_scale)
    for key, tensor in before.network.state_dict().items():
        assert torch.equal(after.network.state_dict()[key], tensor), key
    assert read(str(tmp_path / "out.safetensors")).step == checkpoint.step


def test_half_precision_is_asked_for_and_said(tmp_path: Path) -> None:
    checkpoint = read(str(DATA / "containers/edm_ddpmpp.pkl"))
    convert(checkpoint, families.load(checkpoint), tmp_path / "half.safetensors", "float16")
    stored = read(str(tmp_path / "half.safetensors")).tensors
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    with pytest.raises(UsageError, match="float8"):
        convert(checkpoint, families.load(checkpoint), tmp_path / "x.safetensors", "float8")
    assert not (tmp_path / "x.safetensors").exists()


def test_noise_levels_are_never_rounded(tmp_path: Path) -> None:
    """GaussianDiffusion's table stays float32, for float16 has nothing between 1 and 0.9995."""
    checkpoint = read(str(DATA / "lucidrains/model-1.pt"))
    before = families.load(checkpoint, config={"image_size": "8"})
    convert(checkpoint, before, tmp_path / "half.safetensors", "float16")
    stored = read(str(tmp_path / "half.safetensors"))
    assert stored.tensors["model.init_conv.weight"].dtype == torch.float16
    assert stored.tensors["alphas_cumprod"].dtype == torch.float32
    assert families.load(stored).noise.check(0.05) == before.noise.check(0.05)


def test_a_toy_has_nothing_to_convert(tmp_path: Path) -> None:
    checkpoint = read("toy:d=4,side=2")
    with pytest.raises(CheckpointError, match="nothing to convert"):
        convert(checkpoint, families.load(checkpoint), tmp_path / "toy.safetensors")


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.safetensors"
    assert run(["convert", str(DATA / "containers/edm_ddpmpp.pkl"), str(out)]) == 0
    assert run(["inspect", str(out)]) == 0
    assert "the file's metadata names the family" in capsys.readouterr().out.replace("\n", " ")
    assert run(["convert", str(tmp_path / "missing.pkl"), str(out)]) == 1
