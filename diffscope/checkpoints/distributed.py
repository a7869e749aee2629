"""Shards of several processes, as torch.distributed.checkpoint (FSDP) writes them: read as data, one tensor at a time.

`.metadata` is a pickle of plain records, which says of each tensor its size and which chunk of it lies where; a chunk
is a small file of torch.save in the middle of a `.distcp` file. Both go through this package's own reader.
"""

from __future__ import annotations

import io
import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor

from diffscope.checkpoints import sniff
from diffscope.checkpoints.archive import Archive
from diffscope.checkpoints.budget import Budget
from diffscope.checkpoints.machine import Global, Machine
from diffscope.checkpoints.standins import Fields
from diffscope.checkpoints.storages import OUTLINE_BYTES, StoredTensor, is_count, materialise
from diffscope.checkpoints.table import TORCH_DTYPES, metadata_table, table_of
from diffscope.checkpoints.weight_sets import checked_names
from diffscope.checkpoints.window import Window
from diffscope.errors import CheckpointError

METADATA = ".metadata"
SHARD = re.compile(r"\w[\w.-]*\.distcp")
MERGE = "put the shards together with `accelerate merge-weights FOLDER OUT` and give OUT"
MAX_CHUNKS = 2048  # of one tensor, one a process
MAX_METADATA = 1 << 27  # bytes; 10,000 tensors on 64 processes have some 50 MB


