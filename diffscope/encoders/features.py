"""Features made elsewhere: a .safetensors file, as `diffscope features` writes it or with one tensor [images, d].

`FILE.safetensors`, or `FILE.safetensors:NAME` for one of several tensors. Images are matched by their number in the
source: by `index` where the file has it, else by standing in order, one row for each image of the source.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffscope.encoders.base import Encoder, Setting, finite, hash_of_file
from diffscope.errors import DataError, UsageError
from diffscope.sources.base import Source

_SPELLED = re.compile(r"(.+\.safetensors)(?::([^:]+))?")
BESIDE = ("sigma", "index", "label")
"""Tensors in a file of ours that are no features."""


def accepts(spec: str) -> bool:
    """Tells whether it is such a file's name."""
    return _SPELLED.fullmatch(spec) is not None and "://" not in spec and not spec.startswith("timm:")


def open(spec: str, setting: Setting) -> Encoder:
    """Reads which rows are of which images; the features themselves when they are asked for."""
    if setting.network is None:
        raise UsageError(f"`{setting.option}={spec}`: features of a file are of certain images, and none are given")
    found = _SPELLED.fullmatch(spec)
    assert found is not None
    return FeatureTable(spec, os.path.expanduser(found[1]), found[2], setting.network.source, setting.option)


class FeatureTable(Encoder):
    """Rows of a file.

    Args:
        name: As the user spelled it.
        path: Of the file.
        tensor: Which tensor; None takes the only one.
        source: The images.
        option: The option that named it, for messages.

    Raises:
        DataError: If the file holds no such features, or those of other images.
    """

    kind = "features"
    takes = "anything"

    def __init__(self, name: str, path: str, tensor: str | None, source: Source, option: str = "beside") -> None:
        self.name, self.path, self._option = name, path, option
        self.tensor, shape, index, self._protocol = self._header(tensor)
        self.dims, count = shape[-1], shape[-2]
        if index is None and count != len(source):
            raise self._refusal(
                f"{count} rows and no `index`; {source.path} has {len(source)} images; expected a row for each"
            )
        if index is not None and len(index) != count:
            raise self._refusal(f"an `index` of {len(index)} for {count} rows")
        self._rows = {int(image): row for row, image in enumerate(range(count) if index is None else index)}
        if len(self._rows) != count:
            raise self._refusal("an `index` that names images twice")
        if index is not None and self._protocol.get("data") is not None:
            self._check_images(source)

    def _header(self, tensor: str | None) -> tuple[str, list[int], np.ndarray | None, dict[str, Any]]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="np") as file:
                names = [name for name in file.keys() if name not in BESIDE]  # noqa: SIM118  # no mapping
                shapes = {name: list(file.get_slice(name).get_shape()) for name in names}
                index = file.get_tensor("index") if "index" in file.keys() else None  # noqa: SIM118
                said = (file.metadata() or {}).get("protocol", "{}")
        except (OSError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:100]
            raise self._refusal(f"cannot be read as safetensors ({reason})") from None
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "nothing"
        if tensor is None and len(shapes) != 1:
            raise self._refusal(f"holds {listed}; expected one tensor, or its name as {self.path}:NAME")
        name = tensor or next(iter(shapes))
        if name not in shapes:
            raise self._refusal(f"no tensor {name!r}; it holds {listed}")
        shape = shapes[name]
        if len(shape) < 2 or any(n != 1 for n in shape[:-2]) or 0 in shape:
            raise self._refusal(
                f"{name} is {shape}; expected [images, d], that is of diffscope features one `sigma=` and `views=1`"
            )
        try:
            protocol = json.loads(said)
        except (ValueError, RecursionError):
            protocol = {}
        return name, shape, index, protocol if isinstance(protocol, dict) else {}

    def _check_images(self, source: Source) -> None:
        """A file of ours says which images it is of."""
        outside = [image for image in self._rows if not 0 <= image < len(source)]
        if outside or source.fingerprint(self._rows) != self._protocol["data"]:
            raise self._refusal(f"features of other images than {source.path} holds; make them of these")

    def _refusal(self, why: str) -> DataError:
        return DataError(f"`{self._option}={self.name}`: {why}")

    def fingerprint(self) -> str:
        """Returns the sha256 of the file."""
        return hash_of_file(self.path)

    def facts(self) -> dict[str, Any]:
        """Returns which tensor is taken."""
        return {"tensor": self.tensor}

    def features(self, images: np.ndarray, indices: Sequence[int] | None = None) -> Tensor:
        """Returns the rows of the images with these numbers; what they show is not looked at."""
        from safetensors import safe_open

        if indices is None:
            raise self._refusal("features of a file are of certain images, and these have no numbers")
        missing = [index for index in indices if int(index) not in self._rows]
        if missing:
            raise self._refusal(
                f"no features of {len(missing)} of {len(indices)} images, such as number {missing[0]}; expected all "
                "that are measured: make them with the same `num_images=` and `seed=`, or of all"
            )
        rows = [self._rows[int(index)] for index in indices]
        with safe_open(self.path, framework="pt") as file:
            whole = file.get_slice(self.tensor)
            # Neighbouring rows are read at once.
            low, high = min(rows), max(rows) + 1
            place = (*[0] * (len(whole.get_shape()) - 2), slice(low, high))
            part = whole[place]
        return finite(part[torch.tensor(rows) - low], self.name, self._option)
