"""The public Python face: paths, or networks in memory, in; results out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from diffscope.checkpoints import Checkpoint
from diffscope.families import wrap
from diffscope.families.base import Denoiser
from diffscope.measure import opening
from diffscope.measure.job import Job
from diffscope.measure.opening import open_images, open_job
from diffscope.measure.progress import Listener
from diffscope.options.settings import Loading, Settings
from diffscope.results import Result
from diffscope.studies.compare.compare import compare
from diffscope.studies.memorization.choices import Choices
from diffscope.studies.memorization.memorization import open_memorization
from diffscope.studies.neighbors import choices as neighbors_choices
from diffscope.studies.neighbors.neighbors import VIEWS, open_neighbors
from diffscope.studies.probe.plan import Probing, plan
from diffscope.studies.probe.probe import run as _probe
from diffscope.studies.sweep.options import Accuracy
from diffscope.studies.sweep.sweep import sweep as _sweep
from diffscope.studies.track.monitor import Monitor
from diffscope.studies.track.track import open_track

__all__ = [
    "Monitor",
    "Settings",
    "compare",
    "icr",
    "load",
    "memorization",
    "neighbors",
    "prepare_job",
    "probe",
    "sweep",
    "track",
    "wrap",
]


def load(
    checkpoint: str,
    family: str | None = None,
    config: Mapping[str, str] | None = None,
    weights: str = "ema",
    outline: bool = False,
    verify: bool = False,
) -> tuple[Checkpoint, Denoiser]:
    """A checkpoint file as a frozen denoiser: `denoiser.walk(x, sigma, label)` yields (layer name, activation).

    Of an `outline` only what the file is, without its weights: it cannot be walked. `verify` compares every checksum
    in the file with the bytes that it is of.
    Raises CheckpointError and its children where the file cannot be read, recognised or fitted.
    """
    return opening.load(str(checkpoint), Loading(family, config or {}, weights), outline, verify)


def prepare_job(
    checkpoint: str | Denoiser,
    data: str,
    settings: Settings,
    family: str | None = None,
    config: Mapping[str, str] | None = None,
    weights: str = "ema",
    vae: str | None = None,
    options: tuple[Any, ...] = (),
) -> Job:
    """Open images and checkpoint and check the settings against them; no image is read yet.

    A network in memory, from `wrap`, is run on the device where it is.
    """
    source = open_images(settings, str(data))
    found = checkpoint if isinstance(checkpoint, Denoiser) else str(checkpoint)
    return open_job(found, source, settings, Loading(family, config or {}, weights, vae), options=options)


def sweep(checkpoint: str | Denoiser, data: str, listener: Listener | None = None, **options: Any) -> Result:
    """ICR over noise levels, of a checkpoint's path or of a network from `wrap`.

    `options` are the fields of `Settings` and the arguments of `prepare_job`.
    """
    return _run("sweep", checkpoint, data, listener, options)


def icr(
    checkpoint: str | Denoiser, data: str, sigma: float, listener: Listener | None = None, **options: Any
) -> Result:
    """ICR at one noise level."""
    return _run("icr", checkpoint, data, listener, {**options, "sigma": (sigma,)})


def probe(
    checkpoint: str | Denoiser,
    data: str | Path,
    test: str | Path | None = None,
    *,
    listener: Listener | None = None,
    folder: str | Path | None = None,
    family: str | None = None,
    config: Mapping[str, str] | None = None,
    weights: str = "ema",
    vae: str | None = None,
    **options: Any,
) -> Result:
    """Accuracy of a linear probe and of k-NN over noise levels and layers, beside ICR; `result.probe` compares the two.

    data: labelled images; a share of them, or `test`, is the test. folder: where finished parts are kept, else in the
    cache. options: fields of `Settings` and of `studies.probe.Probing` (test_share, solver, knn, label_noise, ensemble,
    posterior, both, rank). Raises DataError where the images have no labels.
    """
    own = {field.name: options.pop(field.name) for field in fields(Probing) if field.name in options}
    probing = Probing(**own)
    job = prepare_job(checkpoint, str(data), Settings(**options), family, config, weights, vae)
    planned = plan(job, probing, None if test is None else open_images(job.settings, str(test)))
    result, forget = _probe(planned, listener, None if folder is None else Path(folder))
    forget()
    return result


def track(
    checkpoints: str | Path | Sequence[str | Path],
    data: str | Path,
    sigma: float | None = None,
    *,
    holdout: str | Path | None = None,
    num_holdout: int | None = None,
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
    holdout: images not trained on; num_holdout: how many of them, else as many as are tracked.
    step_from: a regular expression with one group that finds the step in a path. rule: auto, long or short.
    folder: where each snapshot's record is kept for the next call, else in the cache. options: fields of `Settings`.
    What cannot be read or measured is left out and stands with its reason in `result.checkpoints`.
    Raises CheckpointError where no snapshot is left.
    """
    levels = {} if sigma is None else {"sigma": (sigma,)}
    settings = Settings(**{**options, **levels})
    paths = [checkpoints] if isinstance(checkpoints, (str, Path)) else checkpoints
    tracker = open_track(
        [str(path) for path in paths],
        open_images(settings, str(data)),
        settings,
        Loading(family, config or {}, weights, vae),
        holdout=None if holdout is None else open_images(settings, str(holdout)),
        num_holdout=num_holdout,
        step_from=step_from,
        rule=rule,
    )
    return tracker.run(None if folder is None else Path(folder), Listener()).result


