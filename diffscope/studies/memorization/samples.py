"""Samples of a checkpoint on disk, drawn once: sample number i is a function of (seed, i) and the network."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffscope import sampling
from diffscope.cache.store import Damaged, opened_part, write_atomically, write_part
from diffscope.errors import StoreError
from diffscope.extraction import DTYPES, arithmetic, not_finite
from diffscope.measure.job import Job
from diffscope.measure.progress import Listener
from diffscope.protocol import digest
from diffscope.studies.memorization.copies import CHUNK_BYTES, ROWS

DECODED = 8
"""Latents that the VAE decodes at a time: its own memory is large."""


def sampler(steps: int) -> dict[str, Any]:
    """How samples are drawn, for protocols."""
    ends = {"sigma_min": sampling.SIGMA_MIN, "sigma_max": sampling.SIGMA_MAX, "rho": sampling.RHO}
    return {"sampler": "heun", "steps": steps, **ends}


def sampling_key(job: Job, steps: int) -> str:
    """Of all that sample number i depends on: another criterion, or more samples, find those that are there."""
    base = job.protocol.to_json()
    names = ("checkpoint", "weights", "family", "constructor", "encoder", "class_label", "seed", "precision")
    kind = "float pictures" if job.source.data_range else job.source.kind
    fields = {key: base[key] for key in (*names, "generator")} | sampler(steps) | {"kind": kind}
    if job.plan.class_label == "label":
        fields["data"] = base["data"]
    return digest(fields)[:16]


class Drawn:
    """The first `count` samples of a checkpoint, on disk: a file for each batch, named after its first sample.

    uint8 [n, C, S, S], as a picture has them; float32 in the network's own units where the training images have that,
    cut to [-1, 1] where these are pictures.

    Args:
        folder: Where they lie.
        count: How many are wanted.
        listener: Told of samples drawn, and of those that the disk has damaged.
    """

    def __init__(self, folder: Path, count: int, listener: Listener | None = None) -> None:
        self.folder, self.count, self._listener = folder, count, listener or Listener()

    def draw(self, job: Job, steps: int) -> None:
        """Draw those that are not there yet."""
        done = sum(len(samples) for _, samples in self._files(drawing=True))
        if done < self.count and (damaged := self._path(done)).exists():
            self._listener.say(f"{damaged}: damaged on disk; samples from number {done} on are drawn again")
        self._listener.skip(done)
        labels = classes(job, self.count)
        job.denoiser.to(torch.device(job.plan.device))
        job.denoiser.network.set_precision(DTYPES[job.plan.precision])
        for start in range(done, self.count, job.plan.batch_size):
            numbers = range(start, min(self.count, start + job.plan.batch_size))
            samples = draw_batch(job, numbers, steps, None if labels is None else labels[numbers.start :])
            write_part(self._path(start), {"samples": samples}, {})
            self._listener.advance(len(numbers))

    def _files(self, drawing: bool = False) -> Iterator[tuple[int, np.ndarray]]:
        """(number of the first, samples), without gaps; those beyond `count` may be there from another run.

        StoreError where there are fewer than `count`, unless they are still to be drawn.
        """
        start = 0
        while start < self.count:
            try:
                with opened_part(self._path(start)) as part:
                    samples = part.array("samples")
            except Damaged as error:
                if drawing:
                    return
                raise StoreError(f"{self._path(start)}: {error}; the same command draws these samples again") from None
            yield start, samples[: self.count - start]
            start += len(samples)

    def _path(self, start: int) -> Path:
        return self.folder / f"{start:09d}.safetensors"

    def parts(self) -> Iterator[tuple[int, np.ndarray]]:
        """The same in larger parts."""
        first, held = 0, list[np.ndarray]()
        for start, samples in self._files():
            most = max(1, min(ROWS, CHUNK_BYTES // (8 * samples[0].size)))
            if held and start - first + len(samples) > most:
                yield first, np.concatenate(held)
                first, held = start, []
            held.append(samples)
        yield first, np.concatenate(held)

    def at(self, numbers: np.ndarray) -> np.ndarray:
        """Some of them, in the order of `numbers`."""
        chosen = {}
        for start, samples in self._files():
            chosen.update({int(n): samples[n - start] for n in numbers if 0 <= n - start < len(samples)})
        return np.stack([chosen[int(n)] for n in numbers])

    def save(self, path: Path, classes: np.ndarray | None) -> None:
        """Writes one .npz as other tools and --data read them; never all of it is in memory.

        Args:
            path: Where; it gets `arr_0` [n, S, S, C] and, where there are classes, `arr_1` [n].
            classes: int64 [n], or None.
        """

        def write(part: Path) -> None:
            first = next(self._files())[1]
            shape = (self.count, *np.moveaxis(first, 1, -1).shape[1:])
            with zipfile.ZipFile(part, "w") as archive:
                with archive.open("arr_0.npy", "w", force_zip64=True) as file:
                    header = np.lib.format.header_data_from_array_1_0(first)
                    np.lib.format.write_array_header_1_0(file, {**header, "fortran_order": False, "shape": shape})
                    for _, samples in self._files():
                        file.write(np.moveaxis(samples, 1, -1).tobytes())
                if classes is not None:
                    with archive.open("arr_1.npy", "w") as file:
                        np.lib.format.write_array(file, classes)

        write_atomically(path, write)

    def clear(self) -> None:
        """Removes all samples of this checkpoint."""
        shutil.rmtree(self.folder, ignore_errors=True)


def draw_batch(job: Job, numbers: range, steps: int, labels: np.ndarray | None) -> np.ndarray:
    """One batch of samples, [n, C, S, S]. NonFinite where the network gives no numbers."""
    device, precision = torch.device(job.plan.device), job.plan.precision
    classes = None if labels is None else labels[: len(numbers)].tolist()
    options: dict[str, Any] = {"label": classes, "steps": steps, "batch_size": len(numbers), "device": str(device)}
    with torch.inference_mode(), arithmetic(precision, device):
        (x,) = sampling.sample(job.denoiser, numbers, seed=job.plan.seed, **options)
        images = torch.cat([job.denoiser.decode(part) for part in torch.split(x, DECODED)])
    if not bool(images.isfinite().all()):
        raise not_finite(f"{job.checkpoint.path}: samples are", precision)
    images = images.float().clamp(-1, 1) if job.source.are_pictures else images.float()
    if job.source.kind == "floats":
        return images.cpu().numpy()
    return ((images + 1) * 127.5).round().to(torch.uint8).cpu().numpy()


def classes(job: Job, count: int) -> np.ndarray | None:
    """One class for each sample, int64 [count]; None for the null class.

    `label` takes those of the training images, in the seeded order and over again where samples are more.
    """
    chosen = job.plan.class_label
    if chosen == "null":
        return None
    if chosen != "label":
        return np.full(count, int(chosen))
    assert job.source.labels is not None
    return np.resize(job.source.labels[job.indices], count)
