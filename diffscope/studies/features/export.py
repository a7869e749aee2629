"""The features themselves, for other tools: one tensor a layer in a safetensors file, written piece by piece.

The file is laid out before anything is computed and filled through a memory map, so that it may be larger than RAM.
Beside it, until it is whole, stand the file in work and the list of finished pieces; the same command goes on from
there.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from diffscope import __version__, results
from diffscope.cache.store import Arrays, Record, Records, as_bytes
from diffscope.errors import DiffscopeError, StoreError
from diffscope.extraction import Extractor, Inputs, Skipped, not_finite
from diffscope.families.base import Denoiser
from diffscope.measure.cautions import warnings_of
from diffscope.measure.estimate import Estimate, of_job, passes_a_second
from diffscope.measure.folder import metadata_of, require_same
from diffscope.measure.job import Job
from diffscope.measure.memory import passes_at_once
from diffscope.measure.opening import open_images, open_job
from diffscope.measure.progress import Listener
from diffscope.measure.run import check_unreadable
from diffscope.measure.study import Finished
from diffscope.options.settings import Loading, Settings
from diffscope.ranks import world

PIECE = 512
"""Images at most that are computed before they are put into the file: 57 MB at 12 levels and 1,152 features."""

Tensors = dict[str, tuple[str, tuple[int, ...]]]
"""Dtype and shape by name."""

_NUMPY: dict[str, Any] = {"F32": np.float32, "F64": np.float64, "I64": np.int64}


@dataclass(frozen=True)
class ExportStudy:
    """Features to be written to a file."""

    job: Job
    path: Path
    unit: str = "passes"

    @property
    def total(self) -> float:
        """Forward passes."""
        return passes_at_once(self.job)

    def warnings(self) -> list[str]:
        """What a user should know before the run."""
        return warnings_of(self.job)

    def estimate(self) -> Estimate:
        """What the run would take."""
        return estimate(self.job)

    def run(self, folder: Path | None, listener: Listener) -> Finished:
        """Writes the file, which is the result; the record says what is in it."""
        written = export(self.job, self.path, listener)
        if world().leads and (skipped := written["skipped"]):
            listener.warn(f"{len(skipped)} unreadable images were left out; the first: {skipped[0]}")
        return Finished(written)


def open_export(
    checkpoint: str | Denoiser, data: str, settings: Settings, loading: Loading, *, path: Path, overwrite: bool = False
) -> ExportStudy:
    """Opens images and checkpoint, and looks at what is at `path`.

    Raises:
        StoreError: Where the file is there and holds no features, or those of another protocol, unless it may be
            overwritten.
        DiffscopeError: Whatever keeps images and checkpoint from being opened.
    """
    job = open_job(checkpoint, open_images(settings, data), settings, loading)
    if not overwrite:
        world().lead(partial(_refuse_other, job.protocol.to_json(), path))
    return ExportStudy(job, path)


def _refuse_other(protocol: Mapping[str, Any], path: Path) -> None:
    metadata = metadata_of(path)
    if metadata is None:
        return
    if "protocol" not in metadata:
        raise StoreError(f"{path}: there already, and not made by features; choose another `out=`, or `overwrite=`")
    require_same(json.loads(metadata["protocol"]), protocol, path, "out")


def export(job: Job, path: Path, listener: Listener | None = None) -> results.Record:
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
    filling = _Filling(job, _pieces(job), Records(part.parent, listener.say), part.stem)

    def begin() -> list[int]:
        """The numbers of the pieces that an earlier run of the same protocol finished."""
        resumed = filling.resume(part, listener) if part.exists() else False
        arrays = filling.arrays = _mapped(part, tensors, about, fresh=not resumed)
        arrays["sigma"][:] = plan.sigmas
        arrays["index"][:] = order
        if job.source.labels is not None:
            arrays["label"][:] = job.source.labels[order]
        filling.drop_damaged(listener)
        return sorted(filling.done)

    def finish() -> dict[str, Any]:
        arrays, skipped = filling.arrays, filling.skipped
        kept = np.flatnonzero(~np.isin(order, skipped))
        smaller = part.with_suffix(".kept")
        written = _compacted(smaller, arrays, tensors, about, kept) if skipped else tensors
        os.replace(smaller if skipped else part, path)
        arrays.clear()
        filling.journal.remove(filling.key)
        part.unlink(missing_ok=True)
        shapes = {name: list(shape) for name, (_, shape) in written.items()}
        return {"path": str(path), "tensors": shapes, "skipped": [job.source.name(index) for index in skipped]}

    _run(filling, world().lead(begin), listener)
    return results.Record("features", world().lead(finish))


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


def estimate(job: Job) -> Estimate:
    """What `export` would take, by a short measurement; nothing is written."""
    passes = passes_at_once(job)
    of_image = 4 * len(job.plan.sigmas) * job.plan.views * sum(job.plan.width(layer) for layer in job.plan.layers)
    disk, memory = of_image * len(job.indices), of_image * min(PIECE, len(job.indices))
    return of_job(job, passes, memory, disk, passes / passes_a_second(job))


def _pieces(job: Job) -> list[list[int]]:
    """Indices of the images that are computed together."""
    return [
        [int(index) for index in job.block(block)[start : start + PIECE]]
        for block in range(job.blocks)
        for start in range(0, len(job.block(block)), PIECE)
    ]


@dataclass
class _Filling:
    """The file in work, and the journal of what is in it."""

    job: Job
    pieces: list[list[int]]
    journal: Records
    key: str
    """Of the journal's record."""
    arrays: dict[str, np.memmap] = field(default_factory=dict)
    done: dict[int, int] = field(default_factory=dict)
    """Number of a piece → the checksum of its features."""
    skipped: list[int] = field(default_factory=list)
    """Images that could not be read."""

    def resume(self, part: Path, listener: Listener) -> bool:
        """Whether an earlier run has left some of its pieces."""
        record = self.journal.read(self.key)
        if record is None:
            return False
        if record["bytes"] != part.stat().st_size:
            listener.say(f"{part}: damaged on disk; its features are computed again")
            return False
        self.done, self.skipped = dict(map(tuple, record["done"])), record["skipped"]
        return True

    def drop_damaged(self, listener: Listener) -> None:
        """Pieces that are not as they were written are computed again."""
        damaged = [number for number, written in self.done.items() if self._checksum(number) != written]
        for number in damaged:
            del self.done[number]
            self.skipped = [image for image in self.skipped if image not in set(self.pieces[number])]
        if damaged:
            listener.say(f"{self.arrays['index'].filename}: damaged on disk; {len(damaged)} pieces are computed again")

    def take(self, number: int, found: Arrays, record: Record) -> None:
        """Put a piece in its place; what is in the journal is in the file."""
        rows = np.searchsorted(self.arrays["index"], found.pop("read"))
        for name, z in found.items():
            self.arrays[name][:, :, rows] = z
        for array in self.arrays.values():
            array.flush()
        missing = sorted({*self.pieces[number]} - {int(index) for index in self.arrays["index"][rows]})
        self.skipped += missing
        if missing:
            check_unreadable(self.job.source.path, len(self.job.indices), len(self.skipped), record["skipped"])
        self.done[number] = self._checksum(number)
        size = os.path.getsize(self.arrays["index"].filename)  # type: ignore[arg-type]
        self.journal.write(self.key, {"bytes": size, "done": list(self.done.items()), "skipped": self.skipped})

    def _checksum(self, number: int) -> int:
        read = sorted({*self.pieces[number]} - {*self.skipped})
        rows = np.searchsorted(self.arrays["index"], read)
        found = zlib.crc32(as_bytes(np.array(read, dtype=np.int64)))
        for array in self.arrays.values():
            if array.ndim == 4:
                found = zlib.crc32(as_bytes(array[:, :, rows]), found)
        return found


