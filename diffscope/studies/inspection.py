"""What is this file? From its tensors and what it says of itself; nothing is computed with the network."""

from __future__ import annotations

from typing import Any

from diffscope.checkpoints import Checkpoint
from diffscope.families.base import Denoiser
from diffscope.results import finite


def inspect(checkpoint: Checkpoint, denoiser: Denoiser) -> dict[str, Any]:
    """The record that `diffscope inspect --json` prints."""
    space, noise, classes = denoiser.space, denoiser.noise, denoiser.classes
    return {
        "path": checkpoint.path,
        "container": checkpoint.container,
        "family": denoiser.family,
        "class": denoiser.network_class,
        "evidence": denoiser.evidence,
        "weights": checkpoint.weights,
        "weights_reason": checkpoint.weights_reason,
        "parameters": sum(p.numel() for p in denoiser.network.parameters()),
        "step": checkpoint.step,
        "step_unit": checkpoint.step_unit,
        "input": {
            "kind": space.kind,
            "channels": space.channels,
            "side": space.side,
            "image_channels": space.image_channels,
            "image_side": space.image_side,
        },
        "noise": {
            "native": noise.native,
            "sigma_min": noise.sigma_min,
            "sigma_max": finite(noise.sigma_max),
            "discrete": noise.discrete,
        },
        "classes": {"count": classes.count, "null": classes.null, "null_trained": classes.null_trained},
        "default_layer": denoiser.default_layer,
        "constructor": denoiser.constructor,
        "layers": [{"name": l.name, "shape": list(l.shape), "features": l.width} for l in denoiser.layers],  # noqa: E741
        "warnings": list(denoiser.warnings),
    }
