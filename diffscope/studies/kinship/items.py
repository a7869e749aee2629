"""What is compared with each other: layers of networks at noise levels, and encoders beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from diffscope.encoders import Encoder
from diffscope.formats import CHECKPOINT_ENDINGS
from diffscope.measure.encoding import Encoding
from diffscope.measure.job import Job
from diffscope.studies.features.kept import features_path


@dataclass(frozen=True)
class Item:
    """One representation of all images."""

    name: str
    """As short as tells it apart from the others."""
    job: Job
    """Of the network; of an encoder, of that beside which it stands."""
    layer: str | None
    level: int
    """Index into the job's noise levels."""
    d: int
    encoder: Encoder | None = None
    place: int = 0
    """Number of the encoder."""

    def read(self, folder: Path, encodings: Sequence[Encoding]) -> NDArray[np.float32]:
        """Features [n, d] of all images, from disk."""
        if self.encoder is not None:
            return encodings[self.place].features()
        with safe_open(features_path(self.job, folder), framework="np") as file:
            found: NDArray[np.float32] = file.get_slice(self.layer)[self.level : self.level + 1][0, 0]
            return found

    def to_json(self) -> dict[str, Any]:
        """What it is, for the result."""
        if self.encoder is not None:
            return {"name": self.name, "encoder": self.encoder.name, "kind": self.encoder.kind, "d": self.d}
        at = self.job.levels[self.level]
        checkpoint = self.job.checkpoint
        head = {"name": self.name, "checkpoint": checkpoint.path, "step": checkpoint.step}
        return {**head, "layer": self.layer, "sigma": at.sigma, "t": at.t, "d": self.d}


def items_of(jobs: Sequence[Job], encoders: Sequence[Encoder]) -> tuple[Item, ...]:
    """All that is compared: of each network all its layers at each level, then the encoders."""
    paths = short_names([job.checkpoint.path for job in jobs])
    # Layers in the order of the network, and the levels of each side by side: a map then shows both.
    found = [
        Item(_name(jobs, path, job, layer.name, level), job, layer.name, level, job.plan.width(layer))
        for path, job in zip(paths, jobs, strict=True)
        for layer in job.plan.layers
        for level in range(len(job.levels))
    ]
    names = short_names([encoder.name for encoder in encoders])
    beside = [
        Item(name, jobs[0], None, 0, encoder.dims, encoder, place)
        for place, (name, encoder) in enumerate(zip(names, encoders, strict=True))
    ]
    return (*found, *beside)


def _name(jobs: Sequence[Job], path: str, job: Job, layer: str, level: int) -> str:
    """Checkpoint, layer and level, each where there are several."""
    several_layers = any(len(other.plan.layers) > 1 for other in jobs)
    several_levels = any(len(other.levels) > 1 for other in jobs)
    parts = [path] if len(jobs) > 1 else []
    parts += [layer] if several_layers or (len(jobs) == 1 and not several_levels) else []
    parts += [f"σ {job.levels[level].sigma:.3g}"] if several_levels else []
    return " ".join(parts)


def _ending(name: str) -> str:
    return next((ending for ending in CHECKPOINT_ENDINGS if name.endswith(ending)), "")


def short_names(paths: Sequence[str]) -> list[str]:
    """The ends of paths that tell them apart."""
    parts = [path.rstrip("/").split("/") for path in paths]
    for length in range(1, max((len(one) for one in parts), default=1) + 1):
        found = ["/".join(one[-length:]) for one in parts]
        if len(set(found)) == len(found):
            stems = [name.removesuffix(_ending(name)) for name in found]
            return stems if len(set(stems)) == len(stems) else found
    return [f"{'/'.join(one)} ({number + 1})" for number, one in enumerate(parts)]
