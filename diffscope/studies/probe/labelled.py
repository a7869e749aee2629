"""Labelled features of one kind, read from their files and parted into training and test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from diffscope.studies.features.kept import features_path
from diffscope.studies.probe.class_metrics import Labels
from diffscope.studies.probe.plan import Kind, Probe, parted


class Probed(Protocol):
    """Features of labelled images, by layer and level."""

    @property
    def labels(self) -> Labels:
        """[images]."""

    def read(self, layer: str, level: int) -> NDArray[np.float32]:
        """[images, d]."""


class FeatureFile:
    """What `export` wrote, a layer and level at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.labels: Labels = self._tensor("label")

    def _tensor(self, name: str) -> Any:
        with safe_open(self.path, framework="np") as file:
            return file.get_tensor(name)

    def read(self, layer: str, level: int) -> NDArray[np.float32]:
        """[images, d], view 0."""
        with safe_open(self.path, framework="np") as file:
            found: NDArray[np.float32] = file.get_slice(layer)[level : level + 1][0, 0]
            return found


@dataclass(frozen=True)
class Data:
    """Labelled features, parted into training and test."""

    train: Probed
    test: Probed | None
    classes: NDArray[np.int64]
    """Labels [K] of the source, ascending; what follows counts 0…K−1 in this order."""
    labels: Labels
    test_labels: Labels
    positions: tuple[NDArray[np.int64], NDArray[np.int64]] | None
    """Of training and test images in `train`, where there is no other source."""

    def read(self, layer: str, level: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features of the training and of the test images, [n, d] and [m, d]."""
        z = self.train.read(layer, level)
        if self.test is not None:
            return z, self.test.read(layer, level)
        assert self.positions is not None
        return z[self.positions[0]], z[self.positions[1]]


def labelled_features(probe: Probe, kind: Kind, folder: Path) -> Data:
    """Features and labels of a kind, parted."""
    train = FeatureFile(features_path(kind.train, folder))
    test = None if kind.test is None else FeatureFile(features_path(kind.test, folder))
    labels, test_labels, positions = parted(probe, train.labels, None if test is None else test.labels)
    classes = np.unique(labels)
    encoded, test_encoded = (np.searchsorted(classes, part) for part in (labels, test_labels))
    return Data(train, test, classes, encoded, test_encoded, positions)
