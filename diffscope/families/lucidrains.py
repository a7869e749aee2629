"""denoising-diffusion-pytorch (lucidrains): the Trainer's `model-N.pt`, whose file holds its own noise levels.

Ho et al., "Denoising Diffusion Probabilistic Models", 2020, https://arxiv.org/abs/2006.11239. GaussianDiffusion keeps
abar[t] as the buffer `alphas_cumprod`, so that sigma[t] = √((1 - abar[t]) / abar[t]) needs no schedule's name; what the
network predicts is seen by `loss_weight`, since each objective weighs steps in its own way. Releases from 1.9 on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from diffscope.checkpoints.base import Checkpoint
from diffscope.errors import CheckpointError, UsageError
from diffscope.families._building import MAX_SIDE, build_on_meta, dry_walk, load_weights, shapes_of
from diffscope.families._conventions import DiscreteSteps
from diffscope.families._facts import Facts, file_arguments, integer_if_whole
from diffscope.families._gaussian_diffusion import OBJECTIVES, PREDICTS, objective_of, signal_of
from diffscope.families.base import Classes, Denoiser, Match, input_space
from diffscope.families.networks.lucidrains_unet import AttentionShape, LucidrainsUNet

PREFIX = "model."
"""Before the network's names where GaussianDiffusion's buffers stand beside it."""
BUFFERS = (
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance",
    "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2", "loss_weight",
)  # fmt: skip
_KNOWN = ("auto_normalize", "beta_schedule", "timesteps", "objective", "image_size", "resnet_block_groups")
_RELATED = {
    "time_mlp.0.weights": "learned or random Fourier features, which GaussianDiffusion has not",
    "classes_emb.weight": "classes and classifier-free guidance",
    "null_classes_emb": "classes and classifier-free guidance",
}
"""Tensors of other networks of the same package → what these have."""


@dataclass
class LucidrainsDenoiser(Denoiser):
    """A network of GaussianDiffusion as a denoiser."""

    family: ClassVar[str] = "lucidrains"

    def label(self, classes: Tensor | None, device: torch.device) -> Tensor | None:
        """Gives None: the network takes no classes."""
        return None

    def encode(self, images: Tensor, noise: Tensor | None) -> Tensor:
        """Brings images to the data's range.

        Args:
            images: (B, C, S, S) in [-1, 1].
            noise: Unused.

        Returns:
            The images themselves; in [0, 1] for a network trained without `auto_normalize`.
        """
        return images if self.constructor["auto_normalize"] == "true" else (images + 1) / 2

    def decode(self, x: Tensor) -> Tensor:
        """Brings points of the data's range back to images: `encode` backwards.

        Args:
            x: (B, C, H, W).

        Returns:
            Images, meant to lie in [-1, 1].
        """
        return x if self.constructor["auto_normalize"] == "true" else 2 * x - 1


def recognise(checkpoint: Checkpoint) -> Match | None:
    """Claims the U-Net of the package, alone or within GaussianDiffusion."""
    tensors, prefix = checkpoint.tensors, _prefix(checkpoint.tensors)
    first, last = tensors.get(f"{prefix}init_conv.weight"), tensors.get(f"{prefix}final_conv.weight")
    rest = ("time_mlp.1.weight", "downs.0.0.block1.proj.weight")
    if first is None or last is None or not all(prefix + name in tensors for name in rest):
        return None
    if tuple(first.shape[2:]) != (7, 7) or tuple(last.shape[2:]) != (1, 1):
        return None
    return Match(True, "the U-Net of denoising-diffusion-pytorch" + (", in GaussianDiffusion" if prefix else ""))


def build(checkpoint: Checkpoint, config: Mapping[str, str], match: Match) -> LucidrainsDenoiser:
    """Builds the U-Net and reads noise levels and objective from the file's buffers.

    Args:
        checkpoint: One that `recognise` claims.
        config: The user's `--config`: image_size; resnet_block_groups of a network with group norms; auto_normalize;
            beta_schedule, timesteps and objective of a network without the buffers.
        match: From `recognise`.

    Returns:
        The denoiser, its network on the CPU.

    Raises:
        CheckpointError: If a fact is missing that no file holds, or the weights are of another layout.
        WeightsMismatch: If they do not fit the network.
        UsageError: If `config` has an unknown key or value, or contradicts the file.
    """
    path, prefix = checkpoint.path, _prefix(checkpoint.tensors)
    tensors = {n.removeprefix(prefix): t for n, t in checkpoint.tensors.items() if n.startswith(prefix)}
    buffers = {name: checkpoint.tensors[name] for name in BUFFERS if name in checkpoint.tensors}
    tensors = {name: tensor for name, tensor in tensors.items() if name not in buffers}
    shape = _shape(path, shapes_of(path, tensors))
    facts = Facts(path, file_arguments(checkpoint), config, _KNOWN)
    _ask(facts, has_groups=shape["groups"] is None, has_table="alphas_cumprod" in buffers)
    if shape["groups"] is None:
        shape["groups"] = _groups(facts, shape)
    side = _side(facts, len(shape["widths"]))
    normalized = facts.choice("auto_normalize", "true", ("true", "false"))
    signal, schedule = signal_of(facts, buffers)
    objective, why = objective_of(facts, signal, buffers.get("loss_weight"))
    network = build_on_meta(lambda: LucidrainsUNet(**shape), path, tensors)
    space = input_space(shape["channels"], side, False, "bilinear")
    layers = dry_walk(network, space, None, path)
    load_weights(network, tensors, path)
    warnings = []
    if shape["self_condition"]:
        warnings.append(
            "the network is self-conditioned: it gets zeros for its own estimate, as in the first step of sampling and "
            "half of its training"
        )
    aside = len(checkpoint.tensors) - len(tensors) - len(buffers)
    return LucidrainsDenoiser(
        network_class=f"Unet({schedule or 'schedule of the file'}, {objective})",
        network=network,
        space=space,
        noise=DiscreteSteps(np.sqrt((1 - signal) / signal).tolist()),
        classes=Classes(),
        layers=layers,
        default_layer=f"downs.{len(shape['widths']) - 1}.3",
        evidence="; ".join([
            match.why + (f", {aside} tensors beside it left out" if aside else ""),
            f"{len(signal)} steps from {'alphas_cumprod' if 'alphas_cumprod' in buffers else 'what was said'}",
            why,
            f"data in {'[-1, 1]' if normalized == 'true' else '[0, 1]'}",
        ]),
        constructor={
            **_spelled(shape), "image_size": side, "auto_normalize": normalized, "objective": objective,
            "beta_schedule": schedule, "timesteps": len(signal),
        },
        warnings=tuple(warnings),
        prediction=PREDICTS[objective],
        exact=tuple(buffers),
    )  # fmt: skip


def _spelled(shape: Mapping[str, Any]) -> dict[str, Any]:
    """The network's shape as the package's own constructor takes it, without the number of memories."""
    attentions = shape["attentions"][:-1]
    return {
        "dim": shape["time_width"],
        "init_dim": shape["init_width"],
        "dim_mults": [integer_if_whole(width / shape["time_width"]) for width in shape["widths"]],
        "channels": shape["channels"],
        "self_condition": shape["self_condition"],
        "full_attn": [attention.kind == "full" for attention in attentions],
        "attn_heads": [attention.heads for attention in attentions],
        "attn_dim_head": [attention.head_width for attention in attentions],
        "resnet_block_groups": shape["groups"] or None,
    }


def _prefix(tensors: Mapping[str, Tensor]) -> str:
    return PREFIX if f"{PREFIX}init_conv.weight" in tensors else ""


def _ask(facts: Facts, has_groups: bool, has_table: bool) -> None:
    """CheckpointError that names all facts at once that are still to be said."""
    needed = {"image_size": "N"}
    if has_groups:
        needed["resnet_block_groups"] = "N"
    if not has_table:
        needed |= {"beta_schedule": "sigmoid|cosine|linear", "timesteps": "N", "objective": "|".join(OBJECTIVES)}
    missing = {key: value for key, value in needed.items() if not facts.says(key)}
    if missing:
        say = " ".join(f"`config={key}={value}`" for key, value in missing.items())
        usual = " (8 groups where nobody set them)" if "resnet_block_groups" in missing else ""
        verb = "stands" if len(missing) == 1 else "stand"
        raise CheckpointError(f"{facts.path}: {', '.join(missing)} {verb} in no tensor; say {say}{usual}")


def _side(facts: Facts, levels: int) -> int:
    side, least = facts.integer("image_size", 1, high=MAX_SIDE), 1 << (levels - 1)
    if side % least:
        raise UsageError(f"`config=image_size={side}`: expected a multiple of {least}, for {levels} resolutions")
    return side


def _groups(facts: Facts, shape: Mapping[str, Any]) -> int:
    groups = facts.integer("resnet_block_groups", 1)
    widths = {shape["init_width"], *shape["widths"], shape["final_width"]}
    if odd := [width for width in sorted(widths) if width % groups]:
        raise UsageError(f"`config=resnet_block_groups={groups}`: the network's width {odd[0]} is no multiple of it")
    return groups


def _shape(path: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Reads the constructor's arguments from names and shapes.

    Args:
        path: Of the checkpoint, for messages.
        shapes: Name → shape of the U-Net's tensors.

    Returns:
        Argument of `LucidrainsUNet` → value; `groups` is None where group norms do not say how many.

    Raises:
        CheckpointError: If they are of another layout or network, or not whole.
    """
    _refuse_related(path, shapes)
    try:
        levels = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("downs."))
        init_width, inputs = shapes["init_conv.weight"][:2]
        out_channels, final_width = shapes["final_conv.weight"][:2]
        embedding_width, time_width = shapes["time_mlp.1.weight"]
        places = [f"downs.{level}.3" for level in range(levels)]
        widths = [shapes[f"{p}.weight" if f"{p}.weight" in shapes else f"{p}.1.weight"][0] for p in places]
        names = [*(f"downs.{level}.2" for level in range(levels)), "mid_attn"]
        attentions = [_attention(name, shapes) for name in names]
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{path}: not a whole U-Net of denoising-diffusion-pytorch: {error} is missing or of another shape"
        ) from None
    self_condition = inputs == 2 * out_channels
    if inputs != out_channels and not self_condition:
        learned = " (one that learns its variance)" if out_channels == 2 * inputs else ""
        raise CheckpointError(
            f"{path}: {out_channels} output channels for {inputs} input channels{learned}; expected as many, or half "
            "as many of a self-conditioned network"
        )
    if out_channels not in (1, 3):
        raise CheckpointError(f"{path}: the network takes {out_channels} channels; expected images of 1 or 3")
    if time_width % 2 or time_width < 4:
        raise CheckpointError(f"{path}: time_mlp.1.weight takes {time_width} numbers; expected an even count from 4 on")
    return {
        "channels": out_channels,
        "out_channels": out_channels,
        "self_condition": self_condition,
        "init_width": init_width,
        "time_width": time_width,
        "embedding_width": embedding_width,
        "widths": widths,
        "final_width": final_width,
        "attentions": attentions,
        "groups": 0 if "downs.0.0.block1.norm.g" in shapes else None,
    }


