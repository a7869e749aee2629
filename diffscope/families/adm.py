"""Checkpoints of guided-diffusion (ADM) and improved-diffusion: U-Nets that predict the noise of a chain of steps.

Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, https://arxiv.org/abs/2102.09672; Dhariwal
& Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021, https://arxiv.org/abs/2105.05233. Files are bare state
dicts, which hold neither the heads of attention nor the steps. Both are known of the released networks alone.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from diffscope.checkpoints.base import Checkpoint
from diffscope.errors import CheckpointError, UsageError
from diffscope.families._adm_releases import DEFAULTS, HEADS, SIDES, Release, release_of
from diffscope.families._building import MAX_SIDE, build_on_meta, dry_walk, load_weights, shapes_of
from diffscope.families._conventions import DiscreteSteps
from diffscope.families._facts import Facts, file_arguments, integer_if_whole
from diffscope.families.base import Classes, Denoiser, Match, input_space
from diffscope.families.networks.adm_unet import ADMUNet

MAX_STEPS = 100_000
KNOWN = (
    "image_size", *HEADS, "use_new_attention_order", "noise_schedule", "diffusion_steps", "rescale_timesteps",
    "predict_xstart",
)  # fmt: skip
_NAMES = {
    "time_embed.0.weight", "time_embed.2.weight", "input_blocks.0.0.weight", "middle_block.1.qkv.weight",
    "out.0.weight", "out.2.weight",
}  # fmt: skip


@dataclass
class ADMDenoiser(Denoiser):
    """A guided- or improved-diffusion checkpoint as a denoiser."""

    family: ClassVar[str] = "adm"

    def label(self, classes: Tensor | None, device: torch.device) -> Tensor | None:
        """Makes class indices.

        Args:
            classes: Indices (B,) int64; None stands for the null class, which these networks do not have.
            device: Where the result is used.

        Returns:
            Indices (B,) int64; None for a model without classes.

        Raises:
            UsageError: If the model has classes and `classes` is None.
        """
        if not self.classes.count:
            return None
        if classes is None:
            raise UsageError("this model has no null class; use `class_label=label` or `class_label=INT`")
        return classes.to(device)


def recognise(checkpoint: Checkpoint) -> Match | None:
    """Claims tensors with the names and dimensions of the U-Net that both codes share."""
    tensors = checkpoint.tensors
    if not tensors.keys() >= _NAMES or not any(name.startswith("output_blocks.") for name in tensors):
        return None
    dimensions = {"input_blocks.0.0.weight": 4, "out.2.weight": 4, "middle_block.1.qkv.weight": 3}
    if any(tensors[name].dim() != count for name, count in dimensions.items()):
        return None
    return Match(True, "the tensors have the names of guided-diffusion's and improved-diffusion's U-Net")


def build(checkpoint: Checkpoint, config: Mapping[str, str], match: Match) -> ADMDenoiser:
    """Builds the U-Net on its steps; what its tensors do not show must be known of a release, or said.

    Args:
        checkpoint: One that `recognise` claims.
        config: The user's `--config`: KNOWN.
        match: From `recognise`.

    Returns:
        The denoiser, its network on the CPU.

    Raises:
        CheckpointError: If the weights are not whole, or a fact is missing.
        WeightsMismatch: If they do not fit the network.
        UsageError: If `config` has an unknown key or value.
    """
    path, tensors = checkpoint.path, checkpoint.tensors
    sizes = infer_arguments(path, tensors)
    release, given = release_of(sizes), file_arguments(checkpoint)
    facts = Facts(path, {**_settings_of(release, given), **given}, config, KNOWN)
    widths = sorted({t.shape[1] for name, t in tensors.items() if name.endswith(".qkv.weight") and t.dim() == 3})
    _require(facts, sizes, widths)
    side, heads, settings = _side(facts, sizes), _heads(facts, widths), _settings(facts)
    arguments = {**sizes, **heads, "use_new_attention_order": settings["use_new_attention_order"]}
    constructor = {"image_size": side, **arguments, **settings}

    network: ADMUNet = build_on_meta(lambda: ADMUNet(**arguments), path, tensors)
    space = input_space(sizes["in_channels"], side, latent=False, resize="adm")
    count = sizes["num_classes"] or 0
    label = torch.zeros(1, dtype=torch.int64, device="meta") if count else None
    layers = dry_walk(network, space, label, path)
    load_weights(network, tensors, path)
    unsaid = [key for key in KNOWN if key in constructor and key not in config and given.get(key) is None]
    assumed = {key: constructor[key] for key in unsaid if _matters(key, constructor, widths)}
    why, warnings = _words(checkpoint, release, assumed)
    return ADMDenoiser(
        network_class=f"UNetModel({settings['noise_schedule']}, {settings['diffusion_steps']} steps)",
        network=network,
        space=space,
        noise=_noise(settings, facts),
        classes=Classes(count, null=not count, null_trained=False if count else None),
        layers=layers,
        default_layer=[layer.name for layer in layers if layer.name.startswith("input_blocks.")][-1],
        evidence="; ".join([match.why, *why]),
        constructor=constructor,
        warnings=warnings,
        prediction="x0" if constructor["predict_xstart"] else "eps",
    )


def infer_arguments(path: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Reads the network's sizes from names and shapes alone.

    Args:
        path: Of the checkpoint, for messages.
        tensors: Under the network's own names.

    Returns:
        Argument of `ADMUNet` → value, but for the heads and the order of attention.

    Raises:
        CheckpointError: If a tensor is missing or has a shape that no such network has, or the network is one of
            super-resolution or on latents.
    """
    shapes = shapes_of(path, tensors)
    numbers = {part: _numbers(shapes, part) for part in ("input_blocks", "output_blocks")}
    count = len(numbers["input_blocks"])
    ups = {m[1] for n in shapes if (m := re.match(r"output_blocks\.(\d{1,5})\.[1-9]\.(conv|in_layers\.0)\.weight", n))}
    levels = 1 + len(ups)
    blocks = count // levels - 1
    if any(found != list(range(count)) for found in numbers.values()) or count % levels or blocks < 1:
        raise CheckpointError(
            f"{path}: {count} input blocks, {len(numbers['output_blocks'])} output blocks and {len(ups)} up-samplers; "
            "expected as many input as output blocks without a gap, and equally many at each resolution"
        )
    firsts = [level * (blocks + 1) + 1 for level in range(levels)]
    try:
        model_channels = shapes["time_embed.0.weight"][1]
        widths = [shapes[f"input_blocks.{first + blocks - 1}.0.in_layers.2.weight"][0] for first in firsts]
        sizes: dict[str, Any] = {
            "in_channels": shapes["input_blocks.0.0.weight"][1],
            "model_channels": model_channels,
            "out_channels": shapes["out.2.weight"][0],
            "num_res_blocks": blocks,
            "attention_resolutions": [
                2**level for level, first in enumerate(firsts) if f"input_blocks.{first}.1.qkv.weight" in shapes
            ],
            "channel_mult": [integer_if_whole(width / model_channels) for width in widths],
            "num_classes": shapes["label_emb.weight"][0] if "label_emb.weight" in shapes else None,
            "use_scale_shift_norm": shapes["input_blocks.1.0.emb_layers.1.weight"][0] == 2 * widths[0],
            "resblock_updown": f"input_blocks.{blocks + 1}.0.in_layers.0.weight" in shapes,
        }
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"{path}: not a whole U-Net: {error} is missing or of another shape") from None
    _check_channels(sizes, path)
    return sizes


