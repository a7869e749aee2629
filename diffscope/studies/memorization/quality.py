"""How near samples as a whole are to the training images, and to held-out ones, in the space of some features.

All checkpoints of a run are measured in one space: a named encoder's, or the model's own features at one layer and
noise level, of one checkpoint. Features stand on disk as they are computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from diffscope import seeding
from diffscope.distributions import DENSITY_K, PRECISION_K
from diffscope.errors import DataError
from diffscope.extraction import target_of
from diffscope.measure.job import Job
from diffscope.protocol import digest
from diffscope.sources.base import Source
from diffscope.studies.memorization.copies import CHUNK_BYTES, SeenImages, pieces
from diffscope.studies.memorization.encoders import Encoder, OwnFeatures, ReferenceFeatures
from diffscope.studies.memorization.feature_files import FeatureFiles
from diffscope.studies.memorization.options import Choices
from diffscope.studies.memorization.references import HELD_OUT, References
from diffscope.studies.memorization.samples import Drawn, classes
from diffscope.studies.memorization.training_images import TrainingImages

VERSION = "diffscope-quality-1"
"""Raised whenever the same samples give another number."""

PART = 512
"""Images whose features are computed and kept together, where these are small."""

Told = dict[str, Any]
"""Plain JSON."""


@dataclass
class Quality:
    """Compares the samples of one checkpoint after another with the same references.

    Attributes:
        choices: Name the encoder, and the number of references.
        training: The training images.
        holdout: Images not trained on, or None.
        judge: Whose features at its layer and noise level are compared; None where an encoder is named.
        step: Of the judge's checkpoint, where it is known.
    """

    choices: Choices
    training: Source
    holdout: Source | None
    judge: Job | None
    step: int | None = None
    _encoder: Encoder | None = field(default=None, init=False)
    _named: Told | None = field(default=None, init=False)
    _references: dict[str, References] = field(default_factory=dict, init=False)
    """Of the training images under "", of held-out ones under HELD_OUT."""

    def begin(self, named: ReferenceFeatures | None) -> None:
        """Chooses what describes images: the one place where quality meets encoders.

        Args:
            named: The encoder that the user named, or None.
        """
        if named is None:
            assert self.judge is not None
            self._encoder = OwnFeatures(self.judge)
        else:
            self._encoder = named

    def about(self, named: Told | None) -> Told:
        """What the numbers depend on beside checkpoint, samples and training images, for protocols.

        Args:
            named: The protocol of the encoder that the user named, or None.
        """
        self._named = named
        held_out = None if self.holdout is None else self.holdout.fingerprint(range(len(self.holdout)))
        own = {"num_references": self.choices.num_references, "holdout": held_out, "version": VERSION}
        return {**self._space, **own, "precision_k": PRECISION_K, "density_k": DENSITY_K}

    @property
    def _space(self) -> Told:
        """What features depend on beside the images."""
        if self.judge is None:
            assert self._named is not None
            return {"reference": self._named}
        denoiser, plan = self.judge.denoiser, self.judge.plan
        return {
            "features_of": self.judge.checkpoint.sha256(),
            "constructor": denoiser.constructor,
            "encoder": denoiser.encoder.fingerprint() if denoiser.encoder else None,
            "layer": plan.layers[0].name,
            "sigma": plan.sigmas[0],
        }

    def measure(self, job: Job, drawn: Drawn, place: Path | None) -> tuple[Told, Told]:
        """Measures the samples of a checkpoint.

        Args:
            job: Of the checkpoint.
            drawn: Its samples.
            place: Where features are kept; None keeps nothing.

        Returns:
            The keys of a row and its notes; and what they were measured in and against.
        """
        if not self._references:
            self._references = {end: self._of_images(job, source, place) for end, source in self._sources()}
        samples = np.concatenate(list(self._of_samples(job, drawn, self._files(place, drawn.folder.name))))
        row: Told = {}
        notes: list[str] = []
        for end, references in self._references.items():
            found, why = references.measure(samples.astype(np.float64), end)
            row |= found
            notes += why
        return {**row, "notes": list(dict.fromkeys(notes))}, self._told()

    def _told(self) -> Told:
        """Space and references, by the names of files."""
        if self.judge is None:
            space: Told = {"encoder": self.choices.encoder}
        else:
            plan = self.judge.plan
            space = {"features_of": self.judge.checkpoint.path, "step": self.step}
            space |= {"layer": plan.layers[0].name, "sigma": plan.sigmas[0]}
        counts = {f"references{end}": references.count for end, references in self._references.items()}
        held_out = {} if self.holdout is None else {"holdout": self.holdout.path}
        return {**space, **held_out, **counts, "features": next(iter(self._references.values())).d}

    def _sources(self) -> Iterator[tuple[str, Source]]:
        yield "", self.training
        if self.holdout is not None:
            yield HELD_OUT, self.holdout

    def _files(self, place: Path | None, key: str) -> FeatureFiles:
        """Of the images that `key` tells of."""
        name = f"features-{digest({'images': key, **self._space})[:16]}"
        return FeatureFiles(None if place is None else place / name)

    def _of_samples(self, job: Job, drawn: Drawn, files: FeatureFiles) -> Iterator[np.ndarray]:
        labels = classes(job, drawn.count) if self.choices.class_label == "label" else None
        for start, samples in drawn.parts():
            chosen = None if labels is None else labels[start : start + len(samples)]
            yield files.part(start, len(samples), partial(self._described, samples, chosen))

    def _of_images(self, job: Job, source: Source, place: Path | None) -> References:
        """Of a seeded subset; images that agree in every pixel count once."""
        plan, target = job.plan, target_of(job.denoiser)
        chosen = np.sort(seeding.permutation(plan.seed, len(source))[: self.choices.num_references])
        files = self._files(place, f"{source.fingerprint(chosen)} {plan.seed} {target}")
        reader = TrainingImages(source, target, mirror=False, strict=self.choices.strict, workers=plan.workers)
        seen, found = SeenImages(mirror=False), list[np.ndarray]()
        for rows in pieces(len(chosen), 8 * target.channels * target.side**2, CHUNK_BYTES, PART):
            indices, images = reader.at(chosen[rows])
            new = np.array([seen.is_new(image) for image in images], bool)
            labels = None if source.labels is None else source.labels[indices[new]]
            if new.any():
                describe = partial(self._described, images[new], labels)
                found.append(files.part(rows.start, int(new.sum()), describe))
        if not found:
            raise DataError(
                f"{source.path}: none of {len(chosen)} images can be read; there is nothing to compare with"
            )
        return References(np.concatenate(found).astype(np.float64))

    def _described(self, images: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        assert self._encoder is not None
        return self._encoder.features(images, labels).cpu().numpy()
