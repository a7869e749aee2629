"""Features of images for copies and quality: the model's own, a TorchScript encoder's, or descriptors from a file.

SSCD, made for this task: Pizzi et al., "A Self-Supervised Descriptor for Image Copy Detection", 2022,
https://arxiv.org/abs/2202.10261. Samples whose cosine with a training image is above 0.5 were counted as copies by
Somepalli et al., "Diffusion Art or Digital Forgery?", 2023, https://arxiv.org/abs/2212.03860.

A TorchScript file is a program: to use it is to run it. This is the one place where diffscope runs what a file says,
and only where the user allows it in so many words.
"""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from diffscope.errors import DataError
from diffscope.extraction import Extractor, Inputs, not_finite
from diffscope.measure.job import Job
from diffscope.sources.base import Source, Target

PUBLISHED_THRESHOLD = 0.5
SIDE = 288
"""To which SSCD's images are resized."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
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
        held = _Held(self.job.source, images, labels)
        extractor = Extractor(self.job.denoiser, Inputs(held, plan), plan)
        features = torch.cat([found.z[:, 0] for found in extractor.run(range(len(images)))])
        if not bool(features.isfinite().all()):
            raise not_finite(f"features of {plan.layers[0].name} are", plan.precision)
        return features


class _Held(Source):
    """Images at the model's size, in memory."""

    def __init__(self, origin: Source, images: np.ndarray, labels: np.ndarray | None) -> None:
        self.path, self.kind, self.images, self.labels = origin.path, origin.kind, images, labels

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return str(index)

    def read(self, index: int, target: Target) -> np.ndarray:
        image: np.ndarray = self.images[index]
        return image

    def size(self, index: int) -> int:
        return int(self.images[index].nbytes)

    def checksum(self, index: int) -> int:
        raise NotImplementedError("no result names these images")


class ScriptEncoder(Encoder):
    """A TorchScript program: float32 (n, 3, side, side), normalised as for ImageNet → (n, d).

    Inception as it is published for FID in this form (https://github.com/NVlabs/stylegan3) takes uint8 images of any
    size and brings them to its own, and gives the features that FID is of where it is asked to `return_features`. A
    program that can be asked so is given images in this way.

    Args:
        path: The file.
        side: To which images are resized, 288 where it is None; a program that does that itself takes no other.
        device: Where it runs.
        batch_size: Images at a time.
    """

    def __init__(self, path: str, side: int | None, device: str, batch_size: int) -> None:
        self.path, self.device, self.batch_size = path, device, batch_size
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch calls the format old, which is no news to who was given a file
                self._program = torch.jit.load(path, map_location=device).eval()  # type: ignore[no-untyped-call]
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:120]
            raise DataError(f"`encoder={path}`: cannot be read as TorchScript ({reason})") from None
        self._for_fid = any(argument.name == "return_features" for argument in self._program.forward.schema.arguments)
        if self._for_fid and side is not None:
            raise DataError(f"`encoder={path}`: brings images to its own size; leave `encoder_side={side}` out")
        self.side = side or SIDE

    def features(self, images: np.ndarray, labels: np.ndarray | None) -> Tensor:
        """What the program gives."""
        whole = torch.from_numpy(images)
        found = torch.cat([self._described(part) for part in torch.split(whole, self.batch_size)])
        if not bool(found.isfinite().all()):
            raise DataError(f"`encoder={self.path}`: gives descriptors that are not finite; nothing can be compared")
        return found

    def _described(self, images: Tensor) -> Tensor:
        x = images.to(self.device)
        x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
        if not self._for_fid:
            x = functional.interpolate(x.float() / 255, (self.side, self.side), mode="bilinear", antialias=True)
            x = (x - x.new_tensor(IMAGENET_MEAN)[:, None, None]) / x.new_tensor(IMAGENET_STD)[:, None, None]
        try:
            with torch.inference_mode():
                found = self._program(x, return_features=True) if self._for_fid else self._program(x)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[-160:]
            raise DataError(
                f"`encoder={self.path}`: fails on images {list(x.shape)} ({reason}); is `encoder_side=` right?"
            ) from None
        if not (isinstance(found, Tensor) and found.dim() == 2 and len(found) == len(x)):
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise DataError(f"`encoder={self.path}`: gives {shape} for {len(x)} images; expected [{len(x)}, d]")
        return found.float()


def file_hash(path: str) -> str:
    """sha256; DataError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; expected the descriptors or the encoder there") from None
    return digest.hexdigest()


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
