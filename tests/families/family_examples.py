"""Small files of every family and path: what laws of families are tried on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from diffscope import families
from diffscope.checkpoints import Checkpoint, read
from diffscope.families.base import Denoiser

DATA = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class Example:
    """A file of a family, and what must be said with it."""

    family: str
    make: Callable[[], Checkpoint]
    config: Mapping[str, str] = field(default_factory=dict)


def weights(path: str) -> dict[str, Tensor]:
    tensors = load_file(DATA / f"{path}.safetensors")
    return {key.removeprefix("sd/"): value for key, value in tensors.items() if key.startswith("sd/")}


def bare(path: str, tensors: Mapping[str, Tensor], **said: Any) -> Checkpoint:
    return Checkpoint(path, "state-dict", tensors, "model", "the file holds one set", **said)


EXAMPLES: dict[str, Example] = {
    "toy": Example("toy", lambda: read("toy:d=6,side=4")),
    "mixture": Example("mixture", lambda: read("mixture:classes=2,rank=2,side=4,delta=0.3")),
    "ddpm++ edm": Example("edm", lambda: read(str(DATA / "containers" / "edm_ddpmpp.pkl"))),
    "ncsn++ ve": Example("edm", lambda: bare("x.pt", weights("edm/ncsnpp_uncond_ve")), {"precond": "VEPrecond"}),
    "ddpm++ vp": Example("edm", lambda: bare("baseline-x-vp.pkl", weights("edm/ddpmpp_cond_vp"))),
    "adm iddpm": Example("edm", lambda: bare("x.pt", weights("edm/adm_cond_iddpm"))),
    "adm": Example(
        "adm", lambda: read(str(DATA / "adm" / "adm_cond.pt")), {"image_size": "8", "num_head_channels": "16"}
    ),
    "adm rescaled": Example(
        "adm",
        lambda: read(str(DATA / "adm" / "iddpm.pt")),
        {
            "image_size": "8",
            "num_heads": "4",
            "noise_schedule": "cosine",
            "diffusion_steps": "4000",
            "rescale_timesteps": "true",
        },
    ),
    "sit dump": Example("sit", lambda: read(str(DATA / "sit" / "train_dump.pt")), {"num_heads": "3"}),
    "sit gvp": Example(
        "sit", lambda: bare("my-SiT.pt", weights("sit/sit_patch4")), {"num_heads": "4", "path_type": "GVP"}
    ),
    "sit vp": Example(
        "sit", lambda: bare("my-SiT.pt", weights("sit/sit_patch4")), {"num_heads": "4", "path_type": "VP"}
    ),
    "dit": Example("dit", lambda: bare("my-DiT.pt", weights("sit/dit")), {"num_heads": "3"}),
    "repa dump": Example("repa", lambda: read(str(DATA / "sit" / "repa_dump.pt")), {"num_heads": "2"}),
    "repa cosine": Example("repa", lambda: bare("x.pt", weights("sit/repa_qk_norm")), {"path_type": "cosine"}),
    "repa-e": Example("repa", lambda: read(str(DATA / "repae" / "0000400.pt")), {"num_heads": "2"}),
    "lightningdit": Example("lightningdit", lambda: read(str(DATA / "lightningdit" / "0000100.pt"))),
    "lightningdit layernorm": Example(
        "lightningdit", lambda: read(str(DATA / "lightningdit" / "layernorm_qknorm.pt")), {"path_type": "GVP"}
    ),
    "lightningdit latents": Example("lightningdit", lambda: read(str(DATA / "lightningdit" / "latents.pt"))),
    "jit": Example("jit", lambda: read(str(DATA / "jit" / "checkpoint-last.pt")), {"in_context_start": "2"}),
    "jit noise2": Example(
        "jit", lambda: read(str(DATA / "jit" / "noise2.pt")), {"in_context_start": "1", "noise_scale": "2"}
    ),
    "diffusers unet": Example("diffusers", lambda: read(str(DATA / "sit" / "diffusers-unet"))),
    "diffusers dit": Example("diffusers", lambda: read(str(DATA / "sit" / "diffusers-dit"))),
    "diffusers sdxl": Example("diffusers", lambda: read(str(DATA / "pipelines" / "sdxl"))),
    "lucidrains v": Example("lucidrains", lambda: read(str(DATA / "lucidrains" / "model-1.pt")), {"image_size": "8"}),
    "lucidrains noise": Example(
        "lucidrains", lambda: read(str(DATA / "lucidrains" / "selfcond-2.pt")), {"image_size": "8"}
    ),
    "lucidrains x0": Example(
        "lucidrains",
        lambda: read(str(DATA / "lucidrains" / "groupnorm-3.pt")),
        {"image_size": "8", "resnet_block_groups": "4"},
    ),
    "edm2": Example("edm2", lambda: bare("x.pt", weights("edm/edm2_cond")), {"channels_per_head": "8"}),
}


@cache
def built(name: str) -> Denoiser:
    return families.load(EXAMPLES[name].make(), config=EXAMPLES[name].config)
