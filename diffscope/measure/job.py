"""What a user's settings come to for one model and its images: checked against each other, ready to run."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from diffscope import seeding
from diffscope.checkpoints import Checkpoint
from diffscope.errors import CheckpointError, DataError, NoiseLevelError, UnknownLayer, UsageError
from diffscope.extraction import Plan, resolve_device, resolve_precision
from diffscope.families.base import Denoiser, Layer, NoiseConvention
from diffscope.options.option import Declared, protocol_values
from diffscope.options.settings import Settings
from diffscope.protocol import Protocol
from diffscope.sources.base import MAX_PIXELS, Source, Target
from diffscope.views import Augmentation

DEFAULT_IMAGES = 5000
IMAGES_PER_FEATURE = 4
SWEEP_RANGE, SWEEP_LEVELS = (0.002, 20.0), 12


@dataclass(frozen=True)
class Level:
    """One noise level of a run."""

    sigma: float
    """As used."""
    t: float
    requested: float | None
    """Where the model has discrete levels: what was asked for."""


@dataclass(frozen=True)
class Job:
    """One model, its images and the settings, checked against each other: ready to run."""

    checkpoint: Checkpoint
    denoiser: Denoiser
    source: Source
    settings: Settings
    plan: Plan
    levels: tuple[Level, ...]
    indices: np.ndarray
    """Of the images used, in the seeded order; the image of rank r belongs to block r mod G."""
    blocks: int
    options: tuple[Declared, ...] = ()
    """A study's own, some of which the protocol may hold."""

    def block(self, number: int) -> np.ndarray:
        """Indices of the images of one block."""
        return self.indices[number :: self.blocks]

    @cached_property
    def protocol(self) -> Protocol:
        """Reads and hashes checkpoint and images, once: seconds for gigabytes."""
        plan, denoiser = self.plan, self.denoiser
        chosen = dict(protocol_values((self.settings, *self.options)))
        scale = denoiser.latent_scale if denoiser.given_scale else None
        return Protocol(
            checkpoint=self.checkpoint.sha256(),
            weights=self.checkpoint.weights,
            family=denoiser.family,
            constructor=denoiser.constructor,
            encoder=denoiser.encoder.fingerprint() if denoiser.encoder else None,
            data=self.source.fingerprint(self.indices.tolist()),
            images=len(self.indices),
            resize=denoiser.space.resize,
            side=denoiser.space.image_side,
            channels=denoiser.space.image_channels,
            layers=tuple(layer.name for layer in plan.layers),
            sigmas=plan.sigmas,
            precision=plan.precision,
            blocks=self.blocks,
            generator=seeding.GENERATOR,
            max_pixels=None if self.settings.max_pixels == MAX_PIXELS else self.settings.max_pixels,
            **{name: value for name, value in chosen.items() if name in Protocol.__dataclass_fields__},
            more={
                **{
                    name: value
                    for name, value in chosen.items()
                    if name not in Protocol.__dataclass_fields__ and value != ()  # of several values none: not given
                },
                **({} if scale is None else {"latent_scale": scale.to_json()}),
                **({"conditions": denoiser.conditions} if denoiser.conditions else {}),
            },
        )


