"""Networks of the diffusers library: UNet2DModel (DDPM, DDIM) and DiTTransformer2DModel, with a scheduler's steps.

Ho et al., "Denoising Diffusion Probabilistic Models", 2020, https://arxiv.org/abs/2006.11239; Peebles & Xie, "Scalable
Diffusion Models with Transformers", 2023, https://arxiv.org/abs/2212.09748. The scheduler's betas give, in the
library's own float32, abar[t] = Π(1 - beta[i]) over i ≤ t, and sigma[t] = √((1 - abar[t]) / abar[t]). The networks are
the library's, built from their configs; their weights are read by this package, and all of them must fit.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from diffscope.checkpoints.base import Checkpoint
from diffscope.errors import CheckpointError, UsageError
from diffscope.families._conventions import DiscreteSteps
from diffscope.families.base import (
    Classes,
    Denoiser,
    InputSpace,
    Match,
    as_type,
    build_on_meta,
    check_config_keys,
    config_value,
    dry_walk,
    file_arguments,
    input_space,
    load_weights,
)
from diffscope.families.networks.autoencoder import Autoencoder
from diffscope.families.networks.hooked import HookedNetwork
from diffscope.families.networks.library import diffusers_class

LATENT_SCALE = 0.18215  # default scaling_factor of diffusers' AutoencoderKL

_SETTINGS: dict[str, Any] = {  # defaults of diffusers' DDPMScheduler
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
}
_CHOICES = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "prediction_type": ("epsilon", "v_prediction", "sample"),
}
_OTHER_NOISE = re.compile(r"FlowMatch|ScoreSde|EDM|KarrasVe|CMStochastic|VQDiffusion")
"""Schedulers whose noise is not a chain of betas."""
_UNET_LAYER = re.compile(
    r"conv_in|conv_norm_out|conv_out|((down_blocks|up_blocks)\.\d+|mid_block)(\.(resnets|attentions)\.\d+)?"
)
_LEGACY = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of the attention's parts before diffusers 0.15, which published weights keep."""