def _run(filling: _Filling, done: Collection[int], listener: Listener) -> None:
    """The pieces that are not in the file yet, dealt to the processes in turn."""
    several, job, pieces = world(), filling.job, filling.pieces
    passes = job.plan.views * len(job.plan.sigmas)
    listener.skip(passes * sum(len(pieces[number]) for number in done))
    missing = [number for number in range(len(pieces)) if number not in done]
    extractor = Extractor(job.denoiser, Inputs(job.source, job.plan, job.settings.strict, say=listener.say), job.plan)
    for first in range(0, len(missing), several.size):
        dealt = missing[first : first + several.size]
        mine = _attempt(extractor, pieces[dealt[several.rank]], listener) if several.rank < len(dealt) else None

        def take(rank: int, found: Arrays, record: Record, dealt: list[int] = dealt) -> None:
            if rank:
                listener.advance(passes * len(pieces[dealt[rank]]))
            filling.take(dealt[rank], found, record)

        several.gather(mine, take)


def _attempt(extractor: Extractor, images: Sequence[int], listener: Listener) -> tuple[Arrays, Record] | DiffscopeError:
    skipped = Skipped()
    try:
        arrays = _measure(extractor, images, listener, skipped)
    except DiffscopeError as error:
        return error
    return arrays, {"skipped": skipped}


def _measure(extractor: Extractor, images: Sequence[int], listener: Listener, skipped: Skipped) -> Arrays:
    """`layer` [levels, views, images, d] of the images that could be read, and `read`, their indices."""
    plan = extractor.plan
    shape = (len(plan.sigmas), plan.views, len(images))
    arrays: Arrays = {layer.name: np.empty((*shape, plan.width(layer)), np.float32) for layer in plan.layers}
    count: dict[tuple[int, int], int] = {}
    read: list[int] = []
    for features in extractor.run(images, skipped):
        name = plan.layers[features.layer].name
        z = features.z.cpu().numpy()
        if not np.isfinite(z).all():
            image = extractor.inputs.source.name(features.indices[int(np.argwhere(~np.isfinite(z))[0, 0])])
            raise not_finite(f"image {image}: features of {name} are", plan.precision)
        key = (features.level, features.layer)
        start = count.get(key, 0)
        count[key] = start + len(z)
        arrays[name][features.level][:, start : start + len(z)] = z.transpose(1, 0, 2)
        if key == (0, 0):
            read += features.indices
        if features.layer == len(plan.layers) - 1:
            listener.advance(len(z) * plan.views)
    return {name: z[:, :, : len(read)] for name, z in arrays.items()} | {"read": np.array(read, dtype=np.int64)}


def _mapped(part: Path, tensors: Tensors, about: dict[str, str], fresh: bool) -> dict[str, np.memmap]:
    """The file's tensors as memory maps, below a safetensors header; a fresh file gets its full length first."""
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
        part.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb" if fresh else "rb+") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            _reserve(file, start + end)
        return {
            name: np.memmap(part, _NUMPY[dtype], "r+", start + header[name]["data_offsets"][0], shape)
            for name, (dtype, shape) in tensors.items()
        }
    except OSError as error:
        raise StoreError(f"{part.parent}: cannot write {end / 1e6:.0f} MB there: {error.strerror or error}") from None


def _reserve(file: BinaryIO, size: int) -> None:
    """Full length, with room on the disk for it: where that is short, writing to a memory map would kill the process.

    OSError where it is.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)
