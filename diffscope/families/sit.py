"""SiT checkpoints: transformers on interpolants, on VAE latents or on pixels.

Ma et al., "SiT: Exploring Flow and Diffusion-based Generative Models with Scalable Interpolant Transformers", 2024,
https://arxiv.org/abs/2401.08740. Time runs from noise (0) to data (1): x_t = alpha(t)·data + beta(t)·noise.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffscope.checkpoints.base import Checkpoint
from diffscope.errors import CheckpointError, NoiseLevelError, UsageError
from diffscope.families.base import (
    Classes,
    Denoiser,
    InputSpace,
    Match,
    NoiseConvention,
    build_on_meta,
    check_config_keys,
    config_value,
    dry_walk,
    load_weights,
)
from diffscope.families.networks.transformer import DiffusionTransformer

VAE_FACTOR = 8
"""Image side over latent side, of the VAE that the published models share."""
LATENT_SCALE = 0.18215
"""The published models see latents times this number."""


class Interpolant(NoiseConvention):
    """alpha is the signal's coefficient; the noise's is sigma·alpha. The network is fed t as it is."""

    sigma_min = 0.0
    sigma_max = math.inf

    def velocity(self, t: float) -> tuple[float, float]:
        """d alpha/dt and d beta/dt at time t, for the posterior mean."""
        raise NotImplementedError

    def _checked(self, t: float) -> float:
        if not 0 < t <= 1:
            raise NoiseLevelError(f"t {t:g}: expected above 0 (noise) up to 1 (data)")
        return t


class Linear(Interpolant):
    native = "t in [0, 1], 1 = data (linear path)"

    def to_native(self, sigma: float) -> float:
        return 1 / (1 + sigma)

    def to_sigma(self, t: float) -> float:
        return (1 - self._checked(t)) / t

    def input_scale(self, sigma: float) -> float:
        return 1 / (1 + sigma)

    def velocity(self, t: float) -> tuple[float, float]:
        return 1.0, -1.0


class GVP(Interpolant):
    native = "t in [0, 1], 1 = data (GVP path)"

    def to_native(self, sigma: float) -> float:
        return 2 / math.pi * math.atan2(1, sigma)

    def to_sigma(self, t: float) -> float:
        return 0.0 if t == 1 else 1 / math.tan(math.pi / 2 * self._checked(t))

    def input_scale(self, sigma: float) -> float:
        return 1 / math.hypot(1, sigma)

    def velocity(self, t: float) -> tuple[float, float]:
        return math.pi / 2 * math.cos(math.pi / 2 * t), -math.pi / 2 * math.sin(math.pi / 2 * t)


class VP(Interpolant):
    """The VP diffusion with beta from 0.1 to 20, in u = 1 - t."""

    native = "t in [0, 1], 1 = data (VP path)"

    def __init__(self) -> None:
        self.sigma_max = self.to_sigma(0.0)

    def to_native(self, sigma: float) -> float:
        half_log = 0.5 * math.log1p(sigma**2)
        return 1 - (-0.05 + math.sqrt(0.0025 + 19.9 * half_log)) / 9.95

    def to_sigma(self, t: float) -> float:
        if not 0 <= t <= 1:
            raise NoiseLevelError(f"t {t:g}: expected from 0 (noise) to 1 (data)")
        u = 1 - t
        return math.sqrt(math.expm1(0.5 * 19.9 * u**2 + 0.1 * u))

    def input_scale(self, sigma: float) -> float:
        return 1 / math.hypot(1, sigma)

    def velocity(self, t: float) -> tuple[float, float]:
        alpha = self.input_scale(sigma := self.to_sigma(t))
        slope = alpha * (0.5 * 19.9 * (1 - t) + 0.05)
        return slope, -slope / sigma if sigma else -math.inf


PATHS: dict[str, type[Interpolant]] = {path.__name__: path for path in (Linear, GVP, VP)}

# Published sizes, by (depth, width); heads cannot be read off any tensor.
_HEADS = {(12, 384): 6, (12, 768): 12, (24, 1024): 16, (28, 1152): 16}


@dataclass
class SiTDenoiser(Denoiser):
    family: ClassVar[str] = "sit"

    def label(self, classes: Tensor | None, device: torch.device) -> Tensor | None:
        """Rows of the class table (B,) int64; the null class is the last row."""
        if classes is not None:
            return classes.to(device)
        if not self.classes.null:
            raise UsageError("this model has no null class; use --class label or --class INT")
        return torch.full((1,), self.classes.count, device=device)

    def denoise(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        prediction = self.constructor["prediction"]
        if prediction != "velocity":
            raise CheckpointError(f"denoising from a {prediction} model is not supported, only from velocity")
        assert isinstance(self.noise, Interpolant)
        levels = sigma.flatten().double().tolist()
        times = [self.noise.to_native(s) for s in levels]
        slopes = [self.noise.velocity(t) for t in times]
        scale, time, signal, noise, level = (
            x.new_tensor(values)[:, None, None, None]
            for values in (
                [self.noise.input_scale(s) for s in levels], times, *map(list, zip(*slopes, strict=True)), levels
            )
        )  # fmt: skip
        velocity = self.network(scale * x, time.flatten(), label)[:, : x.shape[1]].to(x.dtype)
        # x = data + sigma·noise and velocity = signal·data + noise'·noise are two equations for the data.
        data: Tensor = (velocity * level - noise * x) / (signal * level - noise)
        return data


def recognise(checkpoint: Checkpoint) -> Match | None:
    if family := checkpoint.metadata.get("family"):
        return Match(True, "the file's metadata names the family") if family == "sit" else None
    names = checkpoint.tensors
    if "x_embedder.proj.weight" not in names or "blocks.0.attn.qkv.weight" not in names or "pos_embed" not in names:
        return None
    if any(n.startswith(("projectors.", "decoder_blocks.")) for n in names):
        return None
    arguments = checkpoint.training_args
    if "encoder_depth" in arguments:
        return None
    if arguments.get("path_type") in PATHS:
        return Match(True, "the training arguments name a SiT path")
    if arguments:
        return None
    if (
        re.search(r"(^|[^a-z])sit([^a-z]|$)", Path(checkpoint.path).stem.lower())
        and "SiT" in Path(checkpoint.path).stem
    ):
        return Match(True, "the file's name says SiT")
    return Match(False, "the weights fit SiT, and DiT or REPA as well")


def build(checkpoint: Checkpoint, config: Mapping[str, str], match: Match) -> SiTDenoiser:
    given = dict(json.loads(checkpoint.metadata.get("arguments", "{}")))
    facts = {**{k: v for k, v in checkpoint.training_args.items() if k in _SETTINGS}, **given}
    check_config_keys(config, {"num_heads", *_SETTINGS})
    shape = infer_shape(checkpoint)
    heads, why_heads = _heads(checkpoint, shape, config, given)
    path_type = str(config_value(config, "path_type", facts.get("path_type", "Linear")))
    prediction = str(config_value(config, "prediction", facts.get("prediction", "velocity")))
    if path_type not in PATHS:
        raise UsageError(f"path_type {path_type} is not one of {', '.join(PATHS)}")
    classes, why_classes = _classes(shape["label_rows"], config_value(config, "num_classes", facts.get("num_classes")))

    network = build_on_meta(lambda: DiffusionTransformer(**shape, num_heads=heads))
    channels, side = shape["in_channels"], shape["input_size"]
    latent = channels not in (1, 3)
    space = InputSpace(
        "latents" if latent else "pixels",
        channels,
        side,
        image_channels=3 if latent else channels,
        image_side=side * VAE_FACTOR if latent else side,
        resize="adm",
    )
    layers = dry_walk(network, space, torch.zeros(1, dtype=torch.int64, device="meta"))
    load_weights(network, checkpoint.tensors, checkpoint.path)
    assumed = "path_type" not in facts and "path_type" not in config
    warnings = ["the path is assumed to be Linear (--config path_type=GVP or VP)"] if assumed else []
    warnings += _early_average(checkpoint)
    return SiTDenoiser(
        network_class=f"SiT({path_type}, {prediction})",
        network=network,
        space=space,
        noise=PATHS[path_type](),
        classes=classes,
        layers=layers,
        default_layer=f"blocks.{max(0, shape['depth'] // 2 - 1)}",
        evidence="; ".join([match.why, why_heads, why_classes]),
        constructor={**shape, "num_heads": heads, "path_type": path_type, "prediction": prediction},
        latent_scale=LATENT_SCALE if latent else None,
        warnings=tuple(warnings),
    )


_SETTINGS = ("path_type", "prediction", "num_classes")


def infer_shape(checkpoint: Checkpoint) -> dict[str, Any]:
    """Constructor arguments of the transformer, but for the heads, from names and shapes alone."""
    shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors.items()}
    numbers = sorted({int(m[1]) for n in shapes if (m := re.match(r"blocks\.(\d+)\.", n))})
    try:
        width, channels, patch, _ = shapes["x_embedder.proj.weight"]
        tokens = shapes["pos_embed"][1]
        out = shapes["final_layer.linear.weight"][0] / patch**2
        frequency = shapes["t_embedder.mlp.0.weight"][1]
        rows = shapes["y_embedder.embedding_table.weight"][0]
        mlp = shapes["blocks.0.mlp.fc1.weight"][0] / width
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{checkpoint.path}: not a whole SiT: {error} is missing or of another shape") from None
    grid = math.isqrt(tokens)
    if grid**2 != tokens or numbers != list(range(len(numbers))):
        raise CheckpointError(
            f"{checkpoint.path}: {tokens} positions and blocks {numbers[0]} to {numbers[-1]}; expected a square grid "
            "and blocks without a gap"
        )
    if out not in (channels, 2 * channels):
        raise CheckpointError(
            f"{checkpoint.path}: {out:g} output channels for {channels} input channels; expected 1× or 2×"
        )
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
    checkpoint: Checkpoint, shape: Mapping[str, Any], config: Mapping[str, str], given: Mapping[str, Any]
) -> tuple[int, str]:
    width, depth = shape["hidden_size"], shape["depth"]
    asked = config_value(config, "num_heads", None)
    if asked is not None and (asked < 1 or width % asked):
        raise UsageError(f"--config num_heads={asked}: the width {width} is not a multiple of it")
    if shape["qk_norm"]:
        heads = width // checkpoint.tensors["blocks.0.attn.q_norm.weight"].shape[0]
        if asked not in (None, heads):
            raise UsageError(f"--config num_heads={asked} contradicts the q_norm weights, which say {heads}")
        return heads, f"{heads} heads from the length of q_norm"
    if asked is not None:
        return asked, f"{asked} heads as given"
    if "num_heads" in given:
        return int(given["num_heads"]), f"{given['num_heads']} heads from the metadata"
    if (depth, width) in _HEADS or width == 1152:
        heads = _HEADS.get((depth, width), 16)
        return heads, f"{heads} heads, the published size of {depth} blocks of width {width}"
    raise CheckpointError(
        f"{checkpoint.path}: {depth} blocks of width {width} are no published size, and the number of attention heads "
        "stands in no tensor; say it with --config num_heads=N"
    )


def _early_average(checkpoint: Checkpoint) -> list[str]:
    """SiT's training script averages with decay 0.9999 from the first step on, without correcting for the start."""
    if checkpoint.container != "train-dump" or checkpoint.weights != "ema" or not checkpoint.step:
        return []
    initial = 0.9999**checkpoint.step
    if initial < 0.01:
        return []
    return [
        f"after {checkpoint.step} steps the initial weights still make up {initial:.0%} of the EMA; "
        "--weights model takes the raw ones"
    ]


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
