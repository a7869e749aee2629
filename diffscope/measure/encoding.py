"""Features of a source's images by reference encoders: piece by piece on disk, so that a stopped run goes on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffscope.cache.store import Parts
from diffscope.encoders import Encoder, Network, Setting, open_encoder
from diffscope.extraction import target_of
from diffscope.measure.estimate import rate
from diffscope.measure.job import Job
from diffscope.measure.progress import Listener
from diffscope.options.beside import Beside

PIECE = 256
"""Images whose features are written together: half a minute of a ViT-B/16 on a CPU."""


def open_encoders(job: Job, beside: Beside) -> tuple[Encoder, ...]:
    """Opens what a user names, for the images of a job and at its network's size.

    Args:
        job: Of the network beside which they stand.
        beside: Their spellings.

    Raises:
        DiffscopeError: Whatever keeps one of them from being run on these images.
    """
    setting = Setting(
        device=job.plan.device,
        batch_size=job.plan.batch_size,
        allow_torchscript=beside.allow_torchscript,
        network=Network(job.denoiser, job.plan, job.source),
    )
    found = tuple(open_encoder(spec, setting) for spec in beside.beside)
    for encoder in found:
        encoder.check_source(job.source)
    return found


def protocol_of_encoders(encoders: Iterable[Encoder]) -> dict[str, Any]:
    """What a protocol says of them; nothing where there are none."""
    found = [encoder.protocol() for encoder in encoders]
    return {"beside": found} if found else {}


@dataclass(frozen=True)
class Encoding:
    """Images that are encoded, and where their features are kept.

    Attributes:
        encoder: The encoder.
        job: Of the network beside, whose images and size of images are taken.
        indices: Of the images [n], all of them readable.
        parts: Where features are kept, claimed by the caller.
        key: How names of its parts begin.
    """

    encoder: Encoder
    job: Job
    indices: Sequence[int]
    parts: Parts
    key: str

    def run(self, listener: Listener) -> None:
        """Encodes what is not on disk yet; each image counts as a pass.

        Raises:
            DataError: If an image cannot be read, or the encoder does not take it.
        """
        done = self.parts.finished()
        with ThreadPoolExecutor(max(1, self.job.plan.workers)) as pool:
            for name, piece in self._pieces():
                if name in done:
                    listener.skip(len(piece))
                    continue
                batches = []
                for start in range(0, len(piece), self.job.plan.batch_size):
                    batch = piece[start : start + self.job.plan.batch_size]
                    batches.append(self.encoder.features(self._read(pool, batch), batch).numpy())
                    listener.advance(len(batch))
                self.parts.write(name, {"z": np.concatenate(batches)}, {"images": len(piece)})

    def features(self) -> NDArray[np.float32]:
        """Reads the features [n, d] from disk."""
        return np.concatenate([self.parts.read(name, "", ["z"])["z"] for name, _ in self._pieces()])

    def _pieces(self) -> list[tuple[str, list[int]]]:
        images = [int(index) for index in self.indices]
        starts = range(0, len(images), PIECE)
        return [(f"{self.key}-{n:05d}", images[start : start + PIECE]) for n, start in enumerate(starts)]

    def _read(self, pool: ThreadPoolExecutor, batch: Sequence[int]) -> np.ndarray:
        return read_images(self.encoder, self.job, batch, pool)


def read_images(
    encoder: Encoder, job: Job, indices: Sequence[int], pool: ThreadPoolExecutor | None = None
) -> np.ndarray:
    """Reads images at the size of the job's network; nothing for an encoder that does not look at them.

    Args:
        encoder: Which takes them.
        job: Whose images.
        indices: Of the images.
        pool: Threads that decode.
    """
    if encoder.takes == "anything":
        return np.empty((len(indices), 0), np.uint8)
    target = target_of(job.denoiser)

    def read(index: int) -> np.ndarray:
        return job.source.read(index, target)

    return np.stack(list(map(read, indices) if pool is None else pool.map(read, indices)))


def seconds_of(encoders: Iterable[Encoder], job: Job, images: int) -> float:
    """Expected for encoding, at the rate of this machine now.

    Args:
        encoders: Which are run.
        job: Of the network beside.
        images: How many each encodes.
    """
    batch = [int(index) for index in sorted(job.indices[: job.plan.batch_size])]
    total = 0.0
    for encoder in encoders:
        pixels = read_images(encoder, job, batch)

        def work(encoder: Encoder = encoder, pixels: np.ndarray = pixels) -> int:
            return len(encoder.features(pixels, batch))

        total += images / rate(work, job.plan.device)
    return total