@dataclass
class DiffusersDenoiser(Denoiser):
    family: ClassVar[str] = "diffusers"
    vae: str | None = None
    """Folder of the pipeline's own image encoder."""

    def use_encoder(self, path: str | None, encoder: Autoencoder | None = None) -> None:
        super().use_encoder(path or self.vae, encoder)

    def label(self, classes: Tensor | None, device: torch.device) -> Tensor | None:
        """Class indices (B,) int64; the null class is index `count`."""
        if not self.classes.count:
            return None
        if classes is not None:
            return classes.to(device)
        if not self.classes.null:
            raise UsageError("this model has no null class; use --class label or --class INT")
        return torch.full((1,), self.classes.count, device=device)

    def denoise(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        output = self.predict(x, sigma, label)
        level = sigma.flatten().to(x)[:, None, None, None]
        prediction = self.constructor["schedule"]["prediction_type"]
        if prediction == "epsilon":
            output = x - level * output
        elif prediction == "v_prediction":
            # v = alpha·noise - beta·data, where the network's input is alpha·x and beta = sigma·alpha.
            scale = x.new_tensor([self.noise.input_scale(s) for s in sigma.flatten().double().tolist()])
            scale = scale[:, None, None, None]
            output = scale * (scale * x - level * output)
        return output


def recognise(checkpoint: Checkpoint) -> Match | None:
    if family := checkpoint.metadata.get("family"):
        return Match(True, "the file's metadata names the family") if family == "diffusers" else None
    if checkpoint.container != "diffusers":
        return None
    return Match(True, f"a diffusers folder with a {checkpoint.class_name}")


def build(checkpoint: Checkpoint, config: Mapping[str, str], match: Match) -> DiffusersDenoiser:
    check_config_keys(config, {*_SETTINGS, "sample_size"})
    path = checkpoint.path
    facts, warnings = _facts(checkpoint, config)
    schedule, is_dit = facts["schedule"], facts["class"] != "UNet2DModel"
    kind = diffusers_class("DiTTransformer2DModel" if is_dit else "UNet2DModel")
    arguments = _arguments(kind, facts["network"], config, path)
    classes = _classes(arguments, is_dit, path)
    space = _space(arguments, is_dit, facts["latent_scale"], path)
    network = build_on_meta(lambda: _hooked(kind(**arguments), is_dit), path)
    assert isinstance(network, HookedNetwork)
    label = torch.zeros(1, dtype=torch.int64, device="meta") if classes.count else None
    layers = dry_walk(network, space, label, path)
    load_weights(network.module, {_renamed(name): checkpoint.tensors[name] for name in checkpoint.tensors}, path)
    _fill_buffers(network.module, kind, arguments)
    latent_scale = (facts["latent_scale"] or LATENT_SCALE) if space.kind == "latents" else None
    evidence = [match.why, f"{'assumed' if warnings else 'stated'} steps, {schedule['beta_schedule']} betas"]
    if is_dit:
        evidence.append("time embedded as diffusers does, with denominator 127 (DiT's own code: 128)")
    return DiffusersDenoiser(
        network_class=f"{facts['class']}({schedule['beta_schedule']}, {schedule['prediction_type']})",
        network=network,
        space=space,
        noise=DiscreteSteps(sigmas(schedule)),
        classes=classes,
        layers=layers,
        default_layer=_default_layer(arguments, is_dit),
        evidence="; ".join(evidence),
        constructor={
            "class": facts["class"], "network": arguments, "schedule": schedule, "latent_scale": latent_scale,
        },
        warnings=tuple(warnings),
        latent_scale=latent_scale,
        vae=checkpoint.attributes.get("vae"),
    )  # fmt: skip


def sigmas(schedule: Mapping[str, Any]) -> list[float]:
    """sigma of every step, from the float32 table `alphas_cumprod` as the library's schedulers compute it."""
    count, start, end = schedule["num_train_timesteps"], schedule["beta_start"], schedule["beta_end"]
    if "trained_betas" in schedule:
        betas = torch.tensor(schedule["trained_betas"], dtype=torch.float32)
    elif schedule["beta_schedule"] == "linear":
        betas = torch.linspace(start, end, count, dtype=torch.float32)
    elif schedule["beta_schedule"] == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, count, dtype=torch.float32) ** 2
    else:
        # Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021: no step takes all of the signal
        left = [math.cos((i / count + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(count + 1)]
        betas = torch.tensor([min(1 - left[i + 1] / left[i], 0.999) for i in range(count)], dtype=torch.float32)
    # The product runs in float64 and each entry is rounded, as torch's cumprod does it on a CPU.
    signal = np.cumprod((1 - betas).double().numpy()).astype(np.float32).astype(np.float64)
    return [float(s) for s in np.sqrt((1 - signal) / signal)]


def _facts(checkpoint: Checkpoint, config: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """(class, network, schedule, latent_scale), from a folder or from a converted file's metadata; what was assumed."""
    path = checkpoint.path
    if checkpoint.container != "diffusers":
        given = file_arguments(checkpoint)
        if not all(isinstance(given.get(key), Mapping) for key in ("network", "schedule")):
            raise CheckpointError(f"{path}: its metadata does not hold a diffusers network and its schedule")
        schedule = _schedule(given["schedule"], config, path)
        return {"latent_scale": None, "class": "UNet2DModel", **given, "schedule": schedule}, []
    scheduler, vae = checkpoint.attributes.get("scheduler"), checkpoint.attributes.get("vae_config")
    warnings = []
    if scheduler is None and not config.keys() & _SETTINGS.keys():
        warnings.append(
            "no scheduler_config.json: DDPM's 1000 linear betas from 0.0001 to 0.02 and epsilon are assumed "
            "(--config beta_schedule, beta_start, beta_end, num_train_timesteps, prediction_type)"
        )
    facts = {
        "class": checkpoint.class_name,
        "network": checkpoint.arguments,
        "schedule": _schedule(scheduler or {}, config, path),
        "latent_scale": None if vae is None else _latent_scale(vae, path),
    }
    return facts, warnings


def _schedule(scheduler: Mapping[str, Any], config: Mapping[str, str], path: str) -> dict[str, Any]:
    """The settings that decide noise levels and what the network predicts, of the present spelling or the first."""
    said = {key: value for key, value in scheduler.items() if value is not None}
    name = str(said.get("_class_name", ""))
    odd = [key for key in ("rescale_betas_zero_snr", "use_flow_sigmas") if said.get(key)]
    if odd or _OTHER_NOISE.search(name):
        raise CheckpointError(f"{path}: the scheduler ({name}{', ' if odd else ''}{', '.join(odd)}) is not supported")
    if "timesteps" in said:  # the spelling before diffusers 0.3
        said.setdefault("num_train_timesteps", said["timesteps"])
    if said.get("predict_epsilon") is False:  # until diffusers 0.10
        said.setdefault("prediction_type", "sample")
    found = {
        key: config_value(config, key, as_type(said.get(key, default), default, key, path))
        for key, default in _SETTINGS.items()
    }
    for key, choices in _CHOICES.items():
        if found[key] not in choices:
            refusal = UsageError if key in config else CheckpointError
            raise refusal(f"{path}: {key} {found[key]} is not one of {', '.join(choices)}")
    betas = said.get("trained_betas")
    if betas is not None and not config.keys() & {"beta_schedule", "beta_start", "beta_end", "num_train_timesteps"}:
        if not isinstance(betas, list) or not all(isinstance(b, (int, float)) and 0 < b < 1 for b in betas):
            raise CheckpointError(f"{path}: the scheduler's trained_betas are not numbers between 0 and 1")
        return {**found, "trained_betas": betas, "num_train_timesteps": len(betas)}
    if not (1 <= found["num_train_timesteps"] <= 100_000 and 0 < found["beta_start"] <= found["beta_end"] < 1):
        raise CheckpointError(f"{path}: no schedule of betas: {found}; expected 0 < beta_start ≤ beta_end < 1")
    return found


def _latent_scale(vae: Mapping[str, Any], path: str) -> float:
    odd = [key for key in ("shift_factor", "latents_mean", "latents_std") if vae.get(key)]
    if odd:
        raise CheckpointError(f"{path}: an image encoder with {', '.join(odd)} is not supported, only scaling_factor")
    return float(as_type(vae.get("scaling_factor", LATENT_SCALE), LATENT_SCALE, "scaling_factor", path))


def _arguments(kind: Any, network: Mapping[str, Any], config: Mapping[str, str], path: str) -> dict[str, Any]:
    """What the class takes of the config, whose other fields are its writer's; with a square side."""
    known = inspect.signature(kind.__init__).parameters
    arguments = {key: value for key, value in network.items() if key in known}
    size = arguments.get("sample_size")
    sides = {*size} if isinstance(size, list) and all(type(s) is int for s in size) else {size}
    if "sample_size" in config:
        sides = {config_value(config, "sample_size", None)}
    side = sides.pop() if len(sides) == 1 else None
    if type(side) is not int or side < 1:
        raise CheckpointError(f"{path}: sample_size is {size!r}; expected a square, say it with --config sample_size=N")
    return {**arguments, "sample_size": side}


def _classes(arguments: Mapping[str, Any], is_dit: bool, path: str) -> Classes:
    if is_dit:
        count = as_type(arguments.get("num_embeds_ada_norm") or 1000, 1, "num_embeds_ada_norm", path)
        return Classes(count, null=True, null_trained=True)
    if arguments.get("time_embedding_type", "positional") != "positional":
        raise CheckpointError(f"{path}: time_embedding_type is not positional; only networks told of a step can be run")
    if arguments.get("class_embed_type") is not None:
        raise CheckpointError(f"{path}: class_embed_type {arguments['class_embed_type']} is not supported")
    count = as_type(arguments.get("num_class_embeds") or 0, 0, "num_class_embeds", path)
    return Classes(count, null=not count)


def _space(arguments: Mapping[str, Any], is_dit: bool, latent_scale: float | None, path: str) -> InputSpace:
    channels = as_type(arguments.get("in_channels", 4 if is_dit else 3), 1, "in_channels", path)
    side = arguments["sample_size"]
    latent = latent_scale is not None or channels not in (1, 3)
    return input_space(channels, side, latent, "adm" if is_dit else "lanczos")


def _hooked(module: nn.Module, is_dit: bool) -> HookedNetwork:
    layer = re.compile(r"transformer_blocks\.\d+") if is_dit else _UNET_LAYER
    names = [name for name, _ in module.named_modules() if layer.fullmatch(name)]
    return HookedNetwork(module, names, _run_dit if is_dit else _run_unet)


def _run_unet(module: nn.Module, x: Tensor, time: Tensor, label: Tensor | None) -> Tensor:
    output: Tensor = module(x.to(_dtype(module)), time, class_labels=label, return_dict=False)[0]
    return output


def _run_dit(module: nn.Module, x: Tensor, time: Tensor, label: Tensor | None) -> Tensor:
    output: Tensor = module(x.to(_dtype(module)), timestep=time, class_labels=label, return_dict=False)[0]
    return output


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype


def _default_layer(arguments: Mapping[str, Any], is_dit: bool) -> str:
    """The block after which half of a transformer lies; the last encoder block, at a U-Net's lowest resolution."""
    if is_dit:
        return f"transformer_blocks.{max(0, int(arguments.get('num_layers', 28)) // 2 - 1)}"
    return f"down_blocks.{len(arguments.get('down_block_types', range(4))) - 1}"


def _renamed(name: str) -> str:
    return re.sub(
        r"\.(query|key|value|proj_attn)(?=\.(?:weight|bias)$)", lambda found: f".{_LEGACY[found[1]]}", name
    )  # fmt: skip


def _fill_buffers(module: nn.Module, kind: Any, arguments: Mapping[str, Any]) -> None:
    """Tables that no file stores, such as DiT's positions, from a network of one block that was built in memory."""
    absent = [name for name, buffer in module.named_buffers() if buffer.is_meta]
    if not absent:
        return
    small = kind(**{**arguments, "num_layers": 1} if "num_layers" in arguments else arguments)
    for name in absent:
        owner, _, leaf = name.rpartition(".")
        module.get_submodule(owner).register_buffer(leaf, small.get_buffer(name), persistent=False)
