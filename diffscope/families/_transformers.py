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
from diffscope.families.base import (
    Classes,
    Denoiser,
    InputSpace,
    Layer,
    Match,
    NoiseConvention,
    as_type,
    build_on_meta,
    check_config_keys,
    config_value,
    dry_walk,
    file_arguments,
    input_space,
    load_weights,
)
from diffscope.families.networks.transformer import DiffusionTransformer

LATENT_SCALE = 0.18215
"""The published models see latents times this number."""

# Published sizes, by (depth, width); heads cannot be read off any tensor.
_HEADS = {(12, 384): 6, (12, 768): 12, (24, 1024): 16, (28, 1152): 16}


class Interpolant(NoiseConvention):
    """x_t = alpha(t)·data + beta(t)·noise, beta = sigma·alpha; the network is fed t as it is."""

    sigma_min = 0.0
    sigma_max = math.inf

    @abstractmethod
    def velocity(self, t: float) -> tuple[float, float]:
        """d alpha/dt and d beta/dt at time t, for the posterior mean."""

    def _checked(self, t: float) -> float:
        if not 0 <= t <= 1:
            raise NoiseLevelError(f"t {t:g}: expected from 0 to 1")
        return t


@dataclass
class TransformerDenoiser(Denoiser):
    def label(self, classes: Tensor | None, device: torch.device) -> Tensor | None:
        """Rows of the class table (B,) int64; the null class is the last row."""
        if classes is not None:
            return classes.to(device)
        if not self.classes.null:
            raise UsageError("this model has no null class; use --class label or --class INT")
        return torch.full((1,), self.classes.count, device=device)


@dataclass
class InterpolantDenoiser(TransformerDenoiser):
    def denoise(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
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


Made = TypeVar("Made", bound=InterpolantDenoiser)


@dataclass(frozen=True)
class Trunk:
    """The network with its weights, and what was found out about it."""

    network: DiffusionTransformer
    space: InputSpace
    classes: Classes
    layers: tuple[Layer, ...]
    default_layer: str
    constructor: dict[str, Any]
    evidence: tuple[str, ...]

    def fields(self) -> dict[str, Any]:
        """Arguments of a `Denoiser`, but for those that the family decides."""
        return {
            "network": self.network,
            "space": self.space,
            "classes": self.classes,
            "layers": self.layers,
            "default_layer": self.default_layer,
            "latent_scale": LATENT_SCALE if self.space.kind == "latents" else None,
        }


def is_transformer(checkpoint: Checkpoint) -> bool:
    """Whether the tensors are named as those of DiT and its relatives."""
    return all(n in checkpoint.tensors for n in ("x_embedder.proj.weight", "blocks.0.attn.qkv.weight", "pos_embed"))


def output_ratio(checkpoint: Checkpoint) -> float | None:
    """Output over input channels: 2 where the variance is learned too, else 1; None where the tensors are damaged."""
    head, patch = (checkpoint.tensors.get(n) for n in ("final_layer.linear.weight", "x_embedder.proj.weight"))
    if head is None or patch is None or patch.dim() != 4 or not patch[0].numel():
        return None
    return head.shape[0] / patch[0].numel()


def facts_of(checkpoint: Checkpoint, settings: tuple[str, ...]) -> dict[str, Any]:
    """What the file says of its constructor: metadata of ours before training arguments."""
    return {**{k: v for k, v in checkpoint.training_args.items() if k in settings}, **file_arguments(checkpoint)}


def build_trunk(path: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], config: Mapping[str, str]) -> Trunk:
    """The transformer with its weights; raises where they are not whole or do not say enough."""
    shape = infer_shape(path, tensors)
    heads, why_heads = _heads(path, tensors, shape, facts, config)
    classes, why_classes = _classes(shape["label_rows"], config_value(config, "num_classes", facts.get("num_classes")))
    network = build_on_meta(lambda: DiffusionTransformer(**shape, num_heads=heads), path)
    assert isinstance(network, DiffusionTransformer)
    channels, side = shape["in_channels"], shape["input_size"]
    latent = channels not in (1, 3)
    space = input_space(channels, side, latent, "adm")
    layers = dry_walk(network, space, torch.zeros(1, dtype=torch.int64, device="meta"), path)
    load_weights(network, tensors, path)
    default = f"blocks.{max(0, shape['depth'] // 2 - 1)}"
    constructor = {**shape, "num_heads": heads, "num_classes": classes.count}
    return Trunk(network, space, classes, layers, default, constructor, (why_heads, why_classes))


_SETTINGS = ("path_type", "prediction", "num_classes", "num_heads")


