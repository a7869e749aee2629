"""What is this file? From its tensors and what it says of itself; nothing is computed with the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffscope import __version__
from diffscope.checkpoints import Checkpoint
from diffscope.families.base import Denoiser, Layer
from diffscope.results import SCHEMA, Record, finite


def inspect(checkpoint: Checkpoint, denoiser: Denoiser, sha256: str | None = None) -> Record:
    """The record that `diffscope inspect --json` prints."""
    space, noise, classes = denoiser.space, denoiser.noise, denoiser.classes
    content = {
        "diffscope": __version__,
        "schema": SCHEMA,
        "command": "inspect",
        "path": checkpoint.path,
        "container": checkpoint.container,
        "revision": checkpoint.revision,
        "sha256": sha256,
        "checksums": checkpoint.checksums,
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
        "gflops": round(denoiser.layers[-1].flops / 1e9, 4) or None,
        "layers": _layers(denoiser.layers, denoiser.cited),
        "warnings": list(denoiser.warnings),
    }
    return Record("inspect", content)


def _layers(layers: Sequence[Layer], cited: Mapping[str, str]) -> list[dict[str, Any]]:
    """`share` is the part of the network's FLOPs that a walk to the layer takes; None where it cannot be told apart."""
    total = layers[-1].flops
    told = layers[0].flops < total
    return [
        {
            "name": layer.name,
            "shape": list(layer.shape),
            "features": layer.width,
            "share": round(layer.flops / total, 4) if told else None,
            **({"cited": cited[layer.name]} if layer.name in cited else {}),
        }
        for layer in layers
    ]
