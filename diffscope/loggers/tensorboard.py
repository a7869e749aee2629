"""Event files in a folder: `tensorboard:DIR`, then `tensorboard --logdir DIR`."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from diffscope.loggers.base import Destination, is_named, rest_of

LIBRARY = "tensorboard"


def accepts(spec: str) -> bool:
    """Whether it is spelled `tensorboard:DIR`."""
    return is_named(spec, LIBRARY) and rest_of(spec) != ""


def open(spec: str, title: str) -> Destination:
    """Opens an event file of its own in the folder."""
    return _TensorBoard(rest_of(spec))


class _TensorBoard(Destination):
    def __init__(self, folder: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(folder)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def image(self, step: int, name: str, png: bytes) -> None:
        with Image.open(io.BytesIO(png)) as picture:
            self._writer.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def text(self, step: int, name: str, text: str) -> None:
        self._writer.add_text(name, text, step)

    def close(self, failed: bool) -> None:
        self._writer.close()
