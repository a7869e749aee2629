"""Segmentation by a classifier of single pixels over noise levels: mIoU on test images, of clean and noisy input.

Wang et al., "Understanding representation dynamics of diffusion models via low-dimensional modeling", 2025,
https://arxiv.org/abs/2502.05743, figure 1b, after Baranchuk et al., "Label-efficient semantic segmentation with
diffusion models", 2022, https://arxiv.org/abs/2112.03126. Features of all layers asked for, at the image's size and
concatenated, are those of the plain image with the noise of view 0; the images are parted as a probe of images parts
them. Pixels to train on are a seeded sample, spread evenly over the training images; of test images every pixel counts.

A level is done in three steps, each kept on disk as it goes: the pixels' features, the head trained on them (with which
they are removed), and what it says of the test images.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load, save

from diffscope import __version__
from diffscope.cache.store import Arrays, Parts, Record, cache_folder
from diffscope.errors import DiffscopeError, EstimationError
from diffscope.extraction import Extractor, Inputs, Skipped
from diffscope.measure.description import described_checkpoint, described_data
from diffscope.measure.progress import Listener
from diffscope.measure.run import check_unreadable
from diffscope.ranks import world
from diffscope.results import Result, Row
from diffscope.studies.probe import overlap, pixel_heads
from diffscope.studies.probe.overlap import Counts, Overlap
from diffscope.studies.probe.pixel_heads import Head
from diffscope.studies.probe.pixels import CHUNK, at_pixels, drawn, maps_of, shared_out
from diffscope.studies.probe.segmentation_plan import Kind, Segmentation
from diffscope.studies.probe.segmentation_rows import GAIN, gain, level_values, notes_of, segmentation_rows

PIECE = 64
"""Images between two times of writing what they gave."""


def run(
    of: Segmentation, listener: Listener | None = None, folder: Path | None = None
) -> tuple[Result, Callable[[], None]]:
    """The result, and what forgets the finished parts on disk once the result is safe.

    Of several processes all compute features and classify; the first trains and has the result, others one without
    rows.
    """
    listener = listener or Listener()
    protocol = of.protocol()
    parts = Parts(folder or cache_folder(), protocol["hash"])
    world().lead(partial(parts.claim, listener.say))
    work = _Work(of, parts, listener)
    found = [[work.level(kind, level) for level in range(len(of.job.levels))] for kind in of.kinds]
    if not world().leads:
        return _result(of, protocol, (), (), work.skipped), parts.clear
    overlaps = {
        kind.prefix: [Overlap(one.counts) for one in levels] for kind, levels in zip(of.kinds, found, strict=True)
    }
    result = _result(of, protocol, _rows(of, overlaps, found), segmentation_rows(of, overlaps), work.skipped)
    return replace(result, pictures=_pictures(of, result, found)), parts.clear


@dataclass(frozen=True)
class Level:
    """What was found at one noise level.

    Attributes:
        counts: Of the test images that could be read, [M, 3, K].
        pictures: Image's index → predicted mask, of those that are shown.
        notes: What to know of the head.
    """

    counts: Counts
    pictures: Mapping[int, NDArray[np.uint8]]
    notes: tuple[str, ...]


@dataclass
class _Work:
    """The steps of all levels, on disk as far as they are done."""

    of: Segmentation
    parts: Parts
    listener: Listener
    skipped: dict[str, dict[str, str]] = field(default_factory=dict)
    """File → {file, why} of images that could not be read."""

    def level(self, kind: Kind, level: int) -> Level:
        name = f"{kind.prefix}{level:03d}"
        plan = replace(kind.job.plan, sigmas=(kind.job.plan.sigmas[level],))
        inputs = Inputs(kind.job.source, plan, kind.job.settings.strict, say=self.listener.say)
        extractor = Extractor(kind.job.denoiser, inputs, plan)
        head, notes = self._head(extractor, name)
        measure = partial(_tested, self.of, extractor, head)
        tests = self._pieces(f"{name}-test", self.of.test, measure)
        if not world().leads:
            return Level(np.empty((0, 3, 0), np.int64), {}, ())
        found = [self.parts.read(key, "") for key in tests]
        counts = np.concatenate([arrays["counts"] for arrays in found])
        if not counts[:, 1].any():
            raise EstimationError("no test image has a pixel that is not void; take more images or a larger test share")
        pictures = {
            int(index): picture
            for arrays in found
            for index, picture in zip(arrays["shown"], arrays["pictures"], strict=True)
        }
        return Level(counts, pictures, notes)

    def _head(self, extractor: Extractor, name: str) -> tuple[Head, tuple[str, ...]]:
        """The head of a level, trained or as an earlier run trained it; the same in all processes."""
        key, kind, classes = f"{name}-head", self.of.probing.pixel_head, self.of.masks.classes
        there = world().lead(lambda: key in self.parts.finished())
        if there:
            self._skip(self.of.train)
        else:
            measure = partial(_sampled, self.of, extractor)
            pieces = self._pieces(f"{name}-train", self.of.train, measure)
            world().lead(lambda: self._train(key, pieces))

        def read() -> tuple[Arrays, Record]:
            return self.parts.read(key, ""), self.parts.record(key)

        arrays, record = world().lead(read, _packed, _unpacked)
        self._note_skipped(record["skipped"])
        return pixel_heads.restored(kind, arrays, classes), tuple(record["notes"])

    def _train(self, key: str, pieces: Sequence[str]) -> None:
        of = self.of
        sampled = [self.parts.read(piece, "", ("labels",))["labels"] for piece in pieces]
        labels = np.concatenate(sampled)
        if len(np.unique(labels)) < 2:
            raise EstimationError(
                f"the {len(labels)} training pixels are of one class; take more (`train_pixels=`), or more images"
            )
        z = np.empty((len(labels), of.features), np.float32)
        start = 0
        for piece, some in zip(pieces, sampled, strict=True):
            z[start : start + len(some)] = self.parts.read(piece, "", ("z",))["z"]
            start += len(some)
        head = pixel_heads.trained(
            of.probing.pixel_head, z, labels, of.masks.classes, of.job.plan.seed, of.job.plan.device
        )
        skipped = [entry for piece in pieces for entry in self.parts.record(piece)["skipped"]]
        self.parts.write(key, head.arrays(), {"notes": notes_of(of, labels, head.converged), "skipped": skipped})
        for piece in pieces:
            self.parts.remove(piece)

    def _pieces(
        self, stage: str, images: Sequence[int], measure: Callable[[Sequence[int], Skipped], Arrays]
    ) -> list[str]:
        """Names of the parts of a step, all of them on disk afterwards; missing ones are dealt to the processes."""
        several = world()
        pieces = [images[start : start + PIECE] for start in range(0, len(images), PIECE)]
        names = [f"{stage}-{number:05d}" for number in range(len(pieces))]
        done = set(several.lead(lambda: sorted(str(key) for key in self.parts.finished())))
        missing = [number for number, name in enumerate(names) if name not in done]
        self._skip([index for number, piece in enumerate(pieces) if number not in missing for index in piece])

        def take(rank: int, arrays: Arrays, record: Record, dealt: Sequence[int]) -> None:
            if rank:
                self.listener.advance(len(pieces[dealt[rank]]))
            self._note_skipped(record["skipped"])
            self.parts.write(names[dealt[rank]], arrays, record)

        for first in range(0, len(missing), several.size):
            dealt = missing[first : first + several.size]
            mine = None
            if several.rank < len(dealt):
                mine = self._attempt(pieces[dealt[several.rank]], measure)
            several.gather(mine, partial(take, dealt=dealt))
        if several.leads:
            for name in names:
                self._note_skipped(self.parts.record(name)["skipped"])
        return names

    def _attempt(
        self, images: Sequence[int], measure: Callable[[Sequence[int], Skipped], Arrays]
    ) -> tuple[Arrays, Record] | DiffscopeError:
        skipped = Skipped()
        try:
            arrays = measure(images, skipped)
        except DiffscopeError as error:
            return error
        self.listener.advance(len(images))
        return arrays, {"skipped": skipped}

    def _skip(self, images: Sequence[int]) -> None:
        if images:
            self.listener.skip(len(images))

    def _note_skipped(self, entries: Sequence[Mapping[str, str]]) -> None:
        self.skipped |= {entry["file"]: dict(entry) for entry in entries}
        if entries:
            job = self.of.job
            check_unreadable(job.source.path, len(job.indices), len(self.skipped), entries)


def _sampled(of: Segmentation, extractor: Extractor, images: Sequence[int], skipped: Skipped) -> Arrays:
    """`z` [n, d] and `labels` [n] of the pixels that some training images give."""
    share = dict(zip(of.train, shared_out(of.probing.train_pixels, len(of.train)), strict=True))
    features, labels = [np.empty((0, of.features), np.float32)], [np.empty(0, np.uint8)]
    for index, maps in maps_of(extractor, images, of.grids, skipped):
        mask = of.masks.read(index)
        positions = drawn(mask, share[index], of.job.plan.seed, index)
        on_device = torch.from_numpy(positions).to(maps[0].device)
        features.append(at_pixels(maps, of.grids, of.side, on_device).cpu().numpy())
        labels.append(mask.ravel()[positions])
    return {"z": np.concatenate(features), "labels": np.concatenate(labels)}


def _tested(of: Segmentation, extractor: Extractor, head: Head, images: Sequence[int], skipped: Skipped) -> Arrays:
    """`counts` [M, 3, K] of some test images, and `pictures` [P, side, side] of those that are `shown` [P]."""
    counts = [np.empty((0, 3, of.masks.classes), np.int64)]
    shown: dict[int, NDArray[np.uint8]] = {}
    for index, maps in maps_of(extractor, images, of.grids, skipped):
        positions = torch.arange(of.side**2, device=maps[0].device)
        chunks = (positions[start : start + CHUNK] for start in range(0, len(positions), CHUNK))
        said = [head.predict(at_pixels(maps, of.grids, of.side, some)) for some in chunks]
        predicted = torch.cat(said).cpu().numpy().astype(np.uint8).reshape(of.side, of.side)
        counts.append(overlap.counted(of.masks.read(index), predicted, of.masks.classes)[None])
        if index in of.shown:
            shown[index] = predicted
    return {
        "counts": np.concatenate(counts),
        "shown": np.array(list(shown), np.int64),
        "pictures": np.array(list(shown.values()), np.uint8).reshape(-1, of.side, of.side),
    }


def _packed(part: tuple[Arrays, Record]) -> dict[str, Any]:
    return {"arrays": base64.b64encode(save(part[0])).decode(), "record": part[1]}


def _unpacked(said: Mapping[str, Any]) -> tuple[Arrays, Record]:
    return load(base64.b64decode(said["arrays"])), said["record"]


def _rows(
    of: Segmentation, overlaps: Mapping[str, Sequence[Overlap]], found: Sequence[Sequence[Level]]
) -> Iterator[Row]:
    for number, level in enumerate(of.job.levels):
        values: dict[str, Any] = {}
        notes: dict[str, None] = {}
        for kind, levels in zip(of.kinds, found, strict=True):
            of_level, undecided = level_values(overlaps[kind.prefix][number])
            values |= {f"{kind.prefix}{key}": value for key, value in of_level.items()}
            notes |= dict.fromkeys([*levels[number].notes, *undecided])
        if len(of.kinds) > 1:
            noisy, clean = (overlaps[kind.prefix][number] for kind in of.kinds)
            values |= dict(zip(GAIN, gain(clean, noisy), strict=True))
        yield Row(
            layer=of.layer,
            sigma=level.sigma,
            sigma_requested=level.requested,
            t=level.t,
            n=len(of.train) + len(of.test),
            d=of.features,
            **values,
            notes=tuple(notes),
        )


def _result(
    of: Segmentation,
    protocol: Mapping[str, Any],
    rows: Any,
    sections: Any,
    skipped: Mapping[str, Mapping[str, str]],
) -> Result:
    names = of.masks.class_names
    described = {
        "masks": str(of.masks.folder),
        "classes": of.masks.classes,
        "class_names": None if names is None else list(names),
        "train": len(of.train),
        "test": len(of.test),
    }
    entries = tuple(skipped[name] for name in sorted(skipped))
    return Result(
        version=__version__,
        command="probe",
        checkpoint=described_checkpoint(of.job),
        data={**described_data(of.job, len(of.job.indices) - len(entries), entries), **described},
        protocol=protocol,
        rows=tuple(rows),
        sections={"segmentation": tuple(sections)},
        warnings=of.job.denoiser.warnings,
    )


def _pictures(of: Segmentation, result: Result, found: Sequence[Sequence[Level]]) -> dict[str, Any]:
    """Of the images shown: as the network is given them, their masks, and what the best level of each input says."""
    sigmas = [level.sigma for level in of.job.levels]
    best = [levels[sigmas.index(row.sigma)] for row, levels in zip(result.sections["segmentation"], found, strict=True)]
    readable = [index for index in of.shown if index in best[0].pictures]
    return {
        "names": [of.job.source.name(index) for index in readable],
        "images": [of.job.source.picture(index, of.masks.target) for index in readable],
        "truth": [of.masks.read(index) for index in readable],
        "predicted": [[level.pictures[index] for index in readable] for level in best],
    }
