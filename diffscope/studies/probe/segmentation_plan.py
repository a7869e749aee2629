"""What to segment: a user's choices checked against images and masks, before the network sees any of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from diffscope.cache.sizes import in_bytes
from diffscope.errors import DataError, MemoryLimit
from diffscope.extraction import target_of
from diffscope.measure.job import Job, prepare
from diffscope.measure.memory import half_of_memory, passes_at_once
from diffscope.protocol import digest
from diffscope.studies.probe import classifiers, pixel_heads
from diffscope.studies.probe.mask_options import PixelProbing
from diffscope.studies.probe.masks import Masks, open_masks
from diffscope.studies.probe.pixels import CHUNK, Grid, grid_of

VERSION = "pixels-1"
"""Raised whenever the same masks and features give another number, or one more."""
SHOWN = 4
"""Test images whose predictions are drawn."""


class Kind(NamedTuple):
    """An input whose pixels are probed in their own right."""

    prefix: str
    """Of its keys in a row."""
    job: Job


@dataclass(frozen=True)
class Segmentation:
    """Jobs, masks and choices, checked against each other: ready to run."""

    kinds: tuple[Kind, ...]
    """The first is what was asked for; clean input may be beside it."""
    probing: PixelProbing
    test_share: float
    masks: Masks
    train: tuple[int, ...]
    """Indices of the training images, rising."""
    test: tuple[int, ...]
    """Of the test images."""
    grids: tuple[Grid, ...]
    """Of the layers."""

    @property
    def job(self) -> Job:
        """That of the input asked for."""
        return self.kinds[0].job

    @property
    def layer(self) -> str:
        """Names of the layers that are concatenated, in the order of execution."""
        return "+".join(layer.name for layer in self.job.plan.layers)

    @property
    def features(self) -> int:
        """Of a pixel: the channels of all layers."""
        return sum(grid.channels for grid in self.grids)

    @property
    def side(self) -> int:
        """Of the image that the masks are scaled to, and features with them."""
        return self.masks.target.side

    @property
    def passes(self) -> int:
        """Forward passes, for a progress bar."""
        return sum(passes_at_once(kind.job) for kind in self.kinds)

    @property
    def shown(self) -> tuple[int, ...]:
        """Indices of the test images that are drawn: the first of a seeded order."""
        order = np.random.default_rng([self.job.plan.seed, 3]).permutation(len(self.test))
        return tuple(self.test[number] for number in order[:SHOWN])

    @property
    def memory(self) -> int:
        """Bytes beside the network, at most: of its two steps, which do not overlap."""
        return max(self.training_bytes(), self.testing_bytes())

    def training_bytes(self) -> int:
        """Of the sampled pixels' features and their copies, at most."""
        return 4 * self.features * self.probing.train_pixels * pixel_heads.copies(self.probing.pixel_head)

    def testing_bytes(self) -> int:
        """Of the maps of a batch, and of the pixels that are classified at a time."""
        maps = sum(grid.channels * grid.height * grid.width for grid in self.grids)
        return 4 * (2 * maps * self.job.plan.batch_size + 3 * self.features * min(CHUNK, self.side**2))

    def protocol(self) -> dict[str, Any]:
        """That of the features, what else the numbers depend on, and the hash of both."""
        chosen = {
            "version": VERSION,
            "masks": self.masks.fingerprint,
            "classes": self.masks.classes,
            "pixel_head": self.probing.pixel_head,
            "train_pixels": self.probing.train_pixels,
            "test_share": self.test_share,
            "both": len(self.kinds) > 1,
        }
        record = {**self.job.protocol.to_json(), "segmentation": chosen}
        return {**record, "hash": digest(record)}


def plan_segmentation(job: Job, probing: PixelProbing, test_share: float, *, both: bool = False) -> Segmentation:
    """Checks layers, memory and every mask.

    Args:
        job: Of one view of each image, its layers flattened.
        probing: What to probe; its masks are given.
        test_share: Share of the images that is the test.
        both: Whether clean input is probed beside the job's.

    Raises:
        UsageError: A layer is no map.
        DataError: A mask is missing or wrong, or the images are too few to be parted.
        MemoryLimit: The pixels to train on would not fit.
    """
    assert probing.masks is not None
    if not job.source.are_pictures:
        raise DataError(f"`masks=`: {job.source.path} holds no pictures; give a folder, .zip or array of images")
    side = job.denoiser.space.side
    grids = tuple(grid_of(layer, side) for layer in job.plan.layers)
    images = np.sort(job.indices)
    train, test = (images[positions] for positions in classifiers.split(len(images), test_share, job.plan.seed))
    if not len(train) or not len(test):
        raise DataError(
            f"{job.source.path}: {len(images)} images give {len(train)} to train on and {len(test)} to test; take more "
            "images, or another `test_share=`"
        )
    kinds = [Kind("", job)]
    if both:
        clean = replace(job.settings, input="clean")
        kinds.append(Kind("clean_", prepare(job.checkpoint, job.denoiser, job.source, clean)))
    masks = open_masks(probing.masks, job.source, images.tolist(), target_of(job.denoiser))
    chosen = tuple(train.tolist()), tuple(test.tolist())
    found = Segmentation(tuple(kinds), probing, test_share, masks, *chosen, grids)
    limit = job.settings.max_memory or half_of_memory()
    if found.memory > limit:
        raise MemoryLimit(
            f"{probing.train_pixels} pixels of {found.features} features need {in_bytes(found.memory)}, more than "
            f"`max_memory=` {in_bytes(limit)}; take fewer `train_pixels=`, fewer layers or a smaller `batch_size=`, or "
            "a larger `max_memory=`"
        )
    return found
