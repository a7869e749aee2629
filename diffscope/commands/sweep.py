"""diffscope sweep: ICR over noise levels and layers."""

from __future__ import annotations

from diffscope.commands.base import Gates, windows_or_rows
from diffscope.errors import UsageError
from diffscope.measure.study import Study
from diffscope.options.settings import Checkpoint, Data, Loading, Settings
from diffscope.studies.sweep.options import WINDOW_KEYS, Accuracy, Sharding, SplitHalf, Variation


def run(
    checkpoint: Checkpoint,
    data: Data,
    settings: Settings,
    variation: Variation,
    half: SplitHalf,
    accuracy: Accuracy,
    sharding: Sharding,
    loading: Loading,
) -> Study:
    """ICR over noise levels and layers: at which level are features most semantic, and how sure is that?

    Example: diffscope sweep ckpt.pkl --data images/ --out sweep/
    """
    if settings.num_levels == 1 and not settings.sigma and not settings.t:
        raise UsageError("`num_levels=1`: a sweep compares noise levels, expected 2 or more; of one: diffscope icr")
    from diffscope.studies.sweep.study import open_sweep

    return open_sweep(
        checkpoint,
        data,
        settings,
        loading,
        variation=variation,
        accuracy=accuracy,
        split_half=half.self_check,
        shard=sharding.shard,
    )


GATES = Gates(
    "any layer's window (icr: at its lowest level), or window==none of all",
    "icr>0.5",
    lambda values: WINDOW_KEYS,
    windows_or_rows,
)
DISTRIBUTED = True
LOGS = True
