"""What SiT, DiT, REPA and LightningDiT share: one transformer, whose constructor is read from its weights.

Heads and classes stand in no tensor; what a file does not say of them is asked for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffscope.checkpoints.base import Checkpoint
from diffscope.errors import CheckpointError, UsageError
from diffscope.families._building import build_on_meta, dry_walk, load_weights, shapes_of
from diffscope.families._facts import Facts, file_arguments
from diffscope.families._latents import LatentScale
from diffscope.families.base import VAE_FACTOR, Classes, Denoiser, InputSpace, Layer, input_space
from diffscope.families.networks.transformer import DiffusionTransformer

LATENT_SCALE = 0.18215
"""The published models of four channels see latents times this number."""
LATENT_CHANNELS = 4

_Q_NORM = "blocks.0.attn.q_norm.weight"
_ROTARY = "feat_rope.freqs_cos"

_REPA = (
    "REPA aligns the 8th block of SiT-XL/2 with a self-supervised encoder: Yu et al. 2025, "
    "https://arxiv.org/abs/2410.06940"
)

HEADS = {(12, 384): 6, (12, 768): 12, (24, 1024): 16, (28, 1152): 16}
"""Published sizes, by (depth, width); heads cannot be read off any tensor."""


@dataclass(frozen=True)
class VAE:
    """What is known of the image encoder whose latents a model takes."""

    scale: LatentScale | None
    """What the model makes of its latents; None where it is yet to be given."""
    factor: int
    """Image side over latent side."""


def usual_vae(channels: int) -> VAE:
    """Tells the VAE of a model whose file says nothing of it.

    Args:
        channels: Of its latents.

    Returns:
        Of four channels, the one of all published models; other encoders mostly shrink images by 16, and what is made
        of their latents must be given.
    """
    if channels == LATENT_CHANNELS:
        return VAE(LatentScale((LATENT_SCALE,)), VAE_FACTOR)
    return VAE(None, 2 * VAE_FACTOR)


@dataclass
class TransformerDenoiser(Denoiser):
    """A diffusion transformer, with classes as rows of a table."""

    def label(self, classes: Tensor | None, device: torch.device) -> Tensor | None:
        """Makes rows of the class table.

        Args:
            classes: Indices (B,) int64; None stands for the null class.
            device: Where the result is used.

        Returns:
            Rows (B,) or (1,) int64; the null class is the last row.

        Raises:
            UsageError: If there is no null class and `classes` is None.
        """
        if classes is not None:
            return classes.to(device)
        if not self.classes.null:
            raise UsageError("this model has no null class; use `class_label=label` or `class_label=INT`")
        return torch.full((1,), self.classes.count, device=device)


@dataclass(frozen=True)
class BuiltTransformer:
    """The network with its weights, and what was found out about it."""

    network: DiffusionTransformer
    space: InputSpace
    classes: Classes
    layers: tuple[Layer, ...]
    default_layer: str
    constructor: dict[str, Any]
    evidence: tuple[str, ...]
    latent_scale: LatentScale | None

    def fields(self) -> dict[str, Any]:
        """Gives the arguments of a `Denoiser`, except for those that the family decides."""
        return {
            "network": self.network,
            "space": self.space,
            "classes": self.classes,
            "layers": self.layers,
            "default_layer": self.default_layer,
            "latent_scale": self.latent_scale,
            "cited": {"blocks.7": _REPA} if "blocks.23" in {layer.name for layer in self.layers} else {},
        }


def is_transformer(checkpoint: Checkpoint) -> bool:
    """Tells whether the tensors are named like those of DiT and SiT, without a later part.

    Args:
        checkpoint: As it was read.

    Returns:
        True if the patch embedding, the first attention and the table of positions are there.
    """
    return is_trunk(checkpoint) and later_part(checkpoint) is None


def is_trunk(checkpoint: Checkpoint) -> bool:
    """Tells whether the tensors are named like those of DiT and its relatives, whatever else they have.

    Args:
        checkpoint: As it was read.

    Returns:
        True if the patch embedding, the first attention and the table of positions are there.
    """
    return all(n in checkpoint.tensors for n in ("x_embedder.proj.weight", "blocks.0.attn.qkv.weight", "pos_embed"))


def later_part(checkpoint: Checkpoint) -> str | None:
    """Finds a part that LightningDiT has and DiT, SiT and REPA have not.

    Args:
        checkpoint: One for which `is_trunk` is true.

    Returns:
        The part's name; None where there is none.
    """
    tensors = checkpoint.tensors
    modulation = tensors.get("blocks.0.adaLN_modulation.1.weight")
    found = {
        "rotary positions": _ROTARY in tensors,
        "RMS norms": "blocks.0.norm1.weight" in tensors,
        "SwiGLU": "blocks.0.mlp.w12.weight" in tensors,
        "modulation without shift": modulation is not None and _is_unshifted(tuple(modulation.shape)),
    }
    return next((name for name, there in found.items() if there), None)


def _is_unshifted(modulation: tuple[int, ...]) -> bool:
    return len(modulation) == 2 and modulation[0] == 4 * modulation[1]


def output_ratio(checkpoint: Checkpoint) -> float | None:
    """Gives the ratio of output to input channels.

    Args:
        checkpoint: One for which `is_transformer` is true.

    Returns:
        2 where the variance is learned too, else 1; None where the tensors are damaged.
    """
    head, patch = (checkpoint.tensors.get(n) for n in ("final_layer.linear.weight", "x_embedder.proj.weight"))
    if head is None or patch is None or patch.dim() != 4 or not patch.numel() or not head.dim():
        return None
    return head.shape[0] / patch[0].numel()


def facts_of(checkpoint: Checkpoint, config: Mapping[str, str], settings: tuple[str, ...]) -> Facts:
    """Collects what is said of the constructor: our own metadata comes before training arguments.

    Args:
        checkpoint: As it was read.
        config: The user's `--config`.
        settings: Names of the facts that this family reads.

    Returns:
        The facts, yet unchecked.
    """
    said = {**{k: v for k, v in checkpoint.training_args.items() if k in settings}, **file_arguments(checkpoint)}
    return Facts(checkpoint.path, said, config, settings)


def build_transformer(
    tensors: Mapping[str, Tensor],
    facts: Facts,
    sizes: Mapping[tuple[int, int], int] = HEADS,
    vae: VAE | None = None,
) -> BuiltTransformer:
    """Builds the transformer and gives it its weights.

    Args:
        tensors: Under the transformer's own names.
        facts: From `facts_of`.
        sizes: Heads of the family's published sizes, by (depth, width).
        vae: Of a model on latents; if None, that of the published models.

    Returns:
        The network and what was found out about it.

    Raises:
        CheckpointError: If the weights are not whole or do not say enough.
        WeightsMismatch: If they do not fit the network.
        UsageError: If `--config` contradicts them.
    """
    path, shape = facts.path, infer_shape(facts.path, tensors)
    heads, why_heads = _heads(shape, _head_width(tensors), facts, sizes)
    classes, why_classes = _classes(shape["label_rows"], facts)
    network = build_on_meta(lambda: DiffusionTransformer(**shape, num_heads=heads), path, tensors)
    channels, side = shape["in_channels"], shape["input_size"]
    latent = channels not in (1, 3)
    vae = vae or usual_vae(channels)
    space = input_space(channels, side, latent, "adm", vae.factor)
    layers = dry_walk(network, space, torch.zeros(1, dtype=torch.int64, device="meta"), path)
    load_weights(network, tensors, path)
    default = f"blocks.{max(0, shape['depth'] // 2 - 1)}"
    constructor = {**shape, "num_heads": heads, "num_classes": classes.count}
    evidence = why_heads, why_classes
    scale = vae.scale if latent else None
    return BuiltTransformer(network, space, classes, layers, default, constructor, evidence, scale)


def _head_width(tensors: Mapping[str, Tensor]) -> tuple[int, str] | None:
    """Width of a head, and the tensor that tells it."""
    for name in (_Q_NORM, _ROTARY):
        if name in tensors:
            return tensors[name].shape[-1], name.rpartition(".")[0].rpartition(".")[2]
    return None


def block_numbers(names: Iterable[str]) -> list[int]:
    """Lists the numbers of a transformer's blocks, rising, by the names of their tensors."""
    return sorted({int(m[1]) for n in names if (m := re.match(r"blocks\.([0-9]{1,5})\.", n))})