@dataclass(frozen=True)
class Chunk:
    """A part of a tensor, and where its file lies."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    path: str
    start: int
    length: int


@dataclass(frozen=True)
class Whole:
    """A tensor in chunks."""

    dtype: torch.dtype
    size: tuple[int, ...]
    chunks: tuple[Chunk, ...]


class Shards(Mapping[str, Tensor]):
    """Tensors in shards, put together when first asked for.

    Args:
        wholes: Name → where its chunks lie.
        outline: Leave large tensors unread, on the meta device.
    """

    def __init__(self, wholes: Mapping[str, Whole], outline: bool) -> None:
        self.wholes, self.outline = wholes, outline
        self._read: dict[str, Tensor] = {}

    def renamed(self, names: Mapping[str, str]) -> Shards:
        """Takes some tensors under other names.

        Args:
            names: Other name → name.

        Returns:
            Those tensors, unread.
        """
        return Shards({other: self.wholes[name] for other, name in names.items()}, self.outline)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._read:
            whole = self.wholes[name]
            if self.outline and math.prod(whole.size) * whole.dtype.itemsize > OUTLINE_BYTES:
                return torch.empty(whole.size, dtype=whole.dtype, device="meta")
            self._read[name] = put_together(name, whole)
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.wholes)

    def __len__(self) -> int:
        return len(self.wholes)


def read_shards(folder: str, outline: bool) -> tuple[Shards, list[str]]:
    """Reads where the tensors of a folder of shards lie.

    Args:
        folder: With `.metadata` and the shards.
        outline: Leave large tensors unread, on the meta device.

    Returns:
        (the tensors, all files).

    Raises:
        CheckpointError: If the metadata is damaged or not understood, or a shard is missing.
        UnsafePickle: If the metadata asks for more than records.
    """
    path = os.path.join(folder, METADATA)
    sniff.refuse_irregular(path)
    size = os.path.getsize(path)
    if size > MAX_METADATA:
        raise CheckpointError(f"{METADATA} has {size} bytes; {MAX_METADATA} are read; {MERGE}")
    budget = Budget()
    with open(path, "rb") as file:
        top = Machine(Window(file, 0, size), metadata_table(budget), budget).load()
    fields = _fields(top, "Metadata")
    places = _places(folder, fields.get("storage_data"))
    described = fields.get("state_dict_metadata")
    if not isinstance(described, dict) or not all(type(name) is str for name in described):
        raise _odd("no table of tensors")
    wholes = {
        name: _whole(name, value, places)
        for name, value in described.items()
        if isinstance(value, Fields) and value.name == "TensorStorageMetadata"
    }
    if not wholes:
        raise CheckpointError(f"{METADATA} names no tensors; the folder of a network's weights was expected")
    checked_names(wholes)
    files = sorted({chunk.path for whole in wholes.values() for chunk in whole.chunks})
    return Shards(wholes, outline), [path, *files]


def _places(folder: str, table: object) -> dict[tuple[str, tuple[int, ...]], tuple[str, int, int]]:
    """Reads where chunks lie.

    Args:
        folder: With the shards.
        table: Of the metadata: MetadataIndex → _StorageInfo.

    Returns:
        (tensor's name, offsets of the chunk) → (file, first byte, number of bytes).

    Raises:
        CheckpointError: If it is no such table, or a shard is missing or shorter.
    """
    if not isinstance(table, dict):
        raise _odd("no table of shards")
    found, lengths = {}, {}
    for key, value in table.items():
        index, info = _fields(key, "MetadataIndex"), _fields(value, "_StorageInfo")
        name, offsets = index.get("fqn"), index.get("offset") or ()
        file, start, length = (info.get(field) for field in ("relative_path", "offset", "length"))
        if type(name) is not str or not _are_counts(offsets) or not is_count(start) or not is_count(length):
            raise _odd("a chunk without a proper place")
        if type(file) is not str or SHARD.fullmatch(file) is None:
            raise _odd(f"a shard of the name {str(file)[:60]!r}")
        if info.get("transform_descriptors"):
            raise _odd("compressed shards")
        path = os.path.join(folder, file)
        if path not in lengths:
            sniff.refuse_irregular(path)
            lengths[path] = os.path.getsize(path)
        if start + length > lengths[path]:
            raise CheckpointError(f"{file} is shorter than {METADATA} says; fetch or copy the folder again")
        found[name, tuple(offsets)] = path, start, length
    return found


def _whole(name: str, record: Fields, places: Mapping[tuple[str, tuple[int, ...]], tuple[str, int, int]]) -> Whole:
    """Reads the description of one tensor; CheckpointError where its chunks do not make it up."""
    fields = _fields(record, "TensorStorageMetadata")
    properties = fields.get("properties")
    state = properties.state if isinstance(properties, Fields) else None
    # Its own __getstate__ gives a tuple, dtype first; torch before 2.1 gives the fields.
    dtype = state[0] if type(state) is tuple and state else state.get("dtype") if isinstance(state, dict) else None
    spelled = dtype.value.removeprefix("torch.") if isinstance(dtype, Global) and type(dtype.value) is str else ""
    size, chunks = fields.get("size"), fields.get("chunks")
    if spelled not in TORCH_DTYPES or not _are_counts(size) or not isinstance(chunks, list) or len(chunks) > MAX_CHUNKS:
        raise _odd(f"'{name}' without a proper type, size or chunks")
    found, kind = [], getattr(torch, spelled)
    for chunk in chunks:
        said = _fields(chunk, "ChunkStorageMetadata")
        offsets, sizes = said.get("offsets"), said.get("sizes")
        if not _are_counts(offsets) or not _are_counts(sizes) or not len(offsets) == len(sizes) == len(size):
            raise _odd(f"'{name}' with a chunk of no proper size")
        place = places.get((name, tuple(offsets)))
        inside = all(o + s <= whole for o, s, whole in zip(offsets, sizes, size, strict=True))
        if place is None or not inside or math.prod(sizes) * kind.itemsize > place[2]:
            raise _odd(f"'{name}' with a chunk that is missing, lies outside of it or has too few bytes")
        found.append(Chunk(tuple(offsets), tuple(sizes), *place))
    if sum(math.prod(chunk.sizes) for chunk in found) != math.prod(size) or _overlap(found):
        raise _odd(f"'{name}' whose chunks do not make it up")
    return Whole(kind, tuple(size), tuple(found))


def _overlap(chunks: list[Chunk]) -> bool:
    """Tells whether two chunks have elements in common."""
    pairs = itertools.combinations([chunk for chunk in chunks if math.prod(chunk.sizes)], 2)
    return any(
        all(a < b + m and b < a + n for a, n, b, m in zip(x.offsets, x.sizes, y.offsets, y.sizes, strict=True))
        for x, y in pairs
    )


def put_together(name: str, whole: Whole) -> Tensor:
    """Reads a tensor's chunks.

    Args:
        name: Of the tensor.
        whole: Where they lie.

    Returns:
        The tensor.

    Raises:
        CheckpointError: If a chunk is damaged, or not what the metadata says.
    """
    result = torch.empty(whole.size, dtype=whole.dtype)
    for chunk in whole.chunks:
        part = _read_chunk(chunk)
        if part.dtype != whole.dtype or tuple(part.shape) != chunk.sizes:
            raise CheckpointError(
                f"{os.path.basename(chunk.path)}: a chunk of '{name}' is {part.dtype} {list(part.shape)}; "
                f"{METADATA} says {whole.dtype} {list(chunk.sizes)}; fetch or copy the folder again"
            )
        result[tuple(slice(o, o + s) for o, s in zip(chunk.offsets, chunk.sizes, strict=True))] = part
    return result


def _read_chunk(chunk: Chunk) -> Tensor:
    """Reads the tensor in one stretch of a shard, which is a file of torch.save by itself."""
    with open(chunk.path, "rb") as file:
        octets = Window(file, chunk.start, chunk.start + chunk.length).read(chunk.length)
    if not octets.startswith(b"PK\x03\x04"):
        raise CheckpointError(f"{os.path.basename(chunk.path)}: a chunk that torch.save did not write; {MERGE}")
    budget = Budget()
    found = Archive(io.BytesIO(octets), chunk.length).read(table_of(budget), budget)
    if not isinstance(found, StoredTensor):
        raise CheckpointError(f"{os.path.basename(chunk.path)}: a chunk that is no tensor; {MERGE}")
    return materialise({"chunk": found})["chunk"]


def _fields(record: object, name: str) -> dict[str, Any]:
    """Gives the fields of a record; CheckpointError where it is of another class."""
    if not isinstance(record, Fields) or record.name != name or not isinstance(record.state, dict):
        raise _odd(f"no {name} where one was expected")
    return record.state


def _are_counts(numbers: object) -> TypeGuard[tuple[int, ...]]:
    return type(numbers) is tuple and all(map(is_count, numbers))


def _odd(what: str) -> CheckpointError:
    return CheckpointError(f"{METADATA} is not understood: {what}; {MERGE}")
