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
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from diffscope.checkpoints.base import Checkpoint
from diffscope.errors import CheckpointError, UsageError
from diffscope.families._building import MAX_SIDE, build_on_meta, dry_walk, load_weights, shapes_of
from diffscope.families._conventions import DiscreteSteps
from diffscope.families._facts import MAX_LIST, Facts, file_arguments, shown
from diffscope.families._latents import LatentScale
from diffscope.families.base import Classes, Denoiser, Match, input_space
from diffscope.families.networks.autoencoder import Autoencoder
from diffscope.families.networks.hooked import HookedNetwork
from diffscope.families.networks.library import diffusers_class

LATENT_SCALE = 0.18215  # default scaling_factor of diffusers' AutoencoderKL

_SETTINGS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
_KNOWN = (*_SETTINGS, "sample_size")
MAX_STEPS = 100_000
MAX_TABLE = 1 << 24
"""Most numbers in DiT's table of positions, which stands in no file: 14,000 positions at the width of DiT-XL."""
_SIZES = (
    "in_channels", "out_channels", "layers_per_block", "norm_num_groups", "attention_head_dim", "patch_size",
    "num_layers", "num_attention_heads", "num_class_embeds", "num_embeds_ada_norm",
)  # fmt: skip
_OTHER_NOISE = re.compile(r"FlowMatch|ScoreSde|EDM|KarrasVe|CMStochastic|VQDiffusion")
"""Schedulers whose noise is not a chain of betas."""
_UNET_LAYER = re.compile(
    r"conv_in|conv_norm_out|conv_out|((down_blocks|up_blocks)\.\d+|mid_block)(\.(resnets|attentions)\.\d+)?"
)
_LEGACY = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of the attention's parts before diffusers 0.15, which published weights keep."""


