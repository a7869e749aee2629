"""A TorchScript file, such as SSCD's: `FILE.pt`, or `FILE.pt:side=224` for images of another side.

Inception as it is published for FID in this form (https://github.com/NVlabs/stylegan3) takes uint8 images of any size,
brings them to its own, and gives the features that FID is of where it is asked to `return_features`. A program that
can be asked so is given images in this way.

SSCD, made to find copies: Pizzi et al., "A Self-Supervised Descriptor for Image Copy Detection", 2022,
https://arxiv.org/abs/2202.10261.

A TorchScript file is a program: to use it is to run it. This is the one place where diffscope runs what a file says,
and only where the user allows it in so many words.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from diffscope.encoders.base import Encoder, Setting, hash_of_file
from diffscope.errors import DataError
from diffscope.options.beside import program_of, require_permission

SIDE = 288
"""To which SSCD's images are resized."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def accepts(spec: str) -> bool:
    """Tells whether it is such a file's name."""
    return program_of(spec) is not None


def open(spec: str, setting: Setting) -> Encoder:
    """Loads the program, where that is allowed, and runs it once."""
    require_permission(spec, setting.option, setting.allow_torchscript)
    found = program_of(spec)
    assert found is not None
    path, side = found
    encoder = ScriptEncoder(os.path.expanduser(path), side, setting.device, setting.batch_size, setting.option)
    encoder.name = spec
    encoder.dims = encoder.features(np.zeros((1, 3, encoder.side, encoder.side), np.uint8)).shape[1]
    return encoder


class ScriptEncoder(Encoder):
    """A TorchScript program: float32 (n, 3, side, side), normalised as for ImageNet → (n, d).

    Args:
        path: Of the file.
        side: To which images are resized, bilinearly, 288 where it is None; a program that does that itself takes none.
        device: On which it is run.
        batch_size: Images at a time.
        option: The option that named it, for messages.

    Raises:
        DataError: If it cannot be read as TorchScript, or takes no side.
    """

    kind = "torchscript"

    def __init__(self, path: str, side: int | None, device: str, batch_size: int, option: str = "encoder") -> None:
        self.name, self.path, self.device, self.batch_size = path, path, device, batch_size
        self._option, self._sha256 = option, hash_of_file(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch calls the format old, which is no news to who was given a file
                self._program = torch.jit.load(path, map_location=device).eval()  # type: ignore[no-untyped-call]
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:120]
            raise DataError(f"`{option}={path}`: cannot be read as TorchScript ({reason})") from None
        self._for_fid = any(argument.name == "return_features" for argument in self._program.forward.schema.arguments)
        if self._for_fid and side is not None:
            raise DataError(f"`{option}={path}`: brings images to its own size; leave the side {side} out")
        self.side = side or SIDE

    def fingerprint(self) -> str:
        """Returns the sha256 of the file."""
        return self._sha256

    def facts(self) -> dict[str, Any]:
        """Returns how images are prepared."""
        if self._for_fid:
            return {"side": None}
        return {"side": self.side, "resample": "bilinear", "mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}

    def features(self, images: np.ndarray, indices: Sequence[int] | None = None) -> Tensor:
        """Returns what the program gives."""
        found = torch.cat([self._run(part) for part in torch.split(torch.from_numpy(images), self.batch_size)])
        if not bool(found.isfinite().all()):
            raise DataError(
                f"`{self._option}={self.path}`: gives descriptors that are not finite; nothing can be compared"
            )
        return found.cpu()

    def _run(self, images: Tensor) -> Tensor:
        x = images.to(self.device)
        x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
        if not self._for_fid:
            x = x.float() / 255 if x.dtype == torch.uint8 else (x + 1) / 2
            x = functional.interpolate(x, (self.side, self.side), mode="bilinear", antialias=True)
            x = (x - x.new_tensor(IMAGENET_MEAN)[:, None, None]) / x.new_tensor(IMAGENET_STD)[:, None, None]
        elif x.dtype != torch.uint8:
            x = ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        try:
            with torch.inference_mode():
                found = self._program(x, return_features=True) if self._for_fid else self._program(x)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[-160:]
            side = "`encoder_side=`" if self._option == "encoder" else "its side, FILE:side=S,"
            raise DataError(
                f"`{self._option}={self.path}`: fails on images {list(x.shape)} ({reason}); is {side} right?"
            ) from None
        if not (isinstance(found, Tensor) and found.dim() == 2 and len(found) == len(x)):
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise DataError(f"`{self._option}={self.path}`: gives {shape} for {len(x)} images; expected [{len(x)}, d]")
        return found.float()
