"""Denoiser + source + views → a stream of pooled features, for every layer and noise level asked for.

For each batch the images are decoded, augmented and encoded once; then, level by level, signal and noise are
scaled, the network is walked to the deepest layer asked for and no further, and every layer is pooled as it passes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from diffscope import __version__
from diffscope.errors import DataError, UsageError
from diffscope.families.base import Denoiser, Layer
from diffscope.kept import latents
from diffscope.kept.latents import Latents
from diffscope.protocol import digest
from diffscope.ranks import world
from diffscope.seeding import GENERATOR, Stream
from diffscope.sources.base import Source, Target
from diffscope.store import cache_folder
from diffscope.views import Augmentation, augmented_view, view_noise

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SPACING = {"fp32": 2.0**-23, "tf32": 2.0**-10, "bf16": 2.0**-7, "fp16": 2.0**-10}
"""Distance of neighbouring numbers at 1, of what the network computes in."""


def cure(precision: str) -> str:
    """What to do where a network's numbers are not finite."""
    if precision in ("fp32", "tf32"):
        return "its weights have diverged or the file is damaged: take another checkpoint"
    return "use --precision fp32"


@dataclass(frozen=True)
class Plan:
    """What to extract; part of the protocol but for the last three fields."""

    layers: tuple[Layer, ...]
    sigmas: tuple[float, ...]
    views: int
    augmentation: Augmentation
    input: str
    """noisy or clean."""
    pool: str
    """mean or flatten."""
    normalize: bool
    class_label: str
    seed: int
    precision: str
    """A key of DTYPES."""
    device: str
    batch_size: int
    """Images per batch; a forward pass holds batch_size × views."""
    workers: int
    """Threads that decode ahead; 0 decodes in between."""

    def width(self, layer: Layer) -> int:
        """Number of features of a layer, pooled."""
        return layer.width if self.pool == "mean" else math.prod(layer.shape)


@dataclass(frozen=True)
class Features:
    """One layer at one noise level for one batch."""

    indices: tuple[int, ...]
    """Of the images in their source."""
    level: int
    layer: int
    """Both count from 0 in the plan's order."""
    z: Tensor
    """float32 (B, V, d) on the device."""


@dataclass(frozen=True)
class Batch:
    """Views of some images and their noise, ready for the network."""

    indices: tuple[int, ...]
    """Of the images in their source, B of them."""
    signal: Tensor
    """(B·V, C, S, S) in the network's input space, the views of an image side by side."""
    noise: Tensor | None
    """The same shape, standard normal; None for clean input."""

    def at(self, sigma: float) -> Tensor:
        """data + sigma · noise."""
        return self.signal if self.noise is None else torch.add(self.signal, self.noise, alpha=sigma)


