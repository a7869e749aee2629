"""From a checkpoint's path, or a network in memory, and images to a job that is ready to run."""

from __future__ import annotations

from dataclasses import replace

from diffscope import families
from diffscope.checkpoints import Checkpoint, read
from diffscope.errors import UsageError
from diffscope.families import device_of, live_record
from diffscope.families.base import Denoiser
from diffscope.families.networks.autoencoder import Autoencoder
from diffscope.measure.job import Job, prepare
from diffscope.options.option import Declared
from diffscope.options.settings import Loading, Settings
from diffscope.sources.base import MAX_PIXELS, Source, open_source


def open_images(settings: Settings, data: str) -> Source:
    """The images at `data`; DataError where there are none."""
    return open_source(data, MAX_PIXELS if settings.max_pixels is None else settings.max_pixels)


def load(path: str, loading: Loading, outline: bool = False, verify: bool = False) -> tuple[Checkpoint, Denoiser]:
    """A file as a frozen denoiser; CheckpointError and its children where it cannot be read, recognised or fitted."""
    checkpoint = read(path, loading.weights, outline, verify)
    denoiser = families.load(checkpoint, loading.family, loading.config)
    if loading.image_size is not None:
        denoiser.use_image_size(loading.image_size)
    return checkpoint, denoiser


def open_job(
    checkpoint: str | Denoiser,
    source: Source,
    settings: Settings,
    loading: Loading,
    encoder: Autoencoder | None = None,
    options: tuple[Declared, ...] = (),
) -> Job:
    """Read the checkpoint and check the settings against it and the images; no image is read yet.

    A network in memory, from `wrap`, is run on the device where it is. `encoder` is a latent model's VAE, where it was
    read before.
    """
    if isinstance(checkpoint, Denoiser):
        if loading.family is not None or loading.config or loading.image_size is not None:
            raise UsageError("family, config and image_size are for files; a network in memory needs none")
        found, denoiser = live_record(checkpoint), checkpoint
        settings = replace(settings, device=settings.device or device_of(denoiser))
    else:
        found, denoiser = load(checkpoint, loading)
    return job_of(found, denoiser, source, settings, loading, encoder, options)


def job_of(
    found: Checkpoint,
    denoiser: Denoiser,
    source: Source,
    settings: Settings,
    loading: Loading,
    encoder: Autoencoder | None = None,
    options: tuple[Declared, ...] = (),
) -> Job:
    """What `open_job` gives, of a checkpoint that is loaded already."""
    if denoiser.encoder is None and (source.kind != "latents" or loading.vae is not None):
        denoiser.use_encoder(loading.vae, encoder)
    denoiser.use_text(loading.prompt, loading.prompt_from)
    return prepare(found, denoiser, source, settings, options)
