"""Features of images for copies and quality: the model's own, a reference encoder's, or descriptors from a file.

SSCD, made for this task: Pizzi et al., "A Self-Supervised Descriptor for Image Copy Detection", 2022,
https://arxiv.org/abs/2202.10261. Samples whose cosine with a training image is above 0.5 were counted as copies by
Somepalli et al., "Diffusion Art or Digital Forgery?", 2023, https://arxiv.org/abs/2212.03860.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from diffscope.encoders import Encoder as Reference
from diffscope.encoders.base import HeldImages
from diffscope.errors import DataError
from diffscope.extraction import Extractor, Inputs, not_finite
from diffscope.measure.job import Job

PUBLISHED_THRESHOLD = 0.5
CENTRED_ON = 1000
"""Training images whose mean feature is taken for that of all."""


class Encoder(ABC):
    """Images, uint8 or float32 [n, C, S, S] at the model's size → features, float32 (n, d)."""

    @abstractmethod
    def features(self, images: np.ndarray, labels: np.ndarray | None) -> Tensor:
        """Features as they are, float32 (n, d).

        Args:
            images: [n, C, S, S] at the model's size.
            labels: int64 [n], where the model is told of classes.

        Raises:
            DataError: If they are not finite, or the encoder takes no such images.
        """

    def describe(self, images: np.ndarray, labels: np.ndarray | None) -> Tensor:
        """Descriptors for the search of copies: the same, of length 1."""
        return functional.normalize(self.features(images, labels), dim=1)


class OwnFeatures(Encoder):
    """The model's own, averaged over positions, of images without noise, at a noise level's conditioning.

    Features of all images point much the same way. Where copies are searched, their difference from a centre is
    compared: the mean feature of `CENTRED_ON` training images, or of all where there are fewer.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._centre: Tensor | None = None

    def centre_on(self, images: np.ndarray, labels: np.ndarray | None) -> None:
        """Takes the mean feature of these images for the centre."""
        self._centre = self.features(images, labels).mean(0)

    def describe(self, images: np.ndarray, labels: np.ndarray | None) -> Tensor:
        """Features less the centre, of length 1."""
        assert self._centre is not None
        return functional.normalize(self.features(images, labels) - self._centre, dim=1)

    def features(self, images: np.ndarray, labels: np.ndarray | None) -> Tensor:
        """Those of the job's layer at its noise level."""
        plan = replace(self.job.plan, workers=0)
        held = HeldImages(self.job.source, images, labels)
        extractor = Extractor(self.job.denoiser, Inputs(held, plan), plan)
        features = torch.cat([found.z[:, 0] for found in extractor.run(range(len(images)))])
        if not bool(features.isfinite().all()):
            raise not_finite(f"features of {plan.layers[0].name} are", plan.precision)
        return features


class ReferenceFeatures(Encoder):
    """Those of a reference encoder."""

    def __init__(self, encoder: Reference) -> None:
        self.encoder = encoder

    def features(self, images: np.ndarray, labels: np.ndarray | None) -> Tensor:
        """What the encoder gives."""
        return self.encoder.features(images)


@dataclass(frozen=True)
class FileDescriptors:
    """Descriptors that somebody else has computed, of the samples and of the training images."""

    samples: Tensor
    training: Tensor


def read_descriptors(paths: tuple[str, str], samples: int, images: int) -> FileDescriptors:
    """Two safetensors files with one tensor [n, d] each; DataError where they do not belong together."""
    ours, theirs = (_table(path) for path in paths)
    for path, table, count, of in ((paths[0], ours, samples, "samples"), (paths[1], theirs, images, "training images")):
        if len(table) != count:
            raise DataError(f"{path}: descriptors of {len(table)}; expected one for each of {count} {of}, in order")
    if ours.shape[1] != theirs.shape[1]:
        raise DataError(f"{paths[0]} has {ours.shape[1]} numbers an image, {paths[1]} {theirs.shape[1]}; not one space")
    return FileDescriptors(functional.normalize(ours, dim=1), functional.normalize(theirs, dim=1))


def _table(path: str) -> Tensor:
    """The one tensor [n, d] of a file; one of `diffscope features`, [1, 1, n, d], is as good."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:100]
        raise DataError(f"{path}: cannot be read as safetensors ({reason}); expected one tensor [images, d]") from None
    tables = {name: tensor for name, tensor in tensors.items() if tensor.dim() >= 2}
    shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items()) or "nothing"
    if len(tables) != 1 or any(n != 1 for n in next(iter(tables.values())).shape[:-2]):
        raise DataError(f"{path}: holds {shapes}; expected one tensor [images, d]")
    table = next(iter(tables.values())).flatten(0, -2).float()
    if not bool(table.isfinite().all()):
        raise DataError(f"{path}: holds descriptors that are not finite; nothing can be compared")
    return table
