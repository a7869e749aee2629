"""Is ICR the same from half of the images? It must be, within its error, if the estimate holds on these features.

The first half of the blocks is a random half of the images. The difference of the two estimates of log ICR is tested
with the jackknife's influence of each block on either: a block outside the half acts on the whole estimate alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diffscope.errors import EstimationError
from diffscope.metrics.icr import estimate
from diffscope.moments import Moments, guarded
from diffscope.numerics import student_quantile
from diffscope.results import Row


def self_checked(reduce: bool, row: Row, moments: Moments | None) -> Row:
    """With `icr_half`, `half_change` (relative, of the half against the whole) and its 95 % interval."""
    values: dict[str, Any] = dict.fromkeys(("icr_half", "half_change", "half_change_low", "half_change_high"))
    if moments is None or row["icr"] is None or row["replicates"] is None:
        return row.having(**values)
    half = moments.blocks // 2
    try:
        found = estimate(guarded(_first(moments, half), 2.0**-23, 1, reduce)[0])
    except EstimationError as error:
        note = f"no_self_check: half of the images do not determine ICR: {error}"
        return row.having(**values, notes=(*row.notes, note))
    if found.replicates is None:
        note = "no_self_check: half of the images allow no interval"
        return row.having(**values, notes=(*row.notes, note))
    difference = np.log(found.icr / row["icr"])
    whole = _influence(np.array(row["replicates"]))
    part = np.concatenate([_influence(found.replicates), np.zeros(moments.blocks - half)])
    reach = student_quantile(0.975, half - 1) * float(np.sqrt(np.sum((part - whole) ** 2)))
    values = {
        "icr_half": found.icr,
        "half_change": float(np.expm1(difference)),
        "half_change_low": float(np.expm1(difference - reach)),
        "half_change_high": float(np.expm1(difference + reach)),
    }
    notes = row.notes
    if abs(difference) > reach:
        notes += (
            f"self_check_failed: half of the images give {found.icr:.4g}, all give {row['icr']:.4g}, further apart "
            f"than their error allows ({reach:.2g} in log ICR); take more images",
        )
    return row.having(**values, notes=notes)


def _first(moments: Moments, blocks: int) -> Moments:
    return Moments(**{name: getattr(moments, name)[:blocks] for name in Moments.__dataclass_fields__})


def _influence(replicates: np.ndarray) -> np.ndarray:
    """Of each block on the estimate: their squares sum to the jackknife's variance."""
    blocks = len(replicates)
    return np.asarray(np.sqrt((blocks - 1) / blocks) * (replicates.mean() - replicates))
