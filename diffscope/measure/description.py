"""What a result says of its checkpoint and its images, in the same words for every study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffscope.measure.job import Job


def described_checkpoint(job: Job) -> dict[str, Any]:
    checkpoint, denoiser = job.checkpoint, job.denoiser
    return {
        "path": checkpoint.path,
        "sha256": checkpoint.sha256(),
        "revision": checkpoint.revision,
        "family": denoiser.family,
        "class": denoiser.network_class,
        "parameters": sum(p.numel() for p in denoiser.network.parameters()),
        "step": checkpoint.step,
        "step_unit": checkpoint.step_unit,
        "weights": checkpoint.weights,
        "noise_variable": denoiser.noise.native,
    }


def common_checkpoint(first: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """Of several checkpoints of one run: what the first shares with the others, and the place where they all lie."""
    place = paths[0]
    if len(paths) > 1:
        folders = {str(Path(path).parent) for path in paths}
        place = folders.pop() if len(folders) == 1 else f"{len(paths)} checkpoints"
    shared = {key: first[key] for key in ("family", "class", "parameters", "weights", "noise_variable")}
    return {"path": place, "sha256": None, "step": None, **shared}


def described_data(job: Job, used: int, skipped: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """used: images that were read; skipped: {file, why} of those that could not be."""
    return {
        "path": job.source.path,
        "revision": job.source.revision,
        "count": len(job.source),
        "used": used,
        "skipped": [dict(entry) for entry in skipped],
        "fingerprint": job.protocol.data,
    }
