"""A few images and their posterior means at all levels, for a picture: figure 3 of Wang et al., 2025.

https://arxiv.org/abs/2502.05743. The posterior means are those that are probed, read from their file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from diffscope.extraction import target_of
from diffscope.studies.features.kept import features_path
from diffscope.studies.probe.denoised_distances import decoded
from diffscope.studies.probe.plan import Kind
from diffscope.studies.probe.posterior import POSTERIOR

SHOWN = 6
"""Images, of different classes where there are so many."""


def denoised_pictures(kind: Kind, folder: Path) -> dict[str, Any] | None:
    """Reads the images and their posterior means.

    Args:
        kind: Of posterior means, which are on disk.
        folder: Where.

    Returns:
        `images` [n] of uint8 [H, W] or [H, W, 3], `denoised` [levels][n] of the same, `sigmas` [levels] and `input`;
        None where there is nothing to see: latents without a VAE, images that come as latents or numbers, and scaled
        features (`--normalize`).
    """
    if not kind.has_pictures:
        return None
    job = kind.train
    with safe_open(features_path(job, folder), framework="np") as file:
        indices, labels = file.get_tensor("index"), file.get_tensor("label")
        chosen = _spread(labels, job.plan.seed)
        z = [[file.get_slice(POSTERIOR)[level, 0, int(i)] for i in chosen] for level in range(len(job.levels))]
    target = target_of(job.denoiser)
    images = [job.source.picture(int(indices[i]), target) for i in chosen]
    shown = decoded(job.denoiser, np.array(z).reshape(len(z) * len(chosen), -1), job.plan.device)
    whole = np.rint((shown + 1) * 127.5).astype(np.uint8)
    return {
        "images": images,
        "denoised": [
            [_upright(picture) for picture in of] for of in whole.reshape(len(z), len(chosen), *whole.shape[1:])
        ],
        "sigmas": [level.sigma for level in job.levels],
        "input": job.plan.input,
    }


def _spread(labels: NDArray[np.int64], seed: int) -> list[int]:
    """Positions of images in a seeded order, the first of each class before the second of any."""
    order = np.random.default_rng([seed, 4]).permutation(len(labels))
    seen: dict[int, int] = {}
    turns = []
    for position in order:
        seen[labels[position]] = turn = seen.get(labels[position], 0) + 1
        turns.append(turn)
    return [int(position) for position in order[np.argsort(turns, kind="stable")][:SHOWN]]


def _upright(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[C, H, W] as it is drawn."""
    drawn: NDArray[np.uint8] = np.squeeze(picture.transpose(1, 2, 0))
    return drawn
