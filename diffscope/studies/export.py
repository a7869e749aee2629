"""The features themselves, for other tools: one tensor a layer in a safetensors file, written piece by piece.

The file is laid out before anything is computed and filled through a memory map, so that it may be larger than RAM.
Beside it, until it is whole, stand the file in work and the list of finished pieces; the same command goes on from
there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffscope import __version__
from diffscope.errors import DiffscopeError, NonFinite, StoreError
from diffscope.features import Extractor, Inputs, cure
from diffscope.ranks import world
from diffscope.store import Arrays, Record, write_atomically
from diffscope.studies.blocks import check_unreadable
from diffscope.studies.listener import Listener
from diffscope.studies.settings import Job

PIECE = 512
"""Images at most that are computed before they are put into the file: 57 MB at 12 levels and 1,152 features."""

Tensors = dict[str, tuple[str, tuple[int, ...]]]
"""Dtype and shape by name."""

_NUMPY: dict[str, Any] = {"F32": np.float32, "F64": np.float64, "I64": np.int64}


def export(job: Job, path: Path, listener: Listener | None = None) -> dict[str, Any]:
    """Write `layer` [levels, views, images, d] float32, `sigma` [levels], `index` [images], `label` [images].

    Images stand in ascending order of their index; those that cannot be read are left out. Returns what was written,
    for a summary, once the file is there.
    """
    listener = listener or Listener()
    plan = job.plan
    order = np.sort(job.indices)
    protocol = job.protocol.to_json()
    shape = (len(plan.sigmas), plan.views, len(order))
    tensors: Tensors = {layer.name: ("F32", (*shape, plan.width(layer))) for layer in plan.layers}
    tensors |= {"sigma": ("F64", (len(plan.sigmas),)), "index": ("I64", (len(order),))}
    if job.source.labels is not None:
        tensors["label"] = ("I64", (len(order),))
    about = {"diffscope": __version__, "protocol": json.dumps(protocol), "t": json.dumps([at.t for at in job.levels])}

    part = path.with_name(f".{path.name}.{protocol['hash'][:16]}.part")
    journal = part.with_suffix(".done")
    done, skipped = world().lead(lambda: _finished(part, journal))
    arrays: dict[str, np.memmap] = {}

    def lay_out() -> None:
        arrays.update(_mapped(part, tensors, about, fresh=not done))
        arrays["sigma"][:] = plan.sigmas
        arrays["index"][:] = order
        if job.source.labels is not None:
            arrays["label"][:] = job.source.labels[order]

    def finish() -> dict[str, Any]:
        kept = np.flatnonzero(~np.isin(order, skipped))
        smaller = part.with_suffix(".kept")
        written = _compacted(smaller, arrays, tensors, about, kept) if skipped else tensors
        os.replace(smaller if skipped else part, path)
        arrays.clear()
        journal.unlink(missing_ok=True)
        part.unlink(missing_ok=True)
        shapes = {name: list(shape) for name, (_, shape) in written.items()}
        return {"path": str(path), "tensors": shapes, "skipped": [job.source.name(index) for index in skipped]}

    world().lead(lay_out)
    _run(job, _Filling(job, arrays, done, skipped, journal), listener)
    return world().lead(finish)


def _compacted(
    smaller: Path, arrays: dict[str, np.memmap], tensors: Tensors, about: dict[str, str], kept: np.ndarray
) -> Tensors:
    """The file again as `smaller`, without the rows of images that could not be read."""

    def shape(name: str, old: tuple[int, ...]) -> tuple[int, ...]:
        if name == "sigma":
            return old
        return (len(kept),) if len(old) == 1 else (*old[:2], len(kept), old[3])

    fewer = {name: (dtype, shape(name, old)) for name, (dtype, old) in tensors.items()}
    for name, array in _mapped(smaller, fewer, about, fresh=True).items():
        array[:] = (
            arrays[name] if name == "sigma" else arrays[name][..., kept, :] if array.ndim == 4 else arrays[name][kept]
        )
        array.flush()
    return fewer


def _write_journal(journal: Path, done: list[int], skipped: list[int]) -> None:
    def write(path: Path) -> None:
        path.write_text(json.dumps({"done": done, "skipped": skipped}))

    write_atomically(journal, write)


@dataclass
class _Filling:
    """The file in work."""

    job: Job
    arrays: dict[str, np.memmap]
    done: list[int]
    """Pieces, by number."""
    skipped: list[int]
    """Images that could not be read."""
    journal: Path

    def take(self, number: int, images: Sequence[int], found: Arrays, record: Record) -> None:
        """Put a piece in its place; what is in the journal is in the file."""
        rows = np.searchsorted(self.arrays["index"], found.pop("read"))
        for name, z in found.items():
            self.arrays[name][:, :, rows] = z
        for array in self.arrays.values():
            array.flush()
        missing = sorted({*images} - {int(index) for index in self.arrays["index"][rows]})
        self.skipped += missing
        if missing:
            check_unreadable(self.job, len(self.skipped), record["skipped"])
        self.done.append(number)
        _write_journal(self.journal, self.done, self.skipped)


def _run(job: Job, filling: _Filling, listener: Listener) -> None:
    """The pieces that are not in the file yet, dealt to the processes in turn."""
    several = world()
    pieces = [
        [int(index) for index in job.block(block)[start : start + PIECE]]
        for block in range(job.blocks)
        for start in range(0, len(job.block(block)), PIECE)
    ]
    passes = job.plan.views * len(job.plan.sigmas)
    listener.advance(passes * sum(len(pieces[number]) for number in filling.done))
    missing = [number for number in range(len(pieces)) if number not in set(filling.done)]
    extractor = Extractor(job.denoiser, Inputs(job.source, job.plan, job.settings.strict, say=listener.say), job.plan)
    for first in range(0, len(missing), several.size):
        dealt = missing[first : first + several.size]
        mine = _attempt(extractor, pieces[dealt[several.rank]], listener) if several.rank < len(dealt) else None

        def take(rank: int, found: Arrays, record: Record, dealt: list[int] = dealt) -> None:
            images = pieces[dealt[rank]]
            if rank:
                listener.advance(passes * len(images))
            filling.take(dealt[rank], images, found, record)

        several.gather(mine, take)


def _attempt(extractor: Extractor, images: Sequence[int], listener: Listener) -> tuple[Arrays, Record] | DiffscopeError:
    before = len(extractor.inputs.skipped)
    try:
        arrays = _measure(extractor, images, listener)
    except DiffscopeError as error:
        return error
    return arrays, {"skipped": extractor.inputs.skipped[before:]}


def _measure(extractor: Extractor, images: Sequence[int], listener: Listener) -> Arrays:
    """`layer` [levels, views, images, d] of the images that could be read, and `read`, their indices."""
    plan = extractor.plan
    shape = (len(plan.sigmas), plan.views, len(images))
    arrays: Arrays = {layer.name: np.empty((*shape, plan.width(layer)), np.float32) for layer in plan.layers}
    count: dict[tuple[int, int], int] = {}
    read: list[int] = []
    for features in extractor.run(images):
        name = plan.layers[features.layer].name
        z = features.z.cpu().numpy()
        if not np.isfinite(z).all():
            image = extractor.inputs.source.name(features.indices[int(np.argwhere(~np.isfinite(z))[0, 0])])
            raise NonFinite(
                f"image {image}: features of {name} are not finite in {plan.precision}; {cure(plan.precision)}"
            )
        key = (features.level, features.layer)
        start = count.get(key, 0)
        count[key] = start + len(z)
        arrays[name][features.level][:, start : start + len(z)] = z.transpose(1, 0, 2)
        if key == (0, 0):
            read += features.indices
        if features.layer == len(plan.layers) - 1:
            listener.advance(len(z) * plan.views)
    return {name: z[:, :, : len(read)] for name, z in arrays.items()} | {"read": np.array(read, dtype=np.int64)}


def _finished(part: Path, journal: Path) -> tuple[list[int], list[int]]:
    """Pieces done and images skipped by an earlier run of the same protocol."""
    if not part.exists():
        return [], []
    try:
        record = json.loads(journal.read_text())
        return record["done"], record["skipped"]
    except (OSError, ValueError, KeyError):
        return [], []


def _mapped(part: Path, tensors: Tensors, about: dict[str, str], fresh: bool) -> dict[str, np.memmap]:
    """The file's tensors as memory maps; a fresh file gets its safetensors header and its full length first."""
    header: dict[str, Any] = {"__metadata__": about}
    end = 0
    # The widest dtypes first, so that every tensor is aligned.
    for name, (dtype, shape) in sorted(tensors.items(), key=lambda item: item[1][0] == "F32"):
        size = int(np.prod(shape)) * np.dtype(_NUMPY[dtype]).itemsize
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    try:
        if fresh:
            part.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "wb") as file:
                file.write(len(text).to_bytes(8, "little") + text)
                file.truncate(start + end)
        return {
            name: np.memmap(part, _NUMPY[dtype], "r+", start + header[name]["data_offsets"][0], shape)
            for name, (dtype, shape) in tensors.items()
        }
    except OSError as error:
        raise StoreError(f"{part.parent}: cannot write {end / 1e6:.0f} MB there: {error.strerror or error}") from None
