"""diffscope memorization: samples that copy training images."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

from diffscope.commands.base import Gates
from diffscope.measure.study import Study
from diffscope.options.option import IMAGES, Argument, Option
from diffscope.options.settings import Loading
from diffscope.studies.memorization.options import Choices, Samples

Checkpoints = Annotated[
    tuple[Any, ...],
    Argument(
        "A checkpoint, or snapshots of one run, or their folder.",
        metavar="CKPT...",
        several=True,
        python="str | Path | Denoiser | Sequence[str | Path]",
    ),
]
TrainingImages = Annotated[
    str,
    Option(
        "The training images, all of them: folder, .zip, .tar, .npy, .npz, .parquet, .arrow, hf://datasets/OWNER/NAME.",
        group=IMAGES,
        metavar="DATA",
        path=True,
    ),
]


def run(checkpoints: Checkpoints, data: TrainingImages, choices: Choices, samples: Samples, loading: Loading) -> Study:
    """Which share of a model's samples copies training images?

    A sample is a copy where its distance to the nearest training image is below a third of that to the second
    nearest. Of several checkpoints all start from the same noise.

    Example: diffscope memorization ckpt.pkl --data images/ --fail-if "share>0.01"
    """
    from diffscope.measure.opening import open_images
    from diffscope.studies.memorization.study import open_memorization

    settings = choices.settings(1)
    return open_memorization(
        checkpoints,
        open_images(settings, data),
        choices,
        loading,
        holdout=None if choices.holdout is None else open_images(settings, choices.holdout, labelled=False),
        step_from=samples.step_from,
        save_samples=samples.save_samples,
    )


def _keys(values: Mapping[str, Any]) -> Collection[str]:
    from diffscope.studies.memorization.copies import measure_keys
    from diffscope.studies.memorization.references import row_keys

    choices = values["choices"]
    quality = row_keys(choices.holdout is not None) if choices.quality else []
    return {"step", "samples", *measure_keys(choices.criterion), *quality}


def _rows(result: Any) -> Sequence[Mapping[str, Any]]:
    return [
        {**row, "layer": row["checkpoint"] if row["step"] is None else f"step {row['step']}"} for row in result.rows
    ]


GATES = Gates("any row", "share>0.01", _keys, _rows)
OVER_STEPS = True
