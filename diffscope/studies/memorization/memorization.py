"""Samples of a model, or of each snapshot of a training run, and the share of them that copy training images.

All snapshots start from the same noise: sample number i is a function of (seed, i) and the network. Samples stand on
disk as they are drawn, and so does what was found of a finished checkpoint: the same command goes on where it was
stopped.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffscope import __version__
from diffscope.cache.store import write_atomically
from diffscope.encoders import Network, Setting, open_encoder
from diffscope.errors import DataError, UsageError
from diffscope.extraction import target_of
from diffscope.measure.description import described_data
from diffscope.measure.estimate import Estimate, of_job, rate
from diffscope.measure.job import Job
from diffscope.measure.opening import open_job
from diffscope.measure.progress import Listener
from diffscope.measure.run import check_unreadable
from diffscope.measure.series import Answer, Series, Taken
from diffscope.measure.snapshots import Snapshot
from diffscope.results import Result, Row
from diffscope.sources.base import Source, eight_bit
from diffscope.studies.memorization.copies import (
    CHUNK_BYTES,
    CosineSearch,
    Distances,
    DistanceSearch,
    Found,
    Similarities,
    measures,
    pieces,
)
from diffscope.studies.memorization.encoders import (
    CENTRED_ON,
    Encoder,
    FileDescriptors,
    OwnFeatures,
    ReferenceFeatures,
    read_descriptors,
)
from diffscope.studies.memorization.options import Choices
from diffscope.studies.memorization.protocol import shared_protocol
from diffscope.studies.memorization.quality import Quality
from diffscope.studies.memorization.samples import Drawn, classes, draw_batch, sampling_key
from diffscope.studies.memorization.training_images import CHUNK, KEEP, TrainingImages

PAIRS, SHOWN = 16, 64
"""Pairs and samples that are kept for pictures."""

Gallery = dict[str, np.ndarray]
"""`samples` [m, C, S, S]; `pair_samples` and `pair_images` [k, C, S, S], the latter mirrored where that is nearer."""


@dataclass(kw_only=True)
class Memorization(Series):
    """Looks for copies of training images among the samples of one checkpoint after another.

    Attributes:
        choices: What is drawn, and what counts as a copy.
        holdout: Images not trained on, or None.
        save_samples: Write all samples of each checkpoint to `folder`, as images to be read.
    """

    choices: Choices
    holdout: Source | None = None
    save_samples: bool = False
    _galleries: dict[str, Gallery] = field(default_factory=dict, init=False)
    """Of a checkpoint in memory, which has no record."""
    _training: TrainingImages | None = field(default=None, init=False)
    _quality: Quality | None = field(default=None, init=False)
    _reference: ReferenceFeatures | None = field(default=None, init=False)
    _tables: FileDescriptors | None = field(default=None, init=False)
    _described: dict[tuple[int, bool], Tensor] = field(default_factory=dict, init=False)
    """By a reference encoder, of training images: they are the same for all checkpoints."""

    @property
    def unit(self) -> str:
        """What progress counts."""
        return "samples"

    @property
    def each(self) -> float:
        """Of them, of one checkpoint."""
        return float(self.choices.samples)

    def result(self) -> Result:
        """Of the checkpoints taken so far; CheckpointError where none could be."""
        head = self._head()
        ordered = [({"checkpoint": s.path, "step": s.step}, taken.answer) for s, taken in self.in_order()]
        return Result(
            **head,
            version=__version__,
            command="memorization",
            rows=tuple(Row(place, **answer["row"]) for place, answer in ordered),
            sections={
                "pairs": [{**place, **pair} for place, answer in ordered for pair in answer["pairs"]],
                "checkpoints": self._checkpoints(),
                **({"quality": ordered[0][1]["quality"]} if self.choices.quality else {}),
            },
            pictures=self._pictures(),
        )

    def _pictures(self) -> dict[str, Any] | None:
        """What there is to see of the checkpoint with most copies, and which it is; of several such, of the last."""
        snapshot, taken = max(reversed(self.in_order()), key=lambda entry: float(entry[1].answer["row"]["share"]))
        gallery = self._galleries.get(snapshot.path) or self._read_gallery(taken.about["sha256"])
        return None if gallery is None else {"checkpoint": snapshot.path, "step": snapshot.step, **gallery}

    def _prepare(self) -> None:
        if self.save_samples and self.folder is None:
            raise UsageError("`save_samples=` keeps them in `out=DIR`, which is not given")
        if self.choices.quality:
            self._opened_quality()

    def _opened_quality(self) -> Quality:
        """Opens the checkpoint whose features judge all others: the one named, else the last."""
        if self._quality is None:
            choices, last, judge, step = self.choices, self.snapshots[-1], None, None
            if choices.encoder is None:
                of = choices.features_of or self.network or last.path
                judge = open_job(of, self.source, self.settings, self.loading, self._encoder)
                step = judge.checkpoint.step if choices.features_of else last.step
            self._quality = Quality(choices, self.source, self.holdout, judge, step)
        return self._quality

    def _opened_reference(self, job: Job) -> ReferenceFeatures:
        """Opens the encoder that the user named, once."""
        if self._reference is None:
            choices, plan = self.choices, job.plan
            assert choices.encoder is not None
            side = "" if choices.encoder_side is None else f":side={choices.encoder_side}"
            network = Network(job.denoiser, plan, self.source)
            setting = Setting(plan.device, plan.batch_size, choices.allow_torchscript, network, "encoder")
            self._reference = ReferenceFeatures(open_encoder(choices.encoder + side, setting))
        return self._reference

    def _shared(self, job: Job) -> dict[str, Any]:
        named = None if self.choices.encoder is None else self._opened_reference(job).encoder.protocol()
        quality = self._opened_quality().about(named) if self.choices.quality else None
        return shared_protocol(job, self.choices, named, quality)

    def _records_folder(self, job: Job) -> Path:
        return self._place() / f"memorization-{self._shared(job)['hash'][:16]}"

    def _place(self) -> Path:
        return super()._place() if self.folder is None else self.folder / "cache"

    def _is_whole(self, taken: Taken, snapshot: Snapshot) -> bool:
        if self._read_gallery(taken.about["sha256"]) is None:
            return False
        if self.save_samples and not self._saved(snapshot).exists():
            return False
        return not (self.choices.strict and taken.data["skipped"])

    def _begin(self, job: Job) -> None:
        """Opens the encoder before any sample is drawn: it may be of no use."""
        choices = self.choices
        if choices.encoder is not None:
            self._opened_reference(job)
        if choices.encoder_features is not None:
            self._tables = read_descriptors(choices.encoder_features, choices.samples, len(self.source))
        if choices.quality:
            self._opened_quality().begin(self._reference)

    def _measure(self, job: Job, snapshot: Snapshot, listener: Listener) -> Answer:
        sha, is_file = job.checkpoint.sha256(), self.network is None
        drawn = Drawn(
            self._place() / f"samples-{sampling_key(job, self.choices.steps)}", self.choices.samples, listener
        )
        if not is_file:  # what it is does not follow from its weights
            drawn.clear()
        drawn.draw(job, self.choices.steps)
        if self.save_samples:
            drawn.save(self._saved(snapshot), classes(job, self.choices.samples))
        found = self._found(job, drawn)
        order = np.argsort(found.score, kind="stable")[:PAIRS]
        gallery = self._gallery(job, drawn, found, order)
        row = {"samples": self.choices.samples, **measures(found, self.choices.criterion)}
        answer = {"row": row, "pairs": [_pair(self.source, found, int(n)) for n in order]}
        if self.choices.quality:
            measured, about = self._opened_quality().measure(job, drawn, self._place() if is_file else None)
            answer |= {"row": row | measured, "quality": about}
        if not is_file:
            self._galleries[snapshot.path] = gallery
        else:
            # Before the record: where that is, all is.
            write_atomically(self._gallery_path(sha), lambda path: _write_arrays(path, gallery))
        return answer, self._data(job), drawn.clear if self.folder is None or not is_file else lambda: None

    def _estimate(self, job: Job) -> Estimate:
        """Of drawing the samples, which is most of the work."""
        samples, each = self.choices.samples, 2 * self.choices.steps - 1
        batch = range(min(samples, job.plan.batch_size))
        drawing = rate(lambda: 3 * len(draw_batch(job, batch, 2, classes(job, len(batch)))), job.plan.device)
        passes = samples * each * len(self.snapshots) + self._passes_of_quality()
        space = job.denoiser.space
        size = space.image_channels * space.image_side**2 * (4 if job.source.kind == "floats" else 1)
        disk = samples * size * len(self.snapshots)
        found = of_job(job, passes, KEEP + CHUNK_BYTES, disk, passes / drawing, self._shared(job), len(self.snapshots))
        return replace(found, images=samples, levels=each)

    def _passes_of_quality(self) -> int:
        """For the model's own features, of all samples and references."""
        if not self.choices.quality or self.choices.encoder is not None:
            return 0
        sources = [self.source, *([] if self.holdout is None else [self.holdout])]
        references = sum(min(len(source), self.choices.num_references) for source in sources)
        return references + self.choices.samples * len(self.snapshots)

    def _saved(self, snapshot: Snapshot) -> Path:
        assert self.folder is not None
        return self.folder / ("samples.npz" if snapshot.step is None else f"samples-{snapshot.step:07d}.npz")

    def _gallery_path(self, sha: str) -> Path:
        assert self._records is not None
        return self._records.folder / f"{sha}.npz"

    def _read_gallery(self, sha: str) -> Gallery | None:
        try:
            with np.load(self._gallery_path(sha)) as arrays:
                return {name: arrays[name] for name in ("samples", "pair_samples", "pair_images")}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile):
            self.listener.say(f"{self._gallery_path(sha)}: damaged on disk; the checkpoint is examined again")
            return None

    # --- the search

    def _found(self, job: Job, drawn: Drawn) -> Found:
        if self._training is None:
            workers, mirror = job.plan.workers, self.choices.mirror
            self._training = TrainingImages(job.source, target_of(job.denoiser), mirror, self.choices.strict, workers)
        if self._tables is not None:
            return self._by_file(self._tables, job.plan.device)
        if self.choices.by_pixels:
            return self._by_pixels(job, drawn, self._training)
        return self._by_descriptors(job, drawn, self._training)

    def _by_pixels(self, job: Job, drawn: Drawn, training: TrainingImages) -> Distances:
        search = DistanceSearch(self.choices.samples, self.choices.mirror, job.plan.device)
        for indices, images in training.parts():
            for start, samples in drawn.parts():
                search.update(start, samples, indices, images)
        check_unreadable(job.source.path, len(job.indices), len(training.skipped), training.skipped)
        if training.distinct < 2:
            raise DataError(
                f"{self.source.path}: {training.distinct} distinct training images; at least 2 are needed, for the "
                "ratio of two distances"
            )
        return search.found()

    def _by_descriptors(self, job: Job, drawn: Drawn, training: TrainingImages) -> Similarities:
        encoder = self._encoder_of(job, training)
        labels = classes(job, self.choices.samples) if self.choices.class_label == "label" else None
        described = [
            encoder.describe(samples, None if labels is None else labels[start : start + len(samples)])
            for start, samples in drawn.parts()
        ]
        search = CosineSearch(torch.cat(described))
        for indices, images in training.parts():
            search.update(indices, self._describe(encoder, indices, images, mirrored=False))
            if self.choices.mirror:
                search.update(indices, self._describe(encoder, indices, images, mirrored=True), mirrored=True)
        check_unreadable(job.source.path, len(job.indices), len(training.skipped), training.skipped)
        return search.found()

    def _encoder_of(self, job: Job, training: TrainingImages) -> Encoder:
        if self.choices.copies_in == "encoder":
            assert self._reference is not None
            return self._reference
        own, some = OwnFeatures(job), np.sort(job.indices[:CENTRED_ON])
        indices, images = training.at(some)
        own.centre_on(images, _labels(self.source, indices))
        return own

    def _describe(self, encoder: Encoder, indices: np.ndarray, images: np.ndarray, mirrored: bool) -> Tensor:
        key = (int(indices[0]), mirrored)
        if key in self._described:
            return self._described[key]
        flipped = np.ascontiguousarray(images[..., ::-1]) if mirrored else images
        found = encoder.describe(flipped, _labels(self.source, indices))
        if encoder is self._reference and sum(kept.nbytes for kept in self._described.values()) < KEEP:
            self._described[key] = found
        return found

    def _by_file(self, tables: FileDescriptors, device: str) -> Similarities:
        search = CosineSearch(tables.samples.to(device))
        for rows in pieces(len(tables.training), 1, CHUNK, CHUNK):
            search.update(np.arange(rows.start, rows.stop), tables.training[rows].to(device))
        return search.found()

    def _gallery(self, job: Job, drawn: Drawn, found: Found, order: np.ndarray) -> Gallery:
        target = target_of(job.denoiser)
        images = [self.source.read(int(found.image[n]), target) for n in order]
        nearer = [image[..., ::-1] if found.mirrored[n] else image for n, image in zip(order, images, strict=True)]
        gallery = {
            "samples": drawn.at(np.arange(min(SHOWN, self.choices.samples))),
            "pair_samples": drawn.at(order),
            "pair_images": np.stack(nearer),
        }
        return {name: eight_bit(images) if self.source.are_pictures else images for name, images in gallery.items()}

    def _data(self, job: Job) -> dict[str, Any]:
        assert self._training is not None
        skipped = self._training.skipped
        distinct = {} if self.choices.encoder_features else {"distinct": self._training.distinct}
        return {**described_data(job, len(self.source) - len(skipped), skipped), **distinct}


def _labels(source: Source, indices: np.ndarray) -> np.ndarray | None:
    return None if source.labels is None else source.labels[indices]


def _pair(source: Source, found: Found, n: int) -> dict[str, Any]:
    image = int(found.image[n])
    pair: dict[str, Any] = {
        "sample": n,
        "image": source.name(image),
        "index": image,
        "mirrored": bool(found.mirrored[n]),
    }
    if isinstance(found, Distances):
        return pair | {"d1": float(found.d1[n]), "d2": float(found.d2[n]), "ratio": float(found.ratio[n])}
    assert isinstance(found, Similarities)
    return pair | {"similarity": float(found.similarity[n])}


def _write_arrays(path: Path, arrays: Gallery) -> None:
    with open(path, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
