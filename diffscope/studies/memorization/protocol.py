"""What the numbers of `memorization` depend on but for the checkpoint."""

from __future__ import annotations

from typing import Any

from diffscope.encoders.base import hash_of_file
from diffscope.measure.job import Job
from diffscope.protocol import digest
from diffscope.studies.memorization.options import Choices
from diffscope.studies.memorization.samples import sampler

VERSION = "diffscope-memorization-1"
"""Raised whenever the same samples give another number."""

SHARED = (
    *("checkpoint", "weights", "family", "constructor", "encoder", "data", "images", "resize", "side", "channels"),
    *("class_label", "seed", "precision", "generator", "max_pixels"),
)
"""Fields of a job's protocol that matter here."""


def shared_protocol(
    job: Job, choices: Choices, named: dict[str, Any] | None, quality: dict[str, Any] | None
) -> dict[str, Any]:
    """As JSON with its hash.

    Args:
        job: Of any of the checkpoints.
        choices: What is drawn, and what counts as a copy.
        named: The protocol of the encoder that the user named, or None.
        quality: What the quality of samples depends on beside that; None where it is not asked for.
    """
    base = job.protocol.shared().to_json()
    fields: dict[str, Any] = {
        **{key: base[key] for key in SHARED},
        **{key: base[key] for key in ("data_range",) if key in base},
        **sampler(choices.steps),
        "samples": choices.samples,
        "space": choices.copies_in,
        "mirror": choices.mirror and choices.encoder_features is None,
        "criterion": choices.criterion.kind,
        "threshold": choices.criterion.threshold,
        "version": VERSION,
    }
    if choices.copies_in == "features":
        fields |= {"layers": base["layers"], "sigmas": base["sigmas"]}
    if choices.copies_in == "encoder":
        fields["reference"] = named
    if choices.encoder_features is not None:
        fields["encoder_features"] = [hash_of_file(path) for path in choices.encoder_features]
    if quality is not None:
        fields["quality"] = quality
    return {**fields, "hash": digest(fields)}
