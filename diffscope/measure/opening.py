"""From a checkpoint's path, or a network in memory, and images to a job that is ready to run."""

from __future__ import annotations

from dataclasses import replace

from diffscope import families
from diffscope.checkpoints import Checkpoint, read
from diffscope.errors import UsageError
from diffscope.families import OwnNetwork, device_of, live_record
from diffscope.families.base import Denoiser
from diffscope.families.networks.autoencoder import Autoencoder
from diffscope.measure.job import Job, prepare
from diffscope.options.option import Declared
from diffscope.options.settings import Loading, Settings
from diffscope.sources.base import MAX_PIXELS, Source, open_source


def open_images(settings: Settings, data: str, labelled: bool = True) -> Source:
    """The images at `data`; DataError where there are none.

    Args:
        settings: How they are read.
        data: Where they are.
        labelled: Whether they are of those whose classes `settings.labels` says.
    """
    max_pixels = MAX_PIXELS if settings.max_pixels is None else settings.max_pixels
    source = open_source(data, max_pixels, settings.data_range)
    if labelled and settings.labels is not None:
        source.use_labels(settings.labels)
    return source


def load(path: str, loading: Loading, outline: bool = False, verify: bool = False) -> tuple[Checkpoint, Denoiser]:
    """A file as a frozen denoiser; CheckpointError and its children where it cannot be read, recognised or fitted."""
    own = _own(loading)  # what is said of it is checked before gigabytes are read
    checkpoint = read(path, loading.weights, outline, verify)
    if own is not None:
        return own.load(checkpoint, outline)
    denoiser = families.load(checkpoint, loading.family, loading.config)
    if loading.image_size is not None:
        denoiser.use_image_size(loading.image_size)
    return checkpoint, denoiser


def _own(loading: Loading) -> OwnNetwork | None:
    """The network of the user's own, where there is one."""
    if loading.network is None:
        return None
    assert loading.noise is not None
    assert loading.image_size is not None
    assert loading.channels is not None
    return OwnNetwork(
        network=loading.network,
        image_size=loading.image_size,
        channels=loading.channels,
        noise=loading.noise,
        predicts=loading.predicts,
        call=loading.call,
        arguments=loading.arguments,
        latent_scale=loading.latent_scale,
        latent_factor=loading.latent_factor,
    )


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
        named = (loading.family, loading.config, loading.image_size, loading.network)
        if any(value for value in named):
            raise UsageError("family, config, image_size and network are for files; a network in memory needs none")
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
    if loading.latent_stats is not None:
        denoiser.use_statistics(loading.latent_stats)
    elif denoiser.latent_scale is None and denoiser.space.kind == "latents" and source.statistics is not None:
        denoiser.use_statistics(source.statistics)
    denoiser.use_text(loading.prompt, loading.prompt_from)
    return prepare(found, denoiser, source, settings, options)
