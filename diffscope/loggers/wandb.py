"""Weights & Biases: `wandb` or `wandb:PROJECT`. Its own settings hold: WANDB_MODE=offline, WANDB_DIR, WANDB_PROJECT.

Inside a training that has a run, that run is told; else one is begun.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any

from PIL import Image

from diffscope.errors import UsageError
from diffscope.loggers.base import PROJECT, Destination, is_named, rest_of

LIBRARY = "wandb"
STEP = "diffscope/step"
"""The axis of our curves: the run's own steps only ever rise, and are the training's to count."""


def accepts(spec: str) -> bool:
    """Whether it is spelled `wandb` or `wandb:…`."""
    return is_named(spec, LIBRARY)


def open(spec: str, title: str) -> Destination:
    """Takes the run that goes on, or begins one; UsageError where that is of another project."""
    import wandb

    project, run = rest_of(spec), wandb.run
    if run is not None and project not in ("", run.project):
        raise UsageError(f"`log={spec}`: a run of project {run.project} goes on; say wandb alone, or end it first")
    if run is not None:
        return _WeightsAndBiases(run, is_ours=False)
    project = project or os.environ.get("WANDB_PROJECT") or PROJECT
    # Its capture of the terminal would stand between stdout and whoever reads it.
    begun = wandb.init(project=project, job_type=title, settings=wandb.Settings(console="off"))
    return _WeightsAndBiases(begun, is_ours=True)


class _WeightsAndBiases(Destination):
    def __init__(self, run: Any, is_ours: bool) -> None:
        self._run, self._is_ours = run, is_ours
        run.define_metric(STEP, hidden=True)
        run.define_metric("diffscope/*", step_metric=STEP)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({STEP: step, **values})

    def image(self, step: int, name: str, png: bytes) -> None:
        import wandb

        with Image.open(io.BytesIO(png)) as picture:
            self._run.log({STEP: step, name: wandb.Image(picture)})

    def text(self, step: int, name: str, text: str) -> None:
        self._run.summary[name] = text

    def close(self, failed: bool) -> None:
        if self._is_ours:
            self._run.finish(exit_code=int(failed))
