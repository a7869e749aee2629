"""What a user chooses for a measurement, and what that comes to for one model and its images."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from diffscope import seeding
from diffscope.checkpoints import Checkpoint
from diffscope.errors import DataError, NoiseLevelError, UnknownLayer, UsageError
from diffscope.families.base import Denoiser, Layer, NoiseConvention
from diffscope.features import Plan, resolve_device, resolve_precision
from diffscope.protocol import Protocol
from diffscope.sources.base import MAX_PIXELS, Source, Target, open_source
from diffscope.views import DEFAULT_AUGMENTATION, Augmentation

DEFAULT_IMAGES = 5000
IMAGES_PER_FEATURE = 4
SWEEP_RANGE = (0.002, 20.0)


@dataclass(frozen=True)
class Settings:
    """The options that all measuring commands share; names and defaults are those of the command line."""

    layers: tuple[str, ...] = ("mid",)
    """Names, `mid`, tails, or `all`."""
    sigmas: tuple[float, ...] = ()
    times: tuple[float, ...] = ()
    """Noise levels in the model's own variable; used beside `sigmas`."""
    num_levels: int = 12
    """Where neither is given: log-spaced over [0.002, 20], cut to the family's range."""
    num_images: int | None = None
    augment: str = DEFAULT_AUGMENTATION
    augment_strength: float = 1.0
    views: int = 2
    input: str = "noisy"
    pool: str = "mean"
    normalize: bool = False
    reduce: bool = False
    class_label: str = "null"
    seed: int = 0
    precision: str = "auto"
    device: str | None = None
    batch_size: int | None = None
    workers: int | None = None
    max_memory: int | None = None
    """Bytes; half of RAM by default."""
    strict: bool = False
    max_pixels: int | None = None
    """Of a stored image; larger ones are unreadable. None, and its value, are `sources.base.MAX_PIXELS`."""
    compile: bool = False
    """On CUDA: the network's blocks, first."""
    accuracy: float | None = None
    """Relative, of ICR at its lowest; of a sweep that spends images where they decide."""

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("--input", self.input, ("noisy", "clean")),
            ("--pool", self.pool, ("mean", "flatten")),
        ):
            if value not in choices:
                raise UsageError(f"{name} {value}: expected {' or '.join(choices)}")
        for name, number, least in (
            ("--views", self.views, 1),
            ("--num-levels", self.num_levels, 1),
            ("--num-images", self.num_images, 1),
            ("--batch-size", self.batch_size, 1),
            ("--workers", self.workers, 0),
            ("--seed", self.seed, 0),
            ("--max-pixels", self.max_pixels, 1),
        ):
            if number is not None and number < least:
                raise UsageError(f"{name} {number}: expected at least {least}")
        if self.accuracy is not None and not 0 < self.accuracy < 1:
            raise UsageError(f"--accuracy {self.accuracy:g}: expected a share of ICR such as 2%")
        if self.seed >= 2**64:  # a word of the generator's key
            raise UsageError(f"--seed {self.seed}: expected less than 2^64")
        for sigma in self.sigmas:
            if not (math.isfinite(sigma) and sigma > 0):
                raise UsageError(f"--sigma {sigma:g}: expected a noise-to-signal ratio above 0")
        for t in self.times:
            if not math.isfinite(t):
                raise UsageError(f"--t {t:g}: expected a finite number")
        if not re.fullmatch(r"null|label|\d{1,9}", self.class_label):
            raise UsageError(f"--class {self.class_label}: expected null, label or a class index")
        Augmentation(self.augment, self.augment_strength)

    def open(self, data: str) -> Source:
        """The images at `data`; DataError where there are none."""
        return open_source(data, MAX_PIXELS if self.max_pixels is None else self.max_pixels)


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

    def block(self, number: int) -> np.ndarray:
        return self.indices[number :: self.blocks]

    @cached_property
    def protocol(self) -> Protocol:
        """Reads and hashes checkpoint and images, once: seconds for gigabytes."""
        plan, denoiser = self.plan, self.denoiser
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
            augment=plan.augmentation.name,
            augment_strength=plan.augmentation.strength,
            views=plan.views,
            input=plan.input,
            pool=plan.pool,
            normalize=plan.normalize,
            reduce=self.settings.reduce,
            class_label=plan.class_label,
            layers=tuple(layer.name for layer in plan.layers),
            sigmas=plan.sigmas,
            seed=plan.seed,
            precision=plan.precision,
            blocks=self.blocks,
            generator=seeding.GENERATOR,
            accuracy=self.settings.accuracy,
            max_pixels=None if self.settings.max_pixels == MAX_PIXELS else self.settings.max_pixels,
        )


def prepare(checkpoint: Checkpoint, denoiser: Denoiser, source: Source, settings: Settings) -> Job:
    """Check the settings against model and images; cheap, and before any image is read.

    Raises UnknownLayer, NoiseLevelError, UsageError (device, precision) or DataError (images that do not suit the
    model, or classes that either lacks).
    """
    layers = _layers(denoiser, settings.layers)
    levels = _levels(denoiser, settings)
    _check_inputs(denoiser, source, settings)
    device = resolve_device(settings.device)
    if settings.compile and not device.startswith("cuda"):
        raise UsageError(f"--compile pays on CUDA only, not on {device}, where it takes a minute and gains nothing")
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
    return Job(checkpoint, denoiser, source, settings, plan, levels, indices, _block_count(count))


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
        raise UnknownLayer("no layer asked for; --layer mid is the default")
    return tuple(layer for layer in denoiser.layers if layer.name in chosen)


def _levels(denoiser: Denoiser, settings: Settings) -> tuple[Level, ...]:
    noise = denoiser.noise
    asked = [*settings.sigmas, *(_sigma_of(noise, t) for t in settings.times)]
    levels: dict[float, Level] = {}
    for sigma in asked or sweep_levels(denoiser, settings.num_levels):
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
    if denoiser.latent_scale is None and source.kind == "latents":
        raise DataError(f"--data {source.path} holds latents, but this model works on pixels; give images")
    if source.kind == "latents":
        _check_latents(denoiser, source)
    if source.kind == "latents" and settings.augment != "none":
        raise DataError(
            "latents made beforehand cannot be augmented; say --augment none (views then differ in noise alone)"
        )
    chosen, classes = settings.class_label, denoiser.classes
    if chosen != "null" and not classes.count:
        raise DataError(f"--class {chosen}: this model is not class-conditional; leave --class out")
    if chosen == "null" and not classes.null:
        raise DataError("this model has no null class; use --class label or --class INT")
    if chosen == "label":
        if source.labels is None:
            raise DataError(
                f"--class label: {source.path} has no labels; use class folders, dataset.json, or in an .npz whole "
                "numbers [N] as y, arr_1 or labels"
            )
        if int(source.labels.max()) >= classes.count:
            raise DataError(
                f"--class label: labels reach {int(source.labels.max())}, the model has {classes.count} classes"
            )
    elif chosen != "null" and int(chosen) >= classes.count:
        raise DataError(f"--class {chosen}: the model's classes run from 0 to {classes.count - 1}")


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
