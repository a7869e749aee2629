"""DiT checkpoints: the transformer on a DDPM's thousand discrete steps.

Peebles & Xie, "Scalable Diffusion Models with Transformers", 2023, https://arxiv.org/abs/2212.09748; the steps are
those of Ho et al., "Denoising Diffusion Probabilistic Models", 2020, https://arxiv.org/abs/2006.11239.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from diffscope.checkpoints.base import Checkpoint
from diffscope.families._conventions import DiscreteSteps
from diffscope.families._facts import text_of
from diffscope.families._transformers import (
    TransformerDenoiser,
    build_transformer,
    early_average,
    facts_of,
    is_transformer,
    output_ratio,
)
from diffscope.families.base import Match

_SETTINGS = ("num_classes", "num_heads")


class DDPMSteps(DiscreteSteps):
    """Steps 0 … 999 with betas linear from 1e-4 to 2e-2."""

    native = "step in 0…999, rising with noise"

    def __init__(self) -> None:
        signal = np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000))
        super().__init__(np.sqrt((1 - signal) / signal).tolist())


@dataclass
class DiTDenoiser(TransformerDenoiser):
    """A DiT checkpoint as a denoiser; the network predicts the noise."""

    family: ClassVar[str] = "dit"


def recognise(checkpoint: Checkpoint) -> Match | None:
    """Claims transformers that learn the variance or whose training arguments or name say DiT."""
    if not is_transformer(checkpoint) or any(n.startswith("projectors.") for n in checkpoint.tensors):
        return None
    arguments = checkpoint.training_args
    if arguments:
        is_dit = "path_type" not in arguments and text_of(arguments, "model").startswith("DiT")
        return Match(True, "the training arguments name a DiT and no path") if is_dit else None
    if output_ratio(checkpoint) != 2:
        return None  # DiT always learns the variance
    if "DiT" in checkpoint.name.replace("LightningDiT", ""):
        return Match(True, "the file's name says DiT")
    if "SiT" in checkpoint.name:
        return None
    return Match(False, "the weights fit")


def build(checkpoint: Checkpoint, config: Mapping[str, str], match: Match) -> DiTDenoiser:
    """Builds the transformer on DDPM's thousand steps.

    Args:
        checkpoint: One that `recognise` claims.
        config: The user's `--config`: num_classes, num_heads.
        match: From `recognise`.

    Returns:
        The denoiser, its network on the CPU.

    Raises:
        CheckpointError: If the weights are not whole or do not say enough.
        WeightsMismatch: If they do not fit the network.
        UsageError: If `config` has an unknown key or value.
    """
    built = build_transformer(checkpoint.tensors, facts_of(checkpoint, config, _SETTINGS))
    return DiTDenoiser(
        network_class="DiT(DDPM, 1000 linear steps)",
        noise=DDPMSteps(),
        evidence="; ".join([match.why, *built.evidence]),
        constructor=built.constructor,
        warnings=tuple(early_average(checkpoint)),
        prediction="eps",
        **built.fields(),
    )
