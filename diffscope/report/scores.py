"""The numbers of a result that stand for it elsewhere, such as in the metadata of a model's card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Score:
    """One number."""

    kind: str
    """Of what: icr, accuracy."""
    name: str
    """In words, for a reader."""
    value: float
    at: Mapping[str, Any]
    """Where: layer, noise level, step, ends of its interval; plain values."""
