"""A safetensors file: names, shapes and facts from its header; a tensor's bytes when they are asked for.

https://github.com/huggingface/safetensors#format. The header of our own conversions carries a `Checkpoint`'s fields,
each as JSON, so that nothing is lost on the way.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator
from typing import Any

import safetensors
import torch

from diffscope.checkpoints.base import Checkpoint
from diffscope.checkpoints.run_files import run_file
from diffscope.checkpoints.steps import step_of_header
from diffscope.checkpoints.storages import OUTLINE_BYTES, refuse_complex
from diffscope.checkpoints.weight_sets import checked_names
from diffscope.checkpoints.weights import choose_names
from diffscope.errors import CheckpointError
from diffscope.formats import TENSOR_DTYPES

DTYPES: dict[str, torch.dtype] = {
    code: getattr(torch, name) for name, code in TENSOR_DTYPES.items() if hasattr(torch, name)
}
MAX_FACT = 1 << 20  # characters of JSON under one key of the header


def read_safetensors(path: str, outline: bool, weights: str = "ema") -> Checkpoint:
    """Reads a safetensors file.

    Args:
        path: Of the file.
        outline: Leave large tensors unread, on the meta device.
        weights: "ema" or "model", of a file with both.

    Returns:
        Its record.

    Raises:
        CheckpointError: If it is damaged, has no tensors, or its header is not what a conversion of ours writes.
    """
    with opened(path) as file:
        metadata = dict(file.metadata() or {})
        names = names_in(file)
        if not names:
            raise CheckpointError("a safetensors file without tensors")
        known = metadata.get("weights")
        if known in ("ema", "model"):
            places = {name: name for name in names}
            reason = f"the file holds one set of weights and its header says that it is '{known}'"
        elif (named := run_file(path)) is not None:
            places, known, reason = {name: name for name in names}, named.weights, f"the file's name says {named.kind}"
        else:
            choice = choose_names(names, weights)
            places, known, reason = choice.taken.tensors, choice.weights, choice.reason
        tensors = {own: tensor_of(file, name, outline) for own, name in places.items()}
    step, unit = step_of_header(metadata, path)
    return Checkpoint(
        path=path,
        container="safetensors",
        tensors=tensors,
        weights=known,
        weights_reason=reason,
        class_name=metadata.get("class_name"),
        network_class=metadata.get("network_class"),
        arguments=_header_dict(metadata, "arguments"),
        attributes=_header_dict(metadata, "attributes"),
        training_args=_header_dict(metadata, "training_args"),
        metadata=metadata,
        step=step,
        step_unit=unit,
    )


@contextlib.contextmanager
def opened(path: str) -> Iterator[Any]:
    """Opens a file by the format's own library.

    Args:
        path: Of the file.

    Yields:
        The library's handle.

    Raises:
        CheckpointError: If the library finds the file damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"a damaged file ({os.path.basename(path)}: {error}); fetch or copy it again") from error


def names_in(file: Any) -> list[str]:
    """Lists the tensors of a file.

    Args:
        file: From `opened`.

    Returns:
        Their names, in the file's order where safetensors is new enough to tell it.

    Raises:
        CheckpointError: If there are too many, or a name is not printable.
    """
    return checked_names(getattr(file, "offset_keys", file.keys)())


def tensor_of(file: Any, name: str, outline: bool = False) -> torch.Tensor:
    """Reads one tensor.

    Args:
        file: From `opened`.
        name: Of the tensor.
        outline: Leave a large one unread, on the meta device.

    Returns:
        The tensor, in the dtype stored.

    Raises:
        CheckpointError: If it is complex.
    """
    part = file.get_slice(name)
    refuse_complex(name, part.get_dtype())
    shape, dtype = part.get_shape(), DTYPES.get(part.get_dtype())
    if outline and dtype is not None and math.prod(shape) * dtype.itemsize > OUTLINE_BYTES:
        return torch.empty(shape, dtype=dtype, device="meta")
    tensor: torch.Tensor = file.get_tensor(name)
    return tensor


def _header_dict(metadata: dict[str, str], key: str) -> dict[str, Any]:
    """Reads a field of the header that our conversions write as JSON.

    Args:
        metadata: The header.
        key: Name of the field.

    Returns:
        The object; empty where the field is missing or another writer's.

    Raises:
        CheckpointError: If it is too long or nested too deeply.
    """
    text = metadata.get(key, "{}")
    try:
        if len(text) > MAX_FACT:
            raise RecursionError
        found = json.loads(text)
    except ValueError:
        return {}  # somebody else's header, whose `arguments` mean something else; it stays under `metadata`
    except RecursionError:
        raise CheckpointError(
            f"its header has '{key}' of {len(text)} characters, nested too deeply or more than {MAX_FACT}"
        ) from None
    return found if isinstance(found, dict) else {}