def _refuse_related(path: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """CheckpointError for layouts before release 1.9, and for other networks of the package."""
    if related := [what for name, what in _RELATED.items() if name in shapes]:
        raise CheckpointError(f"{path}: a network with {related[0]}; expected the Unet of GaussianDiffusion")
    if wrapped := [name for name in shapes if ".fn." in name]:
        raise CheckpointError(
            f"{path}: the layout of a release before 1.8 ({wrapped[0]}, no mem_kv); expected that of 1.9 or later"
        )
    lacking = [name.removesuffix("to_qkv.weight") for name in shapes if name.endswith(".to_qkv.weight")]
    if lacking := [place for place in lacking if f"{place}mem_kv" not in shapes]:
        raise CheckpointError(
            f"{path}: {lacking[0]}mem_kv is missing, as before release 1.9; expected the layout of 1.9 or later"
        )


def _attention(name: str, shapes: Mapping[str, tuple[int, ...]]) -> AttentionShape:
    """Reads one attention; its two kinds have the last two axes of `mem_kv` the other way round."""
    _, heads, *rest = shapes[f"{name}.mem_kv"]
    if f"{name}.to_out.0.weight" in shapes:
        width, memories = rest
        return AttentionShape("linear", heads, width, memories)
    memories, width = rest
    return AttentionShape("full", heads, width, memories)
