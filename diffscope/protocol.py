"""All that a number depends on, as one value: hashed into results and into what an interrupted run looks up.

Numbers are compared only where their protocols agree but for the compared axis; otherwise the field that differs is
named, with both values.
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
    """Every field is plain JSON."""

    checkpoint: str | None
    """sha256 of the file; None in what several checkpoints share."""
    weights: str
    """ema or model."""
    family: str
    constructor: Mapping[str, Any]
    """What the network was built with."""
    encoder: str | None
    """sha256 of the VAE's files; None for models on pixels and for ready-made latents."""
    data: str
    """Fingerprint of the images."""
    images: int
    """How many were asked for; unreadable ones are left out and stand in the result."""
    resize: str
    side: int
    """Of the image after resizing."""
    channels: int
    augment: str
    augment_strength: float
    views: int
    input: str
    """noisy, or clean: the clean image with the noise level's conditioning."""
    pool: str
    normalize: bool
    reduce: bool
    """Whether linearly dependent channels are projected away instead of refused."""
    class_label: str
    """null, label (the image's own) or a class index."""
    layers: tuple[str, ...]
    sigmas: tuple[float, ...]
    seed: int
    precision: str
    blocks: int
    """G of the jackknife."""
    generator: str
    """Name and version of the random numbers."""
    accuracy: float | None = None
    """Relative, of a sweep that spends images where they decide; None where all levels are given all images."""
    max_pixels: int | None = None
    """Of a stored image, for it decides which are left out; None for the number that stands unless the user says so."""
    estimator: str = ESTIMATOR
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further options of a command, that its numbers depend on."""

    def shared(self) -> Protocol:
        """What is the same for all snapshots of a training run."""
        return replace(self, checkpoint=None)

    def to_json(self) -> dict[str, Any]:
        """All fields and their hash."""
        fields: dict[str, Any] = json.loads(json.dumps(self._fields(), allow_nan=False))
        return {**fields, "hash": self.hash()}

    def hash(self) -> str:
        return digest(self._fields())

    def _fields(self) -> dict[str, Any]:
        """All on one level."""
        fields = asdict(self)
        more: dict[str, Any] = fields.pop("more")
        return fields | more


def digest(fields: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of plain JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True, allow_nan=False).encode()).hexdigest()


def require_equal(a: Mapping[str, Any], b: Mapping[str, Any], ignoring: Collection[str], what: str) -> None:
    """ProtocolMismatch naming each field in which two protocols (as JSON) differ, with both values."""
    skip = {*ignoring, "hash"}
    fields = [field for field in {**a, **b} if field not in skip and a.get(field) != b.get(field)]
    if fields:
        named = "; ".join(f"{field}: {_short(a.get(field))} and {_short(b.get(field))}" for field in fields)
        raise ProtocolMismatch(f"{what} differ in {named}; measure both with the same settings")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:36] + "…"
