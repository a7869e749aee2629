"""One checkpoint's neighbours: its features block by block on disk, then the nearest of them, the shares and clusters.

The images of all queries come first. Of them every view is kept on disk; of the others the mean alone, since their
views can be compared as they pass. Nothing is held in memory but one block and the queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffscope import seeding
from diffscope.cache.store import Arrays, Parts
from diffscope.errors import DataError, TooFewImages, ZeroNoise
from diffscope.extraction import Batch, Extractor, Inputs, Skipped, not_finite
from diffscope.families.base import Denoiser
from diffscope.measure.job import Job
from diffscope.measure.progress import Listener
from diffscope.measure.run import check_unreadable
from diffscope.measure.snapshots import Snapshot
from diffscope.studies.neighbors.nearest import CHUNK, Nearest
from diffscope.studies.neighbors.shares import class_shares
from diffscope.views import Augmentation

BLOCK = 64 << 20
"""Bytes of features in one block. Not a setting: a run that goes on must cut its images as the one before did."""
NO_RESIDUAL = 2.0**-20
"""Length of a residual as a share of the features', below which it is rounding."""


@dataclass(frozen=True)
class QuerySplit:
    """Which images play which part, from source, settings and choices alone: the same for all checkpoints."""

    shown: tuple[int, ...]
    """Queries of the grid."""
    asked: frozenset[int]
    """Those of them that the user named: one that cannot be read is an error."""
    counted: tuple[int, ...]
    """Queries whose neighbours' classes are counted; none without labels."""
    candidates: frozenset[int]
    """Images that may be neighbours."""
    queries: tuple[int, ...]
    """Shown and counted, each once: the first images of the run."""
    others: tuple[int, ...]

    def blocks(self, views: int, d: int) -> tuple[list[tuple[int, ...]], int]:
        """The images of each block, and how many blocks, the first ones, are of queries."""
        size = 4 * d
        asked = _cut(self.queries, BLOCK // (size * views))
        return [*asked, *_cut(self.others, BLOCK // size)], len(asked)


def _cut(images: Sequence[int], most: int) -> list[tuple[int, ...]]:
    """In blocks of at most `most` images, and of a sixteenth at most: that much is lost when a run is killed."""
    size = max(1, min(most, -(-len(images) // 16)))
    return [tuple(images[start : start + size]) for start in range(0, len(images), size)]


def query_view(seed: int, image: int, views: int) -> int:
    """Whose residual a query by ξ is: each view as likely as any other, always the same for one image."""
    return int(seeding.uniforms(seed, seeding.Stream.SUBSET, image, 1, 1)[0] * views)


@dataclass(frozen=True)
class Footprint:
    """What the features of a run take."""

    memory: int
    """Bytes, beside the network and its activations."""
    disk: int
    """Bytes, until the checkpoint is done."""


def footprint(queries: int, others: int, views: int, d: int, k: int) -> Footprint:
    """What the features of a run take, counted and not allocated."""

    def largest(count: int, size: int) -> int:
        return size * max(1, min(BLOCK // size, -(-count // 16))) if count else 0

    row = 4 * d
    asked, other = largest(queries, row * (views + 1)), largest(others, row)
    # Each block once as it is made and once as it is written or scaled to length 1; queries and their unit vectors.
    searching = 2 * queries * row + 32 * min(CHUNK, queries * views * (queries + others)) + 24 * queries * k
    disk = queries * row * (views + 1) + others * row + 12 * queries * k * (16 if others else 0)
    return Footprint(searching + 2 * max(asked, other), disk)


class OriginalFirst(Inputs):
    """Of V views the first is the image as it is; its noise is that of any other view."""

    def batches(self, denoiser: Denoiser, indices: Sequence[int], skipped: Skipped | None = None) -> Iterator[Batch]:
        """Those of `Inputs`, with the first view of each image replaced."""
        single = replace(self.plan, views=1, augmentation=Augmentation("none"))
        plain = Inputs(self.source, single, self.strict, say=self.say)
        originals = plain.batches(denoiser, indices)
        for batch, original in zip(super().batches(denoiser, indices, skipped), originals, strict=True):
            with torch.inference_mode():
                batch.signal[:: self.plan.views] = original.signal
            yield batch


@dataclass
class Search:
    """Fills the blocks of one checkpoint, then reads the neighbours from them.

    On disk, under the number of its block: `s/mean` [n, d], `s/sum` [d]; of blocks of queries `xi/residual` [n, V, d];
    of the others `best/similarity` and `best/item` [Q, k], the nearest of the block's views to each query.
    """

    job: Job
    images: QuerySplit
    k: int
    clusters: bool
    parts: Parts
    listener: Listener

    def __post_init__(self) -> None:
        plan = self.job.plan
        self.device, self.views, self.d = torch.device(plan.device), plan.views, plan.width(plan.layers[0])
        self.blocks, self.asking = self.images.blocks(self.views, self.d)
        self.extractor = Extractor(
            self.job.denoiser,
            OriginalFirst(self.job.source, plan, self.job.settings.strict, say=self.listener.say),
            plan,
        )

    def run(self) -> None:
        """Compute the blocks that are not on disk yet."""
        done = {number for number in self.parts.finished() if isinstance(number, int)}
        if done:
            self.listener.say(f"{len(done)} of {len(self.blocks)} blocks were computed before; going on from there")
        unreadable = sum(len(self._record(number)["skipped"]) for number in done)
        by_xi: Tensor | None = None
        for number, images in enumerate(self.blocks):
            if number in done:
                self.listener.skip(len(images) * self.views)
                continue
            if number >= self.asking and by_xi is None:
                by_xi = self._residuals_of_queries()
            skipped = Skipped()
            arrays, read = self._block(images, by_xi if number >= self.asking else None, skipped)
            self._check_read(images, read, unreadable + len(skipped), skipped)
            unreadable += len(skipped)
            self.parts.write(number, arrays, {"images": read, "skipped": skipped})

    def _block(self, images: tuple[int, ...], by_xi: Tensor | None, skipped: Skipped) -> tuple[Arrays, list[int]]:
        """The arrays of one block, and which of its images could be read."""
        means = np.empty((len(images), self.d), np.float32)
        residuals = np.empty((len(images), self.views, self.d) if by_xi is None else 0, np.float32)
        best = None if by_xi is None else Nearest(by_xi, self._known(), self.k)
        read: list[int] = []
        for features in self.extractor.run(images, skipped):
            self._check_finite(features.z, features.indices)
            mean = features.z.mean(1)
            xi = features.z - mean[:, None]
            rows = slice(len(read), len(read) + len(features.indices))
            means[rows] = mean.cpu().numpy()
            if best is None:
                residuals[rows] = xi.cpu().numpy()
            else:
                best.update(xi.flatten(0, 1), *self._items(features.indices))
            read += features.indices
            self.listener.advance(len(features.indices) * self.views)
        means = means[: len(read)]
        candidates = [row for row, image in enumerate(read) if image in self.images.candidates]
        arrays = {"s/mean": means, "s/sum": means[candidates].sum(0, dtype=np.float64)}
        if best is None:
            return {**arrays, "xi/residual": residuals[: len(read)]}, read
        return {**arrays, "best/similarity": best.similarity.cpu().numpy(), "best/item": best.items.cpu().numpy()}, read

    def _check_read(
        self, images: Sequence[int], read: Sequence[int], unreadable: int, skipped: Sequence[Mapping[str, str]]
    ) -> None:
        named = [image for image in images if image in self.images.asked and image not in read]
        if named:
            why = {entry["file"]: entry["why"] for entry in skipped}
            name = self.job.source.name(named[0])
            raise DataError(f"`query={name}`: {why.get(name, 'cannot be read')}")
        check_unreadable(self.job.source.path, len(self.job.indices), unreadable, skipped)

    def _check_finite(self, z: Tensor, images: Sequence[int]) -> None:
        finite = torch.isfinite(z).flatten(1).all(1)
        if not finite.all():
            name = self.job.source.name(images[int((~finite).nonzero()[0, 0])])
            layer, precision = self.job.plan.layers[0].name, self.job.plan.precision
            raise not_finite(f"image {name}: features of {layer} are", precision)

    def _items(self, images: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Image and number of every view of these images; an item's number is image · V + view."""
        image = torch.tensor(images, device=self.device).repeat_interleave(self.views)
        view = torch.arange(self.views, device=self.device).repeat(len(images))
        return image, image * self.views + view

    def _record(self, number: int) -> dict[str, Any]:
        return dict(self.parts.record(number))

    def _read(self, number: int, prefix: str) -> dict[str, Tensor]:
        return {
            name: torch.from_numpy(array).to(self.device) for name, array in self.parts.read(number, prefix).items()
        }

    def _queries(self) -> list[int]:
        """Those that could be read, in the order of the blocks."""
        return [image for number in range(self.asking) for image in self._record(number)["images"]]

    def _known(self) -> Tensor:
        return torch.tensor(self._queries(), device=self.device)

    def _residuals_of_queries(self) -> Tensor:
        """(Q, d): of each query the residual of one of its views."""
        found = []
        for number in range(self.asking):
            images = self._record(number)["images"]
            views = [query_view(self.job.plan.seed, image, self.views) for image in images]
            xi = self._read(number, "xi/")["residual"][
                torch.arange(len(images)), torch.tensor(views, dtype=torch.int64)
            ]
            length = torch.linalg.vector_norm(self._read(number, "s/")["mean"], dim=1)
            same = torch.linalg.vector_norm(xi, dim=1) <= NO_RESIDUAL * length
            if same.any():
                name = self.job.source.name(images[int(same.nonzero()[0, 0])])
                raise ZeroNoise(
                    f"image {name}: its views have the same features; `input=noisy` or `augment=` sets them apart"
                )
            found.append(xi)
        return torch.cat(found) if found else torch.empty(0, self.d, device=self.device)

    # --- what stands in the blocks

    def answer(self, snapshot: Snapshot, icr: float | None, note: str | None) -> dict[str, Any]:
        """Rows, grid and clusters as plain JSON."""
        queries = self._queries()
        if not any(image in queries for image in self.images.shown):
            raise DataError(f"{self.job.source.path}: none of the queries can be read; name others with `query=`")
        skipped = [entry for number in range(len(self.blocks)) for entry in self._record(number)["skipped"]]
        used = [
            image
            for number in range(len(self.blocks))
            for image in self._record(number)["images"]
            if image in self.images.candidates
        ]
        if len(used) <= self.k:
            raise TooFewImages(f"{len(used)} images could be read; `k={self.k}` takes {self.k + 1}")
        near = {"s": self._by_invariant(), "xi": self._by_residual()}
        at = self.job.levels[0]
        head = {"checkpoint": snapshot.path, "step": snapshot.step, "layer": self.job.plan.layers[0].name}
        level = {"sigma": at.sigma, **({} if at.requested is None else {"sigma_requested": at.requested}), "t": at.t}
        rows = []
        for component, nearest in near.items():
            shares, notes = self._same_class(queries, nearest, used)
            sizes = {"n": len(used), "d": self.d}
            notes += [note] if note else []
            rows.append({**head, **level, **sizes, "component": component, **shares, "icr": icr, "notes": notes})
        grid = [
            {**self._named(image), **{component: self._neighbours(queries.index(image), image, component, nearest)
                                      for component, nearest in near.items()}}
            for image in self.images.shown if image in queries
        ]  # fmt: skip
        clusters = self._clusters() if self.clusters else None
        return {"rows": rows, "grid": grid, "clusters": clusters, "skipped": skipped, "used": len(used)}

    def _by_invariant(self) -> Nearest:
        """Items are images, compared by the mean over their views less that over all images."""
        total, count = torch.zeros(self.d, dtype=torch.float64), 0
        for number in range(len(self.blocks)):
            total += torch.from_numpy(self.parts.read(number, "s/")["sum"])
            count += sum(image in self.images.candidates for image in self._record(number)["images"])
        mean = (total / count).float().to(self.device)
        own = [self._read(number, "s/")["mean"] - mean for number in range(self.asking)]
        nearest = Nearest(torch.cat(own), self._known(), self.k)
        del own
        for number in range(len(self.blocks)):
            images = self._record(number)["images"]
            rows = [row for row, image in enumerate(images) if image in self.images.candidates]
            image = torch.tensor([images[row] for row in rows], dtype=torch.int64, device=self.device)
            nearest.update(self._read(number, "s/")["mean"][rows] - mean, image, image * self.views)
        return nearest

    def _by_residual(self) -> Nearest:
        """Items are views: those of queries are on disk, of the others the nearest of each block."""
        nearest = Nearest(self._residuals_of_queries(), self._known(), self.k)
        for number in range(self.asking):
            images = self._record(number)["images"]
            rows = [row for row, image in enumerate(images) if image in self.images.candidates]
            xi = self._read(number, "xi/")["residual"][rows].flatten(0, 1)
            nearest.update(xi, *self._items([images[row] for row in rows]))
        for number in range(self.asking, len(self.blocks)):
            best = self._read(number, "best/")
            nearest.merge(best["similarity"], best["item"])
        return nearest

    def _same_class(
        self, queries: Sequence[int], nearest: Nearest, used: Sequence[int]
    ) -> tuple[dict[str, Any], list[str]]:
        """Share of neighbours that are of the query's class, its standard error over queries, and chance."""
        found = (nearest.items // self.views).cpu().numpy()
        return class_shares(self.job.source, queries, found, set(self.images.counted), used)

    def _named(self, image: int) -> dict[str, Any]:
        source = self.job.source
        return {
            "image": image,
            "name": source.name(image),
            "label": None if source.labels is None else int(source.labels[image]),
        }

    def _neighbours(self, row: int, image: int, component: str, nearest: Nearest) -> dict[str, Any]:
        """The view asked by, null where it is their mean, and the nearest with theirs."""
        invariant = component == "s"
        items, similarity = nearest.items[row].tolist(), nearest.similarity[row].tolist()
        return {
            "view": None if invariant else query_view(self.job.plan.seed, image, self.views),
            "neighbors": [
                {
                    **self._named(item // self.views),
                    "view": None if invariant else item % self.views,
                    "similarity": round(value, 6),
                }
                for item, value in zip(items, similarity, strict=True)
            ],
        }

    def _clusters(self) -> dict[str, Any]:
        """Views of the images shown, in the plane of their first two principal components."""
        found: dict[int, np.ndarray] = {}
        for number in range(self.asking):
            images = self._record(number)["images"]
            wanted = [row for row, image in enumerate(images) if image in self.images.shown]
            if wanted:
                mean, xi = self.parts.read(number, "s/")["mean"], self.parts.read(number, "xi/")["residual"]
                found |= {images[row]: mean[row].astype(np.float64) + xi[row] for row in wanted}
        shown = [image for image in self.images.shown if image in found]
        points, explained = principal_plane(np.concatenate([found[image] for image in shown]))
        by_image = points.reshape(len(shown), self.views, 2)
        images = [
            {**self._named(image), "points": [[float(f"{x:.6g}"), float(f"{y:.6g}")] for x, y in views]}
            for image, views in zip(shown, by_image, strict=True)
        ]
        return {"explained": [float(f"{share:.6g}") for share in explained], "images": images}


def principal_plane(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The plane of largest variance.

    Args:
        z: (n, d).

    Returns:
        Points (n, 2) in the first two principal components, each of a sign that makes its longest coordinate positive;
        and the share of the variance that each component has.
    """
    centred = z - z.mean(0)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    values, vectors = values[::-1].clip(0), vectors[:, ::-1]
    points = vectors[:, :2] * np.sqrt(values[:2])
    points *= np.where(points[np.abs(points).argmax(0), [0, 1]] < 0, -1.0, 1.0)
    return points, values[:2] / values.sum()
