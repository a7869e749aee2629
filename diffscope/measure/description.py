"""What a result says of its checkpoint and its images, in the same words for every study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffscope.measure.job import Job


def described_checkpoint(job: Job) -> dict[str, Any]:
    """What a checkpoint is: where it lies, its hash, family, size and step, and how its noise is counted."""
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
    """What several checkpoints of one run have in common.

    Args:
        first: What `described_checkpoint` says of one of them.
        paths: Of all; their common folder is the result's path.
    """
    place = paths[0]
    if len(paths) > 1:
        folders = {str(Path(path).parent) for path in paths}
        place = folders.pop() if len(folders) == 1 else f"{len(paths)} checkpoints"
    shared = {key: first[key] for key in ("family", "class", "parameters", "weights", "noise_variable")}
    return {"path": place, "sha256": None, "step": None, **shared}


def described_data(job: Job, used: int, skipped: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """What of the images was used.

    Args:
        job: That measured them.
        used: Images that were read.
        skipped: {file, why} of those that could not be.
    """
    return {
        "path": job.source.path,
        "revision": job.source.revision,
        "count": len(job.source),
        "used": used,
        "skipped": [dict(entry) for entry in skipped],
        "fingerprint": job.protocol.data,
    }