def prepare(
    checkpoint: Checkpoint,
    denoiser: Denoiser,
    source: Source,
    settings: Settings,
    options: tuple[Declared, ...] = (),
) -> Job:
    """Check the settings against model and images; cheap, and before any image is read.

    Raises UnknownLayer, NoiseLevelError, UsageError (device, precision) or DataError (images that do not suit the
    model, or classes that either lacks).
    """
    layers = _layers(denoiser, settings.layer)
    levels = _levels(denoiser, settings)
    _check_inputs(denoiser, source, settings)
    device = resolve_device(settings.device)
    if settings.compile and not device.startswith("cuda"):
        raise UsageError(f"`compile=` pays on CUDA only, not on {device}, where it takes a minute and gains nothing")
    widest = max(layer.width if settings.pool == "mean" else math.prod(layer.shape) for layer in layers)
    count = min(len(source), settings.num_images or max(DEFAULT_IMAGES, IMAGES_PER_FEATURE * widest))
    on_cpu = device == "cpu"
    plan = Plan(
        layers=layers,
        sigmas=tuple(level.sigma for level in levels),
        views=settings.views,
        augmentation=Augmentation(settings.augment, settings.augment_strength),
        input=settings.input,
        pool=settings.pool,
        normalize=settings.normalize,
        class_label=settings.class_label,
        seed=settings.seed,
        precision=resolve_precision(settings.precision, device),
        device=device,
        batch_size=settings.batch_size or max(1, (32 if on_cpu else 256) // settings.views),
        compile=settings.compile,
        workers=min(2, os.cpu_count() or 1) if settings.workers is None else settings.workers,
    )
    indices = seeding.permutation(settings.seed, len(source))[:count]
    return Job(checkpoint, denoiser, source, settings, plan, levels, indices, _block_count(count), options)


def with_layers(job: Job, layers: tuple[Layer, ...]) -> Job:
    """The same job for some of its layers."""
    return replace(job, plan=replace(job.plan, layers=layers))


def sweep_levels(denoiser: Denoiser, count: int) -> tuple[float, ...]:
    """`count` noise levels, log-spaced over [0.002, 20] cut to the family's range, to six digits."""
    low = max(SWEEP_RANGE[0], denoiser.noise.sigma_min)
    high = min(SWEEP_RANGE[1], denoiser.noise.sigma_max)
    if count == 1:
        return (float(f"{math.sqrt(low * high):.6g}"),)
    inner = np.geomspace(low, high, count)[1:-1]
    # Rounded for reading, but never out of the range at its ends.
    return (low, *(float(f"{sigma:.6g}") for sigma in inner), high)


def _layers(denoiser: Denoiser, names: tuple[str, ...]) -> tuple[Layer, ...]:
    if "all" in names:
        return denoiser.layers
    chosen = {denoiser.layer(name).name for name in names}
    if not chosen:
        raise UnknownLayer("no layer asked for; `layer=mid` is the default")
    return tuple(layer for layer in denoiser.layers if layer.name in chosen)


def _levels(denoiser: Denoiser, settings: Settings) -> tuple[Level, ...]:
    noise = denoiser.noise
    asked = [*settings.sigma, *(_sigma_of(noise, t) for t in settings.t)]
    levels: dict[float, Level] = {}
    for sigma in asked or sweep_levels(denoiser, settings.num_levels or SWEEP_LEVELS):
        used = noise.check(sigma)
        levels.setdefault(used, Level(used, noise.to_native(used), sigma if noise.discrete else None))
    return tuple(levels[sigma] for sigma in sorted(levels))


def _sigma_of(noise: NoiseConvention, t: float) -> float:
    try:
        return noise.to_sigma(t)
    except (ArithmeticError, ValueError):
        raise NoiseLevelError(f"t {t:g} is outside this model's range; the network is fed {noise.native}") from None


def _check_inputs(denoiser: Denoiser, source: Source, settings: Settings) -> None:
    if not len(source):
        raise DataError(f"{source.path}: no images in it")
    if denoiser.space.kind == "pixels" and source.kind == "latents":
        raise DataError(f"`data={source.path}` holds latents, but this model works on pixels; give images")
    if denoiser.space.kind == "latents" and denoiser.latent_scale is None:
        raise CheckpointError(denoiser.scale_wanted)
    if source.kind == "latents":
        _check_latents(denoiser, source)
    if source.kind == "latents" and settings.augment != "none":
        raise DataError(
            "latents made beforehand cannot be augmented; say `augment=none` (views then differ in noise alone)"
        )
    chosen, classes = settings.class_label, denoiser.classes
    if chosen != "null" and not classes.count:
        raise DataError(f"`class_label={chosen}`: this model is not class-conditional; leave `class_label=` out")
    if chosen == "null" and not classes.null:
        raise DataError("this model has no null class; use `class_label=label` or `class_label=INT`")
    if chosen == "label":
        if source.labels is None:
            raise DataError(f"`class_label=label` needs labels, and {source.without_classes()}")
        if int(source.labels.max()) >= classes.count:
            raise DataError(
                f"`class_label=label`: labels reach {int(source.labels.max())}, the model has {classes.count} classes"
            )
    elif chosen != "null" and int(chosen) >= classes.count:
        raise DataError(f"`class_label={chosen}`: the model's classes run from 0 to {classes.count - 1}")


def _check_latents(denoiser: Denoiser, source: Source) -> None:
    space = denoiser.space
    target = Target(space.image_side, space.image_channels, space.resize)
    for index in range(len(source)):
        try:
            found = list(source.read(index, target).shape[1:])
            break
        except DataError:  # one that cannot be read is skipped later, as any image
            if index == len(source) - 1:
                raise
    expected = [space.channels, space.side, space.side]
    if found != expected:
        raise DataError(f"{source.path}: latents of {found}; the model takes {expected}")


def _block_count(images: int) -> int:
    """G: 16, less where blocks would hold fewer than four images; a power of two."""
    return 16 if images >= 64 else 8 if images >= 32 else 4
