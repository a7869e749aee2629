"""How far denoised images as a whole are from the images, over noise levels: figure 3 of Wang et al., 2025.

https://arxiv.org/abs/2502.05743. Fréchet distances in the spaces of the encoders beside the network, between the
training images and the posterior means of the same images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from diffscope.cache.store import Parts
from diffscope.distributions import paired_distances
from diffscope.encoders import Encoder
from diffscope.families.base import Denoiser
from diffscope.measure.progress import Listener
from diffscope.studies.features.kept import features_path
from diffscope.studies.probe.plan import Kind
from diffscope.studies.probe.posterior import POSTERIOR

PIECE = 256
"""Images whose features are written together."""
DECODED = 8
"""Latents that the VAE decodes at a time: its own memory is large."""


def decoded(denoiser: Denoiser, posterior: NDArray[np.float32], device: str) -> NDArray[np.float32]:
    """Brings posterior means as they are kept, [n, C·H·W], to images float32 [n, C, S, S] in [-1, 1]."""
    space = denoiser.space
    x = torch.from_numpy(posterior).float().reshape(-1, space.channels, space.side, space.side).to(device)
    with torch.inference_mode():
        images = torch.cat([denoiser.decode(part) for part in torch.split(x, DECODED)]).float().clamp(-1, 1)
    found: NDArray[np.float32] = images.cpu().numpy()
    return found


@dataclass(frozen=True)
class Distances:
    """Of the posterior means of all training images, in the space of one encoder.

    Attributes:
        encoder: The encoder.
        kind: Of posterior means, which are on disk.
        folder: Where.
        parts: Where features of theirs are kept, claimed by the caller.
        key: How names of its parts begin.
    """

    encoder: Encoder
    kind: Kind
    folder: Path
    parts: Parts
    key: str

    def run(self, images: NDArray[np.float32], listener: Listener) -> list[dict[str, Any]]:
        """Measures a record for each level; each denoised image counts as a pass.

        Args:
            images: The encoder's features of the images themselves [n, d], in the order of the posterior means.
            listener: Hears of each pass.

        Raises:
            DataError: If the encoder does not take the images.
        """
        levels = self.kind.train.levels
        denoised = [
            np.concatenate(list(self._features(number, len(images), listener))).astype(np.float64)
            for number in range(len(levels))
        ]
        found = paired_distances(images.astype(np.float64), denoised)
        return [
            {"encoder": self.encoder.name, "sigma": level.sigma, "fd": one.value, "fd_se": one.error}
            for level, one in zip(levels, found, strict=True)
        ]

    def _features(self, level: int, count: int, listener: Listener) -> Iterator[NDArray[np.float32]]:
        job, done = self.kind.train, self.parts.finished()
        for start in range(0, count, PIECE):
            key, stop = f"{self.key}-{level}-{start:07d}", min(count, start + PIECE)
            if key in done:
                listener.skip(stop - start)
            else:
                with safe_open(features_path(job, self.folder), framework="np") as file:
                    kept = file.get_slice(POSTERIOR)[level : level + 1, 0:1, start:stop][0, 0]
                batches = []
                for first in range(0, len(kept), job.plan.batch_size):
                    batch = decoded(job.denoiser, kept[first : first + job.plan.batch_size], job.plan.device)
                    batches.append(self.encoder.features(batch).numpy())
                    listener.advance(len(batch))
                self.parts.write(key, {"z": np.concatenate(batches)}, {"images": stop - start})
            yield self.parts.read(key, "", ["z"])["z"]
