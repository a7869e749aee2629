"""How many images a run takes where an accuracy ε is asked for: as many as make ICR of its first snapshot known.

What a run says rests on differences between snapshots, and those are sharp because all snapshots see the same images:
the errors that they share cancel. Each snapshot stopping where it likes would undo that, so the first one decides for
all. It is looked at after m_1 < … < m_K images, as a sweep with an accuracy is (`sweep/stopping.py`), until the
interval of its ICR, with the error α_k of that look, has a relative half-width of ε at most: that of all cells together
where the alarm judges them together, else that of each layer and level. From there on the run is one of m_k images, and
nothing of its verdict changes: every snapshot has the same images, views and noise, and a limit or a test of paired
differences does not know how their number was found. Intervals of all snapshots have the error α_k, since where to stop
was chosen by errors that later snapshots share.

Snapshots differ in how well so many images determine them (on our suite by a factor of 0.8 to 2), so that one may be
known less well than was asked for: the result says which, and how many images would do. `scripts/simulate_accuracy.py
--track` measures what comes of it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffscope.cache.store import Records
from diffscope.measure.job import Job
from diffscope.measure.progress import Listener
from diffscope.measure.run import Measured, measure
from diffscope.ranks import world
from diffscope.studies.sweep.stopping import looks, percent, spent
from diffscope.studies.track.gauge import Gauge


@dataclass(frozen=True)
class Enough:
    """What the first snapshot came to.

    Attributes:
        asked: ε, relative.
        looks: Images at each look, the last of them all that there are.
        look: From 0, that at which ICR was known, or the last.
    """

    asked: float
    looks: tuple[int, ...]
    look: int

    @property
    def images(self) -> int:
        """Of each snapshot."""
        return self.looks[self.look]

    @property
    def error(self) -> float:
        """Two-sided, of intervals."""
        return spent(self.looks)[self.look]

    def described(self, half_widths: Mapping[int, float]) -> dict[str, Any]:
        """As `Result.accuracy` has it, from how well ICR of each step is known."""
        step, worst = max(half_widths.items(), key=lambda one: one[1])
        asked, seen = percent(self.asked), f"after {self.images} of {self.looks[-1]} images"
        if worst <= self.asked:
            reason = f"known to {asked} {seen}"
        elif math.isinf(worst):
            reason = f"step {step}: ICR has no interval {seen}; take more images"
        else:
            would_do = math.ceil(self.images * (worst / self.asked) ** 2)
            reason = (
                f"step {step}: ICR is known to {percent(worst)} {seen} (asked for {asked}); about {would_do} would do"
            )
        return {
            "asked": self.asked,
            "reached": worst <= self.asked,
            "reason": reason,
            "looks": list(self.looks),
            "images": self.images,
        }


def choose(
    gauge: Gauge,
    accuracy: float,
    taking: Callable[[int | None], Job],
    most: int | None,
    first: str,
    folder: Path,
    listener: Listener,
) -> Enough:
    """How many images, found now or by an earlier command for the same run, which keeps what it was given once.

    Args:
        gauge: What is measured of each snapshot.
        accuracy: ε, relative.
        taking: The first snapshot's job on so many images.
        most: Images, as the user says; None for as many as without an accuracy.
        first: sha256 of the first snapshot, which tells runs apart.
        folder: Where the choice and finished work are kept.
        listener: Hears of each look.
    """
    whole = taking(most)
    widths = [whole.plan.width(layer) for layer in whole.plan.layers]
    at = looks(len(whole.indices), widths, whole.plan.views, whole.blocks)
    of = f"{whole.protocol.shared().hash()} {gauge.key(whole)} {accuracy!r} {first}"
    key = hashlib.sha256(of.encode()).hexdigest()[:16]
    records = Records(folder / "track-images", listener.say)
    if (record := world().lead(lambda: records.read(key))) is not None:
        return Enough(accuracy, at, int(record["look"]))
    found: list[Measured] = []
    look = 0
    while look < len(at) - 1:
        gauge.error = spent(at)[look]
        job = taking(at[look])
        found.append(measure(job, None, folder))
        known = gauge.half_width(found[-1].rows, job.plan.views)
        so_far = "has no interval" if math.isinf(known) else f"is known to {percent(known)}"
        listener.say(f"after {at[look]} images ICR of {job.checkpoint.path} {so_far}")
        if known <= accuracy:
            break
        look += 1
    world().lead(lambda: records.write(key, {"look": look}))
    # Of the last one measured, the run's first snapshot will find the moments on disk, if it takes as many images.
    for one in found if look == len(at) - 1 else found[:-1]:
        world().lead(one.parts.clear)
    return Enough(accuracy, at, look)
