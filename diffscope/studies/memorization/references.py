"""Images that samples as a whole are compared with, and the keys and notes of a row that come of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from diffscope.distributions import (
    Estimate,
    FrechetReference,
    KernelReference,
    NeighborhoodReference,
    TooFew,
)
from diffscope.numerics import FloatArray

KEYS = ("fd", "fd_infinity", "kd", "precision", "recall", "density", "coverage", "authenticity")
"""Of a row, each with its standard error under `…_se`; of held-out images with `_holdout` before that."""

HELD_OUT = "_holdout"

BIAS_TOLD = 0.05
"""Share of the Fréchet distance that is due to few samples, from which on the row has a note."""

R = TypeVar("R")


def row_keys(holdout: bool) -> list[str]:
    """What a row gets, all of them numbers.

    Args:
        holdout: Whether there are held-out images.
    """
    ends = ("", HELD_OUT) if holdout else ("",)
    return [f"{key}{end}{error}" for end in ends for key in KEYS for error in ("", "_se")]


class References:
    """Features of the references, and what follows from them alone.

    Args:
        features: float64 [N, d].
    """

    def __init__(self, features: FloatArray) -> None:
        self.count, self.d = features.shape
        self._few: list[str] = []
        self._frechet = self._opened(FrechetReference, features)
        self._kernel = self._opened(KernelReference, features)
        self._neighborhoods = self._opened(NeighborhoodReference, features)

    def _opened(self, kind: Callable[[FloatArray], R], features: FloatArray) -> R | None:
        try:
            return kind(features)
        except TooFew as error:
            self._few.append(f"few_references: {error}")
            return None

    def measure(self, samples: FloatArray, end: str = "") -> tuple[dict[str, Any], list[str]]:
        """Compares samples with them.

        Args:
            samples: float64 [n, d].
            end: Stands behind the names of the keys.

        Returns:
            The keys of a row, None where something could not be computed, and the reasons.
        """
        found, notes = dict[str, Estimate | None].fromkeys(KEYS), list(self._few)
        for measure in (self._frechet_of, self._kernel_of, self._neighbors_of):
            try:
                found |= measure(samples)
            except TooFew as error:
                notes.append(f"few_samples: {error}")
        notes += self._said(found, len(samples), end)
        row: dict[str, Any] = {}
        for key, estimate in found.items():
            row[f"{key}{end}"] = None if estimate is None else estimate.value
            row[f"{key}{end}_se"] = None if estimate is None else estimate.error
        return row, list(dict.fromkeys(notes))

    def _frechet_of(self, samples: FloatArray) -> dict[str, Estimate | None]:
        if self._frechet is None:
            return {}
        distance = self._frechet.distance(samples)
        return {"fd": distance.distance, "fd_infinity": distance.infinite}

    def _kernel_of(self, samples: FloatArray) -> dict[str, Estimate | None]:
        return {} if self._kernel is None else {"kd": self._kernel.distance(samples)}

    def _neighbors_of(self, samples: FloatArray) -> dict[str, Estimate | None]:
        return {} if self._neighborhoods is None else vars(self._neighborhoods.measure(samples))

    def _said(self, found: dict[str, Estimate | None], samples: int, end: str) -> list[str]:
        """Why something is null, or to be read with care."""
        notes = []
        plain, infinite = found["fd"], found["fd_infinity"]
        if plain is not None and infinite is None:
            assert self._frechet is not None
            need = 2 * max(2, self._frechet.directions)
            notes.append(
                f"no_extrapolation: fd{end} of {samples} samples is too large by an unknown amount; fd_infinity{end} "
                f"needs {need}, twice the directions of the references"
            )
        if plain is not None and infinite is not None and plain.value - infinite.value > BIAS_TOLD * plain.value:
            bias = plain.value - infinite.value
            notes.append(
                f"fd_bias: fd{end} is too large by about {bias:.3g} for {samples} samples; see fd_infinity{end}"
            )
        alike = [f"{key}{end}" for key, one in found.items() if one is not None and one.error is None]
        if samples < 16:
            notes.append(f"no_errors: {samples} samples; standard errors need 16")
        elif alike:
            notes.append(f"no_scatter: {', '.join(alike)}: the same without any block of samples; no standard error")
        return notes
