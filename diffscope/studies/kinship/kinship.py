"""How alike representations of the same images are, each two of several.

Features are those of `diffscope features --augment none --views 1`: the plain image with the noise of view 0, the same
at all levels, layers and checkpoints; encoders see the image without noise. What is finished stands on disk: features,
neighbours of each representation, and each pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from diffscope import __version__
from diffscope.cache.store import Parts, cache_folder
from diffscope.encoders import Encoder
from diffscope.errors import DataError, EstimationError, MemoryLimit, UsageError
from diffscope.families.base import Denoiser
from diffscope.measure.cautions import warnings_of
from diffscope.measure.description import described_checkpoint, described_data
from diffscope.measure.encoding import Encoding, open_encoders, protocol_of_encoders, seconds_of
from diffscope.measure.estimate import Estimate, of_job, passes_a_second
from diffscope.measure.job import Job
from diffscope.measure.memory import half_of_memory, passes_at_once
from diffscope.measure.opening import open_job
from diffscope.measure.progress import Listener
from diffscope.measure.rows import note_of
from diffscope.measure.study import Finished
from diffscope.numerics import student_quantile
from diffscope.options.beside import Beside
from diffscope.options.settings import Loading, Settings
from diffscope.protocol import digest
from diffscope.results import Result, Row
from diffscope.sources.base import Source
from diffscope.studies.features import export as export_module
from diffscope.studies.features.kept import keep_features
from diffscope.studies.kinship import alignment
from diffscope.studies.kinship.items import Item, items_of
from diffscope.studies.kinship.options import Kin

VERSION = "kinship-1"
"""Raised whenever the same features give another number."""
MOST = 400
"""Representations in one run: 79,800 pairs."""


def open_kinship(
    checkpoints: Sequence[str | Denoiser],
    source: Source,
    settings: Settings,
    loading: Loading,
    kin: Kin,
    beside: Beside,
) -> KinshipStudy:
    """Opens checkpoints and encoders; no image is read yet.

    Args:
        checkpoints: Paths, or networks in memory: of any families, measured at the same noise levels.
        source: The images.
        settings: Layers, levels and images; views and augmentation are the study's own.
        loading: How checkpoints are read.
        kin: How representations are compared.
        beside: Encoders that are compared too.

    Raises:
        UsageError: If nothing or too much is to be compared.
        MemoryLimit: If two representations do not fit into memory.
        DiffscopeError: Whatever keeps one of them from being opened.
    """
    if not settings.sigma and not settings.t and settings.num_levels is None:
        raise UsageError("kinship needs noise levels: `sigma=S`, several by commas, or `num_levels=K`")
    plain = replace(settings, views=1, augment="none", augment_strength=1.0)
    jobs = tuple(open_job(checkpoint, source, plain, loading) for checkpoint in checkpoints)
    encoders = open_encoders(jobs[0], beside)
    items = items_of(jobs, encoders)
    if not 2 <= len(items) <= MOST:
        raise UsageError(
            f"kinship compares 2 to {MOST} representations with each other, and {len(items)} are asked for: change "
            "`layer=`, `sigma=` or `beside=`, or give another checkpoint"
        )
    study = KinshipStudy(jobs, encoders, items, kin)
    study.check_room()
    return study


@dataclass(frozen=True)
class KinshipStudy:
    """Representations to be compared."""

    jobs: tuple[Job, ...]
    encoders: tuple[Encoder, ...]
    items: tuple[Item, ...]
    kin: Kin
    unit: str = "images"

    @property
    def total(self) -> float:
        """Images, counted once for each pass of a network and each pair."""
        images = len(self.jobs[0].indices)
        return sum(map(passes_at_once, self.jobs)) + images * (len(self.encoders) + self._pairs)

    @property
    def _pairs(self) -> int:
        return len(self.items) * (len(self.items) - 1) // 2

    def check_room(self) -> None:
        """Raises MemoryLimit, or TooFewImages where there are fewer images than neighbours."""
        images, limit = len(self.jobs[0].indices), self.jobs[0].settings.max_memory or half_of_memory()
        if (need := self._memory()) > limit:
            widest = max(item.d for item in self.items)
            raise MemoryLimit(
                f"two representations of {images} images and {widest} features need {need / 1e9:.2g} GB, more than "
                f"`max_memory=` {limit / 1e9:.2g} GB; take fewer `num_images=`, `pool=mean`, or a larger `max_memory=`"
            )
        alignment.check_images(images, self.kin.k)

    def _memory(self) -> int:
        """Both representations in float64 and what one product takes, and some rows of similarities."""
        images = len(self.jobs[0].indices)
        widest = sorted(item.d for item in self.items)[-2:]
        return 8 * (3 * images * sum(widest) + 4 * alignment.CHUNK)

    def warnings(self) -> list[str]:
        """What a user should know before the run."""
        return list(dict.fromkeys(line for job in self.jobs for line in warnings_of(job)))

    def protocol(self) -> dict[str, Any]:
        """All that the numbers depend on, with its hash."""
        networks = [{k: v for k, v in job.protocol.to_json().items() if k != "hash"} for job in self.jobs]
        fields = {
            "kinship": {"version": VERSION, "k": self.kin.k},
            "networks": networks,
            **protocol_of_encoders(self.encoders),
        }
        return {**fields, "hash": digest(fields)}

    def estimate(self) -> Estimate:
        """What features would take; pairs come on top."""
        of_features = [export_module.estimate(job) for job in self.jobs]
        images = len(self.jobs[0].indices)
        passes = sum(one.passes for one in of_features) + images * len(self.encoders)
        seconds = sum(one.passes / passes_a_second(job) for one, job in zip(of_features, self.jobs, strict=True))
        seconds += seconds_of(self.encoders, self.jobs[0], images)
        disk = 4 * images * sum(item.d for item in self.items)
        found = of_job(self.jobs[0], passes, self._memory(), disk, seconds, self.protocol(), len(self.jobs))
        return found

    def run(self, folder: Path | None, listener: Listener) -> Finished:
        """Features of all, then each pair."""
        protocol = self.protocol()
        listener.agree(protocol)
        parts = Parts(folder or cache_folder(), protocol["hash"])
        parts.claim(listener.say)
        files = [keep_features(job, parts.folder, listener) for job in self.jobs]
        indices = self._indices(files)
        encodings = [
            Encoding(encoder, self.jobs[0], indices.tolist(), parts, f"z{place}")
            for place, encoder in enumerate(self.encoders)
        ]
        for encoding in encodings:
            encoding.run(listener)
        for number in range(len(self.items)):
            self._prepare(number, parts, encodings)
        rows = self._rows(len(indices), parts, encodings, listener)
        skipped = [
            {"file": self.jobs[0].source.name(int(index)), "why": "cannot be read"}
            for index in np.setdiff1d(self.jobs[0].indices, indices)
        ]
        about = [described_checkpoint(job) for job in self.jobs]
        result = Result(
            version=__version__,
            command="kinship",
            checkpoint=about[0],
            data=described_data(self.jobs[0], len(indices), skipped),
            protocol=protocol,
            rows=rows,
            sections={
                "items": tuple(item.to_json() for item in self.items),
                **({"checkpoints": tuple(about)} if len(about) > 1 else {}),
            },
            warnings=tuple(dict.fromkeys(line for job in self.jobs for line in job.denoiser.warnings)),
        )
        return Finished(result, parts.clear)

    def _indices(self, files: Sequence[Path]) -> np.ndarray:
        """Of the images that could be read, which are the same for all networks."""
        found = []
        for path in files:
            with safe_open(path, framework="np") as file:
                found.append(file.get_tensor("index"))
        if any(not np.array_equal(found[0], other) for other in found):
            raise DataError(
                f"{self.jobs[0].source.path}: some images can be read at the size of one network and not of another; "
                "say `strict=` to see which, and leave them out"
            )
        indices: np.ndarray = found[0]
        return indices

    def _prepare(self, number: int, parts: Parts, encodings: Sequence[Encoding]) -> None:
        """Neighbours of one representation and its HSIC with itself, unless they are on disk."""
        if f"item-{number}" in parts.finished():
            return
        z = self.items[number].read(parts.folder, encodings)
        own = alignment.Centred(z).own
        arrays = {"whole": np.array([own.whole]), "without": own.without}
        record: dict[str, Any] = {"why": None}
        try:
            near = alignment.neighbours(z, self.kin.k)
            arrays |= {"items": near.items, "similarity": near.similarity}
        except EstimationError as error:
            record["why"] = str(error)
        parts.write(f"item-{number}", arrays, record)

    def _rows(self, images: int, parts: Parts, encodings: Sequence[Encoding], listener: Listener) -> tuple[Row, ...]:
        found: dict[tuple[int, int], Row] = {}
        done = parts.finished()
        for a in range(len(self.items)):
            first: alignment.Centred | None = None
            for b in range(a + 1, len(self.items)):
                key = f"pair-{a}-{b}"
                if key in done:
                    listener.skip(images)
                else:
                    first = first or self._centred(a, parts, encodings)
                    values, notes = self._pair(a, b, first, parts, encodings)
                    parts.write(key, {"images": np.array([images])}, {"values": values, "notes": notes})
                    listener.advance(images)
                record = parts.record(key)
                found[a, b] = self._row(a, b, images, record)
        return tuple(found[pair] for pair in alignment.pairs(len(self.items)))

    def _centred(self, number: int, parts: Parts, encodings: Sequence[Encoding]) -> alignment.Centred:
        centred = alignment.Centred(self.items[number].read(parts.folder, encodings))
        known = parts.read(f"item-{number}", "", ["whole", "without"])
        centred.own = alignment.Hsic(float(known["whole"][0]), known["without"])
        return centred

    def _pair(
        self, a: int, b: int, first: alignment.Centred, parts: Parts, encodings: Sequence[Encoding]
    ) -> tuple[dict[str, float | None], list[str]]:
        values: dict[str, float | None] = {}
        notes = []
        try:
            values |= _keys("cka", alignment.cka(first, self._centred(b, parts, encodings)), None)
        except EstimationError as error:
            values |= _keys("cka", None, None)
            notes.append(note_of(error))
        why = [parts.record(f"item-{number}")["why"] for number in (a, b)]
        if any(why):
            notes.append(f"undefined: cknna: {next(filter(None, why))}")
            return values | _keys("cknna", None, None) | _keys("mutual_knn", None, None), notes
        near = []
        for number in (a, b):
            read = parts.read(f"item-{number}", "", ["items", "similarity"])
            near.append(alignment.Neighbours(read["items"], read["similarity"]))
        aligned = alignment.alignment(near[0], near[1], self.kin.k)
        if aligned.cknna is None:
            notes.append("undefined: cknna: the neighbours of one of the two have no HSIC above 0; take more images")
        values |= _keys("cknna", aligned.cknna, alignment.BLOCKS)
        return values | _keys("mutual_knn", aligned.mutual, alignment.BLOCKS), notes

    def _row(self, a: int, b: int, images: int, record: Mapping[str, Any]) -> Row:
        first, second = self.items[a], self.items[b]
        head = {"a": first.name, "b": second.name, "n": images, "d_a": first.d, "d_b": second.d}
        return Row(head, **record["values"], chance=self.kin.k / (images - 1), notes=record["notes"])


def _keys(name: str, found: alignment.Estimate | None, blocks: int | None) -> dict[str, float | None]:
    """Value, error and 95 % interval under their keys; nulls without a value."""
    if found is None:
        return dict.fromkeys((name, f"{name}_se", f"{name}_low", f"{name}_high"))
    reach = student_quantile(0.975, 1e9 if blocks is None else blocks - 1) * found.se
    low, high = max(-1.0, found.value - reach), min(1.0, found.value + reach)
    # Of a representation with itself the number is 1, and rounding may be either side of it.
    return {name: found.value, f"{name}_se": found.se, f"{name}_low": low, f"{name}_high": max(high, found.value)}