def memorization(
    checkpoints: str | Path | Denoiser | Sequence[str | Path],
    data: str | Path,
    samples: int = 256,
    *,
    step_from: str | None = None,
    folder: str | Path | None = None,
    save_samples: bool = False,
    family: str | None = None,
    config: Mapping[str, str] | None = None,
    weights: str = "ema",
    vae: str | None = None,
    **options: Any,
) -> Result:
    """The share of samples that copy training images: `result.rows[0]["share"]`, a row for each checkpoint.

    checkpoints: a file, a network from `wrap` that knows its posterior mean, files of one run, or their folder.
    data: the training images, all of them. folder: where samples and records are kept for the next call.
    options: fields of `diffscope.studies.memorization.memorization.Choices`.
    """
    choices, loading = Choices(samples=samples, **options), Loading(family, config or {}, weights, vae)
    study = open_memorization(
        _listed(checkpoints),
        open_images(choices.settings(1), str(data)),
        choices,
        loading,
        step_from=step_from,
        save_samples=save_samples,
    )
    return study.run(None if folder is None else Path(folder), Listener()).result


def neighbors(
    checkpoints: str | Path | Denoiser | Sequence[str | Path],
    data: str | Path,
    sigma: float,
    *,
    queries: Sequence[int | str] = (),
    rows: int = 4,
    k: int = 5,
    num_queries: int = 2000,
    clusters: bool = False,
    out: str | Path | None = None,
    listener: Listener | None = None,
    family: str | None = None,
    config: Mapping[str, str] | None = None,
    weights: str = "ema",
    vae: str | None = None,
    **options: Any,
) -> Result:
    """Nearest neighbours by invariant part and by residual: shares of same class in `rows`, names in `sections`.

    checkpoints: a file, a network from `wrap`, files of one run, or their folder. queries: indices or names of images
    to show; `rows` of them are chosen where none are given. out: where result.json and the pictures are written.
    options: fields of `Settings`, here with 15 views and pool "flatten", as in the paper, and all images.
    """
    settings = Settings(**{"views": VIEWS, "pool": "flatten", **options, "sigma": (sigma,)})
    choices = neighbors_choices.Choices(tuple(str(query) for query in queries), rows, k, num_queries, clusters)
    study = open_neighbors(
        _listed(checkpoints),
        open_images(settings, str(data)),
        settings,
        Loading(family, config or {}, weights, vae),
        choices,
    )
    finished = study.run(None if out is None else Path(out), listener or Listener())
    if out is not None:
        finished.result.save(out)
    finished.forget()
    return finished.result


def _listed(checkpoints: str | Path | Denoiser | Sequence[str | Path]) -> list[str | Denoiser]:
    if isinstance(checkpoints, Denoiser):
        return [checkpoints]
    return [str(path) for path in ([checkpoints] if isinstance(checkpoints, (str, Path)) else checkpoints)]


def _run(
    command: str, checkpoint: str | Denoiser, data: str, listener: Listener | None, options: dict[str, Any]
) -> Result:
    loading = {key: options.pop(key) for key in ("family", "config", "weights", "vae") if key in options}
    folder = options.pop("folder", None)
    own = Accuracy(options.pop("accuracy", None))
    job = prepare_job(checkpoint, data, Settings(**options), **loading, options=(own,))
    result, measured = _sweep(job, command, listener, None if folder is None else Path(folder))
    measured.parts.clear()
    return result
