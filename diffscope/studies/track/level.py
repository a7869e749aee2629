"""The noise level of a run for which none is given: the upper end of the window in a sweep of one snapshot.

Windows move to larger noise in training, so that at levels below them ICR rises in any run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diffscope.cache.store import Records, cache_folder
from diffscope.errors import EstimationError
from diffscope.measure.job import Job
from diffscope.measure.progress import Listener
from diffscope.measure.run import measure
from diffscope.measure.snapshots import Snapshot
from diffscope.options.settings import Settings
from diffscope.ranks import world
from diffscope.sources.base import Source
from diffscope.studies.sweep.window_rows import windows

IMAGES = 1000
"""Of the sweep, where no number is given."""


@dataclass(frozen=True)
class Chosen:
    """A noise-to-signal ratio, and the snapshot that was swept for it."""

    sigma: float
    checkpoint: str


def of_sweep(settings: Settings, source: Source) -> Settings:
    """Those of the sweep."""
    count = min(len(source), settings.num_images or IMAGES)
    return replace(settings, sigma=(), t=(), num_images=count)


def choose(job: Job, origin: str, folder: Path | None, listener: Listener) -> Chosen:
    """The level, swept for now or by an earlier command for the same run, which keeps the one it was given once.

    Args:
        job: A sweep of one snapshot.
        origin: sha256 of the run's first snapshot, which tells runs apart.
        folder: Where records are kept, else in the cache.
        listener: Hears of a sweep.

    Raises:
        EstimationError: If no level has an ICR with an interval.
    """
    key = hashlib.sha256(f"{job.protocol.shared().hash()} {origin}".encode()).hexdigest()[:16]
    records = Records((folder or cache_folder()) / "track-levels", listener.say)
    if (record := world().lead(lambda: records.read(key))) is not None:
        return Chosen(float(record["sigma"]), str(record["checkpoint"]))
    path = job.checkpoint.path
    listener.say(f"no `sigma=`: choosing the noise level by a sweep of {path}")
    found = measure(job, None, folder)
    noise = job.denoiser.noise
    known = [window for window in windows(noise.to_native, found.rows) if None not in (window.sigma, window.icr)]
    best = min(known, key=lambda window: (not window.is_ranked, window.icr or 0.0), default=None)
    if best is None or best.sigma is None:
        raise EstimationError(f"{path}: no noise level has an ICR with an interval; give one with `sigma=`")
    sigma = noise.check(float(f"{best.sigma if best.high is None else best.high:.3g}"))
    world().lead(lambda: records.write(key, {"sigma": sigma, "checkpoint": path}))
    if world().leads:
        found.parts.clear()
    return Chosen(sigma, path)


def from_the_middle(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """The one to sweep first, then those nearest to it: early ones have other windows."""
    middle = len(snapshots) // 2
    return [snapshots[i] for i in sorted(range(len(snapshots)), key=lambda i: abs(i - middle))]
