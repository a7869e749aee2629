"""The features themselves, for other tools: one tensor a layer in a safetensors file, written block by block.

The file is laid out before anything is computed and filled through a memory map, so that it may be larger than RAM.
Beside it, until it is whole, stand the file in work and the list of finished blocks; the same command goes on from
there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffscope import __version__
from diffscope.errors import NonFinite, StoreError
from diffscope.features import Extractor, Inputs, cure
from diffscope.store import write_atomically
from diffscope.studies.blocks import check_unreadable
from diffscope.studies.listener import Listener
from diffscope.studies.settings import Job

Tensors = dict[str, tuple[str, tuple[int, ...]]]
"""Dtype and shape by name."""

_NUMPY: dict[str, Any] = {"F32": np.float32, "F64": np.float64, "I64": np.int64}


def export(job: Job, path: Path, listener: Listener | None = None) -> dict[str, Any]:
    """Write `layer` [levels, views, images, d] float32, `sigma` [levels], `index` [images], `label` [images].

    Images stand in ascending order of their index; those that cannot be read are left out. Returns what was written,
    for a summary.
    """
    listener = listener or Listener()
    plan = job.plan
    order = np.sort(job.indices)
    place = {int(index): row for row, index in enumerate(order)}
    protocol = job.protocol.to_json()
    shape = (len(plan.sigmas), plan.views, len(order))
    tensors: Tensors = {layer.name: ("F32", (*shape, plan.width(layer))) for layer in plan.layers}
    tensors |= {"sigma": ("F64", (len(plan.sigmas),)), "index": ("I64", (len(order),))}
    if job.source.labels is not None:
        tensors["label"] = ("I64", (len(order),))
    about = {"diffscope": __version__, "protocol": json.dumps(protocol), "t": json.dumps([at.t for at in job.levels])}

    part = path.with_name(f".{path.name}.{protocol['hash'][:16]}.part")
    journal = part.with_suffix(".done")
    done, skipped = _finished(part, journal)
    arrays = _mapped(part, tensors, about, fresh=not done)
    arrays["sigma"][:] = plan.sigmas
    arrays["index"][:] = order
    if job.source.labels is not None:
        arrays["label"][:] = job.source.labels[order]
    extractor = Extractor(job.denoiser, Inputs(job.source, plan, job.settings.strict), plan)
    for block in range(job.blocks):
        indices = job.block(block)
        if block in done:
            listener.advance(len(indices) * plan.views * len(plan.sigmas))
            continue
        read = _fill(extractor, indices.tolist(), arrays, place, listener)
        for array in arrays.values():
            array.flush()
        skipped += [int(index) for index in indices if int(index) not in read]
        check_unreadable(job, len(skipped), extractor.inputs.skipped)
        done.append(block)
        _write_journal(journal, done, skipped)
    if skipped:
        kept = np.flatnonzero(~np.isin(order, skipped))
        smaller = part.with_suffix(".kept")
        tensors = _compacted(smaller, arrays, tensors, about, kept)
        os.replace(smaller, path)
    else:
        os.replace(part, path)
    del arrays
    journal.unlink(missing_ok=True)
    part.unlink(missing_ok=True)
    shapes = {name: list(shape) for name, (_, shape) in tensors.items()}
    return {"path": str(path), "tensors": shapes, "skipped": [job.source.name(index) for index in skipped]}


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


def _fill(
    extractor: Extractor,
    indices: Sequence[int],
    arrays: dict[str, np.memmap],
    place: dict[int, int],
    listener: Listener,
) -> set[int]:
    """Compute one block and put it in its place; the indices of the images that could be read."""
    plan = extractor.plan
    read: set[int] = set()
    last = len(plan.layers) - 1
    for features in extractor.run(indices):
        name = plan.layers[features.layer].name
        z = features.z.cpu().numpy()
        if not np.isfinite(z).all():
            image = extractor.inputs.source.name(features.indices[int(np.argwhere(~np.isfinite(z))[0, 0])])
            raise NonFinite(
                f"image {image}: features of {name} are not finite in {plan.precision}; {cure(plan.precision)}"
            )
        rows = [place[index] for index in features.indices]
        arrays[name][features.level][:, rows] = z.transpose(1, 0, 2)
        read.update(features.indices)
        if features.layer == last:
            listener.advance(len(rows) * plan.views)
    return read


def _finished(part: Path, journal: Path) -> tuple[list[int], list[int]]:
    """Blocks done and images skipped by an earlier run of the same protocol."""
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
