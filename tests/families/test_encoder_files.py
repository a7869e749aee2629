"""Image encoders in the form of latent diffusion's code: the same network as diffusers' under other names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import DATA, diffscope, refused, write_pictures
from torch import Tensor

from diffscope.errors import CheckpointError
from diffscope.families._ldm_encoder import open_encoder
from diffscope.families.networks.library import diffusers_class

CONFIG: dict[str, Any] = {
    "latent_channels": 8,
    "block_out_channels": (32, 32, 64),
    "layers_per_block": 1,
    "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"),
}
"""VA-VAE's plan, small: attention at the smallest images alone, and more channels than four; factor 4."""

BACK = [
    (r"\.mid_block\.resnets\.(\d)", lambda m: f".mid.block_{int(m[1]) + 1}"),
    (r"\.mid_block\.attentions\.0", lambda _: ".mid.attn_1"),
    (r"\.down_blocks\.(\d)\.resnets", lambda m: f".down.{m[1]}.block"),
    (r"\.down_blocks\.(\d)\.attentions", lambda m: f".down.{m[1]}.attn"),
    (r"\.down_blocks\.(\d)\.downsamplers\.0", lambda m: f".down.{m[1]}.downsample"),
    (r"\.up_blocks\.(\d)\.resnets", lambda m: f".up.{2 - int(m[1])}.block"),
    (r"\.up_blocks\.(\d)\.attentions", lambda m: f".up.{2 - int(m[1])}.attn"),
    (r"\.up_blocks\.(\d)\.upsamplers\.0", lambda m: f".up.{2 - int(m[1])}.upsample"),
    (r"\.conv_shortcut\.", lambda _: ".nin_shortcut."),
    (r"\.conv_norm_out\.", lambda _: ".norm_out."),
    (r"\.(attn\.\d|attn_1)\.group_norm\.", lambda m: f".{m[1]}.norm."),
    (r"\.(attn\.\d|attn_1)\.to_([qkv])\.", lambda m: f".{m[1]}.{m[2]}."),
    (r"\.(attn\.\d|attn_1)\.to_out\.0\.", lambda m: f".{m[1]}.proj_out."),
]


@pytest.fixture(scope="module")
def library() -> Any:
    torch.manual_seed(0)
    return diffusers_class("AutoencoderKL")(**CONFIG).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def file(library: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the training code of VA-VAE saves it, other networks beside it."""
    tensors = {}
    for name, tensor in library.state_dict().items():
        for pattern, replacement in BACK:
            name = re.sub(pattern, replacement, name)
        is_kernel = re.search(r"\.attn(_1|\.\d)\.(q|k|v|proj_out)\.weight$", name) is not None
        tensors[name] = tensor[:, :, None, None] if is_kernel else tensor
    tensors["loss.discriminator.main.0.weight"] = torch.ones(2, 2)
    tensors["foundation_model.model.cls_token"] = torch.ones(1, 1, 4)
    path = tmp_path_factory.mktemp("vae") / "vavae.pt"
    torch.save({"state_dict": tensors, "epoch": 3, "global_step": 10}, path)
    return path


def test_it_encodes_and_decodes_as_the_library_s(library: Any, file: Path) -> None:
    encoder = open_encoder(str(file))
    assert (encoder.factor, encoder.image_channels, encoder.latent_channels) == (4, 3, 8)
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        mean, std = encoder.posterior(images)
        expected = library.encode(images).latent_dist
        assert torch.equal(mean, expected.mean)
        assert torch.equal(std, expected.std)
        assert torch.equal(encoder.decode(mean), library.decode(mean).sample)


def test_images_of_a_model_on_its_latents(file: Path, tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "pictures", 48)
    few = ("--augment", "none", "--sigma", "0.5", "--json")
    argv = ("icr", DATA / "lightningdit" / "latents.pt", "--data", data, "--vae", file, *few)
    ran = diffscope(*argv, "--latent-stats", DATA / "lightningdit" / "latents_stats.pt")
    assert ran.code == 0, ran.err
    assert ran.json["protocol"]["side"] == 16
    refused(diffscope(*argv), 1, "--latent-stats FILE")


def left_out(tensors: dict[str, Tensor]) -> None:
    del tensors["encoder.mid.block_1.conv1.weight"]


def narrow(tensors: dict[str, Tensor]) -> None:
    tensors["decoder.conv_in.weight"] = tensors["decoder.conv_in.weight"][:, :4]


def nothing(tensors: dict[str, Tensor]) -> None:
    for name in [name for name in tensors if name.startswith("encoder")]:
        del tensors[name]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (left_out, "encoder.mid_block.resnets.0.conv1.weight"),
        (narrow, "decoder.conv_in"),
        (nothing, "no image encoder"),
    ],
)
def test_a_damaged_encoder_is_refused_in_one_line(change: Any, words: str, file: Path, tmp_path: Path) -> None:
    content = torch.load(file, weights_only=True)
    change(content["state_dict"])
    torch.save(content, tmp_path / "vavae.pt")
    with pytest.raises(CheckpointError, match=words) as caught:
        open_encoder(str(tmp_path / "vavae.pt"))
    assert "\n" not in str(caught.value)
