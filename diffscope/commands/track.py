"""diffscope track: ICR over a training run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any

from diffscope.commands.base import Gates
from diffscope.errors import UsageError
from diffscope.measure.study import Study
from diffscope.options.option import Argument
from diffscope.options.settings import Data, Loading, Settings
from diffscope.studies.track.options import OUTPUT_KEYS, Following, Watching

Checkpoints = Annotated[
    tuple[str, ...],
    Argument(
        "Snapshots of one run, or their folder.",
        metavar="[CKPT...]",
        shown="",
        several=True,
        python="str | Path | Sequence[str | Path]",
    ),
]


def run(
    data: Data,
    settings: Settings,
    following: Following,
    watching: Watching,
    loading: Loading,
    checkpoints: Checkpoints = (),
) -> Study:
    """ICR over a training run: where was it lowest, does the model memorize by now, which checkpoint is to keep?

    With --watch DIR --fail-if onset it stays beside the training and ends with 3 when it should stop.

    Example: diffscope track runs/*.pt --data images/ --out track/
    """
    if (watching.watch is None) == (not checkpoints):
        raise UsageError("expected the snapshots of a run (track CKPT...), or `watch=DIR`, and not both")
    from diffscope.measure.opening import open_images
    from diffscope.studies.track.overlay import read_chosen
    from diffscope.studies.track.track import open_track

    return open_track(
        list(checkpoints),
        open_images(settings, data),
        settings,
        loading,
        holdout=None if following.holdout is None else open_images(settings, following.holdout, labelled=False),
        num_holdout=following.num_holdout,
        step_from=following.step_from,
        rule=following.rule,
        accuracy=following.accuracy,
        columns=read_chosen(following.overlay, following.column),
        online=watching.watch is not None,
    )


def _keys(values: Mapping[str, Any]) -> Collection[str]:
    from diffscope.measure.rows import row_keys

    return {*row_keys(), "step", *OUTPUT_KEYS, "onset"}


def _last(result: Any) -> Sequence[Mapping[str, Any]]:
    last = max(row["step"] or 0 for row in result.rows)
    return [row for row in result.rows if row["step"] == last]


def acting(arguments: Mapping[str, Any]) -> Callable[[Any], None]:
    """What runs the user's command where memorization has set in, once for each layer and noise level."""
    from diffscope.studies.track.watch import OnOnset

    on_onset = OnOnset(arguments["watching"].on_onset)
    return lambda result: on_onset.act(result.onset)


GATES = Gates("any row of the last checkpoint, or onset of any layer", "icr>0.5", _keys, _last)
DISTRIBUTED = True
OVER_STEPS = True
LOGS = True