def checked_grid(path: str, tokens: int, numbers: Sequence[int]) -> int:
    """Checks that positions and blocks are those of a whole transformer.

    Args:
        path: Of the checkpoint, for the message.
        tokens: How many positions it has.
        numbers: From `block_numbers`.

    Returns:
        Side of the grid of positions.

    Raises:
        CheckpointError: If the grid is no square, or a block is missing.
    """
    grid = math.isqrt(tokens)
    if grid**2 != tokens or list(numbers) != list(range(len(numbers))):
        raise CheckpointError(
            f"{path}: {tokens} positions and blocks {numbers[0]} to {numbers[-1]}; expected a square grid "
            "and blocks without a gap"
        )
    return grid


def infer_shape(path: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Reads the transformer's constructor arguments, except for the heads, from names and shapes alone.

    Args:
        path: Of the checkpoint, for messages.
        tensors: Under the transformer's own names.

    Returns:
        Argument of `DiffusionTransformer` → value.

    Raises:
        CheckpointError: If a tensor is missing or has a shape that no such transformer has.
    """
    shapes = shapes_of(path, tensors)
    numbers = block_numbers(shapes)
    try:
        width, channels, patch, _ = shapes["x_embedder.proj.weight"]
        _, tokens, _ = shapes["pos_embed"]
        out = shapes["final_layer.linear.weight"][0] / patch**2
        frequency = shapes["t_embedder.mlp.0.weight"][1]
        rows, _ = shapes["y_embedder.embedding_table.weight"]
        swiglu, qk_norm, rotary = (n in shapes for n in ("blocks.0.mlp.w12.weight", _Q_NORM, _ROTARY))
        mlp = (shapes["blocks.0.mlp.w12.weight"][0] // 2 if swiglu else shapes["blocks.0.mlp.fc1.weight"][0]) / width
        for name in (_Q_NORM, _ROTARY):
            if name in shapes and width % (head := shapes[name][-1]):
                raise CheckpointError(f"{path}: {name} has {head} numbers, of which {width} is no multiple")
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{path}: not a whole diffusion transformer: {error} is missing or of another shape"
        ) from None
    grid = checked_grid(path, tokens, numbers)
    if shapes["pos_embed"] != (1, tokens, width):
        raise CheckpointError(f"{path}: pos_embed is {list(shapes['pos_embed'])}; expected {[1, tokens, width]}")
    if out not in (channels, 2 * channels):
        raise CheckpointError(f"{path}: {out:g} output channels for {channels} input channels; expected 1× or 2×")
    variant = {
        "rms_norm": "blocks.0.norm1.weight" in shapes,
        "swiglu": swiglu,
        "rotary": rotary,
        "shift": not _is_unshifted(shapes.get("blocks.0.adaLN_modulation.1.weight", ())),
    }
    return {
        "input_size": grid * patch,
        "patch_size": patch,
        "in_channels": channels,
        "out_channels": int(out),
        "hidden_size": width,
        "depth": len(numbers),
        "label_rows": rows,
        "mlp_ratio": mlp,
        "qk_norm": qk_norm,
        "frequency_size": frequency,
        # Of DiT's own blocks nothing more is said: their protocol stays that of results made before there were others.
        **{name: value for name, value in variant.items() if value != (name == "shift")},
    }


def _heads(
    shape: Mapping[str, Any], told: tuple[int, str] | None, facts: Facts, sizes: Mapping[tuple[int, int], int]
) -> tuple[int, str]:
    width, depth = shape["hidden_size"], shape["depth"]
    said = facts.integer("num_heads", 1, high=width) if facts.says("num_heads") else None
    of_user = "num_heads" in facts.config
    if of_user and said is not None and width % said:
        raise UsageError(f"`config=num_heads={said}`: the width {width} is not a multiple of it")
    if told is not None:
        head, tensor = told
        if of_user and said != width // head:
            raise UsageError(f"`config=num_heads={said}` contradicts the {tensor} weights, which say {width // head}")
        return width // head, f"{width // head} heads from the length of {tensor}"
    if said is not None:
        if width % said:
            raise CheckpointError(
                f"{facts.path}: it says {said} heads, but the width {width} is not a multiple of that"
            )
        return said, f"{said} heads {'as given' if of_user else 'from the file'}"
    if (depth, width) in sizes or width == 1152:
        heads = sizes.get((depth, width), 16)
        return heads, f"{heads} heads, the published size of {depth} blocks of width {width}"
    raise CheckpointError(
        f"{facts.path}: {depth} blocks of width {width} are no published size, and the number of attention heads "
        "stands in no tensor; say it with `config=num_heads=N`"
    )


def _classes(rows: int, facts: Facts) -> tuple[Classes, str]:
    if not facts.says("num_classes"):
        return Classes(rows - 1, null=True, null_trained=True), f"the last of {rows} class rows taken as the null class"
    num_classes = facts.integer("num_classes", rows, low=0)
    if rows == num_classes + 1:
        return Classes(num_classes, null=True, null_trained=True), f"{num_classes} classes and the null class"
    if rows == num_classes:
        return Classes(num_classes, null=False), f"{num_classes} classes without a null class"
    raise CheckpointError(
        f"{facts.path}: {rows} class rows for num_classes {num_classes}; expected as many, or one more for the null "
        "class; say it with `config=num_classes=N`"
    )


def early_average(checkpoint: Checkpoint) -> list[str]:
    """Warns of an EMA that still holds much of its start.

    The training scripts average with decay 0.9999 from the first step on, without correcting for the start.

    Args:
        checkpoint: As it was read.

    Returns:
        No or one sentence.
    """
    step = checkpoint.step or 0
    if checkpoint.container != "train-dump" or checkpoint.weights != "ema" or not 0 < step < 100_000:
        return []
    initial = 0.9999**step
    if initial < 0.01:
        return []
    return [
        f"after {step} steps the initial weights still make up {initial:.0%} of the EMA; "
        "`weights=model` takes the raw ones"
    ]
