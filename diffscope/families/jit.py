"""JiT checkpoints: transformers on pixels that predict the image itself.

Li & He, "Back to Basics: Let Denoising Generative Models Denoise", 2025, https://arxiv.org/abs/2511.13720. Time runs
from noise (0) to data (1): x_t = t·data + (1 - t)·s·noise, with s the scale of the noise, which grows with the image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffscope.checkpoints.base import Checkpoint
from diffscope.errors import CheckpointError
from diffscope.families._building import build_on_meta, dry_walk, load_weights, shapes_of
from diffscope.families._conventions import unit_time
from diffscope.families._facts import Facts
from diffscope.families._transformers import TransformerDenoiser, block_numbers, checked_grid, facts_of
from diffscope.families.base import Classes, Match, NoiseConvention, input_space
from diffscope.families.networks.image_transformer import ImageTransformer

_STARTS = {(12, 768): 4, (24, 1024): 8, (32, 1280): 10}
"""Published sizes, by (depth, width): the block before which the class tokens join."""
_SCALES = {256: 1.0, 512: 2.0}
"""Scale of the noise of the published models, by the image's side."""
_SETTINGS = ("in_context_start", "noise_scale")
_MARKS = (
    "x_embedder.proj1.weight", "x_embedder.proj2.weight", "blocks.0.mlp.w12.weight", "blocks.0.attn.q_norm.weight",
)  # fmt: skip


class ScaledLinear(NoiseConvention):
    """The linear path with scaled noise: sigma = s·(1 - t)/t.

    Args:
        scale: s.
    """

    native = "t in [0, 1], 1 = data (linear path)"
    sigma_min = 0.0
    sigma_max = math.inf

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def to_native(self, sigma: float) -> float:
        """Gives s/(s + sigma)."""
        return self.scale / (self.scale + sigma)

    def to_sigma(self, t: float) -> float:
        """Gives s·(1 - t)/t; NoiseLevelError outside of [0, 1]."""
        return self.scale * (1 - unit_time(t)) / t if t else math.inf

    def input_scale(self, sigma: float) -> float:
        """Gives t."""
        return self.to_native(sigma)


@dataclass
class JiTDenoiser(TransformerDenoiser):
    """A JiT checkpoint as a denoiser; the network predicts the image."""

    family: ClassVar[str] = "jit"


def recognise(checkpoint: Checkpoint) -> Match | None:
    """Claims files whose tensors have the names of JiT's transformer."""
    if all(name in _native_names(checkpoint.tensors) for name in _MARKS):
        return Match(True, "the tensors have the names of JiT's transformer")
    return None


def _native_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The transformer's own names, which the file has within a wrapper; without projectors that serve training."""
    own = {name.removeprefix("net."): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in own.items() if not name.startswith("projectors.")}


def build(checkpoint: Checkpoint, config: Mapping[str, str], match: Match) -> JiTDenoiser:
    """Builds the transformer; projectors that serve training alone (iREPA's) are left out.

    Args:
        checkpoint: One that `recognise` claims.
        config: The user's `--config`: in_context_start, noise_scale.
        match: From `recognise`.

    Returns:
        The denoiser, its network on the CPU.

    Raises:
        CheckpointError: If the weights are not whole or do not say enough.
        WeightsMismatch: If they do not fit the network.
        UsageError: If `config` has an unknown key or value.
    """
    path, facts = checkpoint.path, facts_of(checkpoint, config, _SETTINGS)
    tensors = _native_names(checkpoint.tensors)
    shape = infer_shape(path, tensors)
    start, scale = _start(shape, facts), _scale(shape, facts)
    network = build_on_meta(lambda: ImageTransformer(**shape, in_context_start=start), path, tensors)
    space = input_space(shape["in_channels"], shape["input_size"], False, "adm")
    layers = dry_walk(network, space, torch.zeros(1, dtype=torch.int64, device="meta"), path)
    load_weights(network, tensors, path)
    depth, classes = shape["depth"], shape["label_rows"] - 1
    return JiTDenoiser(
        network_class="JiT(x)",
        network=network,
        space=space,
        noise=ScaledLinear(scale),
        classes=Classes(classes, null=True, null_trained=True),
        layers=layers,
        default_layer=f"blocks.{max(0, depth // 2 - 1)}",
        evidence=f"{match.why}; the last of {classes + 1} class rows taken as the null class",
        prediction="x0",
        constructor={**shape, "in_context_start": start, "num_classes": classes, "noise_scale": scale},
    )


def infer_shape(path: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Reads the transformer's constructor arguments, except for where class tokens join, from names and shapes alone.

    Args:
        path: Of the checkpoint, for messages.
        tensors: Under the transformer's own names.

    Returns:
        Argument of `ImageTransformer` → value.

    Raises:
        CheckpointError: If a tensor is missing or has a shape that no such transformer has.
    """
    shapes = shapes_of(path, tensors)
    numbers = block_numbers(shapes)
    try:
        bottleneck, channels, patch, _ = shapes["x_embedder.proj1.weight"]
        width = shapes["x_embedder.proj2.weight"][0]
        _, tokens, _ = shapes["pos_embed"]
        (head,) = shapes["blocks.0.attn.q_norm.weight"]
        arguments = {
            "input_size": math.isqrt(tokens) * patch,
            "patch_size": patch,
            "in_channels": channels,
            "bottleneck_dim": bottleneck,
            "hidden_size": width,
            "depth": len(numbers),
            "num_heads": width // head,
            "mlp_hidden": shapes["blocks.0.mlp.w12.weight"][0] // 2,
            "label_rows": shapes["y_embedder.embedding_table.weight"][0],
            "in_context_len": shapes["in_context_posemb"][1] if "in_context_posemb" in shapes else 0,
            "frequency_size": shapes["t_embedder.mlp.0.weight"][1],
        }
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path}: not a whole JiT transformer: {error} is missing or of another shape") from None
    checked_grid(path, tokens, numbers)
    if width % head or head % 4:
        raise CheckpointError(
            f"{path}: heads of {head} features in tokens of {width}; expected a multiple of 4 that divides the width"
        )
    return arguments


def _start(shape: Mapping[str, Any], facts: Facts) -> int:
    """The block before which the class tokens join; 0 where there are none."""
    depth, width = shape["depth"], shape["hidden_size"]
    if not shape["in_context_len"] and "in_context_start" not in facts.config:
        return 0
    published = _STARTS.get((depth, width))
    if published is None and not facts.says("in_context_start"):
        raise CheckpointError(
            f"{facts.path}: {depth} blocks of width {width} are no published size, and the block before which the "
            "class tokens join stands in no tensor; say it with `config=in_context_start=N`"
        )
    return facts.integer("in_context_start", published or 0, low=0, high=depth - 1)


def _scale(shape: Mapping[str, Any], facts: Facts) -> float:
    side = shape["input_size"]
    published = _SCALES.get(side) if (shape["depth"], shape["hidden_size"]) in _STARTS else None
    if published is None and not facts.says("noise_scale"):
        raise CheckpointError(
            f"{facts.path}: neither the file nor a published size of {side} pixels says how the noise was scaled in "
            "training; say it with `config=noise_scale=S` (1 at 256 pixels, 2 at 512 in the published models)"
        )
    return facts.number("noise_scale", published or 1.0, 0, 1e6)
