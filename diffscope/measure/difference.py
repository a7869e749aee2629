"""Is one ICR higher than another? The difference of log ICR, with the error that is left once what both share cancels.

Two results on the same images, blocks and draws of views (two noise levels, layers or checkpoints; d and V may differ)
have block replicates y_g of log ICR that move together. The delete-a-block jackknife of their difference,

    D = log icr_b − log icr_a,   D_g = y_g^b − y_g^a,   SE = sqrt((G−1)/G Σ (D_g − D̄)²),   t = D/SE on G − 1 dof,

is 2–5 times more precise than two intervals side by side. Efron & Stein, "The jackknife estimate of variance", 1981,
https://doi.org/10.1214/aos/1176345462.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from diffscope.errors import EstimationError, ProtocolMismatch
from diffscope.numerics import jackknife_se, student_quantile, student_two_sided

LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """From a to b."""

    log_ratio: float
    """D = log icr_b − log icr_a."""
    se: float
    """Standard error of D."""
    t: float | None
    """D/SE; None where SE is 0 and D is not."""
    p: float
    """Two-sided p-value on G − 1 degrees of freedom, of this comparison alone; of several see `corrected`."""
    change: float
    """Relative change icr_b/icr_a − 1."""
    change_low: float
    """Lower end of its 95 % interval."""
    change_high: float
    """Upper end."""


def paired_difference(icr_a: float, replicates_a: ArrayLike, icr_b: float, replicates_b: ArrayLike) -> Difference:
    """The difference of two ICRs with block replicates y_g [G] from the same images, blocks and draws.

    Whether they are the same is for the caller to know (the protocols say so).
    """
    a, b = _checked(icr_a, replicates_a), _checked(icr_b, replicates_b)
    if a.shape != b.shape:
        raise ProtocolMismatch(
            f"{len(a)} and {len(b)} block replicates; expected the same blocks on both sides; measure both with one "
            "number of blocks"
        )
    return _difference(float(np.log(icr_b / icr_a)), float(jackknife_se(b - a)), len(a) - 1)


def unpaired_difference(icr_a: float, replicates_a: ArrayLike, icr_b: float, replicates_b: ArrayLike) -> Difference:
    """The same for results on different images: SE² = SE_a² + SE_b², with the fewer degrees of freedom."""
    a, b = _checked(icr_a, replicates_a), _checked(icr_b, replicates_b)
    se = float(np.hypot(jackknife_se(a), jackknife_se(b)))
    return _difference(float(np.log(icr_b / icr_a)), se, min(len(a), len(b)) - 1)


def corrected(p: Sequence[float]) -> list[float]:
    """The p-values [m] of m comparisons, corrected for their number: below α, all of them together err with α at most.

    Holm, "A simple sequentially rejective multiple test procedure", 1979, https://www.jstor.org/stable/4615733: the
    smallest counts m times, the next m − 1 times …, none less than one before it. Valid whatever the tests share.
    """
    found, largest = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        found[place] = largest
    return found


def _checked(icr: float, replicates: ArrayLike) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    y = np.array(replicates, dtype=np.float64).reshape(-1)
    if not (np.isfinite(icr) and icr > 0 and len(y) > 1 and np.all(np.isfinite(y))):
        raise EstimationError(
            f"icr {icr} with {np.isfinite(y).sum()} block replicates; expected a value above 0 with at least 2; "
            "measure it with more images"
        )
    return y


def _difference(log_ratio: float, se: float, dof: int) -> Difference:
    if se > 0:
        t: float | None = log_ratio / se
        p = student_two_sided(log_ratio / se, dof)
    else:
        # Equal results have no difference to test; a difference without any scatter is certain.
        t, p = (0.0, 1.0) if log_ratio == 0 else (None, 0.0)
    reach = student_quantile(0.5 + LEVEL / 2, dof) * se
    with np.errstate(over="ignore"):  # a change beyond all numbers is infinite
        return Difference(
            log_ratio=log_ratio,
            se=se,
            t=t,
            p=p,
            change=float(np.expm1(log_ratio)),
            change_low=float(np.expm1(log_ratio - reach)),
            change_high=float(np.expm1(log_ratio + reach)),
        )
