"""How often the rule of `diffscope/studies/sweep/stopping.py` errs, and what it saves: simulated sweeps of known ICR.

    python scripts/simulate_accuracy.py
    python scripts/simulate_accuracy.py --cell deep --accuracy 0.02 --runs 1000 --seed 1

Features of 12 noise levels over four decades, two views of N images, in d channels:
  z_v = S_l (s cos φ_l + s' sin φ_l) + τ (ξ_v cos φ_l + ξ'_v sin φ_l),   φ_l from 0 to 60° over the levels,
with the same s, s', ξ, ξ', τ at all levels, so that neighbouring levels err together and distant ones less so. s and ξ
are standard Gaussian; S_l² is diagonal, ∝ 1/j, scaled to the ICR wanted; τ is 1, or (`scale`) a factor for each image
with E τ² = 1 and E τ⁴ = 2. Curves of ICR:
  deep     a U as the demo's, 0.355 to 0.39 and 1
  shallow  a U from 0.35 to 0.38
  two      a U of which the two lowest levels are 0.1 % apart
  rising   from 0.35, in equal steps of its logarithm, to 0.8
  plateau  flat over a third of the levels, then rising
  flat     0.4, one level lower by 0.01 %: eleven others compete with the true minimum on equal terms

The staged rule and the fixed run see the same draws. Of a rule are printed: the shares of runs whose interval holds
the true ICR of the level reported, that stopped the true minimum as no longer a candidate, that report a level less
than ε above the minimum, and that reach the accuracy before the images end; shape, and level and window within one
step, as in the fixed run (in brackets: of two fixed runs on different images); the share of forward passes saved. Then
the same errors and savings of looks without correction.

With --track the levels are snapshots of a run that chooses its number of images by the first of them
(`diffscope/studies/track/enough.py`): the share of all snapshots whose interval holds the true ICR, of those known to
ε, of paired 95 % intervals of a snapshot against the first that hold the true change (in brackets: on all images); the
share of runs in which every snapshot is known to ε; the share of forward passes saved. Then the first without
correction.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

import numpy as np

from diffscope.measure.difference import paired_difference
from diffscope.metrics.icr import estimate
from diffscope.moments import Moments
from diffscope.numerics import FloatArray, threads_for
from diffscope.studies.sweep.stopping import (
    ALPHA,
    Decision,
    LayerVerdict,
    Reading,
    Rule,
    curve,
    decide,
    interval,
    looks,
    rule,
    spent,
)
from diffscope.studies.sweep.window import Window, semantic_window

BLOCKS, VIEWS, LEVELS = 16, 2, 12
SIGMAS = np.geomspace(0.002, 20, LEVELS)
TURN = np.pi / 3
HEAVY = 0.5 * np.log(2) ** 0.5
"""Standard deviation of log τ with which E τ⁴ = 2 (E τ² = 1)."""


@dataclass(frozen=True)
class Cell:
    """One kind of sweep."""

    curve: FloatArray
    """[levels] true ICR."""
    d: int
    images: int
    scale: bool = False
    """Whether images differ in the size of their noise."""


def parabola(low: float, high: float, centre: float) -> FloatArray:
    x = np.linspace(0, 1, LEVELS)
    return np.asarray(low + (high - low) * ((x - centre) / np.maximum(centre, 1 - centre)) ** 2)


DEEP = np.array([0.388, 0.390, 0.3875, 0.376, 0.355, 0.369, 0.48, 0.715, 0.908, 0.979, 0.99, 0.995])
PLATEAU = np.concatenate([np.full(4, 0.4), 0.4 * 1.08 ** np.arange(1, 9)])
FLAT = np.where(np.arange(LEVELS) == 6, 0.39996, 0.4)
CELLS = {
    "deep": Cell(DEEP, 64, 4096),
    "shallow": Cell(parabola(0.35, 0.38, 0.45), 32, 4096),
    "two": Cell(parabola(0.35, 0.42, 5.49 / 11), 32, 4096),
    "rising": Cell(np.geomspace(0.35, 0.8, LEVELS), 16, 4096),
    "plateau": Cell(PLATEAU, 32, 4096),
    "flat": Cell(FLAT, 16, 4096),
    "deep scale": Cell(DEEP, 32, 4096, scale=True),
    "flat scale": Cell(FLAT, 16, 4096, scale=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", choices=CELLS, action="append", help="default: all (repeatable)")
    parser.add_argument("--accuracy", type=float, action="append", help="default: 0.01, 0.02 and 0.05 (repeatable)")
    parser.add_argument("--runs", type=int, default=300, help="for each number (default 300: five minutes)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--track", action="store_true", help="snapshots of a run in place of noise levels")
    arguments = parser.parse_args()
    if arguments.track:
        runs_of_snapshots(arguments)
        return
    accuracies = arguments.accuracy or [0.01, 0.02, 0.05]
    columns = ["cell, d", "ε", "covers", "stops best", "regret ≤ ε", "reached", "shape", "level", "window", "saved"]
    columns += ["uncorrected: covers", "stops best", "regret ≤ ε", "saved"]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}", flush=True)
    for name in arguments.cell or CELLS:
        cell = CELLS[name]
        found = simulate(cell, accuracies, arguments.runs, arguments.seed)
        for accuracy in accuracies:
            cells = [f"{name}, {cell.d}", f"{accuracy:.0%}", *found[accuracy]]
            print(f"| {' | '.join(cells)} |", flush=True)
        print(" " * 40, end="\r", file=sys.stderr)


def simulate(cell: Cell, accuracies: Sequence[float], runs: int, seed: int) -> dict[float, list[str]]:
    """Of each accuracy the columns of its row. The same seed gives every cell its own draws, whatever else is run."""
    rng = np.random.default_rng(seed)
    at = looks(cell.images, [cell.d], VIEWS, BLOCKS)
    sums: dict[float, list[list[float]]] = {accuracy: [] for accuracy in accuracies}
    whole: list[Window] = []
    for number in range(runs):
        print(f"{number} of {runs}", end="\r", file=sys.stderr)
        sweep = Sweep(cell, at, rng)
        whole.append(window([[sweep.reading(level, len(at) - 1)] for level in range(LEVELS)]))
        for accuracy in accuracies:
            corrected = rule(accuracy, SIGMAS.tolist(), at, VIEWS)
            found, plain = (run(asked, sweep) for asked in (corrected, uncorrected(corrected)))
            alike = agreement(window(found.tracks, found.verdict.best), whole[-1])
            sums[accuracy].append([*found.errs(cell), *alike, found.saved, *plain.errs(cell)[:3], plain.saved])
    chance = np.mean([agreement(a, b) for a, b in pairwise(whole)], axis=0) if runs > 1 else np.full(3, np.nan)
    table = {}
    for accuracy, rows in sums.items():
        table[accuracy] = [f"{value:.3f}" for value in np.mean(rows, axis=0)]
        for column, value in enumerate(chance, start=4):
            table[accuracy][column] += f" ({value:.2f})"
    return table


def uncorrected(asked: Rule) -> Rule:
    """Every look and every pair of levels at the whole error, as if it were the only one."""
    count = len(asked.looks)
    return replace(asked, pair_levels=(ALPHA,) * count, interval_levels=(ALPHA,) * count)


@dataclass
class Sweep:
    """One draw of a cell: what each level would read at each look."""

    cell: Cell
    looks: tuple[int, ...]
    rng: np.random.Generator
    read: dict[tuple[int, int], Reading] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Cumulative sums over the parts that all levels are made of, s, s', ξ and ξ': for b and for r."""
        d, steps = self.cell.d, np.diff([0, *self.looks])
        b_sums, betweens, withins = [], [], []
        for step in steps:
            b, r = self._images(step // BLOCKS, d)
            b_sums.append(b.sum(1))
            betweens.append(b.swapaxes(1, 2) @ b)
            withins.append(r.swapaxes(1, 2) @ r)
        self.b_sum, self.between, self.within = (list(accumulate(part)) for part in (b_sums, betweens, withins))

    def _images(self, count: int, d: int) -> tuple[FloatArray, FloatArray]:
        """b [G, images, 4d] and r [G, images, 2d] of the parts: with two views, b = (z1 + z2)/√2, r = (z1 − z2)/√2."""
        s = self.rng.standard_normal((BLOCKS, count, 2 * d))
        plus, minus = self.rng.standard_normal((2, BLOCKS, count, 2 * d))
        if self.cell.scale:
            tau = np.exp(HEAVY * self.rng.standard_normal((BLOCKS, count, 1)) - HEAVY**2)
            plus, minus = tau * plus, tau * minus
        return np.concatenate([VIEWS**0.5 * s, plus], axis=2), minus

    def reading(self, level: int, look: int) -> Reading:
        if (level, look) not in self.read:
            self.read[level, look] = self._reading(level, look)
        return self.read[level, look]

    def _reading(self, level: int, look: int) -> Reading:
        d, images = self.cell.d, self.looks[look]
        size = 1 / np.arange(1, d + 1)
        size *= (1 / self.cell.curve[level] - 1) / size.mean()
        turn = np.repeat([np.cos(TURN * level / (LEVELS - 1)), np.sin(TURN * level / (LEVELS - 1))], d)
        parts = np.concatenate([np.tile(size**0.5, 2) * turn, turn])

        def folded(sums: FloatArray, factor: FloatArray) -> FloatArray:
            count = len(factor) // d
            return np.asarray((sums * np.outer(factor, factor)).reshape(-1, count, d, count, d).sum((1, 3)))

        b_sum = (self.b_sum[look] * parts).reshape(BLOCKS, 4, d).sum(1)
        none = np.zeros(BLOCKS)
        moments = Moments(
            n=np.full(BLOCKS, images / BLOCKS),
            # What the two views add up to is all that enters.
            view_sum=np.repeat(b_sum[:, None] / VIEWS**0.5, VIEWS, axis=1),
            between=folded(self.between[look], parts),
            within=folded(self.within[look], turn),
            l2_sum=np.zeros((BLOCKS, d)),
            l2_between=none,
            l2_within=none,
            pair_kernel=np.zeros((BLOCKS, VIEWS)),
            pairs=none,
        )
        with threads_for(d):
            found = estimate(moments)
        assert found.replicates is not None
        return Reading(found.icr, found.replicates, images)


@dataclass(frozen=True)
class Outcome:
    """What one run of the rule came to."""

    rule: Rule
    decision: Decision
    tracks: list[list[Reading]]

    @property
    def verdict(self) -> LayerVerdict:
        return self.decision.layers["layer"]

    def errs(self, cell: Cell) -> list[float]:
        """Covers, stops the minimum, regret within ε, reached."""
        verdict = self.verdict
        assert verdict.best is not None
        assert verdict.low is not None
        assert verdict.high is not None
        true = cell.curve[verdict.best]
        return [
            float(verdict.low <= true <= verdict.high),
            float(int(np.argmin(cell.curve)) not in verdict.rivals),
            float(true <= cell.curve.min() * (1 + self.rule.accuracy)),
            float(self.decision.reached),
        ]

    @property
    def saved(self) -> float:
        return 1 - sum(track[-1].images for track in self.tracks) / (LEVELS * self.rule.looks[-1])


def agreement(a: Window, b: Window) -> list[float]:
    """Same shape, level within one step, both ends of the window within one step."""
    step = np.log10(SIGMAS[1] / SIGMAS[0]) * 1.01

    def near(x: float | None, y: float | None) -> bool:
        return x is not None and y is not None and abs(np.log10(x / y)) < step

    return [
        float(a.shape == b.shape),
        float(near(a.sigma or a.minimum, b.sigma or b.minimum)),
        float(near(a.low, b.low) and near(a.high, b.high)),
    ]


def run(asked: Rule, sweep: Sweep) -> Outcome:
    """The looks in their order, until nothing goes on."""
    decision, tracks = None, [[sweep.reading(level, 0)] for level in range(LEVELS)]
    for look in range(len(asked.looks)):
        for level in decision.going if decision else frozenset[int]():
            tracks[level].append(sweep.reading(level, look))
        decision = decide(asked, look, {"layer": tracks}, decision)
        if not decision.going:
            break
    assert decision is not None
    return Outcome(asked, decision, tracks)


def window(tracks: Sequence[Sequence[Reading]], best: int | None = None) -> Window:
    """As the staged run sees it, around its best; of tracks of equal length whichever best is the same."""
    return semantic_window(SIGMAS, *curve(tracks, 0 if best is None else best))


# --- runs


def runs_of_snapshots(arguments: argparse.Namespace) -> None:
    """The table of --track."""
    columns = ["cell, d", "ε", "covers", "known", "pairs cover", "run known", "saved", "uncorrected: covers"]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}", flush=True)
    for name in arguments.cell or CELLS:
        cell, rng = CELLS[name], np.random.default_rng(arguments.seed)
        at = looks(cell.images, [cell.d], VIEWS, BLOCKS)
        drawn = [Sweep(cell, at, rng) for _ in range(arguments.runs)]
        for accuracy in arguments.accuracy or [0.02, 0.05, 0.1]:
            found = np.mean([tracked(sweep, accuracy, spent(at)) for sweep in drawn], axis=0)
            plain = np.mean([tracked(sweep, accuracy, (ALPHA,) * len(at)) for sweep in drawn], axis=0)
            covers, known, pairs, whole, every, saved = (f"{value:.3f}" for value in found)
            cells = [covers, known, f"{pairs} ({whole})", every, saved, f"{plain[0]:.3f}"]
            print(f"| {name}, {cell.d} | {accuracy:.0%} | {' | '.join(cells)} |", flush=True)


