"""Samples of a model, or of each snapshot of a training run, and the share of them that copy training images.

All snapshots start from the same noise: sample number i is a function of (seed, i) and the network. Samples stand on
disk as they are drawn, and so does what was found of a finished checkpoint: the same command goes on where it was
stopped.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffscope import __version__
from diffscope.cache.store import Records, cache_folder, write_atomically
from diffscope.checkpoints import read
from diffscope.errors import CheckpointError, DataError, UsageError
from diffscope.families.base import Denoiser
from diffscope.families.networks.autoencoder import Autoencoder
from diffscope.features import target_of
from diffscope.measure.blocks import check_unreadable
from diffscope.measure.description import common_checkpoint, described_checkpoint, described_data
from diffscope.measure.job import Job
from diffscope.measure.opening import open_job
from diffscope.measure.snapshots import OWN_FAULTS, LeftOut, expanded, find_snapshots
from diffscope.options.settings import Loading
from diffscope.protocol import digest, require_equal
from diffscope.results import Result, Row
from diffscope.sources.base import Source
from diffscope.studies.memorization.choices import Choices
from diffscope.studies.memorization.copies import (
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
    SIDE,
    Describer,
    FileDescriptors,
    OwnFeatures,
    ScriptEncoder,
    file_hash,
    read_descriptors,
)
from diffscope.studies.memorization.samples import Drawn, classes, sampler, sampling_key
from diffscope.studies.memorization.training_images import CHUNK, KEEP, TrainingImages

VERSION = "diffscope-memorization-1"
"""Raised whenever the same samples give another number."""

SHARED = (
    *("checkpoint", "weights", "family", "constructor", "encoder", "data", "images", "resize", "side", "channels"),
    *("class_label", "seed", "precision", "generator", "max_pixels"),
)
"""Fields of a job's protocol that matter here."""

PAIRS, SHOWN = 16, 64
"""Pairs and samples that are kept for pictures."""

Gallery = dict[str, np.ndarray]
"""`samples` [m, C, S, S]; `pair_samples` and `pair_images` [k, C, S, S], the latter mirrored where that is nearer."""


@dataclass(frozen=True)
class Subject:
    """A checkpoint to be examined."""

    path: str
    step: int | None
    unit: str | None = None

    @property
    def place(self) -> dict[str, Any]:
        """The first keys of a row."""
        return {"checkpoint": self.path, "step": self.step}


def find_subjects(
    paths: Sequence[str], step_from: str | None = None, weights: str = "ema"
) -> tuple[list[Subject], list[LeftOut]]:
    """Snapshots of a run by rising step, and what could not be taken for one; a single checkpoint needs no step."""
    if step_from is None and len(single := expanded(paths)) == 1:
        checkpoint = read(single[0], weights, outline=True)
        return [Subject(single[0], checkpoint.step, checkpoint.step_unit)], []
    snapshots, left_out = find_snapshots(paths, step_from, weights)
    return [Subject(snapshot.path, snapshot.step, snapshot.unit) for snapshot in snapshots], left_out


@dataclass(frozen=True)
class Examined:
    """What was found of one checkpoint, as it stands on disk."""

    about: dict[str, Any]
    """What the checkpoint is."""
    row: dict[str, Any]
    pairs: list[dict[str, Any]]
    """The samples that look most like copies, most suspicious first."""
    data: dict[str, Any]
    warnings: list[str]


