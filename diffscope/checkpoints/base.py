"""The record that reading a checkpoint gives, whatever kind of file it came from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from diffscope.errors import CheckpointError

HASH_CHUNK = 1 << 22  # bytes per read while hashing


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Flat tensors and what the file says of itself; all values are plain Python, none is the file's own object."""

    path: str
    """The path as it was given."""
    container: str
    """edm-pickle, training-state, state-dict, train-dump, lightning, safetensors; of folders diffusers, accelerate or
    distributed; without a file toy, mixture or live."""
    tensors: Mapping[str, torch.Tensor]
    """Named as the network's own state dict, `module.` and `_orig_mod.` stripped; order and dtypes as stored."""
    weights: str
    """ema or model: the set that was taken."""
    weights_reason: str
    """How that was decided, in one sentence, and what beside tensors the set held."""
    class_name: str | None = None
    """Class of the top object, such as EDMPrecond."""
    network_class: str | None = None
    """Class of its child `model` or `unet`, such as SongUNet."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What the top object's constructor was called with, defaults not filled in; positional ones under `_init_args`."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Plain attributes of the top object, such as sigma_min and sigma_data."""
    training_args: Mapping[str, Any] = field(default_factory=dict)
    """The training script's options, from `args` or `config`."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """The header of a safetensors file."""
    step: int | None = None
    """How far training was, from the file's content or else from its name."""
    step_unit: str | None = None
    """What `step` counts: steps or images."""
    local: str = ""
    """Where its bytes are on this disk; empty where that is `path`."""
    revision: str | None = None
    """The commit that it was taken from, where `path` is a Hub reference."""
    files: tuple[str, ...] = ()
    """The files with the weights, in order, where `path` is a folder."""
    checksums: int | None = None
    """How many were compared and fit; 0 where the kind of file has none, None where that was not asked for."""

    @property
    def name(self) -> str:
        """The file's own name, also where the reference to it does not spell it out."""
        return os.path.basename(self.local or self.path)

    def sha256(self) -> str:
        """Gives the sha256 of the bytes of the file or files (analytic models: of the spelling; live: of the tensors).

        It is computed at the first call: seconds for gigabytes.

        Returns:
            64 hexadecimal digits.

        Raises:
            CheckpointError: If a file cannot be read again.
        """
        return self._digest

    def hashed(self, sha256: str) -> Checkpoint:
        """Gives the same record with a sha256 that is known: gigabytes are not read for it again.

        Args:
            sha256: Of its bytes, 64 hexadecimal digits.

        Returns:
            The record itself.
        """
        self.__dict__["_digest"] = sha256
        return self

    @cached_property
    def _digest(self) -> str:
        if self.container in ("toy", "mixture"):
            return hashlib.sha256(self.path.encode()).hexdigest()
        digest = hashlib.sha256()
        if self.container == "live":
            for name, tensor in self.tensors.items():
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
            return digest.hexdigest()
        try:
            for path in self.files or (self.local or self.path,):
                with open(path, "rb") as file:
                    while chunk := file.read(HASH_CHUNK):
                        digest.update(chunk)
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read again for its sha256: {error.strerror}") from error
        return digest.hexdigest()