def tracked(run: Sweep, accuracy: float, errors: Sequence[float]) -> list[float]:
    """Of one run: snapshots covered, known, pairs covered, the same on all images, all snapshots known, saved."""
    last = len(run.looks) - 1
    look = next((k for k in range(last) if half_width(run.reading(0, k), errors[k]) <= accuracy), last)
    snapshots = [run.reading(level, look) for level in range(LEVELS)]
    covered = []
    for one, true in zip(snapshots, run.cell.curve, strict=True):
        low, high = interval(one.icr, one.replicates, VIEWS, errors[look])
        covered.append(low <= true <= high)
    known = [half_width(one, errors[look]) <= accuracy for one in snapshots]
    # The first snapshot's work at the look where it was known is the run's.
    passes = LEVELS * run.looks[look] + sum(run.looks[: min(look, last)])
    pairs = [float(np.mean([pair_covers(run, level, k) for level in range(1, LEVELS)])) for k in (look, last)]
    saved = 1 - passes / (LEVELS * run.looks[-1])
    return [float(np.mean(covered)), float(np.mean(known)), *pairs, float(all(known)), saved]


def half_width(one: Reading, error: float) -> float:
    low, high = interval(one.icr, one.replicates, VIEWS, error)
    return (high - low) / 2 / one.icr


def pair_covers(run: Sweep, level: int, look: int) -> bool:
    first, other = run.reading(0, look), run.reading(level, look)
    found = paired_difference(first.icr, first.replicates, other.icr, other.replicates)
    return found.change_low <= run.cell.curve[level] / run.cell.curve[0] - 1 <= found.change_high


if __name__ == "__main__":
    main()
