"""Tensors that still lie in the file: their type and place are checked when met, their bytes read when chosen.

A torch tensor is a strided view of a flat storage. `StoredTensor` holds that description; `materialise` turns the
chosen ones into torch tensors, each storage once, so that tied weights stay tied and nothing else is ever read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeGuard

import torch

from diffscope.checkpoints.machine import Global
from diffscope.errors import CheckpointError

OUTLINE_BYTES = 1 << 16
"""Tables up to this size, such as a family's noise levels, are read even where only an outline is asked for."""

OUTLINE_TOTAL = 1 << 28
"""Bytes that all such tables of a file may have together."""

MAX_DIMENSIONS = 16
MAX_INTEGER = 2**62

DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}

# The storage classes that a persistent id may name, for the CPU and for CUDA.
STORAGE_TABLE: Mapping[tuple[str, str], Global] = {
    **{
        (module, name): Global(f"{module}.{name}", value=dtype)
        for module in ("torch", "torch.cuda")
        for name, dtype in DTYPES.items()
    },
    ("torch.storage", "UntypedStorage"): Global("torch.storage.UntypedStorage", value=torch.uint8),
}


class Source(Protocol):
    """Where the bytes of a storage are."""

    def fill(self, buffer: memoryview) -> None:
        """Copies them into a buffer.

        Args:
            buffer: As long as the storage.

        Raises:
            CheckpointError: If the file is damaged or ends before.
        """


@dataclass(eq=False)
class Storage:
    """A flat array of `numel` elements; `source` is where its bytes are."""

    dtype: torch.dtype
    numel: int
    source: Source | None = None

    @property
    def nbytes(self) -> int:
        """Its length, in bytes."""
        return self.numel * self.dtype.itemsize

    def load(self) -> torch.Tensor:
        """Reads its elements.

        Returns:
            A flat tensor of `numel` elements.

        Raises:
            CheckpointError: If the file is damaged or ends before.
        """
        assert self.source is not None
        flat = torch.empty(self.numel, dtype=self.dtype)
        octets = flat.view(torch.uint8)
        if self.numel:
            self.source.fill(octets.numpy().data)
        # A bool whose byte is neither 0 nor 1 would behave differently from one operation to the next.
        return octets.ne(0) if self.dtype == torch.bool else flat


@dataclass(eq=False)
class StoredTensor:
    """A checked view: sizes and strides in elements of the storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.storage, Storage):
            raise CheckpointError("a tensor whose storage is no storage")
        for numbers in (self.size, self.stride, (self.offset,)):
            if type(numbers) is not tuple or len(numbers) > MAX_DIMENSIONS or not all(map(is_count, numbers)):
                raise CheckpointError("a tensor with a size, stride or offset that is negative or no integer")
        if len(self.size) != len(self.stride):
            raise CheckpointError(f"a tensor of {len(self.size)} dimensions with {len(self.stride)} strides")
        numel = math.prod(self.size)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if numel > self.storage.numel or (last if numel else self.offset - 1) >= self.storage.numel:
            raise CheckpointError(
                f"a tensor of shape {list(self.size)} at offset {self.offset} that reaches beyond its storage of "
                f"{self.storage.numel} elements"
            )


def storage_of(identity: object, fields: int) -> tuple[str, Storage]:
    """Reads the persistent id of a storage.

    Args:
        identity: As the pickle holds it.
        fields: Its number of fields: 5 in a zip file, 6 in a stream.

    Returns:
        (its key, the storage, whose bytes are not yet found).

    Raises:
        CheckpointError: If it is not such an id.
    """
    if type(identity) is not tuple or len(identity) != fields or identity[0] != "storage":
        raise CheckpointError(f"a reference to something else than a storage ({fields} fields expected)")
    kind, key, location, numel = identity[1:5]
    if not isinstance(kind, Global) or not isinstance(kind.value, torch.dtype):
        raise CheckpointError("a storage of unknown type")
    if type(key) is not str or type(location) is not str or not is_count(numel):
        raise CheckpointError("a storage without a proper key, location or size")
    if identity[5:] not in ((), (None,)):
        raise CheckpointError("a storage that is a view of another, which torch has not written since 2017")
    return key, Storage(kind.value, numel)


def materialise(tensors: Mapping[str, StoredTensor], outline: bool = False) -> dict[str, torch.Tensor]:
    """Reads the tensors that were chosen.

    Args:
        tensors: Name → description.
        outline: Leave large ones unread, on the meta device.

    Returns:
        Name → tensor, in the given order; those that share a storage still share it.

    Raises:
        CheckpointError: If one is complex, or the file is damaged.
    """
    loaded: dict[int, torch.Tensor] = {}
    result = {}
    total = 0
    for name, tensor in tensors.items():
        refuse_complex(name, tensor.storage.dtype)
        if outline and tensor.storage.nbytes > OUTLINE_BYTES:
            dtype = tensor.storage.dtype
            result[name] = torch.empty_strided(tensor.size, tensor.stride, dtype=dtype, device="meta")
            continue
        key = id(tensor.storage)
        if key not in loaded:
            total += tensor.storage.nbytes
            if outline and total > OUTLINE_TOTAL:
                raise CheckpointError(f"more than {OUTLINE_TOTAL} bytes in small tensors, which no network has")
            loaded[key] = tensor.storage.load()
        result[name] = torch.as_strided(loaded[key], tensor.size, tensor.stride, tensor.offset)
    return result


def refuse_complex(name: str, dtype: torch.dtype | str) -> None:
    """Refuses tensors of complex numbers.

    Args:
        name: Of the tensor.
        dtype: As torch or safetensors spell it.

    Raises:
        CheckpointError: If it is complex.
    """
    if dtype in (torch.complex64, torch.complex128, "C64", "C128"):
        raise CheckpointError(f"tensor '{name}' is of type {dtype}; real numbers are read")


def is_count(number: object) -> TypeGuard[int]:
    """Tells whether a number is an integer from 0 to below 2^62; a bool is none."""
    return type(number) is int and 0 <= number < MAX_INTEGER
