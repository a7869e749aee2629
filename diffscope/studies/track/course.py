"""The alarm over the rows of a run: what they hold for it, and what it says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from diffscope.names import first_few
from diffscope.numerics import jackknife_se, student_quantile
from diffscope.results import Alarm, AlarmCell, AlarmLimit, AlarmPoint, OnsetRow, Row
from diffscope.studies.sweep.stopping import ALPHA
from diffscope.studies.track.alarm import (
    GAP,
    PERSIST,
    VIEWS,
    WITHOUT_LOSS,
    Pooled,
    Rise,
    fires,
    limits_of,
    to_keep,
)
from diffscope.studies.track.onset import Snapshot, judge

Cell = tuple[str, float]
"""(layer, σ)"""


@dataclass(frozen=True)
class Course:
    """What the rows of a run hold for the alarm, by rising step."""

    steps: tuple[int, ...]
    checkpoints: tuple[str, ...]
    n: tuple[int, ...]
    """Images."""
    cells: Mapping[Cell, Pooled]
    """ICR of each alone, in the order of the network."""
    icr: Pooled
    watched: str | None
    """The quantity beside ICR: loss_gap, loss_views, or None where no loss was measured."""
    loss: Pooled | None
    """On held-out images, or on views that training never saw."""
    rises: Mapping[str, Sequence[Rise]]
    """Of ICR and of what is watched beside it."""
    notes: tuple[str, ...]


def course_of(snapshots: Sequence[tuple[int, str, Sequence[Row]]]) -> Course | None:
    """What (step, path, rows) by rising step hold; None where no snapshot has an ICR.

    The cells are those of the first snapshot that has any: one that lacks an ICR later is left out with a note.
    """
    cells: list[Cell] = []
    used: list[tuple[int, str, dict[Cell, Row]]] = []
    missing: list[int] = []
    for step, path, rows in snapshots:
        known = {(row.layer, row.sigma): row for row in rows if row.get("icr") and row.get("replicates")}
        cells = cells or list(known)
        if cells and known.keys() >= set(cells):
            used.append((step, path, known))
        else:
            missing.append(step)
    if not used:
        return None
    found = [rows for _, _, rows in used]
    # A level's loss stands in the rows of all its layers.
    levels = list({sigma: (layer, sigma) for layer, sigma in cells}.values())
    icr = _pooled(found, cells, "icr", "replicates")
    rises = {"icr": icr.rises()}
    watched, loss = None, None
    if found[0][cells[0]].get("loss_holdout") is not None:
        watched, loss = GAP, _pooled(found, levels, "loss_holdout", "loss_holdout_replicates")
        rises[GAP] = loss.above(_pooled(found, levels, "loss", "loss_replicates"))
    elif found[0][cells[0]].get(VIEWS) is not None:
        watched, loss = VIEWS, _pooled(found, levels, VIEWS, f"{VIEWS}_replicates")
        rises[VIEWS] = loss.rises()
    said = first_few([str(step) for step in missing])
    note = f"snapshots_skipped: no ICR in all cells at step {said}; the alarm is that of the others"
    return Course(
        steps=tuple(step for step, _, _ in used),
        checkpoints=tuple(path for _, path, _ in used),
        n=tuple(rows[cells[0]].n for rows in found),
        cells={cell: _pooled(found, [cell], "icr", "replicates") for cell in cells},
        icr=icr,
        watched=watched,
        loss=loss,
        rises=rises,
        notes=(note,) if missing else (),
    )


def _pooled(rows: Sequence[Mapping[Cell, Row]], cells: Sequence[Cell], key: str, replicates: str) -> Pooled:
    return Pooled.of(
        np.log([[each[cell][key] for cell in cells] for each in rows]),
        [[each[cell][replicates] for cell in cells] for each in rows],
    )


def judged(
    course: Course, passes: float | None, false_alarms: float | None = None, error: float = ALPHA
) -> tuple[OnsetRow, Alarm]:
    """The verdict of a run, and what it rests on; the alarm at a snapshot is that of a run that ends there.

    Args:
        course: At least one snapshot.
        passes: Over the training images, up to the last snapshot, where that is known.
        false_alarms: Share of runs in which it fires for nothing, where that is known.
        error: Two-sided, of the intervals.
    """
    limits, icr = limits_of(course.watched), course.icr
    fired = fires(course.rises, limits, PERSIST, fallen=course.watched is None)
    keep = to_keep(course.rises, limits, fired)
    last = len(course.steps) - 1 if fired is None else fired
    snapshots = [
        Snapshot(step, path, float(np.exp(y)), blocks.tolist(), n)
        for step, path, n, y, blocks in zip(course.steps, course.checkpoints, course.n, icr.y, icr.blocks, strict=True)
    ]
    verdict = judge(None, None, snapshots, "alarm", online=True, alarm=(fired, keep))
    return replace(verdict, notes=(*course.notes, *verdict.notes), false_alarms=false_alarms), Alarm(
        fired_at=None if fired is None else course.steps[fired],
        persist=PERSIST,
        limits=tuple(AlarmLimit(name, limit.rise, limit.errors) for name, limit in limits.items()),
        false_alarms=false_alarms,
        points=tuple(_point(course, t, error) for t in range(len(course.steps))),
        cells=_cells(course, keep, last),
        passes=passes,
        notes=() if course.watched else (WITHOUT_LOSS,),
    )


def reach(icr: Pooled, t: int, error: float) -> float:
    """Half of the interval of a snapshot's pooled log ICR, with a two-sided error."""
    return student_quantile(1 - error / 2, icr.blocks.shape[1] - 1) * float(jackknife_se(icr.blocks[t]))


def _point(course: Course, t: int, error: float) -> AlarmPoint:
    icr, risen = course.icr, course.rises["icr"][t]
    ends = reach(icr, t, error)
    loss = None if course.watched is None else course.rises[course.watched][t]
    return AlarmPoint(
        step=course.steps[t],
        icr=float(np.exp(icr.y[t])),
        icr_low=float(np.exp(icr.y[t] - ends)),
        icr_high=float(np.exp(icr.y[t] + ends)),
        icr_rise=float(np.expm1(risen.log_ratio)),
        icr_rise_se=risen.se,
        loss=None if course.loss is None else float(np.exp(course.loss.y[t])),
        loss_rise=None if loss is None else float(np.expm1(loss.log_ratio)),
        loss_rise_se=None if loss is None else loss.se,
        exceeds=all(course.rises[name][t].exceeds(limit) for name, limit in limits_of(course.watched).items()),
    )


def _cells(course: Course, keep: int, last: int) -> tuple[AlarmCell, ...]:
    rises = {cell: one.rise(keep, last) for cell, one in course.cells.items()}
    surest = sorted(rises, key=lambda cell: -rises[cell].log_ratio / rises[cell].se if rises[cell].se else 0.0)
    return tuple(
        AlarmCell(*cell, rise=float(np.expm1(rises[cell].log_ratio)), rise_se=rises[cell].se) for cell in surest
    )
