"""What `memorization` opens: a search for copies, checked against the images before anything is drawn."""

from __future__ import annotations

from collections.abc import Sequence

from diffscope.errors import DataError, UsageError
from diffscope.families.base import Denoiser
from diffscope.measure.series import find
from diffscope.options.settings import Loading
from diffscope.sources.base import Source
from diffscope.studies.memorization.memorization import Memorization
from diffscope.studies.memorization.options import Choices


def open_memorization(
    checkpoints: Sequence[str | Denoiser],
    source: Source,
    choices: Choices,
    loading: Loading,
    *,
    holdout: Source | None = None,
    step_from: str | None = None,
    save_samples: bool = False,
) -> Memorization:
    """One checkpoint or several of one run, or their folder; nothing is drawn yet.

    Args:
        checkpoints: Paths, or one network in memory that knows its posterior mean.
        source: The training images, all of them.
        choices: What is drawn, and what counts as a copy.
        loading: How checkpoints are read.
        holdout: Images not trained on, for the quality of samples.
        step_from: A regular expression with one group that finds the step in a path.
        save_samples: Also write all samples of each checkpoint.

    Raises:
        DataError: If the images are none that samples can be compared with.
        UsageError: If these checkpoints cannot be examined together.
        CheckpointError: If there is no checkpoint, or one that cannot be taken where settings are strict.
    """
    if source.kind == "latents":
        raise DataError(f"{source.path} holds latents; copies are looked for among images: give these")
    if not source.are_pictures and choices.encoder is not None:
        raise DataError(f"{source.path} holds no pictures, and `encoder=` takes nothing else")
    if holdout is not None:
        _check_holdout(holdout, source, choices)
    snapshots, left_out, network = find(checkpoints, step_from, loading.weights)
    if choices.encoder_features is not None and len(snapshots) > 1:
        raise UsageError(
            f"`encoder_features=`: these are the descriptors of one checkpoint's samples, and there are "
            f"{len(snapshots)} checkpoints; give one at a time"
        )
    study = Memorization(
        source=source,
        settings=choices.settings(len(source)),
        loading=loading,
        snapshots=snapshots,
        network=network,
        choices=choices,
        holdout=holdout,
        save_samples=save_samples,
    )
    study.leave_out(left_out)
    return study


def _check_holdout(holdout: Source, source: Source, choices: Choices) -> None:
    if holdout.kind != source.kind:
        kinds = {"images": "pictures", "floats": "arrays of floats", "latents": "latents"}
        raise DataError(
            f"`holdout={holdout.path}` holds {kinds[holdout.kind]}, the training images are {kinds[source.kind]}"
        )
    if not len(holdout):
        raise DataError(f"`holdout={holdout.path}`: no images in it")
    if choices.class_label == "label" and choices.encoder is None and holdout.labels is None:
        raise DataError(f"`class_label=label` needs labels, and {holdout.without_classes()}")