class Inputs:
    """Decodes, augments and encodes images; unreadable ones are left out and collected in `skipped` as {file, why}.

    What was made is kept, up to `keep` bytes, for further checkpoints of the same protocol: they are given the same
    images, views and noise without any of it being made again. What a VAE encoded is kept on disk as well, for further
    runs (`kept/latents.py`). Views of pixels are not: reading them back would save little. The image is decoded in any
    case, to know that it is the same one, and augmenting takes 0.1 to 9 ms an image (32² to 256²), at 25 kB to 1.6 MB.
    """

    def __init__(
        self,
        source: Source,
        plan: Plan,
        strict: bool = False,
        keep: int = 0,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """say: told once, where latents cannot be kept on disk. UsageError where $DIFFSCOPE_CACHE_SIZE is no size."""
        self.source, self.plan, self.strict = source, plan, strict
        self.device = torch.device(plan.device)
        self.skipped: list[dict[str, str]] = []
        self._room = keep
        self._kept: dict[tuple[int, ...], tuple[list[Batch], list[dict[str, str]]]] = {}
        self.say, self._limit = say, latents.limit()
        self._on_disk: tuple[dict[str, Any], Latents] | None = None

    _fingerprints: ClassVar[WeakKeyDictionary[Any, str]] = WeakKeyDictionary()
    """Of encoders hashed before: a quarter of a second for a published one."""

    def batches(self, denoiser: Denoiser, indices: Sequence[int]) -> Iterator[Batch]:
        """The images at `indices` as `denoiser` takes them."""
        key = tuple(indices)
        if key in self._kept:
            batches, skipped = self._kept[key]
            self.skipped += skipped
            yield from batches
            return
        before, made = len(self.skipped), []
        for batch, images in self._decoded(key, target_of(denoiser)):
            with torch.inference_mode():
                signal, noise = self._signal_and_noise(denoiser, batch, images)
            made.append(Batch(batch, signal, noise))
            self._room -= signal.nbytes + (0 if noise is None else noise.nbytes)
            if self._room < 0:
                made.clear()
            yield Batch(batch, signal, noise)
        if self._room >= 0:
            self._kept[key] = (made, self.skipped[before:])

    def _signal_and_noise(
        self, denoiser: Denoiser, batch: tuple[int, ...], images: np.ndarray
    ) -> tuple[Tensor, Tensor | None]:
        """Data in the network's input space and its noise, both (B·V, C, S, S), the views of an image side by side."""
        signal = self._signal(denoiser, batch, images)
        return signal, self._drawn(denoiser, batch, Stream.NOISE) if self.plan.input == "noisy" else None

    def _signal(self, denoiser: Denoiser, batch: tuple[int, ...], images: np.ndarray) -> Tensor:
        """Latents come from the disk where they are kept; those that are not are encoded together, and kept."""
        views = self.plan.views
        if self.source.kind == "latents":
            pixels = torch.from_numpy(images).to(self.device, non_blocking=True)
            mean, std = (part.repeat_interleave(views, 0) for part in pixels.unbind(1))
            return denoiser.scale_latents(mean, std, self._latent_noise(denoiser, batch))
        if denoiser.encoder is None or not self._limit:
            return self._encoded(denoiser, batch, images)
        kept = self._latents(denoiser)
        digests = [latents.digest(image) for image in images]
        keys = [(image, index, view) for image, index in zip(digests, batch, strict=True) for view in range(views)]
        rows = kept.read(keys, (denoiser.space.channels, denoiser.space.side, denoiser.space.side))
        if missing := [number for number, row in enumerate(rows) if row is None]:
            made = self._encoded(denoiser, batch, images, missing).cpu().numpy()
            kept.write([keys[number] for number in missing], made)
            for number, row in zip(missing, made, strict=True):
                rows[number] = row
        return torch.from_numpy(np.stack([row for row in rows if row is not None])).to(self.device)

    def _encoded(
        self, denoiser: Denoiser, batch: tuple[int, ...], images: np.ndarray, rows: Sequence[int] | None = None
    ) -> Tensor:
        """Views augmented and brought to the network's input space; all B·V, or those at `rows`."""
        plan, pixels = self.plan, torch.from_numpy(images).to(self.device, non_blocking=True)
        views = [augmented_view(pixels, batch, v, plan.augmentation, plan.seed) for v in range(plan.views)]
        x, noise = torch.stack(views, 1).flatten(0, 1), self._latent_noise(denoiser, batch)
        if rows is not None and len(rows) < len(x):
            x, noise = x[list(rows)], None if noise is None else noise[list(rows)]
        # A convolution's last bits go with the order in memory, which a VAE's output has of its own.
        return denoiser.encode(x, noise).contiguous()

    def _latent_noise(self, denoiser: Denoiser, batch: tuple[int, ...]) -> Tensor | None:
        """What draws from the VAE's posterior; None takes its mean."""
        wanted = self.plan.input == "noisy" and denoiser.space.kind == "latents"
        return self._drawn(denoiser, batch, Stream.LATENT) if wanted else None

    def _drawn(self, denoiser: Denoiser, batch: tuple[int, ...], stream: Stream) -> Tensor:
        shape = (denoiser.space.channels, denoiser.space.side, denoiser.space.side)
        views = [view_noise(batch, view, shape, self.plan.seed, stream) for view in range(self.plan.views)]
        return torch.stack(views, 1).flatten(0, 1).to(self.device, non_blocking=True)

    def _latents(self, denoiser: Denoiser) -> Latents:
        """The set on disk of what this denoiser's encoder makes of views like these."""
        about = self._provenance(denoiser)
        if self._on_disk is None or self._on_disk[0] != about:
            assert denoiser.encoder is not None
            folder, note = cache_folder() / "latents", {"path": denoiser.encoder.path}
            self._on_disk = about, Latents(folder, about, self._limit, self.say, note)
        return self._on_disk[1]

    def _provenance(self, denoiser: Denoiser) -> dict[str, Any]:
        """All that a latent depends on but for the image, its index and the view.

        Versions and the device are in it: what they change is rounding, but figures are to be the same bits with and
        without what is kept.
        """
        encoder, plan, space = denoiser.encoder, self.plan, denoiser.space
        assert encoder is not None
        if encoder not in self._fingerprints:
            config = {key: value for key, value in encoder.model.config.items() if not key.startswith("_")}
            self._fingerprints[encoder] = digest({"weights": encoder.fingerprint(), "config": config})
        cuda = self.device.type == "cuda"
        return {
            "vae": self._fingerprints[encoder],
            # Families may feed the VAE, and scale what it gives, in ways of their own.
            "encode": f"{type(denoiser).encode.__module__}.{type(denoiser).encode.__qualname__}",
            "scale": f"{type(denoiser).scale_latents.__module__}.{type(denoiser).scale_latents.__qualname__}",
            "latent_scale": denoiser.latent_scale,
            "shape": [space.channels, space.side, space.side],
            "dtype": "float32",
            "augment": plan.augmentation.name,
            "augment_strength": plan.augmentation.strength,
            "sampled": plan.input == "noisy",
            "seed": plan.seed,
            "generator": GENERATOR,
            "device": torch.cuda.get_device_name(self.device) if cuda else self.device.type,
            "versions": {"diffscope": __version__, "torch": torch.__version__, "diffusers": version("diffusers")},
        }

    def _decoded(self, indices: Sequence[int], target: Target) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """Readable images in batches; with workers, the next batch is decoded while this one is used."""
        size = self.plan.batch_size
        chunks = [indices[start : start + size] for start in range(0, len(indices), size)]
        if not self.plan.workers:
            decoded: Iterator[list[np.ndarray | DataError]] = (
                [self._read(int(i), target) for i in chunk] for chunk in chunks
            )
            yield from self._readable(chunks, decoded)
            return
        with ThreadPoolExecutor(self.plan.workers) as pool:
            yield from self._readable(chunks, self._ahead(pool, chunks, target))

    def _ahead(
        self, pool: ThreadPoolExecutor, chunks: Sequence[Sequence[int]], target: Target
    ) -> Iterator[list[np.ndarray | DataError]]:
        def submit(chunk: Sequence[int]) -> list[Future[np.ndarray | DataError]]:
            return [pool.submit(self._read, int(i), target) for i in chunk]

        pending = submit(chunks[0]) if chunks else []
        for following in [*chunks[1:], None]:
            now, pending = pending, [] if following is None else submit(following)
            yield [future.result() for future in now]

    def _readable(
        self, chunks: Sequence[Sequence[int]], decoded: Iterator[list[np.ndarray | DataError]]
    ) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        for chunk, images in zip(chunks, decoded, strict=False):
            kept: list[tuple[int, np.ndarray]] = []
            for index, image in zip(chunk, images, strict=True):
                if isinstance(image, DataError):
                    if self.strict:
                        raise image
                    self.skipped.append({"file": self.source.name(int(index)), "why": str(image)})
                else:
                    kept.append((int(index), image))
            if kept:
                yield tuple(index for index, _ in kept), np.stack([image for _, image in kept])

    def _read(self, index: int, target: Target) -> np.ndarray | DataError:
        try:
            return self.source.read(index, target)
        except DataError as error:
            return error


class Extractor:
    """Streams features of the images that `inputs` reads."""

    def __init__(self, denoiser: Denoiser, inputs: Inputs, plan: Plan) -> None:
        self.denoiser, self.inputs, self.plan = denoiser, inputs, plan
        self.device = inputs.device
        denoiser.to(self.device)
        denoiser.network.set_precision(DTYPES[plan.precision])

    def run(self, indices: Sequence[int]) -> Iterator[Features]:
        """Features of the images at `indices`, batch by batch, level by level, in the order of execution."""
        wanted = {layer.name: number for number, layer in enumerate(self.plan.layers)}
        for batch in self.inputs.batches(self.denoiser, indices):
            with torch.inference_mode():
                label = batch_label(self.denoiser, self.inputs.source, self.plan, batch.indices)
            for level, sigma in enumerate(self.plan.sigmas):
                yield from self._level(batch, sigma, label, level, wanted)

    def _level(
        self, batch: Batch, sigma: float, label: Tensor | None, level: int, wanted: dict[str, int]
    ) -> Iterator[Features]:
        pooled: list[tuple[int, Tensor]] = []
        # The contexts stand around the consumer of the walk: inside a generator they would leak to its caller.
        with torch.inference_mode(), arithmetic(self.plan.precision, self.device):
            for name, activation in self.denoiser.walk(batch.at(sigma), sigma, label, wanted):
                if name in wanted:
                    pooled.append((wanted[name], self._pooled(activation)))
                    if len(pooled) == len(wanted):
                        break
        for number, z in pooled:
            yield Features(batch.indices, level, number, z.view(len(batch.indices), self.plan.views, -1))

    def _pooled(self, activation: Tensor) -> Tensor:
        if self.plan.pool == "flatten":
            z = activation.flatten(1).float()
        elif activation.dim() == 4:
            z = activation.mean((2, 3), dtype=torch.float32)
        else:
            z = activation.mean(1, dtype=torch.float32) if activation.dim() == 3 else activation.float()
        return torch.nn.functional.normalize(z, dim=1) if self.plan.normalize else z


def target_of(denoiser: Denoiser) -> Target:
    """What a source must bring its images to for this model."""
    space = denoiser.space
    return Target(space.image_side, space.image_channels, space.resize)


def batch_label(denoiser: Denoiser, source: Source, plan: Plan, indices: Sequence[int]) -> Tensor | None:
    """What the network is told of the classes of these images, one for each view."""
    chosen, device = plan.class_label, torch.device(plan.device)
    if chosen == "null":
        return denoiser.label(None, device)
    if chosen == "label":
        assert source.labels is not None
        return denoiser.label(torch.from_numpy(source.labels[list(indices)]).repeat_interleave(plan.views), device)
    return denoiser.label(torch.full((1,), int(chosen)), device)


def resolve_device(name: str | None) -> str:
    """`cuda` where there is one, of several processes each its own, else `cpu`; UsageError for one that is not here."""
    mine = world().device
    if name in (None, "auto") or (mine is not None and name == "cuda"):
        return mine or ("cuda" if torch.cuda.is_available() else "cpu")
    assert name is not None
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name}: {' '.join(str(error).split())[:120]}") from None
    return name


