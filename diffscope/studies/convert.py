"""Any checkpoint as safetensors, so that a pickle has to be read once: weights as they are, facts in the metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from diffscope import __version__
from diffscope.cache.store import Tensor, as_bytes, write_atomically, write_tensors
from diffscope.checkpoints import Checkpoint, read
from diffscope.errors import CheckpointError, StoreError, UsageError
from diffscope.families.base import Denoiser
from diffscope.formats import TENSOR_DTYPES
from diffscope.measure.folder import metadata_of
from diffscope.results import Record

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def refuse_other_weights(checkpoint: Checkpoint, output: Path) -> None:
    """Refuses to replace a file that was not converted from the same weights; StoreError."""
    metadata = metadata_of(output)
    if metadata is None:
        return
    same = {"source_sha256": checkpoint.sha256(), "weights": checkpoint.weights}
    if not same.items() <= metadata.items():
        raise StoreError(f"{output}: there already, and made from other weights; choose another name, or `overwrite=`")


def convert(checkpoint: Checkpoint, denoiser: Denoiser, path: Path, dtype: str | None = None) -> Record:
    """Write the weights in use under the file's own names; `dtype` None keeps the stored ones.

    The metadata carry family, constructor arguments, step and where the file came from. What was written is read back
    and compared bit by bit. Raises UsageError for an unknown dtype, CheckpointError where the kind of file has a
    better format already.
    """
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype}: expected one of {', '.join(DTYPES)}")
    if checkpoint.container in ("toy", "mixture", "diffusers", "live"):
        raise CheckpointError(f"{checkpoint.path}: nothing to convert in a checkpoint of kind {checkpoint.container}")
    tensors = {
        name: _cast(tensor, None if name in denoiser.exact else dtype).contiguous()
        for name, tensor in checkpoint.tensors.items()
    }
    metadata = {
        "format": "pt",
        "diffscope": __version__,
        "family": denoiser.family,
        "class": denoiser.network_class,
        "arguments": json.dumps(denoiser.constructor),
        "weights": checkpoint.weights,
        "source": checkpoint.name,
        "source_sha256": checkpoint.sha256(),
    }
    if checkpoint.step is not None:
        metadata |= {"step": str(checkpoint.step), "step_unit": str(checkpoint.step_unit)}
    write_atomically(path, lambda part: write_tensors(part, _described(checkpoint.path, tensors), metadata))
    _check(path, tensors)
    found = {"path": str(path), "bytes": path.stat().st_size, "tensors": len(tensors), "metadata": metadata}
    return Record("convert", found)


def _cast(tensor: torch.Tensor, dtype: str | None) -> torch.Tensor:
    return tensor.to(DTYPES[dtype]) if dtype and tensor.is_floating_point() else tensor


def _described(path: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, Tensor]:
    """As `write_tensors` takes them; CheckpointError for a dtype that the format does not have."""
    found = {}
    for name, tensor in tensors.items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in TENSOR_DTYPES:
            raise CheckpointError(f"{path}: {name} is {dtype}, which safetensors cannot hold; give --dtype float32")
        found[name] = dtype, tuple(tensor.shape), as_bytes(tensor.reshape(-1).view(torch.uint8).numpy())
    return found


def _check(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    back = read(str(path)).tensors
    differing = [name for name, tensor in tensors.items() if name not in back or not _equal(back[name], tensor)]
    if differing or len(back) != len(tensors):
        raise CheckpointError(f"{path}: {differing[:3]} came back changed; the disk or its file system is at fault")


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    # As bytes: NaN is equal to itself then.
    same = a.dtype == b.dtype and a.shape == b.shape
    return same and a.contiguous().view(-1).view(torch.uint8).equal(b.contiguous().view(-1).view(torch.uint8))
