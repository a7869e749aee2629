"""The contract of this open folder: one metric is one file, found by its name.

A member exports `KEYS` (the row's keys → one line each, with the unit) and `measure(moments, context)`. The standard
error of a key stands under `<key>_se`. A whole member, for example `participation_ratio.py`:

    KEYS = {"participation_ratio": "(tr S_z)²/tr(S_z²), effective number of directions of one view [directions]"}

    def measure(moments: Moments, context: Context) -> Measurement:
        return jackknifed("participation_ratio", moments, participation_ratio)

    def participation_ratio(pooled: PooledMoments) -> float:
        cov = pooled.cov_view
        return float(np.trace(cov) ** 2 / np.sum(cov * cov))

A number that the data do not determine is None with its reason among the notes, never NaN: its function raises an
`EstimationError`. A note is `code: sentence` with the value found, the limit and the next step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from diffscope import registry
from diffscope.errors import EstimationError
from diffscope.moments import Moments, PooledMoments, guarded
from diffscope.numerics import jackknife_se, threads_for

__all__ = [
    "SPECTRAL_SE_LIMIT",
    "Context",
    "Measurement",
    "Value",
    "jackknifed",
    "measure_all",
    "merged",
    "standard_error",
]

Value = float | list[float] | None

SPECTRAL_SE_LIMIT = 512
"""Channels above which eigenvalues are not repeated for every replicate: 16 × 1 s and more for each metric."""


@dataclass(frozen=True)
class Context:
    """What the numbers need to know that is not in the moments."""

    feature_eps: float = 2.0**-23
    """Spacing at 1 of the coarsest dtype that the features passed through: 2⁻⁷ bf16, 2⁻¹⁰ fp16, 2⁻²³ fp32."""
    pooled_positions: int = 1
    """Positions averaged in float32 after that dtype."""
    reduce: bool = False
    """Whether linearly dependent channels are projected away instead of refused."""
    alpha_req_ranks: tuple[int, int] | None = None
    """First and last rank of α-ReQ's fit, from 1; None: 5…min(100, d/2)."""


@dataclass(frozen=True)
class Measurement:
    """Values by key, ready for a result's row, and notes."""

    values: Mapping[str, Value]
    notes: tuple[str, ...] = field(default=())


def measure_all(moments: Moments, context: Context) -> Measurement:
    """Check the moments, then measure everything that this folder offers; EstimationError where a check refuses."""
    with threads_for(moments.d):
        moments, notes = guarded(moments, context.feature_eps, context.pooled_positions, context.reduce)
        members = registry.load("diffscope.metrics").values()
        return merged([Measurement({}, notes), *(member.measure(moments, context) for member in members)])


def merged(parts: Sequence[Measurement]) -> Measurement:
    """One measurement of several; a key given twice is our own mistake. Notes that repeat stand once."""
    values: dict[str, Value] = {}
    for part in parts:
        twice = values.keys() & part.values.keys()
        assert not twice, f"two metrics give {sorted(twice)}"
        values.update(part.values)
    notes = [note for part in parts for note in part.notes]
    for key, value in values.items():
        if value is not None and not np.all(np.isfinite(value)):
            values[key] = None
            notes.append(f"undefined: {key} has no finite value; report this with the command that gave it")
    return Measurement(values, tuple(dict.fromkeys(notes)))


def jackknifed(
    key: str, moments: Moments, statistic: Callable[[PooledMoments], float], spectral: bool = False
) -> Measurement:
    """`statistic` of all blocks under `key`, its delete-a-block standard error under `<key>_se`.

    `spectral` says that it costs an eigendecomposition, which is not repeated for errors above SPECTRAL_SE_LIMIT.
    """
    try:
        value = statistic(moments.total)
    except EstimationError as reason:
        return Measurement({key: None, f"{key}_se": None}, (f"undefined: {key}: {reason}",))
    if spectral and moments.d > SPECTRAL_SE_LIMIT:
        note = (
            f"no_spectral_se: standard errors of eigenvalue metrics are left out at {moments.d} channels (limit "
            f"{SPECTRAL_SE_LIMIT}), where they would take longer than all else; that of icr is there"
        )
        return Measurement({key: value, f"{key}_se": None}, (note,))
    try:
        replicates = [statistic(moments.without(block)) for block in range(moments.blocks)]
    except EstimationError as reason:
        return Measurement({key: value, f"{key}_se": None}, (f"undefined: {key}_se: {reason}",))
    return Measurement({key: value, f"{key}_se": standard_error(value, replicates)})


def standard_error(value: float, replicates: Sequence[float]) -> float:
    """Absolute delete-a-block standard error; taken on the logarithm where value and replicates are positive."""
    if value > 0 and min(replicates) > 0:
        return value * float(jackknife_se(np.log(replicates)))
    return float(jackknife_se(replicates))
