"""Weights in a folder of the diffusers or transformers library: one file, or several that an index names.

safetensors come before `.bin`, plain names before variants such as fp16. Tensors in safetensors files are read when
they are asked for: copied, or left in the file and mapped into memory, or by their header alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from diffscope.checkpoints import sniff
from diffscope.checkpoints.safetensors_file import names_in, opened, tensor_of
from diffscope.checkpoints.weight_sets import checked_names
from diffscope.errors import CheckpointError

STEM = "diffusion_pytorch_model"
ENCODER_STEMS = ("model",)
"""What the transformers library calls its weights."""
MAX_JSON = 1 << 24  # bytes; an index of 10,000 tensors has 1 MB

BinReader = Callable[[str], Mapping[str, Tensor]]
Access = Literal["copied", "mapped", "outline"]
"""How tensors are given: as copies in memory; in place, in the file; large ones on the meta device, unread."""


class StoredTensors(Mapping[str, Tensor]):
    """Tensors in safetensors files, read when first asked for.

    Args:
        places: Name → (file, name in it).
        access: How they are given.
    """

    def __init__(self, places: Mapping[str, tuple[str, str]], access: Access = "copied") -> None:
        self.places, self.access = places, access
        self._read: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._read:
            path, stored = self.places[name]
            try:
                with opened(path) as file:
                    if self.access == "copied":
                        # In place, where it lies in the file would decide its alignment, and so sums' last bit.
                        self._read[name] = tensor_of(file, stored).clone()
                    else:
                        self._take_all(file, path)
            except OSError as error:
                raise CheckpointError(f"{path}: cannot be read again: {error.strerror or error}") from error
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def renamed(self, names: Mapping[str, str]) -> StoredTensors:
        """Gives the same tensors other names, unread where they are unread.

        Args:
            names: New name → name here.

        Returns:
            Those that `names` lists.
        """
        return StoredTensors({new: self.places[old] for new, old in names.items()}, self.access)

    def _take_all(self, file: Any, path: str) -> None:
        """All tensors of one file, of which no byte is read: that a file is opened once, its header read once."""
        for name, (other, stored) in self.places.items():
            if other == path:
                self._read[name] = tensor_of(file, stored, outline=self.access == "outline")


def read_json(path: str) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        path: A file of at most MAX_JSON bytes.

    Returns:
        The object.

    Raises:
        CheckpointError: If it is no regular file, too large, or no JSON object.
    """
    sniff.refuse_irregular(path)
    name, size = os.path.basename(path), os.path.getsize(path)
    if size > MAX_JSON:
        raise CheckpointError(f"{name} has {size} bytes; {MAX_JSON} are read")
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CheckpointError(f"{name} is not a readable JSON object; fetch or copy it again")
    return found


def choose_weights(names: Sequence[str], stems: Sequence[str] = (STEM,)) -> str | None:
    """Chooses the file to begin with, safetensors before `.bin`, plain names before variants such as fp16.

    Args:
        names: Of all files in a model's folder.
        stems: How they may begin.

    Returns:
        A file of weights, or an index of several; None where there is neither.
    """
    plain = [
        f"{stem}.{kind}{index}" for kind in ("safetensors", "bin") for stem in stems for index in ("", ".index.json")
    ]
    variant = re.compile(rf"(?:{'|'.join(stems)})\.(\w+\.(safetensors|bin)|(safetensors|bin)\.index(\.\w+)?\.json)")
    variants = [n for n in sorted(names) if variant.fullmatch(n)]
    variants.sort(key=lambda name: ".bin" in name)
    return next((name for name in (*plain, *variants) if name in names), None)


def is_shard(name: str, stems: Sequence[str] = (STEM,)) -> bool:
    """Tells whether a file is one of several with a model's weights.

    Args:
        name: Of the file.
        stems: How the names of such files begin.
    """
    return bool(re.fullmatch(rf"(?:{'|'.join(stems)})(\.\w+)?-\d{{5}}-of-\d{{5}}(\.\w+)?\.(safetensors|bin)", name))


def read_weights(
    folder: str, read_bin: BinReader | None = None, access: Access = "copied", stems: Sequence[str] = (STEM,)
) -> tuple[Mapping[str, Tensor], list[str], str]:
    """Reads the weights in a model's folder.

    Args:
        folder: With the weights.
        read_bin: Reads a `.bin` file as data; None where only safetensors are taken.
        access: How tensors in safetensors files are given.
        stems: How the files' names begin.

    Returns:
        (tensors, their files, which they were and why).

    Raises:
        CheckpointError: If there are none, or one of several files is missing or damaged.
    """
    first = choose_weights(os.listdir(folder), stems)
    if first is None or (read_bin is None and ".bin" in first):
        other = "" if read_bin is None else f" or {stems[0]}.bin"
        raise CheckpointError(f"no weights beside the config.json: expected {stems[0]}.safetensors{other}")
    names = [first]
    if first.endswith(".json"):
        names = _shards(os.path.join(folder, first), stems)
    files = [os.path.join(folder, name) for name in names]
    if absent := [name for name in names if not os.path.exists(os.path.join(folder, name))]:
        raise CheckpointError(f"'{absent[0]}', which {first} names, is missing; fetch or copy the folder again")
    for file in files:
        sniff.refuse_irregular(file)
    if names[0].endswith(".bin") and read_bin is not None:
        tensors: Mapping[str, Tensor] = {name: t for file in files for name, t in read_bin(file).items()}
        return tensors, files, f"the weights of {first}, for there are no safetensors"
    places: dict[str, tuple[str, str]] = {}
    for file in files:
        with open(file, "rb") as head:
            if sniff.kind_of(head.read(sniff.HEAD), os.path.getsize(file)) != "safetensors":
                raise CheckpointError(f"{os.path.basename(file)} is no safetensors file; fetch or copy it again")
        with opened(file) as library:
            places.update({name: (file, name) for name in names_in(library)})
    checked_names(places)
    return StoredTensors(places, access), files, f"the weights of {first}"


def _shards(index: str, stems: Sequence[str]) -> list[str]:
    """Reads an index of weights.

    Args:
        index: A `.index.json` file.
        stems: How the files' names begin.

    Returns:
        The files that it names, sorted; all of them lie beside it.

    Raises:
        CheckpointError: If it names no files, or others than weights beside it.
    """
    table = read_json(index).get("weight_map")
    found = list(table.values()) if isinstance(table, dict) else []
    names = sorted({name for name in found if type(name) is str})
    if not names or not all(type(name) is str and is_shard(name, stems) for name in found):
        raise CheckpointError(f"{os.path.basename(index)} does not name the weights' files; fetch or copy it again")
    return names
