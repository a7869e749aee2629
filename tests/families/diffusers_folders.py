"""The goldens' folders, as they are and changed, for the tests of the diffusers library's networks and files."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from diffscope import families
from diffscope.checkpoints import read
from diffscope.families.base import Denoiser
from diffscope.families.networks.hooked import HookedNetwork

DATA = Path(__file__).parents[1] / "data" / "sit"
WEIGHTS = "diffusion_pytorch_model.safetensors"
CPU = torch.device("cpu")
LINEAR = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


@cache
def built(name: str) -> Denoiser:
    return families.load(read(str(DATA / name)))


@cache
def golden(name: str) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load_file(DATA / f"{name}.safetensors")
    return tensors


def hooked(denoiser: Denoiser) -> HookedNetwork:
    assert isinstance(denoiser.network, HookedNetwork)
    return denoiser.network


def copied(name: str, folder: Path, config: dict[str, Any] | None = None) -> Path:
    """A golden's folder, its config changed."""
    shutil.copytree(DATA / name, folder)
    changed = {**json.loads((folder / "config.json").read_text()), **(config or {})}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in changed.items() if v != "absent"}))
    return folder


def scheduler(folder: Path, **said: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scheduler_config.json").write_text(json.dumps(said))
    return folder


def pipeline(folder: Path, **index: Any) -> Path:
    """DiT with its image encoder and scheduler, as the library saves it."""
    copied("diffusers-dit", folder / "transformer")
    shutil.copytree(DATA / "diffusers-vae", folder / "vae")
    scheduler(folder / "scheduler", _class_name="DDIMScheduler", **LINEAR)
    parts = {"scheduler": ["diffusers", "DDIMScheduler"], "transformer": ["diffusers", "DiTTransformer2DModel"]}
    said = {"_class_name": "DiTPipeline", **parts, "vae": ["diffusers", "AutoencoderKL"], **index}
    (folder / "model_index.json").write_text(json.dumps(said))
    return folder
