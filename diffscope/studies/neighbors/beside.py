"""The neighbours of the same queries by reference encoders, beside those by the network's s and ξ.

An encoder sees each image as it is, once and without noise. Images are neighbours by the cosine of their features less
the mean over all images, as they are by s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from diffscope.cache.store import Parts
from diffscope.encoders import Encoder
from diffscope.errors import MemoryLimit
from diffscope.measure.encoding import Encoding
from diffscope.measure.job import Job
from diffscope.measure.memory import half_of_memory
from diffscope.measure.progress import Listener
from diffscope.protocol import digest
from diffscope.studies.neighbors.nearest import Nearest
from diffscope.studies.neighbors.search import QuerySplit
from diffscope.studies.neighbors.shares import class_shares


def check_room(encoders: Sequence[Encoder], job: Job, images: int) -> None:
    """Raises MemoryLimit where the features of one encoder, twice, are more than allowed."""
    widest = max((encoder.dims for encoder in encoders), default=0)
    need, limit = 8 * widest * images, job.settings.max_memory or half_of_memory()
    if need > limit:
        raise MemoryLimit(
            f"`beside=`: {images} images of {widest} features need {need / 1e9:.2g} GB, more than `max_memory=` "
            f"{limit / 1e9:.2g} GB; take fewer images (`num_images=`), or a larger `max_memory=`"
        )


def encoder_row(
    encoder: Encoder, job: Job, images: QuerySplit, unreadable: Sequence[str], k: int, parts: Parts, listener: Listener
) -> dict[str, Any]:
    """Shares of one encoder, and the neighbours of the queries that are shown.

    Args:
        encoder: Which is looked at.
        job: Of the network beside.
        images: Which images play which part.
        unreadable: Names of images that are left out.
        k: Neighbours of each query.
        parts: Where features are kept.
        listener: Hears of each image.
    """
    lost = set(unreadable)
    read = [i for i in sorted({*images.queries, *images.others}) if not lost or job.source.name(i) not in lost]
    encoding = Encoding(encoder, job, read, parts, digest(encoder.protocol())[:16])
    encoding.run(listener)
    z = torch.from_numpy(encoding.features())
    place = {image: row for row, image in enumerate(read)}
    used = [image for image in read if image in images.candidates]
    z -= z[[place[image] for image in used]].mean(0)
    queries = [image for image in images.queries if image in place]
    nearest = Nearest(z[[place[image] for image in queries]], torch.tensor(queries), k)
    numbers = torch.tensor(used)
    nearest.update(z[[place[image] for image in used]], numbers, numbers)
    shares, notes = class_shares(job.source, queries, nearest.items.numpy(), images.counted, used)
    head = {"encoder": encoder.name, "kind": encoder.kind, "n": len(used), "d": encoder.dims}
    shown = {image: _neighbours(job, nearest, queries.index(image)) for image in images.shown if image in place}
    return {**head, **shares, "grid": [{"image": image, "neighbors": near} for image, near in shown.items()],
            "notes": notes}  # fmt: skip


def named(rows: Sequence[Mapping[str, Any]]) -> set[int]:
    """Images that the grids of encoders show."""
    return {near["image"] for row in rows for query in row["grid"] for near in query["neighbors"]}


def _neighbours(job: Job, nearest: Nearest, row: int) -> list[dict[str, Any]]:
    source = job.source
    return [
        {
            "image": image,
            "name": source.name(image),
            "label": None if source.labels is None else int(source.labels[image]),
            "view": None,
            "similarity": round(float(similarity), 6),
        }
        for image, similarity in zip(nearest.items[row].tolist(), nearest.similarity[row].tolist(), strict=True)
    ]