def sigmas(noise_schedule: str, diffusion_steps: int) -> list[float]:
    """Computes the noise level of every step, in float64.

    Args:
        noise_schedule: "linear" (Ho et al., 2020, stretched to the number of steps) or "cosine" (Nichol & Dhariwal,
            2021, equation 17).
        diffusion_steps: Number of steps.

    Returns:
        Noise-to-signal ratios; not finite, or NaN, where the schedule leaves no signal.
    """
    if noise_schedule == "linear":
        stretch = 1000 / diffusion_steps
        betas = np.linspace(stretch * 1e-4, stretch * 0.02, diffusion_steps)
    else:
        left = np.cos((np.arange(diffusion_steps + 1) / diffusion_steps + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = np.minimum(1 - left[1:] / left[:-1], 0.999)
    signal = np.cumprod(1 - betas)
    with np.errstate(divide="ignore", invalid="ignore"):
        return [float(sigma) for sigma in np.sqrt((1 - signal) / signal)]


def _numbers(shapes: Iterable[str], part: str) -> list[int]:
    return sorted({int(m[1]) for name in shapes if (m := re.match(rf"{part}\.([0-9]{{1,5}})\.", name))})


def _check_channels(sizes: Mapping[str, Any], path: str) -> None:
    """CheckpointError for a network on something else than images, or of impossible sizes."""
    taken, given, width = sizes["in_channels"], sizes["out_channels"], sizes["model_channels"]
    if taken not in (1, 3):
        kind = "a super-resolution network, which is given a small image as well" if taken == 6 else "another network"
        raise CheckpointError(f"{path}: it takes {taken} channels: {kind}; expected 1 or 3, of a network on images")
    if given not in (taken, 2 * taken):
        raise CheckpointError(f"{path}: {given} output channels for {taken} input channels; expected 1× or 2×")
    if width % 2:
        raise CheckpointError(f"{path}: a base width of {width} by time_embed.0.weight; expected an even number")


def _settings_of(release: Release | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a release, but for the heads where the file says them in either way."""
    known = {} if release is None else dict(release.settings)
    if any(given.get(key) is not None for key in HEADS):
        known = {key: value for key, value in known.items() if key not in HEADS}
    return known


def _require(facts: Facts, sizes: Mapping[str, Any], widths: list[int]) -> None:
    """CheckpointError that asks for all that neither tensors nor user say and that has no default."""
    asked = []
    if not facts.says("image_size") and tuple(sizes["channel_mult"]) not in SIDES:
        asked.append("the side of the images: `config=image_size=N`")
    if not any(map(facts.says, HEADS)):
        attending = ", ".join(map(str, widths))
        asked.append(
            f"the heads of attention, whose width is {attending}: `config=num_heads=N` or `config=num_head_channels=N`"
        )
    steps = facts.integer("diffusion_steps", DEFAULTS["diffusion_steps"], 2, MAX_STEPS)
    if steps != 1000 and not facts.says("rescale_timesteps"):
        asked.append(
            f"whether it is fed step · 1000/{steps} (improved-diffusion's default) or the step itself "
            "(guided-diffusion's): `config=rescale_timesteps=true` or false"
        )
    if asked:
        raise CheckpointError(
            f"{facts.path}: it has not the sizes of a released network, and no tensor tells {'; nor '.join(asked)}"
        )


def _settings(facts: Facts) -> dict[str, Any]:
    """What no tensor shows, but for side and heads."""
    return {
        "use_new_attention_order": facts.boolean("use_new_attention_order", DEFAULTS["use_new_attention_order"]),
        "noise_schedule": facts.choice("noise_schedule", DEFAULTS["noise_schedule"], ("linear", "cosine")),
        "diffusion_steps": facts.integer("diffusion_steps", DEFAULTS["diffusion_steps"], 2, MAX_STEPS),
        "rescale_timesteps": facts.boolean("rescale_timesteps", False),
        "predict_xstart": facts.boolean("predict_xstart", False),
    }


def _side(facts: Facts, sizes: Mapping[str, Any]) -> int:
    halved = len(sizes["channel_mult"]) - 1
    side = facts.integer("image_size", SIDES.get(tuple(sizes["channel_mult"]), 1), high=MAX_SIDE)
    if side % 2**halved:
        raise (UsageError if "image_size" in facts.config else CheckpointError)(
            f"{facts.path}: image_size is {side}; expected a multiple of {2**halved}, as it is halved {halved} times"
        )
    return side


def _heads(facts: Facts, widths: list[int]) -> dict[str, int]:
    """How attention is divided, in the one of two ways that is said."""
    by_user = [key for key in HEADS if key in facts.config]
    if len(by_user) == 2:
        raise UsageError("`config=num_heads` and `config=num_head_channels`: expected one of the two")
    (key,) = by_user or [key for key in HEADS if facts.says(key)][:1]
    number = facts.integer(key, 1)
    if odd := [width for width in widths if width % number]:
        raise (UsageError if by_user else CheckpointError)(
            f"{facts.path}: {key} is {number}, but attention has {odd[0]} channels; expected a divisor of that"
        )
    return {key: number}


def _noise(settings: Mapping[str, Any], facts: Facts) -> DiscreteSteps:
    steps = settings["diffusion_steps"]
    levels = sigmas(settings["noise_schedule"], steps)
    if not 0 < levels[0] <= levels[-1] < math.inf:
        raise (UsageError if "diffusion_steps" in facts.config else CheckpointError)(
            f"{facts.path}: {steps} {settings['noise_schedule']} steps leave no signal; expected more: "
            "`config=diffusion_steps=N`"
        )
    noise = DiscreteSteps(levels, integer_if_whole(1000 / steps) if settings["rescale_timesteps"] else 1)
    if noise.spacing != 1:
        noise.native = f"step · {noise.spacing:g}, of steps 0…{steps - 1}, rising with noise"
    else:
        noise.native = f"step in 0…{steps - 1}, rising with noise"
    return noise


def _matters(key: str, constructor: Mapping[str, Any], widths: list[int]) -> bool:
    """Whether another value of a fact would change a number."""
    if key == "rescale_timesteps":
        return bool(constructor["diffusion_steps"] != 1000)
    if key == "use_new_attention_order":
        return constructor.get("num_heads") != 1 and widths != [constructor.get("num_head_channels")]
    return True


def _words(
    checkpoint: Checkpoint, release: Release | None, assumed: Mapping[str, Any]
) -> tuple[list[str], tuple[str, ...]]:
    """How what no tensor shows was decided: the evidence, and a warning where it may be wrong."""
    if release is not None and os.path.splitext(checkpoint.name)[0] in release.files:
        return [f"the released {checkpoint.name}"], ()
    if not assumed:
        return [], ()
    said = ", ".join(f"{key}={value}" for key, value in assumed.items())
    if release is None:
        return [], (f"no tensor tells {said}: assumed, as the training code's default (`config=KEY=VALUE`)",)
    return [f"the sizes of the released {release.files[0]}"], (
        f"no tensor tells {said}: assumed, as of the released {release.files[0]}, whose sizes these are "
        "(`config=KEY=VALUE`)",
    )
