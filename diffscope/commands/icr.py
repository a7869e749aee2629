"""diffscope icr: ICR at one noise level."""

from __future__ import annotations

from typing import Annotated

from diffscope.commands.base import Gates
from diffscope.errors import UsageError
from diffscope.measure.study import Study
from diffscope.options.settings import Checkpoint, Data, Loading, Settings
from diffscope.options.signature import Without
from diffscope.studies.sweep.options import Sharding, SplitHalf, Variation


def run(
    checkpoint: Checkpoint,
    data: Data,
    settings: Annotated[Settings, Without(("num_levels",))],
    variation: Variation,
    half: SplitHalf,
    sharding: Sharding,
    loading: Loading,
) -> Study:
    """ICR at one noise level, with its 95 % interval and the metrics that come with it.

    Example: diffscope icr ckpt.pkl --data images/ --sigma 0.3 --fail-if "icr>0.6"
    """
    if not settings.sigma and not settings.t:
        raise UsageError("icr needs a noise level: `sigma=S` or `t=T`; to find the best one: diffscope sweep")
    from diffscope.studies.sweep.study import open_sweep

    return open_sweep(
        checkpoint,
        data,
        settings,
        loading,
        command="icr",
        variation=variation,
        split_half=half.self_check,
        shard=sharding.shard,
    )


def _keys(values: object) -> set[str]:
    from diffscope.measure.rows import row_keys

    return row_keys()


GATES = Gates("any row", "icr>0.5", _keys, lambda result: result.rows)
DISTRIBUTED = True