@dataclass
class Examination:
    """Takes checkpoints one by one, and makes a result of those taken so far."""

    source: Source
    choices: Choices = field(default_factory=Choices)
    loading: Loading = field(default_factory=Loading)
    folder: Path | None = None
    """Where samples and records are kept; else records in the cache, and samples only until they are examined."""
    save_samples: bool = False
    """Write all samples of each checkpoint to `folder`, as images to be read."""
    progress: Callable[[float], None] = lambda samples: None
    """Told of samples finished."""
    agree: Callable[[dict[str, Any]], None] = lambda protocol: None
    """Told of the protocol before anything is computed; may raise."""
    say: Callable[[str], None] = lambda text: None
    """Told of what the disk has damaged."""

    taken: list[tuple[Subject, Examined]] = field(default_factory=list, init=False)
    left_out: dict[str, str] = field(default_factory=dict, init=False)
    """Path → why."""
    protocol: dict[str, Any] | None = field(default=None, init=False)
    """What all checkpoints share, from the first of them on."""
    fresh: int = field(default=0, init=False)
    """Checkpoints examined now, not found on disk."""
    _records: Records | None = field(default=None, init=False)
    _encoder: Autoencoder | None = field(default=None, init=False)
    _training: TrainingImages | None = field(default=None, init=False)
    _several: bool = field(default=False, init=False)
    _script: ScriptEncoder | None = field(default=None, init=False)
    _tables: FileDescriptors | None = field(default=None, init=False)
    _live: dict[str, Gallery] = field(default_factory=dict, init=False)
    """Of checkpoints in memory, which have no record."""
    _described: dict[tuple[int, bool], Tensor] = field(default_factory=dict, init=False)
    """By a script, of training images: they are the same for all checkpoints."""
    _start: tuple[float, float] = field(default_factory=lambda: (time.perf_counter(), time.process_time()), init=False)

    def __post_init__(self) -> None:
        if self.source.kind == "latents":
            raise DataError(f"{self.source.path} holds latents; copies are looked for among images: give these")
        if self.source.kind == "floats" and self.choices.encoder is not None:
            raise DataError(f"{self.source.path} holds no pictures, and --encoder takes nothing else")
        if self.save_samples and self.folder is None:
            raise UsageError("--save-samples keeps them in --out DIR, which is not given")

    def leave_out(self, left: Sequence[LeftOut]) -> None:
        """Note what cannot be taken; CheckpointError if the settings are strict."""
        for entry in left:
            if self.choices.strict:
                raise CheckpointError(entry.why)
            self.left_out[entry.path] = entry.why

    def expect(self, subjects: Sequence[Subject]) -> None:
        """Of several, one that cannot be examined is left out. UsageError where these cannot be examined together."""
        if self.choices.encoder_features is not None and len(subjects) > 1:
            raise UsageError(
                f"--encoder-features: these are the descriptors of one checkpoint's samples, and there are "
                f"{len(subjects)} checkpoints; give one at a time"
            )
        self._several = len(subjects) > 1

    def take(self, subject: Subject, network: Denoiser | None = None) -> Examined | None:
        """Examine a checkpoint, or find its record; None where it had to be left out, with the reason in `left_out`.

        `network`: of a checkpoint that is in memory; it has no record.
        """
        try:
            examined = self._examined(subject, network)
        except OWN_FAULTS as error:
            if not self._several or (self.protocol is None and not isinstance(error, CheckpointError)):
                raise
            why = str(error) if subject.path in str(error) else f"{subject.path}: {error}"
            self.leave_out([LeftOut(subject.path, why)])
            return None
        self.taken.append((subject, examined))
        return examined

    def result(self) -> Result:
        """Of the checkpoints taken so far; CheckpointError where none could be."""
        if not self.taken or self.protocol is None:
            raise CheckpointError(next(iter(self.left_out.values()), "no checkpoint to examine"))
        first = self.taken[0][1]
        return Result(
            version=__version__,
            command="memorization",
            checkpoint=first.about
            if len(self.taken) == 1
            else common_checkpoint(first.about, [subject.path for subject, _ in self.taken]),
            data=first.data,
            protocol=self.protocol,
            rows=tuple(Row(subject.place, **found.row) for subject, found in self.taken),
            sections={
                "pairs": [{**subject.place, **pair} for subject, found in self.taken for pair in found.pairs],
                "checkpoints": [
                    *(
                        {"path": s.path, "sha256": found.about["sha256"], "step": s.step, "step_unit": s.unit}
                        for s, found in self.taken
                    ),
                    *({"path": path, "why": why} for path, why in sorted(self.left_out.items())),
                ],
            },
            warnings=tuple(first.warnings),
            pictures=self._pictures(),
            timing={
                "seconds": round(time.perf_counter() - self._start[0], 3),
                "cpu_seconds": round(time.process_time() - self._start[1], 3),
                "checkpoints_examined": self.fresh,
                "checkpoints_resumed": len(self.taken) - self.fresh,
            },
        )

    def _pictures(self) -> dict[str, Any] | None:
        """What there is to see of the checkpoint with most copies, and which it is; of several such, of the last."""
        subject, found = max(reversed(self.taken), key=lambda entry: float(entry[1].row["share"]))
        gallery = self._live.get(subject.path) or self._read_gallery(found.about["sha256"])
        return None if gallery is None else {**subject.place, **gallery}

    def _examined(self, subject: Subject, network: Denoiser | None) -> Examined:
        # Which records are this run's is known once the first checkpoint is open; until then they cannot be looked up.
        if network is None and self._records is not None:
            sha = read(subject.path, self.loading.weights, outline=True).sha256()
            if (found := self._record(subject, sha)) is not None:
                return found
        job = self._open(network or subject.path)
        sha = job.checkpoint.sha256()
        if network is None and (found := self._record(subject, sha)) is not None:
            return found
        return self._examine(job, subject, sha, live=network is not None)

    def _record(self, subject: Subject, sha: str) -> Examined | None:
        """What stands on disk, if all of it does."""
        assert self._records is not None
        record = self._records.read(sha)
        if record is None or self._read_gallery(sha) is None:
            return None
        if self.save_samples and not self._saved(subject).exists():
            return None
        if self.choices.strict and record["data"]["skipped"]:
            return None
        self.progress(self.choices.samples)
        return Examined(**record)

    def _open(self, checkpoint: str | Denoiser) -> Job:
        """ProtocolMismatch where it is another network than the first one."""
        settings = self.choices.settings(len(self.source))
        job = open_job(checkpoint, self.source, settings, self.loading, self._encoder)
        protocol = _protocol(job, self.choices)
        if self.protocol is None:
            self._records = Records(self._cache / f"memorization-{protocol['hash'][:16]}", self.say)
            self.protocol, self._encoder = protocol, job.denoiser.encoder
            self.agree(protocol)
            self._open_encoder(job)
        require_equal(self.protocol, protocol, (), "the first checkpoint and this one")
        return job

    def _open_encoder(self, job: Job) -> None:
        """Before any sample is drawn: it may be of no use."""
        choices = self.choices
        if choices.encoder is not None:
            side = choices.encoder_side or SIDE
            self._script = ScriptEncoder(choices.encoder, side, job.plan.device, job.plan.batch_size)
        if choices.encoder_features is not None:
            self._tables = read_descriptors(choices.encoder_features, choices.samples, len(self.source))

    @property
    def _cache(self) -> Path:
        return cache_folder() if self.folder is None else self.folder / "cache"

    def _examine(self, job: Job, subject: Subject, sha: str, live: bool) -> Examined:
        assert self._records is not None
        self.fresh += 1
        place = self._cache / f"samples-{sampling_key(job, self.choices.steps)}"
        drawn = Drawn(place, self.choices.samples, self.say)
        if live:  # what it is does not follow from its weights
            drawn.clear()
        drawn.draw(job, self.choices.steps, self.progress)
        if self.save_samples:
            drawn.save(self._saved(subject), classes(job, self.choices.samples))
        found = self._found(job, drawn)
        order = np.argsort(found.doubt, kind="stable")[:PAIRS]
        gallery = self._gallery(job, drawn, found, order)
        examined = Examined(
            described_checkpoint(job),
            {"samples": self.choices.samples, **measures(found, self.choices.criterion)},
            [_pair(self.source, found, int(n)) for n in order],
            self._data(job),
            list(job.denoiser.warnings),
        )
        if live:
            self._live[subject.path] = gallery
        else:
            # The record last: where it is, all is.
            write_atomically(self._gallery_path(sha), lambda path: _write_arrays(path, gallery))
            self._records.write(sha, asdict(examined))
        if live or self.folder is None:
            drawn.clear()
        return examined

    def _saved(self, subject: Subject) -> Path:
        assert self.folder is not None
        return self.folder / ("samples.npz" if subject.step is None else f"samples-{subject.step:07d}.npz")

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
            self.say(f"{self._gallery_path(sha)}: damaged on disk; the checkpoint is examined again")
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
        check_unreadable(job, len(training.skipped), training.skipped)
        if training.distinct < 2:
            raise DataError(
                f"{self.source.path}: {training.distinct} distinct training images; at least 2 are needed, for the "
                "ratio of two distances"
            )
        return search.found()

    def _by_descriptors(self, job: Job, drawn: Drawn, training: TrainingImages) -> Similarities:
        describer = self._describer(job, training)
        labels = classes(job, self.choices.samples) if self.choices.class_label == "label" else None
        described = [
            describer.describe(samples, None if labels is None else labels[start : start + len(samples)])
            for start, samples in drawn.parts()
        ]
        search = CosineSearch(torch.cat(described))
        for indices, images in training.parts():
            search.update(indices, self._describe(describer, indices, images, mirrored=False))
            if self.choices.mirror:
                search.update(indices, self._describe(describer, indices, images, mirrored=True), mirrored=True)
        check_unreadable(job, len(training.skipped), training.skipped)
        return search.found()

    def _describer(self, job: Job, training: TrainingImages) -> Describer:
        if self._script is not None:
            return self._script
        some = np.sort(job.indices[:CENTRED_ON])
        indices, images = training.at(some)
        return OwnFeatures(job, images, _labels(self.source, indices))

    def _describe(self, describer: Describer, indices: np.ndarray, images: np.ndarray, mirrored: bool) -> Tensor:
        key = (int(indices[0]), mirrored)
        if key in self._described:
            return self._described[key]
        flipped = np.ascontiguousarray(images[..., ::-1]) if mirrored else images
        found = describer.describe(flipped, _labels(self.source, indices))
        if describer is self._script and sum(kept.nbytes for kept in self._described.values()) < KEEP:
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
        return {
            "samples": drawn.at(np.arange(min(SHOWN, self.choices.samples))),
            "pair_samples": drawn.at(order),
            "pair_images": np.stack(nearer),
        }

    def _data(self, job: Job) -> dict[str, Any]:
        assert self._training is not None
        skipped = self._training.skipped
        distinct = {} if self.choices.encoder_features else {"distinct": self._training.distinct}
        return {**described_data(job, len(self.source) - len(skipped), skipped), **distinct}


def _labels(source: Source, indices: np.ndarray) -> np.ndarray | None:
    return None if source.labels is None else source.labels[indices]


def _protocol(job: Job, choices: Choices) -> dict[str, Any]:
    """All that the numbers depend on but for the checkpoint, as JSON with its hash."""
    base = job.protocol.shared().to_json()
    fields: dict[str, Any] = {
        **{key: base[key] for key in SHARED},
        **sampler(choices.steps),
        "samples": choices.samples,
        "space": _space(choices),
        "mirror": choices.mirror and choices.encoder_features is None,
        "criterion": choices.criterion.kind,
        "threshold": choices.criterion.threshold,
        "version": VERSION,
    }
    if choices.space == "features":
        fields |= {"layers": base["layers"], "sigmas": base["sigmas"]}
    if choices.encoder is not None:
        fields |= {"encoder_file": file_hash(choices.encoder), "encoder_side": choices.encoder_side or SIDE}
    if choices.encoder_features is not None:
        fields["encoder_features"] = [file_hash(path) for path in choices.encoder_features]
    return {**fields, "hash": digest(fields)}


def _space(choices: Choices) -> str:
    if choices.encoder is not None:
        return "encoder"
    return choices.space if choices.encoder_features is None else "file"


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
