"""What SiT, DiT and REPA share: one transformer, whose constructor is read from its weights, and interpolants.

Heads, classes and time conventions stand in no tensor; what a file does not say of them is asked for.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from diffscope.checkpoints.base import Checkpoint
from diffscope.errors import CheckpointError, NoiseLevelError, UsageError
from diffscope.families._building import build_on_meta, dry_walk, load_weights, shapes_of
from diffscope.families._facts import Facts, file_arguments
from diffscope.families.base import Classes, Denoiser, InputSpace, Layer, Match, NoiseConvention, input_space
from diffscope.families.networks.transformer import DiffusionTransformer

LATENT_SCALE = 0.18215
"""The published models see latents times this number."""

_Q_NORM = "blocks.0.attn.q_norm.weight"

_REPA = (
    "REPA aligns the 8th block of SiT-XL/2 with a self-supervised encoder: Yu et al. 2025, "
    "https://arxiv.org/abs/2410.06940"
)

# Published sizes, by (depth, width); heads cannot be read off any tensor.
_HEADS = {(12, 384): 6, (12, 768): 12, (24, 1024): 16, (28, 1152): 16}


class Interpolant(NoiseConvention):
    """Noisy data x_t = alpha(t)·data + beta(t)·noise, with beta = sigma·alpha; the network is fed t as it is."""

    sigma_min = 0.0
    sigma_max = math.inf

    @abstractmethod
    def velocity(self, t: float) -> tuple[float, float]:
        """Gives the slopes of the path, for the posterior mean.

        Args:
            t: Time, in [0, 1].

        Returns:
            (d alpha/dt, d beta/dt) at time t.
        """

    def _checked(self, t: float) -> float:
        if not 0 <= t <= 1:
            raise NoiseLevelError(f"t {t:g}: expected from 0 to 1")
        return t


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


@dataclass
class InterpolantDenoiser(TransformerDenoiser):
    """A transformer on an interpolant, which predicts the velocity d x_t/dt."""

    def denoise(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """Solves x and the predicted velocity, two linear equations, for the data.

        Args:
            x: (B, C, H, W), in the network's input space.
            sigma: Noise-to-signal ratio, (B,) or (1,).
            label: From `label`.

        Returns:
            The posterior mean, (B, C, H, W).

        Raises:
            CheckpointError: If the network predicts something else than the velocity.
        """
        prediction = self.constructor["prediction"]
        if prediction not in ("velocity", "v"):
            raise CheckpointError(f"denoising from a {prediction} model is not supported, only from velocity")
        assert isinstance(self.noise, Interpolant)
        levels = sigma.flatten().double().tolist()
        slopes = [self.noise.velocity(self.noise.to_native(s)) for s in levels]
        signal, noise, level = (
            x.new_tensor(values)[:, None, None, None] for values in (*map(list, zip(*slopes, strict=True)), levels)
        )
        velocity = self.predict(x, sigma, label)
        # x = data + sigma·noise and velocity = signal·data + noise'·noise are two equations for the data.
        data: Tensor = (velocity * level - noise * x) / (signal * level - noise)
        return data


InterpolantDenoiserT = TypeVar("InterpolantDenoiserT", bound=InterpolantDenoiser)


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

    def fields(self) -> dict[str, Any]:
        """Gives the arguments of a `Denoiser`, except for those that the family decides."""
        return {
            "network": self.network,
            "space": self.space,
            "classes": self.classes,
            "layers": self.layers,
            "default_layer": self.default_layer,
            "latent_scale": LATENT_SCALE if self.space.kind == "latents" else None,
            "cited": {"blocks.7": _REPA} if "blocks.23" in {layer.name for layer in self.layers} else {},
        }


def is_transformer(checkpoint: Checkpoint) -> bool:
    """Tells whether the tensors are named like those of DiT and its relatives.

    Args:
        checkpoint: As it was read.

    Returns:
        True if the patch embedding, the first attention and the table of positions are there.
    """
    return all(n in checkpoint.tensors for n in ("x_embedder.proj.weight", "blocks.0.attn.qkv.weight", "pos_embed"))


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


def build_transformer(tensors: Mapping[str, Tensor], facts: Facts) -> BuiltTransformer:
    """Builds the transformer and gives it its weights.

    Args:
        tensors: Under the transformer's own names.
        facts: From `facts_of`.

    Returns:
        The network and what was found out about it.

    Raises:
        CheckpointError: If the weights are not whole or do not say enough.
        WeightsMismatch: If they do not fit the network.
        UsageError: If `--config` contradicts them.
    """
    path, shape = facts.path, infer_shape(facts.path, tensors)
    heads, why_heads = _heads(shape, tensors.get(_Q_NORM), facts)
    classes, why_classes = _classes(shape["label_rows"], facts)
    network = build_on_meta(lambda: DiffusionTransformer(**shape, num_heads=heads), path, tensors)
    channels, side = shape["in_channels"], shape["input_size"]
    latent = channels not in (1, 3)
    space = input_space(channels, side, latent, "adm")
    layers = dry_walk(network, space, torch.zeros(1, dtype=torch.int64, device="meta"), path)
    load_weights(network, tensors, path)
    default = f"blocks.{max(0, shape['depth'] // 2 - 1)}"
    constructor = {**shape, "num_heads": heads, "num_classes": classes.count}
    return BuiltTransformer(network, space, classes, layers, default, constructor, (why_heads, why_classes))


_SETTINGS = ("path_type", "prediction", "num_classes", "num_heads")
PREDICTIONS = ("velocity", "v", "noise", "score")
"""What the network predicts, as training codes spell it; only the first two give the posterior mean."""


def build_interpolant(
    make: type[InterpolantDenoiserT],
    paths: Mapping[str, type[Interpolant]],
    default_path: str,
    default_prediction: str,
    checkpoint: Checkpoint,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, str],
    match: Match,
) -> InterpolantDenoiserT:
    """Builds a denoiser on one of a family's paths; a path that nobody names is assumed, with a warning.

    Args:
        make: The family's denoiser class.
        paths: Name → noise convention.
        default_path: Name of the path that is assumed.
        default_prediction: What the network predicts where nobody says it, one of PREDICTIONS.
        checkpoint: As it was read.
        tensors: Its tensors, under the transformer's own names.
        config: The user's `--config`.
        match: The family's claim, for the evidence.

    Returns:
        The denoiser, its network on the CPU.

    Raises:
        CheckpointError: If the weights are not whole or do not say enough.
    """
    facts = facts_of(checkpoint, config, _SETTINGS)
    path_type = facts.choice("path_type", default_path, paths)
    prediction = facts.choice("prediction", default_prediction, PREDICTIONS)
    built = build_transformer(tensors, facts)
    others = " or ".join(name for name in paths if name != default_path)
    assumed = not facts.says("path_type")
    warnings = [f"the path is assumed to be {default_path} (`config=path_type={others}`)"] if assumed else []
    return make(
        network_class=f"{make.__name__.removesuffix('Denoiser')}({path_type}, {prediction})",
        noise=paths[path_type](),
        evidence="; ".join([match.why, *built.evidence]),
        constructor={**built.constructor, "path_type": path_type, "prediction": prediction},
        warnings=(*warnings, *early_average(checkpoint)),
        **built.fields(),
    )


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
    numbers = sorted({int(m[1]) for n in shapes if (m := re.match(r"blocks\.([0-9]{1,5})\.", n))})
    try:
        width, channels, patch, _ = shapes["x_embedder.proj.weight"]
        _, tokens, _ = shapes["pos_embed"]
        out = shapes["final_layer.linear.weight"][0] / patch**2
        frequency = shapes["t_embedder.mlp.0.weight"][1]
        rows, _ = shapes["y_embedder.embedding_table.weight"]
        mlp = shapes["blocks.0.mlp.fc1.weight"][0] / width
        if qk_norm := _Q_NORM in shapes:
            (head,) = shapes[_Q_NORM]
            if width % head:
                raise CheckpointError(f"{path}: {_Q_NORM} has {head} numbers, of which {width} is no multiple")
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{path}: not a whole diffusion transformer: {error} is missing or of another shape"
        ) from None
    grid = math.isqrt(tokens)
    if grid**2 != tokens or numbers != list(range(len(numbers))):
        raise CheckpointError(
            f"{path}: {tokens} positions and blocks {numbers[0]} to {numbers[-1]}; expected a square grid "
            "and blocks without a gap"
        )
    if shapes["pos_embed"] != (1, tokens, width):
        raise CheckpointError(f"{path}: pos_embed is {list(shapes['pos_embed'])}; expected {[1, tokens, width]}")
    if out not in (channels, 2 * channels):
        raise CheckpointError(f"{path}: {out:g} output channels for {channels} input channels; expected 1× or 2×")
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
    }


def _heads(shape: Mapping[str, Any], q_norm: Tensor | None, facts: Facts) -> tuple[int, str]:
    width, depth = shape["hidden_size"], shape["depth"]
    said = facts.integer("num_heads", 1, high=width) if facts.says("num_heads") else None
    of_user = "num_heads" in facts.config
    if of_user and said is not None and width % said:
        raise UsageError(f"`config=num_heads={said}`: the width {width} is not a multiple of it")
    if q_norm is not None:
        head = len(q_norm)
        if of_user and said != width // head:
            raise UsageError(f"`config=num_heads={said}` contradicts the q_norm weights, which say {width // head}")
        return width // head, f"{width // head} heads from the length of q_norm"
    if said is not None:
        if width % said:
            raise CheckpointError(
                f"{facts.path}: it says {said} heads, but the width {width} is not a multiple of that"
            )
        return said, f"{said} heads {'as given' if of_user else 'from the file'}"
    if (depth, width) in _HEADS or width == 1152:
        heads = _HEADS.get((depth, width), 16)
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