def build_interpolant(
    make: type[Made],
    paths: Mapping[str, type[Interpolant]],
    default_path: str,
    default_prediction: str,
    checkpoint: Checkpoint,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, str],
    match: Match,
) -> Made:
    """A denoiser on one of a family's paths; a path that nobody names is assumed, with a warning."""
    check_config_keys(config, set(_SETTINGS))
    facts = facts_of(checkpoint, _SETTINGS)
    path_type = str(config_value(config, "path_type", facts.get("path_type", default_path)))
    prediction = str(config_value(config, "prediction", facts.get("prediction", default_prediction)))
    if path_type not in paths:
        raise UsageError(f"path_type {path_type} is not one of {', '.join(paths)}")
    trunk = build_trunk(checkpoint.path, tensors, facts, config)
    others = " or ".join(name for name in paths if name != default_path)
    assumed = "path_type" not in facts and "path_type" not in config
    warnings = [f"the path is assumed to be {default_path} (--config path_type={others})"] if assumed else []
    return make(
        network_class=f"{make.__name__.removesuffix('Denoiser')}({path_type}, {prediction})",
        noise=paths[path_type](),
        evidence="; ".join([match.why, *trunk.evidence]),
        constructor={**trunk.constructor, "path_type": path_type, "prediction": prediction},
        warnings=(*warnings, *early_average(checkpoint)),
        **trunk.fields(),
    )


def infer_shape(path: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Constructor arguments of the transformer, but for the heads, from names and shapes alone."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    numbers = sorted({int(m[1]) for n in shapes if (m := re.match(r"blocks\.(\d+)\.", n))})
    try:
        width, channels, patch, _ = shapes["x_embedder.proj.weight"]
        tokens = shapes["pos_embed"][1]
        out = shapes["final_layer.linear.weight"][0] / patch**2
        frequency = shapes["t_embedder.mlp.0.weight"][1]
        rows = shapes["y_embedder.embedding_table.weight"][0]
        mlp = shapes["blocks.0.mlp.fc1.weight"][0] / width
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
        "qk_norm": "blocks.0.attn.q_norm.weight" in shapes,
        "frequency_size": frequency,
    }


def _heads(
    path: str,
    tensors: Mapping[str, Tensor],
    shape: Mapping[str, Any],
    facts: Mapping[str, Any],
    config: Mapping[str, str],
) -> tuple[int, str]:
    width, depth = shape["hidden_size"], shape["depth"]
    asked = config_value(config, "num_heads", None)
    if asked is not None and (asked < 1 or width % asked):
        raise UsageError(f"--config num_heads={asked}: the width {width} is not a multiple of it")
    if shape["qk_norm"]:
        heads = width // tensors["blocks.0.attn.q_norm.weight"].shape[0]
        if asked not in (None, heads):
            raise UsageError(f"--config num_heads={asked} contradicts the q_norm weights, which say {heads}")
        return heads, f"{heads} heads from the length of q_norm"
    if asked is not None:
        return asked, f"{asked} heads as given"
    if "num_heads" in facts:
        heads = as_type(facts["num_heads"], 1, "num_heads", path)
        if heads < 1 or width % heads:
            raise CheckpointError(f"{path}: it says {heads} heads, but the width {width} is not a multiple of that")
        return heads, f"{heads} heads from the file"
    if (depth, width) in _HEADS or width == 1152:
        heads = _HEADS.get((depth, width), 16)
        return heads, f"{heads} heads, the published size of {depth} blocks of width {width}"
    raise CheckpointError(
        f"{path}: {depth} blocks of width {width} are no published size, and the number of attention heads "
        "stands in no tensor; say it with --config num_heads=N"
    )


def _classes(rows: int, num_classes: int | None) -> tuple[Classes, str]:
    if num_classes is None:
        return Classes(rows - 1, null=True, null_trained=True), f"the last of {rows} class rows taken as the null class"
    if rows == num_classes + 1:
        return Classes(num_classes, null=True, null_trained=True), f"{num_classes} classes and the null class"
    if rows == num_classes:
        return Classes(num_classes, null=False), f"{num_classes} classes without a null class"
    raise CheckpointError(
        f"{rows} class rows for num_classes {num_classes}; expected as many, or one more for the null class"
    )


def early_average(checkpoint: Checkpoint) -> list[str]:
    """The training scripts average with decay 0.9999 from the first step on, without correcting for the start."""
    if checkpoint.container != "train-dump" or checkpoint.weights != "ema" or not checkpoint.step:
        return []
    initial = 0.9999**checkpoint.step
    if initial < 0.01:
        return []
    return [
        f"after {checkpoint.step} steps the initial weights still make up {initial:.0%} of the EMA; "
        "--weights model takes the raw ones"
    ]
