"""Networks of the diffusers library: UNet2DModel (DDPM, DDIM), DiTTransformer2DModel, and those told of a text.

Ho et al., "Denoising Diffusion Probabilistic Models", 2020, https://arxiv.org/abs/2006.11239; Peebles & Xie, "Scalable
Diffusion Models with Transformers", 2023, https://arxiv.org/abs/2212.09748. The networks are the library's, built from
their configs; their weights are read by this package, and all of them must fit. What takes a text is in `_pipelines`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diffscope.checkpoints.base import Checkpoint
from diffscope.errors import CheckpointError, UsageError
from diffscope.families import _pipelines
from diffscope.families._building import build_on_meta, dry_walk, load_weights, shapes_of
from diffscope.families._constructors import fill_buffers, known_arguments, made, square_side
from diffscope.families._facts import Facts, file_arguments, shown
from diffscope.families._latents import LatentScale
from diffscope.families._schedules import LATENT_SCALE, PREDICTS, SETTINGS, latents_of, noise_of, schedule_of
from diffscope.families._text_configs import network_of
from diffscope.families.base import Classes, Denoiser, Match, input_space
from diffscope.families.networks.autoencoder import Autoencoder
from diffscope.families.networks.block_outputs import image_output
from diffscope.families.networks.hooked import HookedNetwork
from diffscope.families.networks.library import diffusers_class

_KNOWN = (*SETTINGS, "sample_size")
MAX_TABLE = 1 << 24
"""Most numbers in DiT's table of positions, which stands in no file: 14,000 positions at the width of DiT-XL."""
_SIZES = (
    "in_channels", "out_channels", "layers_per_block", "norm_num_groups", "attention_head_dim", "patch_size",
    "num_layers", "num_attention_heads", "num_class_embeds", "num_embeds_ada_norm",
)  # fmt: skip
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


def recognise(checkpoint: Checkpoint) -> Match | None:
    """Claims diffusers folders; converted ones are claimed by their metadata."""
    if checkpoint.container != "diffusers":
        return None
    return Match(True, f"a diffusers folder with a {checkpoint.class_name}")


def build(checkpoint: Checkpoint, config: Mapping[str, str], match: Match) -> Denoiser:
    """Builds the library's network from its config and gives it the weights.

    Args:
        checkpoint: A diffusers folder, or a conversion of one.
        config: The user's `--config`: settings of the scheduler, and sample_size; more of a network told of a text.
        match: The evidence that the file is of this family.

    Returns:
        The denoiser, its network on the CPU.

    Raises:
        CheckpointError: If configs or weights are damaged, or something in them is not supported.
        WeightsMismatch: If the weights do not fit the network.
        UsageError: If `config` has an unknown key or value.
    """
    if checkpoint.container == "diffusers" and network_of(checkpoint) is not None:
        return _pipelines.build(checkpoint, config, match)
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
    network = _hooked(build_on_meta(lambda: made(kind, arguments), path, tensors), is_dit).eval()
    label = torch.zeros(1, dtype=torch.int64, device="meta") if classes.count else None
    layers = dry_walk(network, space, label, path)
    load_weights(network.module, tensors, path)
    fill_buffers(network.module, kind, arguments)
    latent_scale = (facts["latent_scale"] or LATENT_SCALE) if space.kind == "latents" else None
    evidence = [match.why, f"{'assumed' if warnings else 'stated'} steps, {schedule['beta_schedule']} betas"]
    if is_dit:
        evidence.append("time embedded as diffusers does, with denominator 127 (DiT's own code: 128)")
    return DiffusersDenoiser(
        network_class=f"{facts['class']}({schedule['beta_schedule']}, {schedule['prediction_type']})",
        network=network,
        space=space,
        noise=noise_of(schedule, path),
        classes=classes,
        layers=layers,
        default_layer=_default_layer(arguments, is_dit),
        evidence="; ".join(evidence),
        constructor={
            "class": facts["class"], "network": arguments, "schedule": schedule, "latent_scale": latent_scale,
        },
        warnings=tuple(warnings),
        prediction=PREDICTS[schedule["prediction_type"]],
        latent_scale=None if latent_scale is None else LatentScale((latent_scale,)),
        vae=checkpoint.attributes.get("vae"),
    )  # fmt: skip


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
            "schedule": schedule_of(given["schedule"], config, path, _KNOWN),
            "latent_scale": said.number("latent_scale", LATENT_SCALE, 0, 1e6) if said.says("latent_scale") else None,
        }, []
    scheduler, vae = checkpoint.attributes.get("scheduler"), checkpoint.attributes.get("vae_config")
    warnings = []
    if scheduler is None and not config.keys() & set(SETTINGS):
        warnings.append(
            "no scheduler_config.json: DDPM's 1000 linear betas from 0.0001 to 0.02 and epsilon are assumed "
            "(`config=` beta_schedule, beta_start, beta_end, num_train_timesteps, prediction_type)"
        )
    facts = {
        "class": checkpoint.class_name,
        "network": checkpoint.arguments,
        "schedule": schedule_of(scheduler or {}, config, path, _KNOWN),
        "latent_scale": None if vae is None else _latent_scale(vae, path),
    }
    return facts, warnings


def _latent_scale(vae: Mapping[str, Any], path: str) -> float:
    found = latents_of(vae, path)
    if found.mean != (0.0,):
        raise CheckpointError(f"{path}: an image encoder with shift_factor is not supported for this class of network")
    return found.factor[0]


def _arguments(kind: Any, facts: Facts, is_dit: bool) -> dict[str, Any]:
    """What the class takes of the config, whose other fields are its writer's; with a square side."""
    arguments = known_arguments(kind, facts)
    arguments |= {key: facts.integer(key, 1) for key in _SIZES if arguments.get(key) is not None}
    if "block_out_channels" in arguments:
        arguments["block_out_channels"] = facts.numbers("block_out_channels", [], 1, 1 << 16, whole=True)
    side = square_side(facts)
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


def _hooked(module: nn.Module, is_dit: bool) -> HookedNetwork:
    layer = re.compile(r"transformer_blocks\.\d+") if is_dit else _UNET_LAYER
    names = [name for name, _ in module.named_modules() if layer.fullmatch(name)]
    return HookedNetwork(module, names, _run_dit if is_dit else _run_unet, image_output)


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
