"""The goldens of text-to-image pipelines, and copies of them that are changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffscope import families
from diffscope.checkpoints import read
from diffscope.families._pipelines import PipelineDenoiser
from diffscope.families.base import Denoiser
from diffscope.families.networks.library import diffusers_is_before
from diffscope.families.networks.stored import StoredNetwork

PIPELINES = Path(__file__).parents[1] / "data" / "pipelines"
WEIGHTS = "diffusion_pytorch_model.safetensors"
NAMES = ("sd", "sdv", "sdxl", "sd3", "flux", "pixart", "sana")
CONFIG: Mapping[str, Mapping[str, str]] = {"flux": {"sample_size": "8"}}
"""What a folder cannot say: FLUX's config has no side."""


@cache
def record(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PIPELINES / f"{name}.json").read_text())
    return found


@cache
def golden(name: str) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load_file(PIPELINES / f"{name}.safetensors")
    return tensors


def skip_what_is_newer(name: str) -> None:
    """Of the oldest diffusers allowed, 0.30; a golden or an outline by its name."""
    if name == "sana" and not hasattr(diffusers, "SanaTransformer2DModel"):
        pytest.skip("Sana came with diffusers 0.32")
    if name == "SD 3.5 medium" and diffusers_is_before(0, 31):
        pytest.skip("SD 3.5 came with diffusers 0.31")


def built(path: Path, **config: str) -> PipelineDenoiser:
    model = families.load(read(str(path)), config=config)
    assert isinstance(model, PipelineDenoiser)
    return model


def stored(model: Denoiser) -> StoredNetwork:
    assert isinstance(model.network, StoredNetwork)
    return model.network


def embeddings(name: str, file: Path) -> Path:
    """A golden's own text, as `--prompt-from` takes it."""
    text = {key.removeprefix("text/"): value for key, value in golden(name).items() if key.startswith("text/")}
    save_file(text, file)
    return file


def copied(name: str, folder: Path) -> Path:
    shutil.copytree(PIPELINES / name, folder)
    return folder


def change(file: Path, **said: Any) -> None:
    """Other values in a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **said}))


def bare(name: str, folder: Path) -> Path:
    """The network's folder alone, as a fine-tune is often kept, with its scheduler's file."""
    part = "unet" if (PIPELINES / name / "unet").exists() else "transformer"
    shutil.copytree(PIPELINES / name / part, folder)
    shutil.copy(PIPELINES / name / "scheduler" / "scheduler_config.json", folder)
    return folder


def without_t5(folder: Path) -> Path:
    copied("sd3", folder)
    for part in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(folder / part)
    change(folder / "model_index.json", text_encoder_3=[None, None], tokenizer_3=[None, None])
    return folder
