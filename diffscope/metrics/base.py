"""The contract of this open folder: one metric is one file, found by its name.

A member exports `KEYS` (every key that it adds to a row, in order → one line each, which ends with the unit) and
`measure(moments, context)`. Most numbers have a standard error, under `<key>_se`: `with_errors` adds those keys, and
`jackknifed` their values. A whole member, for example `participation_ratio.py`:

    KEYS = with_errors(
        {"participation_ratio": "(tr S_z)²/tr(S_z²), effective number of directions of one view [directions]"}
    )

    def measure(moments: Moments, context: Context) -> Measurement:
        return jackknifed("participation_ratio", moments, participation_ratio)

    def participation_ratio(pooled: PooledMoments) -> float:
        cov = pooled.cov_view
        return float(np.trace(cov) ** 2 / np.sum(cov * cov))

A member whose value is a list of numbers names its keys in `LISTS` as well. A number that the data do not determine is
None with its reason among the notes, never NaN: its function raises an `EstimationError`. A note is `code: sentence`
with the value found, the limit and the next step.
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
    "row_keys",
    "scalar_keys",
    "standard_error",
    "with_errors",
]

Value = float | list[float] | None

SPECTRAL_SE_LIMIT = 512
"""Channels above which eigenvalues are not repeated for every replicate: 16 × 1 s and more for each metric."""


@dataclass(frozen=True)
class Context:
    """What the numbers depend on besides the moments."""

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


def with_errors(keys: Mapping[str, str]) -> dict[str, str]:
    """Adds the key of each number's standard error, right behind it.

    Args:
        keys: Key → one line that ends with the unit in brackets.

    Returns:
        The same keys, each followed by `<key>_se` with the same unit.
    """
    return {
        name: line
        for key, text in keys.items()
        for name, line in ((key, text), (f"{key}_se", f"standard error of {key} {text[text.rindex('[') :]}"))
    }


def row_keys() -> dict[str, str]:
    """Returns every key that `measure_all` gives, in its order → one line that ends with the unit."""
    return {key: line for member in registry.load("diffscope.metrics").values() for key, line in member.KEYS.items()}


def scalar_keys() -> list[str]:
    """Returns the keys of `row_keys` whose value is a single number, not a list."""
    lists = {key for member in registry.load("diffscope.metrics").values() for key in getattr(member, "LISTS", ())}
    return [key for key in row_keys() if key not in lists]


def measure_all(moments: Moments, context: Context) -> Measurement:
    """Checks the moments, then measures everything that this folder offers.

    Args:
        moments: G blocks of one layer at one noise level; unchanged.
        context: What else the numbers depend on.

    Returns:
        A value for each of `row_keys`, the notes of the checks first.

    Raises:
        EstimationError: A check refuses the moments (`moments.guarded`), or G is no power of two from 4.
    """
    with threads_for(moments.d):
        moments, notes = guarded(moments, context.feature_eps, context.pooled_positions, context.reduce)
        members = registry.load("diffscope.metrics").values()
        return merged([Measurement({}, notes), *(member.measure(moments, context) for member in members)])


def merged(parts: Sequence[Measurement]) -> Measurement:
    """Makes one measurement of several.

    Args:
        parts: Measurements without a common key; two that share one are a mistake in this program.

    Returns:
        All values, those that are not finite replaced by None with a note; notes that repeat stand once.
    """
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
    """Measures a statistic of all blocks and its delete-a-block standard error.

    Args:
        key: Under which the value stands; its error stands under `<key>_se`.
        moments: G blocks.
        statistic: Called on all blocks together, then without each one; an `EstimationError` makes the value, or the
            error alone, None with a note.
        spectral: Whether the statistic costs an eigendecomposition, which is not repeated for the error above
            SPECTRAL_SE_LIMIT channels.

    Returns:
        The two values, in the statistic's unit, and at most one note.
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
    """Computes an absolute delete-a-block standard error, on the logarithm where all is positive.

    Args:
        value: The estimate from all blocks.
        replicates: G estimates, each without one block.

    Returns:
        sqrt((G − 1)/G Σ (x_g − x̄)²) of the replicates, or value times that of their logarithms.
    """
    if value > 0 and min(replicates) > 0:
        return value * float(jackknife_se(np.log(replicates)))
    return float(jackknife_se(replicates))
