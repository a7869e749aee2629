"""The public Python face: paths, or networks in memory, in; results out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffscope import families
from diffscope.checkpoints import Checkpoint, read
from diffscope.errors import UsageError
from diffscope.families._wrapped import device_of, live_record, wrap
from diffscope.families.base import Denoiser
from diffscope.results import Result
from diffscope.sources.base import open_source
from diffscope.studies.comparison import compare
from diffscope.studies.measurement import Listener
from diffscope.studies.settings import Job, Settings, prepare
from diffscope.studies.sweep import sweep as _sweep

__all__ = ["Settings", "compare", "icr", "load", "prepare_job", "sweep", "wrap"]


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
    if weights not in ("ema", "model"):
        raise UsageError(f"--weights {weights}: expected ema or model")
    read_checkpoint = read(str(checkpoint), weights, outline)
    return read_checkpoint, families.load(read_checkpoint, family, config)


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
    if isinstance(checkpoint, Denoiser):
        if family is not None or config:
            raise UsageError("family and config are for files; a network in memory needs neither")
        found, denoiser = live_record(checkpoint), checkpoint
        settings = replace(settings, device=settings.device or device_of(denoiser))
    else:
        found, denoiser = load(checkpoint, family, config, weights)
    if source.kind != "latents" or vae is not None:
        denoiser.use_encoder(vae)
    return prepare(found, denoiser, source, settings)


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


def _run(
    command: str, checkpoint: str | Denoiser, data: str, listener: Listener | None, options: dict[str, Any]
) -> Result:
    loading = {key: options.pop(key) for key in ("family", "config", "weights", "vae") if key in options}
    folder = options.pop("folder", None)
    job = prepare_job(checkpoint, data, Settings(**options), **loading)
    result, measured = _sweep(job, command, listener, None if folder is None else Path(folder))
    measured.parts.clear()
    return result
