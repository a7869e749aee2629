"""`timm:NAME`: a network of the timm library, where that is installed, with the weights of hf://timm/NAME.

`timm:NAME@FILE.safetensors` takes weights that were fetched before. The library makes the network, and says how images
are prepared; its weights are read by our own reader and all have to fit. An image's features are the network's own,
pooled as its classifier takes them.

Wightman, "PyTorch Image Models", 2019, https://doi.org/10.5281/zenodo.4414861
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffscope import hub
from diffscope.checkpoints import read
from diffscope.encoders.base import Encoder, Preparation, Setting, finite, hash_of_file
from diffscope.errors import DataError
from diffscope.families import load_weights

RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}


def accepts(spec: str) -> bool:
    """Tells whether it is spelled so."""
    return spec.startswith("timm:")


def open(spec: str, setting: Setting) -> Encoder:
    """Makes the network and gives it its weights."""
    name, _, file = spec.removeprefix("timm:").partition("@")
    try:
        import timm
    except ImportError as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) and error.name != "timm" else None
        why = f"timm cannot be imported without {missing}" if missing else "timm is not installed"
        raise DataError(
            f"`{setting.option}={spec}`: {why}: pip install timm, or give the features of another tool as a "
            ".safetensors file"
        ) from None
    if not name or not timm.is_model(name):
        raise DataError(
            f"`{setting.option}={spec}`: timm {timm.__version__} has no such network; see timm.list_models()"
        )
    return TimmModel(spec, name, os.path.expanduser(file) or _downloaded(name), setting)


def _downloaded(name: str) -> str:
    repository = hub.open(f"hf://timm/{name}", "model")
    local = repository.find("model.safetensors")
    if local is None:
        raise repository.reference.failure("no model.safetensors in it; give a file, timm:NAME@FILE.safetensors")
    return str(local)


class TimmModel(Encoder):
    """A network of timm with its weights.

    Args:
        spec: As the user spelled it.
        name: Of the network, with that of its weights.
        file: With the weights.
        setting: Where it is run.

    Raises:
        CheckpointError: If the weights cannot be read, or do not fit.
        DataError: If the library says of no square images how they are prepared, or the network fails on them.
    """

    kind = "timm"

    def __init__(self, spec: str, name: str, file: str, setting: Setting) -> None:
        import timm

        self.name, self._model, self._file, self._setting = spec, name, file, setting
        network: Any = timm.create_model(name, pretrained=False)
        load_weights(network, dict(read(file).tensors), spec, advice="; take the file of this name's own weights")
        network.reset_classifier(0)
        self._network = network.eval().to(setting.device)
        self._version = str(timm.__version__)
        self.preparation = self._preparation(timm.data.resolve_model_data_config(network))
        self.dims = self.features(np.zeros((1, 3, 32, 32), np.uint8)).shape[1]

    def _preparation(self, said: Any) -> Preparation:
        channels, height, width = said["input_size"]
        if height != width or channels != 3 or said.get("crop_mode", "center") != "center":
            raise DataError(
                f"`{self._setting.option}={self.name}`: takes {channels} × {height} × {width}, "
                f"cut by {said.get('crop_mode')!r}; expected three channels of the middle of a square"
            )
        return Preparation(
            resize=int(height / said["crop_pct"]),
            crop=int(height),
            start=round((int(height / said["crop_pct"]) - height) / 2),  # as torchvision cuts
            resample=RESAMPLE[said["interpolation"]],
            scale=1 / 255,
            mean=tuple(map(float, said["mean"])),
            std=tuple(map(float, said["std"])),
        )

    def fingerprint(self) -> str:
        """Returns the sha256 of the file of weights."""
        return hash_of_file(self._file)

    def facts(self) -> dict[str, Any]:
        """Returns the network's name, and how images are prepared."""
        return {"model": self._model, "timm": self._version, "pooled": "its own", "images": self.preparation.facts()}

    def features(self, images: np.ndarray, indices: Sequence[int] | None = None) -> Tensor:
        """Returns what the network gives without its classifier."""
        size = self._setting.batch_size
        parts = [self._run(images[start : start + size]) for start in range(0, len(images), size)]
        return finite(torch.cat(parts), self.name, self._setting.option)

    def _run(self, images: np.ndarray) -> Tensor:
        x = self.preparation(images).to(self._setting.device)
        try:
            with torch.inference_mode():
                found: Tensor = self._network(x)
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = " ".join(str(error).split())[:160]
            raise DataError(
                f"`{self._setting.option}={self.name}`: fails on images {list(x.shape)} ({reason})"
            ) from None
        if found.dim() != 2:
            raise DataError(f"`{self._setting.option}={self.name}`: gives {list(found.shape)}; expected [{len(x)}, d]")
        return found.float().cpu()