def resolve_precision(name: str, device: str) -> str:
    """What `auto` becomes: fp32 on a CPU, tf32 on CUDA, fp32 elsewhere."""
    if name == "auto":
        return "tf32" if device.startswith("cuda") else "fp32"
    if name not in DTYPES:
        raise UsageError(f"--precision {name}: expected auto, {', '.join(DTYPES)}")
    if name == "tf32" and not device.startswith("cuda"):
        raise UsageError(f"--precision tf32 exists on CUDA only, not on {device}; use fp32")
    return name


def cpu_capabilities() -> dict[str, bool]:
    """Instruction sets by torch's names; empty where torch cannot tell."""
    query = getattr(torch.cpu, "get_capabilities", None)
    return {} if query is None else {str(k): bool(v) for k, v in query().items()}


@contextlib.contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """How float32 products are computed inside, restored after: TF32 as asked on CUDA, oneDNN's on a CPU without AMX.

    On CPUs without AMX "medium" still computes in float32 (error 6e-7), on AMD twice as fast; with AMX it would
    round to bfloat16.
    """
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    medium = device.type == "cpu" and precision == "fp32" and cpu_capabilities().get("amx_bf16") is False
    before = torch.get_float32_matmul_precision()
    try:
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        elif medium:
            torch.set_float32_matmul_precision("medium")
        yield
    finally:
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn
        elif medium:
            torch.set_float32_matmul_precision(before)
