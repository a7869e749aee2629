"""An alarm that a training can act on: the network has begun to learn single training images.

Two things happen together, and each alone also happens for other reasons. Features: ICR, pooled over layers and noise
levels, rises from its lowest (Li et al., "Evaluating the representation space of diffusion models via self-supervised
principles", 2026, https://arxiv.org/abs/2606.09718). Output: the denoising loss on views that training never saw,
crops of the very images that it trains on, rises while that on the images as they are falls. Where held-out images are
given, their loss takes the place of that of the views.

Each is a mean of logarithms P_t over its cells (layers, noise levels). Images, blocks, views and noise are the same for
all snapshots and cells, so that the mean of the cells' block replicates is the replicate of P, and the paired jackknife
of P_t − P_best, best being the lowest so far, knows all covariances. The alarm fires where every rise exceeds its limit
and so many standard errors, at `PERSIST` snapshots in a row. It looks at nothing after t.

`scripts/study_onset.py` tells how limits were chosen and what they reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from diffscope.numerics import FloatArray, jackknife_se, student_quantile
from diffscope.results import Alarm, AlarmCell, AlarmLimit, AlarmPoint, OnsetRow, Row
from diffscope.studies.track.onset import Snapshot, judge


@dataclass(frozen=True)
class Limit:
    """What a rise must exceed."""

    rise: float
    """Relative, above the lowest so far."""
    errors: float
    """Standard errors of the paired difference."""


LOSSES = ("loss_holdout", "loss_views")
"""Of which the first that was measured is watched beside ICR."""
WITH_LOSS, ICR_ALONE, LOSS = Limit(0.01, 1.0), Limit(0.05, 3.0), Limit(0.05, 3.0)
PERSIST = 2
FALSE_ALARMS: float | None = None
WITHOUT_LOSS = (
    "icr_alone: there is no denoising loss on views that training never saw (latents made beforehand, no augmentation, "
    "or a live network that does not say what it predicts): ICR alone must rise further before the alarm fires"
)


def limits_of(loss_name: str | None) -> dict[str, Limit]:
    """Of each quantity, where this loss is watched."""
    return {"icr": ICR_ALONE} if loss_name is None else {"icr": WITH_LOSS, loss_name: LOSS}


@dataclass(frozen=True)
class Pooled:
    """A quantity over a run, as the mean of the logarithms of its cells."""

    y: FloatArray
    """P [T]."""
    blocks: FloatArray
    """Its delete-a-block replicates [T, G]."""

    @staticmethod
    def of(cells: ArrayLike, replicates: ArrayLike) -> Pooled:
        """Of log values [T, C] of C cells and their replicates [T, C, G]."""
        return Pooled(np.asarray(cells, np.float64).mean(1), np.asarray(replicates, np.float64).mean(1))

    def rises(self) -> list[Rise]:
        """Of each snapshot, above the lowest up to there."""
        found, best = [], 0
        for t in range(len(self.y)):
            best = t if self.y[t] < self.y[best] else best
            found.append(self.rise(best, t))
        return found

    def rise(self, best: int, t: int) -> Rise:
        """From one snapshot to another."""
        return Rise(best, float(self.y[t] - self.y[best]), float(jackknife_se(self.blocks[t] - self.blocks[best])))


@dataclass(frozen=True)
class Rise:
    """Of a pooled quantity at one snapshot."""

    best: int
    """Index of the snapshot above which it rises."""
    log_ratio: float
    se: float

    def exceeds(self, limit: Limit) -> bool:
        """Whether it is large enough to matter, and certain."""
        return self.log_ratio > np.log1p(limit.rise) and self.log_ratio > limit.errors * self.se


def fires(
    rises: Mapping[str, Sequence[Rise]], limits: Mapping[str, Limit], persist: int, fallen: bool = False
) -> int | None:
    """Index of the snapshot at which all have exceeded their limits for `persist` snapshots in a row; None: never.

    Args:
        rises: By quantity, of each snapshot by rising step.
        limits: Of those of them that count.
        persist: Snapshots in a row.
        fallen: Whether a rise counts only above a later snapshot than the first. ICR of a network that has learned
            hardly anything is low, and rises before it falls.
    """
    in_a_row = 0
    for t in range(len(next(iter(rises.values()), ()))):
        here = {name: rises[name][t] for name in limits}
        high = all(here[name].exceeds(limit) for name, limit in limits.items())
        in_a_row = in_a_row + 1 if high and not (fallen and any(rise.best == 0 for rise in here.values())) else 0
        if in_a_row >= persist:
            return t
    return None


# --- over the rows of a run


@dataclass(frozen=True)
class Course:
    """What the rows of a run hold for the alarm, by rising step."""

    steps: tuple[int, ...]
    checkpoints: tuple[str, ...]
    n: tuple[int, ...]
    """Images."""
    cells: tuple[tuple[str, float], ...]
    """(layer, σ), in the order of the network."""
    icr: FloatArray
    """log ICR [T, C]."""
    icr_blocks: FloatArray
    """[T, C, G]."""
    loss_name: str | None
    """Which loss is watched beside; None where none was measured."""
    loss: FloatArray
    """Its logarithm [T, L], by rising σ."""
    loss_blocks: FloatArray
    """[T, L, G]."""
    notes: tuple[str, ...]

    @property
    def pooled(self) -> dict[str, Pooled]:
        """By quantity."""
        found = {"icr": Pooled.of(self.icr, self.icr_blocks)}
        return found if self.loss_name is None else {**found, self.loss_name: Pooled.of(self.loss, self.loss_blocks)}


def course_of(snapshots: Sequence[tuple[int, str, Sequence[Row]]]) -> Course | None:
    """What (step, path, rows) by rising step hold; None where no snapshot has an ICR.

    The cells are those of the first snapshot that has any: one that lacks an ICR later is left out with a note.
    """
    cells: list[tuple[str, float]] = []
    loss_name: str | None = None
    used: list[tuple[int, str, dict[tuple[str, float], Row]]] = []
    missing: list[int] = []
    for step, path, rows in snapshots:
        known = {(row.layer, row.sigma): row for row in rows if row.get("icr") and row.get("replicates")}
        if not cells and known:
            cells = list(known)
            loss_name = next((name for name in LOSSES if rows[0].get(name) is not None), None)
        if not cells or not known.keys() >= set(cells):
            missing.append(step)
        else:
            used.append((step, path, known))
    if not used:
        return None
    # A level's loss stands in the rows of all its layers.
    levels = {sigma: next(cell for cell in cells if cell[1] == sigma) for sigma in sorted({s for _, s in cells})}
    said = ", ".join(map(str, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")

    def _of_levels(what: str) -> list[list[Any]]:
        return [[known[cell][f"{loss_name}{what}"] for cell in levels.values() if loss_name] for _, _, known in used]

    return Course(
        steps=tuple(step for step, _, _ in used),
        checkpoints=tuple(path for _, path, _ in used),
        n=tuple(known[cells[0]].n for _, _, known in used),
        cells=tuple(cells),
        icr=np.log([[known[cell]["icr"] for cell in cells] for _, _, known in used]),
        icr_blocks=np.array([[known[cell]["replicates"] for cell in cells] for _, _, known in used]),
        loss_name=loss_name,
        loss=np.log(_of_levels("")),
        loss_blocks=np.array(_of_levels("_replicates")),
        notes=(f"snapshots_skipped: no ICR in all cells at step {said}; the alarm is that of the others",)
        if missing
        else (),
    )


def judged(course: Course, passes: float | None) -> tuple[OnsetRow, Alarm]:
    """The verdict of a run, and what it rests on; the alarm at a snapshot is that of a run that ends there.

    Args:
        course: At least one snapshot.
        passes: Over the training images, up to the last snapshot, where that is known.
    """
    pooled = course.pooled
    limits = limits_of(course.loss_name)
    rises = {name: pooled[name].rises() for name in limits}
    fired = fires(rises, limits, PERSIST, fallen=course.loss_name is None)
    icr = pooled["icr"]
    snapshots = [
        Snapshot(step, path, float(np.exp(y)), blocks.tolist(), n)
        for step, path, n, y, blocks in zip(course.steps, course.checkpoints, course.n, icr.y, icr.blocks, strict=True)
    ]
    verdict = judge(None, None, snapshots, "alarm", online=True, alarm=fired)
    last = len(course.steps) - 1 if fired is None else fired
    keep = course.steps.index(verdict.keep_step) if verdict.keep_step is not None else last
    return replace(verdict, notes=(*course.notes, *verdict.notes), false_alarms=FALSE_ALARMS), Alarm(
        fired_at=None if fired is None else course.steps[fired],
        persist=PERSIST,
        limits=tuple(AlarmLimit(name, limit.rise, limit.errors) for name, limit in limits.items()),
        false_alarms=FALSE_ALARMS,
        points=tuple(_point(course, pooled, rises, limits, t) for t in range(len(course.steps))),
        cells=_cells(course, keep, last),
        passes=passes,
        notes=() if course.loss_name else (WITHOUT_LOSS,),
    )


def _point(
    course: Course,
    pooled: Mapping[str, Pooled],
    rises: Mapping[str, Sequence[Rise]],
    limits: Mapping[str, Limit],
    t: int,
) -> AlarmPoint:
    icr, risen = pooled["icr"], rises["icr"][t]
    reach = student_quantile(0.975, icr.blocks.shape[1] - 1) * float(jackknife_se(icr.blocks[t]))
    loss = None if course.loss_name is None else rises[course.loss_name][t]
    return AlarmPoint(
        step=course.steps[t],
        icr=float(np.exp(icr.y[t])),
        icr_low=float(np.exp(icr.y[t] - reach)),
        icr_high=float(np.exp(icr.y[t] + reach)),
        icr_rise=float(np.expm1(risen.log_ratio)),
        icr_rise_se=risen.se,
        loss=None if course.loss_name is None else float(np.exp(pooled[course.loss_name].y[t])),
        loss_rise=None if loss is None else float(np.expm1(loss.log_ratio)),
        loss_rise_se=None if loss is None else loss.se,
        exceeds=all(rises[name][t].exceeds(limit) for name, limit in limits.items()),
    )


def _cells(course: Course, keep: int, last: int) -> tuple[AlarmCell, ...]:
    found = []
    for c, (layer, sigma) in enumerate(course.cells):
        rise = Pooled(course.icr[:, c], course.icr_blocks[:, c]).rise(keep, last)
        found.append(AlarmCell(layer, sigma, float(np.expm1(rise.log_ratio)), rise.se))
    return tuple(sorted(found, key=lambda cell: -cell.rise / cell.rise_se if cell.rise_se else 0.0))
