"""An alarm that a training can act on: the network has begun to learn single training images.

Two things happen together, and each alone also happens for other reasons. Features: ICR, pooled over layers and noise
levels, rises from its lowest (Li et al., "Evaluating the representation space of diffusion models via self-supervised
principles", 2026, https://arxiv.org/abs/2606.09718). Output: the denoising loss on views that training never saw,
crops of the very images that it trains on, rises while that on the images as they are falls. Where held-out images are
given, how far their loss is above that on the training images is enough, and is seen earlier: it needs no lowest value
to rise from.

Each is a mean of logarithms P_t over its cells (layers, noise levels). Images, blocks, views and noise are the same for
all snapshots and cells, so that the mean of the cells' block replicates is the replicate of P, and the paired jackknife
of P_t − P_best, best being the lowest so far, knows all covariances. The alarm fires where every rise exceeds its limit
and so many standard errors, at `PERSIST` snapshots in a row. It looks at nothing after t.

`scripts/study_onset.py` tells how limits were chosen and what they reach.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from diffscope.numerics import FloatArray, jackknife_se


@dataclass(frozen=True)
class Limit:
    """What a rise must exceed."""

    rise: float
    """Relative, above the lowest so far."""
    errors: float
    """Standard errors of the paired difference."""


GAP, VIEWS = "loss_gap", "loss_views"
"""Of which the first that was measured is watched beside ICR: the loss on held-out images over that on the training
images, and the loss on views that training never saw."""
WITH_VIEWS, ICR_ALONE = Limit(0.01, 1.0), Limit(0.05, 3.0)
LOSS, LOSS_GAP = Limit(0.05, 3.0), Limit(0.20, 3.0)
PERSIST = 2
FALSE_ALARMS = 0.02
"""Of plateaus of 100 snapshots, in the worst of seven kinds (`scripts/study_onset.py --simulate`).

Where the learning rate decays, the loss drifts upwards and the alarm fires more often; the gap of held-out images does
not drift.
"""
WITHOUT_LOSS = (
    "icr_alone: there is no denoising loss on views that training never saw (latents made beforehand, no augmentation, "
    "or a live network that does not say what it predicts): ICR alone must rise further before the alarm fires"
)


def limits_of(loss_name: str | None) -> dict[str, Limit]:
    """Of each quantity, where this loss is watched."""
    if loss_name is None:
        return {"icr": ICR_ALONE}
    return {GAP: LOSS_GAP} if loss_name == GAP else {"icr": WITH_VIEWS, VIEWS: LOSS}


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

    def above(self, other: Pooled) -> list[Rise]:
        """Of each snapshot, above another quantity at the same snapshot, measured on other images."""
        return [
            Rise(t, float(self.y[t] - other.y[t]), math.hypot(*(jackknife_se(one.blocks[t]) for one in (self, other))))
            for t in range(len(self.y))
        ]

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


def to_keep(rises: Mapping[str, Sequence[Rise]], limits: Mapping[str, Limit], fired: int | None) -> int:
    """Index of the snapshot of lowest ICR, of those up to the alarm whose loss had not risen by its limit yet.

    ICR may fall on a little while single images are learnt already.
    """
    best, until = 0, len(rises["icr"]) if fired is None else fired + 1
    for t in range(until):
        learnt = any(rises[name][t].log_ratio > np.log1p(limits[name].rise) for name in limits if name != "icr")
        if rises["icr"][t].best == t and not learnt:
            best = t
    return best
