"""REPA checkpoints: SiT's transformer trained beside a projection onto another network's features.

Yu et al., "Representation Alignment for Generation: Training Diffusion Transformers Is Easier Than You Think", 2024,
https://arxiv.org/abs/2410.06940. Time runs from data (0) to noise (1), against SiT's direction. The projectors serve
training alone and are left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from diffscope.checkpoints.base import Checkpoint
from diffscope.families._transformers import (
    Interpolant,
    InterpolantDenoiser,
    build_interpolant,
    is_transformer,
    output_ratio,
)
from diffscope.families.base import Match


class linear(Interpolant):
    native = "t in [0, 1], 0 = data (linear path)"

    def to_native(self, sigma: float) -> float:
        return sigma / (1 + sigma)

    def to_sigma(self, t: float) -> float:
        return self._checked(t) / (1 - t) if t < 1 else math.inf

    def input_scale(self, sigma: float) -> float:
        return 1 / (1 + sigma)

    def velocity(self, t: float) -> tuple[float, float]:
        return -1.0, 1.0


class cosine(Interpolant):
    native = "t in [0, 1], 0 = data (cosine path)"

    def to_native(self, sigma: float) -> float:
        return 2 / math.pi * math.atan(sigma)

    def to_sigma(self, t: float) -> float:
        return math.tan(math.pi / 2 * self._checked(t)) if t < 1 else math.inf

    def input_scale(self, sigma: float) -> float:
        return 1 / math.hypot(1, sigma)

    def velocity(self, t: float) -> tuple[float, float]:
        return -math.pi / 2 * math.sin(math.pi / 2 * t), math.pi / 2 * math.cos(math.pi / 2 * t)


PATHS: dict[str, type[Interpolant]] = {path.__name__: path for path in (linear, cosine)}


@dataclass
class REPADenoiser(InterpolantDenoiser):
    family: ClassVar[str] = "repa"


def recognise(checkpoint: Checkpoint) -> Match | None:
    if not is_transformer(checkpoint):
        return None
    if any(n.startswith("projectors.") for n in checkpoint.tensors):
        return Match(True, "the file holds REPA's projectors")
    if any(n.startswith("decoder_blocks.") for n in checkpoint.tensors):
        return Match(True, "the file holds REPA's older decoder_blocks")
    if checkpoint.training_args:
        is_repa = "encoder_depth" in checkpoint.training_args
        return Match(True, "the training arguments have REPA's encoder_depth") if is_repa else None
    if output_ratio(checkpoint) != 1 or "SiT" in checkpoint.name:
        return None  # REPA never learns the variance
    return Match(False, "the weights fit, stripped of projectors")


def build(checkpoint: Checkpoint, config: Mapping[str, str], match: Match) -> REPADenoiser:
    tensors = native_names(checkpoint.tensors)
    return build_interpolant(REPADenoiser, PATHS, "linear", "v", checkpoint, tensors, config, match)


def native_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without projectors; older files count the blocks behind the aligned one apart, from 0."""
    numbers = {int(m[1]) for n in tensors if (m := re.match(r"blocks\.([0-9]{1,5})\.", n))}

    def name(old: str) -> str:
        later = re.fullmatch(r"decoder_blocks\.([0-9]{1,5})\.(.*)", old)
        return f"blocks.{len(numbers) + int(later[1])}.{later[2]}" if later else old

    return {name(n): tensor for n, tensor in tensors.items() if not n.startswith("projectors.")}