@dataclass
class DiffusersDenoiser(Denoiser):
    """A network of the diffusers library as a denoiser."""

    family: ClassVar[str] = "diffusers"
    vae: str | None = None
    """Folder of the pipeline's own image encoder."""

    def use_encoder(self, path: str | None, encoder: Autoencoder | None = None) -> None:
        """Reads a VAE, else the pipeline's own; see `Denoiser.use_encoder`.

        Args:
            path: A diffusers folder or Hub reference of an AutoencoderKL; None takes the pipeline's own.
            encoder: The same VAE, read before.

        Raises:
            CheckpointError: As `Denoiser.use_encoder`.
        """
        super().use_encoder(path or self.vae, encoder)

    def label(self, classes: Tensor | None, device: torch.device) -> Tensor | None:
        """Makes class indices.

        Args:
            classes: Indices (B,) int64; None stands for the null class.
            device: Where the result is used.

        Returns:
            Indices (B,) or (1,) int64, the null class being index `count`; None for a model without classes.

        Raises:
            UsageError: If there is no null class and `classes` is None.
        """
        if not self.classes.count:
            return None
        if classes is not None:
            return classes.to(device)
        if not self.classes.null:
            raise UsageError("this model has no null class; use `class_label=label` or `class_label=INT`")
        return torch.full((1,), self.classes.count, device=device)

    def denoise(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """Computes the posterior mean from predicted noise, velocity or data, by the schedule's `prediction_type`.

        Args:
            x: (B, C, H, W), in the network's input space.
            sigma: Noise-to-signal ratio, (B,) or (1,).
            label: From `label`.

        Returns:
            (B, C, H, W).
        """
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
    """Claims diffusers folders; converted ones are claimed by their metadata."""
    if checkpoint.container != "diffusers":
        return None
    return Match(True, f"a diffusers folder with a {checkpoint.class_name}")


def build(checkpoint: Checkpoint, config: Mapping[str, str], match: Match) -> DiffusersDenoiser:
    """Builds the library's network from its config and gives it the weights.

    Args:
        checkpoint: A diffusers folder, or a conversion of one.
        config: The user's `--config`: settings of the scheduler, and sample_size.
        match: The evidence that the file is of this family.

    Returns:
        The denoiser, its network on the CPU.

    Raises:
        CheckpointError: If configs or weights are damaged, or something in them is not supported.
        WeightsMismatch: If the weights do not fit the network.
        UsageError: If `config` has an unknown key or value.
    """
    path = checkpoint.path
    facts, warnings = _facts(checkpoint, config)
    schedule, is_dit = facts["schedule"], facts["class"] != "UNet2DModel"
    kind = diffusers_class("DiTTransformer2DModel" if is_dit else "UNet2DModel")
    arguments = _arguments(kind, Facts(path, facts["network"], config, _KNOWN), is_dit)
    classes = _classes(arguments, is_dit, path)
    channels = arguments.get("in_channels", 4 if is_dit else 3)
    latent = facts["latent_scale"] is not None or channels not in (1, 3)
    space = input_space(channels, arguments["sample_size"], latent, "adm" if is_dit else "lanczos")
    tensors = {_renamed(name): checkpoint.tensors[name] for name in checkpoint.tensors}
    shapes_of(path, tensors)
    network = _hooked(build_on_meta(lambda: _made(kind, arguments), path, tensors), is_dit).eval()
    label = torch.zeros(1, dtype=torch.int64, device="meta") if classes.count else None
    layers = dry_walk(network, space, label, path)
    load_weights(network.module, tensors, path)
    _fill_buffers(network.module, kind, arguments)
    latent_scale = (facts["latent_scale"] or LATENT_SCALE) if space.kind == "latents" else None
    evidence = [match.why, f"{'assumed' if warnings else 'stated'} steps, {schedule['beta_schedule']} betas"]
    if is_dit:
        evidence.append("time embedded as diffusers does, with denominator 127 (DiT's own code: 128)")
    return DiffusersDenoiser(
        network_class=f"{facts['class']}({schedule['beta_schedule']}, {schedule['prediction_type']})",
        network=network,
        space=space,
        noise=_noise(schedule, path),
        classes=classes,
        layers=layers,
        default_layer=_default_layer(arguments, is_dit),
        evidence="; ".join(evidence),
        constructor={
            "class": facts["class"], "network": arguments, "schedule": schedule, "latent_scale": latent_scale,
        },
        warnings=tuple(warnings),
        latent_scale=None if latent_scale is None else LatentScale((latent_scale,)),
        vae=checkpoint.attributes.get("vae"),
    )  # fmt: skip


def sigmas(schedule: Mapping[str, Any]) -> list[float]:
    """Computes the noise level of every step, from the float32 table `alphas_cumprod` of the library's schedulers.

    Args:
        schedule: num_train_timesteps, beta_start, beta_end, beta_schedule, and trained_betas where there are some.

    Returns:
        Noise-to-signal ratios, rising; infinite where no signal is left.
    """
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
    with np.errstate(divide="ignore"):
        return [float(s) for s in np.sqrt((1 - signal) / signal)]


def _noise(schedule: Mapping[str, Any], path: str) -> DiscreteSteps:
    levels = sigmas(schedule)
    if not 0 < levels[0] <= levels[-1] < math.inf:
        raise CheckpointError(
            f"{path}: the scheduler's betas give noise levels from {levels[0]:g} to {levels[-1]:g}; expected them "
            "above 0 and finite; say what differs with `config=beta_start=B, beta_end=B` or num_train_timesteps=N"
        )
    return DiscreteSteps(levels)


def _facts(checkpoint: Checkpoint, config: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """(class, network, schedule, latent_scale), from a folder or from a converted file's metadata; what was assumed."""
    path = checkpoint.path
    if checkpoint.container != "diffusers":
        given = file_arguments(checkpoint)
        if not all(isinstance(given.get(key), Mapping) for key in ("network", "schedule")):
            raise CheckpointError(f"{path}: its metadata does not hold a diffusers network and its schedule")
        said = Facts(path, given)
        return {
            "class": said.choice(
                "class", "UNet2DModel", ("UNet2DModel", "DiTTransformer2DModel", "Transformer2DModel")
            ),
            "network": given["network"],
            "schedule": _schedule(given["schedule"], config, path),
            "latent_scale": _scale(said, "latent_scale") if said.says("latent_scale") else None,
        }, []
    scheduler, vae = checkpoint.attributes.get("scheduler"), checkpoint.attributes.get("vae_config")
    warnings = []
    if scheduler is None and not config.keys() & set(_SETTINGS):
        warnings.append(
            "no scheduler_config.json: DDPM's 1000 linear betas from 0.0001 to 0.02 and epsilon are assumed "
            "(`config=` beta_schedule, beta_start, beta_end, num_train_timesteps, prediction_type)"
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
    name = str(said["_class_name"]) if isinstance(said.get("_class_name"), str) else ""
    odd = [key for key in ("rescale_betas_zero_snr", "use_flow_sigmas") if said.get(key)]
    if odd or _OTHER_NOISE.search(name):
        raise CheckpointError(f"{path}: the scheduler ({name}{', ' if odd else ''}{', '.join(odd)}) is not supported")
    if "timesteps" in said:  # the spelling before diffusers 0.3
        said.setdefault("num_train_timesteps", said["timesteps"])
    if said.get("predict_epsilon") is False:  # until diffusers 0.10
        said.setdefault("prediction_type", "sample")
    facts, betas = Facts(path, said, config, _KNOWN), said.get("trained_betas")
    found: dict[str, Any] = {  # defaults of diffusers' DDPMScheduler
        "num_train_timesteps": facts.integer("num_train_timesteps", 1000, 1, MAX_STEPS),
        "beta_start": facts.number("beta_start", 1e-4, 0, 0.9999),
        "beta_end": facts.number("beta_end", 0.02, 0, 0.9999),
        "beta_schedule": facts.choice("beta_schedule", "linear", ("linear", "scaled_linear", "squaredcos_cap_v2")),
        "prediction_type": facts.choice("prediction_type", "epsilon", ("epsilon", "v_prediction", "sample")),
    }
    if betas is not None and not config.keys() & {"beta_schedule", "beta_start", "beta_end", "num_train_timesteps"}:
        if not isinstance(betas, list) or not 1 <= len(betas) <= MAX_STEPS or not all(map(_is_beta, betas)):
            raise CheckpointError(
                f"{path}: trained_betas is {shown(betas)}; expected a list of 1 to {MAX_STEPS} numbers between 0 and 1"
            )
        return {**found, "trained_betas": betas, "num_train_timesteps": len(betas)}
    if found["beta_start"] > found["beta_end"]:
        raise CheckpointError(
            f"{path}: beta_start {found['beta_start']:g} is above beta_end {found['beta_end']:g}; expected it below"
        )
    return found


def _is_beta(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 < value < 1


def _latent_scale(vae: Mapping[str, Any], path: str) -> float:
    odd = [key for key in ("shift_factor", "latents_mean", "latents_std") if vae.get(key)]
    if odd:
        raise CheckpointError(f"{path}: an image encoder with {', '.join(odd)} is not supported, only scaling_factor")
    return _scale(Facts(path, vae), "scaling_factor")


def _scale(facts: Facts, key: str) -> float:
    return facts.number(key, LATENT_SCALE, 0, 1e6)


def _arguments(kind: Any, facts: Facts, is_dit: bool) -> dict[str, Any]:
    """What the class takes of the config, whose other fields are its writer's; with a square side."""
    known = inspect.signature(kind.__init__).parameters
    arguments = {key: value for key, value in facts.said.items() if key in known}
    arguments |= {key: facts.integer(key, 1) for key in _SIZES if arguments.get(key) is not None}
    if "block_out_channels" in arguments:
        arguments["block_out_channels"] = facts.numbers("block_out_channels", [], 1, 1 << 16, whole=True)
    if odd := [key for key, value in arguments.items() if not _is_modest(value)]:
        raise CheckpointError(
            f"{facts.path}: {odd[0]} is {shown(arguments[odd[0]])}; expected finite numbers below 2^63"
        )
    if long := [key for key, value in arguments.items() if isinstance(value, list) and len(value) > MAX_LIST]:
        raise CheckpointError(
            f"{facts.path}: {long[0]} is a list of {len(arguments[long[0]])}; expected up to {MAX_LIST}"
        )
    side = _side(facts)
    patch, heads, head = (
        arguments.get(key) or default
        for key, default in (("patch_size", 2), ("num_attention_heads", 16), ("attention_head_dim", 72))
    )
    positions, width = (side // patch) ** 2, heads * head
    if is_dit and positions * width > MAX_TABLE:
        raise CheckpointError(
            f"{facts.path}: {positions} positions of width {width}, by sample_size, patch_size and the attention "
            f"heads; expected up to {MAX_TABLE} numbers for them"
        )
    return {**arguments, "sample_size": side}


def _is_modest(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_modest, value))
    return not isinstance(value, (int, float)) or abs(value) < 2**63


def _side(facts: Facts) -> int:
    size = facts.said.get("sample_size")
    if isinstance(size, list) and len(size) == 2 and size[0] == size[1]:
        size = size[0]
    if "sample_size" in facts.config or type(size) is int:
        return replace(facts, said={"sample_size": size}).integer("sample_size", 1, high=MAX_SIDE)
    raise CheckpointError(
        f"{facts.path}: sample_size is {shown(size)}; expected a square, say it with `config=sample_size=N`"
    )


def _classes(arguments: Mapping[str, Any], is_dit: bool, path: str) -> Classes:
    if is_dit:
        return Classes(arguments.get("num_embeds_ada_norm") or 1000, null=True, null_trained=True)
    if (kind := arguments.get("time_embedding_type", "positional")) != "positional":
        raise CheckpointError(
            f"{path}: time_embedding_type is {shown(kind)}; expected 'positional': only networks told of a step "
            "can be run"
        )
    if (kind := arguments.get("class_embed_type")) is not None:
        raise CheckpointError(f"{path}: class_embed_type is {shown(kind)}; expected null, no other is supported")
    count = arguments.get("num_class_embeds") or 0
    return Classes(count, null=not count)


def _made(kind: Any, arguments: Mapping[str, Any]) -> nn.Module:
    module: nn.Module = kind(**arguments)
    return module


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
        return f"transformer_blocks.{max(0, (arguments.get('num_layers') or 28) // 2 - 1)}"
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
