"""The public Python face: paths, or networks in memory, in; results out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffscope.checkpoints import Checkpoint
from diffscope.families._wrapped import wrap
from diffscope.families.base import Denoiser
from diffscope.results import Result
from diffscope.sources.base import open_source
from diffscope.studies import opening
from diffscope.studies.comparison import compare
from diffscope.studies.measurement import Listener
from diffscope.studies.monitor import Monitor
from diffscope.studies.onset import preset
from diffscope.studies.opening import Loading, open_job
from diffscope.studies.series import find_snapshots
from diffscope.studies.settings import Job, Settings
from diffscope.studies.sweep import sweep as _sweep
from diffscope.studies.tracking import Tracker

__all__ = ["Monitor", "Settings", "compare", "icr", "load", "prepare_job", "sweep", "track", "wrap"]


def load(
    checkpoint: str,
    family: str | None = None,
    config: Mapping[str, str] | None = None,
    weights: str = "ema",
    outline: bool = False,
) -> tuple[Checkpoint, Denoiser]:
    """A checkpoint file as a frozen denoiser: `denoiser.walk(x, sigma, label)` yields (layer name, activation).

    Of an `outline` only what the file is, without its weights: it cannot be walked.
    Raises CheckpointError and its children where the file cannot be read, recognised or fitted.
    """
    return opening.load(str(checkpoint), Loading(family, config or {}, weights), outline)


def prepare_job(
    checkpoint: str | Denoiser,
    data: str,
    settings: Settings,
    family: str | None = None,
    config: Mapping[str, str] | None = None,
    weights: str = "ema",
    vae: str | None = None,
) -> Job:
    """Open images and checkpoint and check the settings against them; no image is read yet.

    A network in memory, from `wrap`, is run on the device where it is.
    """
    source = open_source(str(data))
    found = checkpoint if isinstance(checkpoint, Denoiser) else str(checkpoint)
    return open_job(found, source, settings, Loading(family, config or {}, weights, vae))


def sweep(checkpoint: str | Denoiser, data: str, listener: Listener | None = None, **options: Any) -> Result:
    """ICR over noise levels, of a checkpoint's path or of a network from `wrap`.

    `options` are the fields of `Settings` and the arguments of `prepare_job`.
    """
    return _run("sweep", checkpoint, data, listener, options)


def icr(
    checkpoint: str | Denoiser, data: str, sigma: float, listener: Listener | None = None, **options: Any
) -> Result:
    """ICR at one noise level."""
    return _run("icr", checkpoint, data, listener, {**options, "sigmas": (sigma,)})


def track(
    checkpoints: str | Path | Sequence[str | Path],
    data: str | Path,
    sigma: float | None = None,
    *,
    holdout: str | Path | None = None,
    step_from: str | None = None,
    rule: str = "auto",
    folder: str | Path | None = None,
    family: str | None = None,
    config: Mapping[str, str] | None = None,
    weights: str = "ema",
    vae: str | None = None,
    **options: Any,
) -> Result:
    """ICR over the snapshots of a training run, and whether it has turned: `result.onset`.

    checkpoints: files of one run, or their folder. sigma: chosen by a sweep of the middle snapshot where not given.
    step_from: a regular expression with one group that finds the step in a path. rule: auto, long or short.
    folder: where each snapshot's record is kept for the next call, else in the cache. options: fields of `Settings`.
    What cannot be read or measured is left out and stands with its reason in `result.checkpoints`.
    Raises CheckpointError where no snapshot is left.
    """
    levels = {} if sigma is None else {"sigmas": (sigma,)}
    preset(rule, 0)
    tracker = Tracker(
        open_source(str(data)),
        Settings(**{**options, **levels}),
        Loading(family, config or {}, weights, vae),
        holdout=None if holdout is None else open_source(str(holdout)),
        folder=None if folder is None else Path(folder),
        rule=rule,
    )
    paths = [checkpoints] if isinstance(checkpoints, (str, Path)) else checkpoints
    snapshots, left_out = find_snapshots([str(path) for path in paths], step_from, weights)
    tracker.leave_out(left_out)
    tracker.choose_level(snapshots)
    for snapshot in snapshots:
        tracker.take(snapshot)
    return tracker.result()


def _run(
    command: str, checkpoint: str | Denoiser, data: str, listener: Listener | None, options: dict[str, Any]
) -> Result:
    loading = {key: options.pop(key) for key in ("family", "config", "weights", "vae") if key in options}
    folder = options.pop("folder", None)
    job = prepare_job(checkpoint, data, Settings(**options), **loading)
    result, measured = _sweep(job, command, listener, None if folder is None else Path(folder))
    measured.parts.clear()
    return result
