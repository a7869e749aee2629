"""All that a number depends on, as one value: hashed into results and into what an interrupted run looks up.

Numbers are compared only where their protocols agree in all but the compared field; otherwise each other field that
differs is named, with both values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from diffscope.errors import ProtocolMismatch

ESTIMATOR = "diffscope-icr-1"
"""Version of the statistics: raised whenever the same features give another number."""

CHECKPOINT_FIELDS = frozenset({"checkpoint", "weights", "family", "constructor"})
"""The fields in which two checkpoints of one run differ."""


@dataclass(frozen=True)
class Protocol:
    """What a number depends on; every field is plain JSON."""

    checkpoint: str | None
    """sha256 of the file; None in what several checkpoints share."""
    weights: str
    """`ema` or `model`: which set of the checkpoint's weights."""
    family: str
    """Name of the family that read the checkpoint."""
    constructor: Mapping[str, Any]
    """What the network was built with."""
    encoder: str | None
    """sha256 of the VAE's files; None for models on pixels and for ready-made latents."""
    data: str
    """Fingerprint of the images."""
    images: int
    """How many were asked for; unreadable ones are left out and listed in the result."""
    resize: str
    """`lanczos`, `adm` or `bilinear`, as in `sources.base.Target`."""
    side: int
    """Pixels, of the image after resizing."""
    channels: int
    """Of the image."""
    augment: str
    """One of `views.AUGMENTATIONS`."""
    augment_strength: float
    """Multiplies all ranges of the augmentation."""
    views: int
    """V, of each image."""
    input: str
    """`noisy`, or `clean`: the clean image with the noise level's conditioning."""
    pool: str
    """`mean` over positions, or `flatten`."""
    normalize: bool
    """Whether features are divided by their norm."""
    reduce: bool
    """Whether linearly dependent channels are projected away instead of refused."""
    class_label: str
    """`null`, `label` (the image's own) or a class index."""
    layers: tuple[str, ...]
    """Names."""
    sigmas: tuple[float, ...]
    """Noise levels σ."""
    seed: int
    """Of the subset of images, views and noise."""
    precision: str
    """`fp32`, `tf32`, `bf16` or `fp16`: what the network computes in."""
    blocks: int
    """G of the jackknife."""
    generator: str
    """Name and version of the random numbers."""
    accuracy: float | None = None
    """Relative, of a sweep that stops early where it can; None where every level is given all images."""
    max_pixels: int | None = None
    """Of a stored image: larger ones are left out. None for the default."""
    estimator: str = ESTIMATOR
    """Version of the statistics."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further options of a command that its numbers depend on."""

    def shared(self) -> Protocol:
        """Returns what is the same for all snapshots of a training run."""
        return replace(self, checkpoint=None)

    def to_json(self) -> dict[str, Any]:
        """Returns all fields, and their hash under `hash`, as plain JSON."""
        fields: dict[str, Any] = json.loads(json.dumps(self._fields(), allow_nan=False))
        return {**fields, "hash": self.hash()}

    def hash(self) -> str:
        """Returns the SHA-256 (hex) of all fields."""
        return digest(self._fields())

    def _fields(self) -> dict[str, Any]:
        """All fields on one level, those of `more` beside the others."""
        fields = asdict(self)
        more: dict[str, Any] = fields.pop("more")
        return fields | more


def digest(fields: Mapping[str, Any]) -> str:
    """Hashes plain JSON, whatever the order of its keys.

    Args:
        fields: Finite numbers, strings, lists and mappings of them.

    Returns:
        SHA-256, hex.

    Raises:
        ValueError: A number is not finite.
    """
    return hashlib.sha256(json.dumps(fields, sort_keys=True, allow_nan=False).encode()).hexdigest()


def require_equal(a: Mapping[str, Any], b: Mapping[str, Any], ignoring: Collection[str], what: str) -> None:
    """Refuses to compare numbers of different protocols.

    Args:
        a: A protocol as JSON.
        b: The other.
        ignoring: Fields that may differ.
        what: Subject of the error's sentence, such as "the results".

    Raises:
        ProtocolMismatch: It names each other field that differs, with both values.
    """
    skip = {*ignoring, "hash"}
    fields = [field for field in {**a, **b} if field not in skip and a.get(field) != b.get(field)]
    if fields:
        named = "; ".join(f"{field}: {_short(a.get(field))} and {_short(b.get(field))}" for field in fields)
        raise ProtocolMismatch(f"{what} differ in {named}; measure both with the same settings")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:36] + "…"
