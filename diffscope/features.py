"""Denoiser + source + views → a stream of pooled features, for every layer and noise level asked for.

For each batch the images are decoded, augmented and encoded once; then, level by level, signal and noise are
scaled, the network is walked to the deepest layer asked for and no further, and every layer is pooled as it passes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffscope.errors import DataError, UsageError
from diffscope.families.base import Denoiser, Layer
from diffscope.seeding import Stream
from diffscope.sources.base import Source, Target
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
    images, views and noise without any of it being made again.
    """

    def __init__(self, source: Source, plan: Plan, strict: bool = False, keep: int = 0) -> None:
        self.source, self.plan, self.strict = source, plan, strict
        self.device = torch.device(plan.device)
        self.skipped: list[dict[str, str]] = []
        self._room = keep
        self._kept: dict[tuple[int, ...], tuple[list[Batch], list[dict[str, str]]]] = {}

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
        plan, space = self.plan, denoiser.space
        noisy = plan.input == "noisy"
        shape = (space.channels, space.side, space.side)
        pixels = torch.from_numpy(images).to(self.device, non_blocking=True)

        def drawn(stream: Stream) -> Tensor:
            views = [view_noise(batch, view, shape, plan.seed, stream) for view in range(plan.views)]
            return torch.stack(views, 1).flatten(0, 1).to(self.device, non_blocking=True)

        latent_noise = drawn(Stream.LATENT) if noisy and space.kind == "latents" else None
        if self.source.kind == "latents":
            mean, std = (part.repeat_interleave(plan.views, 0) for part in pixels.unbind(1))
            signal = denoiser.scale_latents(mean, std, latent_noise)
        else:
            views = [augmented_view(pixels, batch, v, plan.augmentation, plan.seed) for v in range(plan.views)]
            signal = denoiser.encode(torch.stack(views, 1).flatten(0, 1), latent_noise)
        return signal, drawn(Stream.NOISE) if noisy else None

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
    """`cuda` where there is one, else `cpu`; UsageError for a device that is not here."""
    if name in (None, "auto"):
        return "cuda" if torch.cuda.is_available() else "cpu"
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
