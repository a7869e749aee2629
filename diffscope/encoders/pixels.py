"""`pixels`: the images themselves, flattened. What a network's features add to is measured against this."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffscope.encoders.base import Encoder, Setting, finite
from diffscope.errors import UsageError
from diffscope.extraction import target_of


def accepts(spec: str) -> bool:
    """Tells whether it is called so."""
    return spec == "pixels"


def open(spec: str, setting: Setting) -> Encoder:
    """Opens it for images of the network's size."""
    if setting.network is None:
        raise UsageError(f"`{setting.option}={spec}`: needs a network beside it, whose size of images is taken")
    target = target_of(setting.network.denoiser)
    return Pixels(spec, target.channels * target.side**2, setting.option)


class Pixels(Encoder):
    """Values in [-1, 1], channel by channel and row by row."""

    kind = "pixels"
    takes = "data"

    def __init__(self, name: str, dims: int, option: str) -> None:
        self.name, self.dims, self._option = name, dims, option

    def fingerprint(self) -> str:
        """Returns that of its name: there is nothing else to it."""
        return hashlib.sha256(self.kind.encode()).hexdigest()

    def facts(self) -> dict[str, Any]:
        """Returns how many there are."""
        return {}

    def features(self, images: np.ndarray, indices: Sequence[int] | None = None) -> Tensor:
        """Flattens the images."""
        x = torch.from_numpy(np.ascontiguousarray(images)).flatten(1)
        return finite(x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x, self.name, self._option)
