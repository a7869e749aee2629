"""When a sweep has seen enough images: a group-sequential rule over noise levels, for an accuracy ε of ICR.

The images come in stages of m_1 < … < m_K = N, the first m_k of one permutation. After each, every level that is still
going has an ICR with block replicates y_g, from the same images as the others. With b the best level of a layer,
D_l = log icr_l − log icr_b and its standard error SE_l from the replicates of the difference, both at the last look
that l and b have in common, and c_k, q_k quantiles of Student's t on G − 1 degrees of freedom:

    l can no longer be the minimum    D_l > c_k·SE_l
    (a) the best is settled           c_k·SE_l − D_l ≤ log(1 + ε) for all others: none can be lower by more than ε
    (b) its ICR is known              q_k·SE makes an interval of relative half-width ≤ ε
    (c) the ends are known            c_k·SE_l ≤ max(log(1 + ε), |D_l − log 1.02|): the curve's shape rests on them

A layer is done when (a), (b) and (c) hold. Who goes on for it until then: its best; until (a) all that can still be the
minimum; ends that are open in (c); and of a possible `u` the two levels on either side of the best, which place the
recommended level, while their scatter moves it by more than the choice of the grid leaves open anyway. After (a) the
best stays the best: a level that stopped beside it for being no more than ε apart was seen less often, and is not to
win by its noise.

Looking K times gives K chances to err. The error α = 0.05 is therefore spent over the looks, as fast as the images
come, α_k = α·(m_k − m_{k−1})/N (Kim & DeMets, "Design and analysis of group sequential tests based on the type I error
spending rate function", 1987, https://doi.org/10.1093/biomet/74.1.149, with ρ = 1), and added up by Bonferroni, as
between the L − 1 levels that are compared with the best: c_k at 1 − α_k/(L − 1), q_k at 1 − α_k/2. All that the first
two lines say of the true minimum fails only where it is overestimated against some level by more than c_k·SE, so that
one α covers both: in 95 % of runs no look rules the true minimum out and the best is within ε of it.
`scripts/simulate_accuracy.py` measures what comes of it: of 300 or 400 sweeps of each of eight kinds, for ε of 1, 2
and 5 %, the interval held the truth in 97–100 % (without the correction 92–97), the true minimum was ruled out in
0–2 % (0–30), and 81–94 % of the forward passes were saved where the minimum is distinct, 48–92 in a shallow curve and
0–46 in a flat one, in which every level has to be seen before one may be recommended.

Why the last look in common: two levels seen on the same images err together, and most of it cancels in D. It does not
cancel between one level's first images and all of another's, although that difference is just as unbiased.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, exp, expm1, isfinite, log, log1p
from typing import TypeGuard

import numpy as np
from numpy.typing import ArrayLike

from diffscope.errors import EstimationError, UsageError
from diffscope.metrics.icr import EXTRAPOLATION_FREE_OF_BIAS, EXTRAPOLATION_POSSIBLE
from diffscope.numerics import FloatArray, jackknife_se, student_quantile
from diffscope.studies.sweep.recommended import grid_error, grid_step, scatter_of_minimum
from diffscope.studies.sweep.window import LEAST_RISE

ALPHA = 0.05
"""Share of runs in which a claim about the minimum may be false, and share in which an interval may miss."""
GROWTH = 2.0
"""Images at a look over those at the one before, at most. Less looks more often, each at a smaller level."""
IMAGES_PER_BLOCK = 8
"""At the first look; a jackknife over blocks of fewer images has tails that Student's t does not know."""
LARGEST_FIRST_LOOK = 0.75
"""Share of the images from which on a first look saves too little for its price in error."""


@dataclass(frozen=True, eq=False)
class Reading:
    """One level in one layer at one look."""

    icr: float
    replicates: FloatArray
    """[G] block replicates y_g of log ICR."""
    images: int
    """Images behind them."""


Track = Sequence[Reading | None]
"""The readings of one level in one layer by look, as long as it was measured; None where it had no replicates."""


@dataclass(frozen=True)
class Rule:
    """What is asked for, and what each look may claim. Made by `rule`."""

    accuracy: float
    """ε, relative."""
    sigmas: tuple[float, ...]
    """[L] noise levels, rising."""
    looks: tuple[int, ...]
    """[K] images seen by a going level at each look."""
    views: int
    """V."""
    pair_levels: tuple[float, ...]
    """[K] one-sided error of one comparison with the best."""
    interval_levels: tuple[float, ...]
    """[K] two-sided error of the interval of ICR."""


@dataclass(frozen=True)
class Open:
    """Why a layer is not done."""

    what: str
    """`best` (a), `interval` (b) or `end` (c)."""
    level: int
    """The level that it is about, from 0."""
    found: float
    """Relative: by how much it may be lower than the best (a), half-width of the interval (b) or of the rise (c)."""
    images: int
    """How many images would do, if the standard error falls with their square root."""


@dataclass(frozen=True)
class LayerVerdict:
    """What is known of one layer after a look. Levels are indices into `Rule.sigmas`."""

    best: int | None
    """The level to report as the minimum; None if no level has an ICR with replicates."""
    icr: float | None
    """ICR there."""
    low: float | None
    """Lower end of its interval, wide enough for the number of looks."""
    high: float | None
    """Upper end."""
    images: int
    """Images behind it."""
    settled: bool
    """(a) holds, now or before: `best` changes no more."""
    rivals: frozenset[int]
    """Levels that could still be the minimum, the best among them."""
    needed: frozenset[int]
    """Levels that this layer wants to go on; none once it is done."""
    open: tuple[Open, ...]
    """What is not known yet; nothing once it is done."""

    @property
    def reached(self) -> bool:
        """(a), (b) and (c) hold; says nothing more of later looks."""
        return self.best is not None and not self.open


@dataclass(frozen=True)
class Decision:
    """What follows from a look."""

    layers: Mapping[str, LayerVerdict]
    going: frozenset[int]
    """Levels to measure on the next stage's images; none if the run is over."""
    reached: bool
    """Whether every layer is known to the accuracy asked for."""
    reason: str
    """Of a run that is over why, else why it goes on; one line."""


def looks(images: int, widths: Sequence[int], views: int, blocks: int = 16) -> tuple[int, ...]:
    """Images after which to look, m_1 < … < m_K = `images`; one look where stages would save too little.

    The first determines the covariances of the widest of the layers (`widths`, channels) without bias, ν = m_1(V − 1)
    ≥ 4d; where that is more than half of the images, as far as the extrapolation goes, 2.5d without any one block.
    """
    widest = max(widths)
    enough = ceil(EXTRAPOLATION_FREE_OF_BIAS * widest / (views - 1))
    if enough > images / 2:
        enough = ceil(EXTRAPOLATION_POSSIBLE * widest / (views - 1) * blocks / (blocks - 1))
    first = blocks * ceil(max(enough, IMAGES_PER_BLOCK * blocks) / blocks)
    if first > LARGEST_FIRST_LOOK * images:
        return (images,)
    stages = ceil(np.log(images / first) / np.log(GROWTH))
    ratio = (images / first) ** (1 / stages)
    return (*(blocks * round(first * ratio**k / blocks) for k in range(stages)), images)


def rule(accuracy: float, sigmas: Sequence[float], looks: Sequence[int], views: int) -> Rule:
    """The rule for relative accuracy ε in (0, 1) over noise levels in rising order; UsageError otherwise."""
    if not 0 < accuracy < 1:
        raise UsageError(f"accuracy {accuracy:g}; expected a share between 0 and 1, such as 2%; 1% takes 4 times 2%")
    if not sigmas or any(a >= b for a, b in pairwise(sigmas)):
        raise UsageError(f"{len(sigmas)} noise levels; expected at least one, each above the one before; sort them")
    errors, comparisons = spent(looks), max(1, len(sigmas) - 1)
    return Rule(accuracy, tuple(sigmas), tuple(looks), views, tuple(error / comparisons for error in errors), errors)


def spent(looks: Sequence[int]) -> tuple[float, ...]:
    """The error α_k that each look may make, of ALPHA altogether: as fast as the images come."""
    return tuple((ALPHA * np.diff([0, *looks]) / looks[-1]).tolist())


def interval(icr: float, replicates: ArrayLike, views: int, error: float) -> tuple[float, float]:
    """Ends of the interval of an ICR from its block replicates y_g [G] of log ICR, with a two-sided error level.

    On the logarithm of T = V/icr − (V − 1), as the fixed interval: at 0.05 it is `icr_low` and `icr_high`.
    """
    at, theta = views / icr - (views - 1), views / np.exp(np.asarray(replicates)) - (views - 1)
    factor = exp(student_quantile(1 - error / 2, len(theta) - 1) * float(jackknife_se(np.log(theta))))
    return views / (views - 1 + at * factor), views / (views - 1 + at / factor)


def decide(rule: Rule, look: int, evidence: Mapping[str, Sequence[Track]], before: Decision | None = None) -> Decision:
    """Which levels go on after look number `look`, from 0, given the decision of the look before.

    `evidence` holds for each layer the tracks [L] by rising level, each as long as the level was measured. The same
    inputs give the same decision, so that a run that is taken up again need only repeat its looks.
    """
    if (before is None) != (look == 0) or not 0 <= look < len(rule.looks):
        raise EstimationError(f"look {look} of {len(rule.looks)}; expected each once, in order, after that before it")
    going = before.going if before else frozenset(range(len(rule.sigmas)))
    layers = {
        name: _layer(rule, look, tracks, before.layers[name] if before else None, going)
        for name, tracks in evidence.items()
    }
    reached = all(verdict.reached for verdict in layers.values())
    wanted = frozenset[int]().union(*(verdict.needed for verdict in layers.values()))
    over = reached or look == len(rule.looks) - 1
    return Decision(layers, frozenset() if over else wanted & going, reached, _reason(rule, look, layers))


def curve(tracks: Sequence[Track], best: int) -> tuple[FloatArray, FloatArray]:
    """ICR [L] and replicates [G, L] of log ICR for `semantic_window`.

    They are every level's difference from the best, at their last look in common, on top of the best's last reading.
    NaN for a level that shares no look with it.
    """
    at = _last(tracks[best])
    assert at is not None, "the best has a reading"
    icr = np.full(len(tracks), np.nan)
    replicates = np.full((len(at.replicates), len(tracks)), np.nan)
    for level, track in enumerate(tracks):
        pair = _common(track, tracks[best])
        if pair:
            icr[level] = at.icr * pair[0].icr / pair[1].icr
            replicates[:, level] = at.replicates + pair[0].replicates - pair[1].replicates
    return icr, replicates


def _last(track: Track) -> Reading | None:
    return next((reading for reading in reversed(track) if _usable(reading)), None)


def _usable(reading: Reading | None) -> TypeGuard[Reading]:
    if reading is None or not (isfinite(reading.icr) and reading.icr > 0):
        return False
    return bool(np.all(np.isfinite(reading.replicates)))


def _common(track: Track, best: Track) -> tuple[Reading, Reading] | None:
    """Both at the last look that has a reading of either."""
    shared = list(zip(track, best, strict=False))
    return next(((a, b) for a, b in reversed(shared) if _usable(a) and _usable(b)), None)


def _layer(
    rule: Rule, look: int, tracks: Sequence[Track], before: LayerVerdict | None, going: frozenset[int]
) -> LayerVerdict:
    """`going`: the levels that were measured for this look."""
    if before is not None and before.reached:
        return before
    rivals = before.rivals if before else going
    # Those of this look: a level that was ruled out is not tested again, as it might miss the threshold by chance.
    now = {level: reading for level in sorted(rivals & going) if _usable(reading := tracks[level][look])}
    settled = before is not None and before.settled and before.best in now
    if not now:
        return LayerVerdict(None, None, None, None, 0, False, rivals, rivals, ())
    # Until (a) holds, all rivals have been seen equally often.
    best = before.best if before and settled else min(now, key=lambda level: now[level].icr)
    assert best is not None
    at, against = now[best], _against(tracks, best, rule.pair_levels[look])
    if not settled:
        rivals = frozenset(level for level in rivals if level not in against or not against[level].higher)
    low, high = interval(at.icr, at.replicates, rule.views, rule.interval_levels[look])
    unsettled = () if settled else _unsettled(rule, rivals, against)
    # An end that was known beside an earlier best has stopped, and is not asked again.
    ends = _open_ends(rule, {level: pair for level, pair in against.items() if level in going})
    still = (*unsettled, *_imprecise(rule, best, (high - low) / 2 / at.icr, at.images), *ends)
    needed = frozenset[int]()
    if still:
        needed = frozenset({best, *(end.level for end in ends)}) | (rivals if unsettled else frozenset())
        needed |= _around(rule, best, against, tracks, going - needed)
    return LayerVerdict(best, at.icr, low, high, at.images, not unsettled, rivals, needed, still)


@dataclass(frozen=True)
class _Against:
    """A level against the best: D ± c·SE on the scale of log ICR."""

    rise: float
    """D."""
    reach: float
    """c·SE."""
    images: int
    """Behind both."""

    @property
    def higher(self) -> bool:
        return self.rise > self.reach

    def enough(self, wanted: float) -> int:
        """Images with which the reach would be as wanted, on a logarithmic scale."""
        return ceil(self.images * (self.reach / wanted) ** 2)


def _against(tracks: Sequence[Track], best: int, error: float) -> dict[int, _Against]:
    """All levels but the best."""
    found = {}
    for level, track in enumerate(tracks):
        pair = _common(track, tracks[best])
        if level != best and pair:
            differences = pair[0].replicates - pair[1].replicates
            reach = student_quantile(1 - error, len(differences) - 1) * float(jackknife_se(differences))
            found[level] = _Against(log(pair[0].icr / pair[1].icr), reach, pair[0].images)
    return found


def _unsettled(rule: Rule, rivals: frozenset[int], against: Mapping[int, _Against]) -> tuple[Open, ...]:
    """(a): rivals that may be lower than the best by more than ε."""
    limit = log1p(rule.accuracy)
    return tuple(
        Open("best", level, expm1(pair.reach - pair.rise), pair.enough(limit + pair.rise))
        for level, pair in sorted(against.items())
        if level in rivals and pair.reach - pair.rise > limit
    )


def _imprecise(rule: Rule, best: int, half: float, images: int) -> tuple[Open, ...]:
    """(b)."""
    if half <= rule.accuracy:
        return ()
    return (Open("interval", best, half, ceil(images * (half / rule.accuracy) ** 2)),)


def _open_ends(rule: Rule, against: Mapping[int, _Against]) -> tuple[Open, ...]:
    """(c): ends of the curve of which it is not known whether they rise by what counts as a rise."""
    found = []
    for level in sorted({0, len(rule.sigmas) - 1} & against.keys()):
        pair = against[level]
        wanted = max(log1p(rule.accuracy), abs(pair.rise - log1p(LEAST_RISE)))
        if pair.reach > wanted:
            found.append(Open("end", level, expm1(pair.reach), pair.enough(wanted)))
    return tuple(found)


def _around(
    rule: Rule, best: int, against: Mapping[int, _Against], tracks: Sequence[Track], idle: frozenset[int]
) -> frozenset[int]:
    """Levels from which the recommended one is interpolated, as long as its scatter is worth more images.

    Those are images of levels that could go on but for which there is no other need (`idle`).
    """
    last = len(rule.sigmas) - 1
    ends = [against.get(level) for level in (0, last)]
    # Only a `u` has a recommended level between those measured; an end that does not rise makes it something else.
    if best in (0, last) or any(end and end.rise + end.reach < log1p(LEAST_RISE) for end in ends):
        return frozenset()
    around = range(max(0, best - 2), min(last, best + 2) + 1)
    if idle.isdisjoint(around) or not all(level == best or level in against for level in around):
        return frozenset()
    x = np.log10([rule.sigmas[level] for level in around])
    _, y = curve([tracks[level] for level in around], around.index(best))
    room = grid_error(grid_step(np.log10(rule.sigmas), best), len(rule.sigmas))
    return frozenset(around) if scatter_of_minimum(x, y) > room else frozenset()


def _reason(rule: Rule, look: int, layers: Mapping[str, LayerVerdict]) -> str:
    asked, seen = percent(rule.accuracy), f"after {rule.looks[look]} of {rule.looks[-1]} images"
    lacking = {name: verdict for name, verdict in layers.items() if not verdict.reached}
    if not lacking:
        return f"known to {asked} {seen}"
    unknown = [name for name, verdict in lacking.items() if verdict.best is None]
    if unknown:
        return f"layer {unknown[0]}: no level has an ICR with an interval {seen}; take more images"
    name, worst = max(
        ((name, still) for name, verdict in lacking.items() for still in verdict.open), key=lambda at: at[1].images
    )
    sigma, found = f"{rule.sigmas[worst.level]:.4g}", percent(worst.found)
    what = {
        "best": f"ICR at sigma = {sigma} may be lower than the lowest by {found}",
        "interval": f"the lowest ICR, at sigma = {sigma}, is known to {found}",
        "end": f"the rise of ICR to sigma = {sigma} is known to {found}",
    }[worst.what]
    return f"layer {name}: {what} {seen} (asked for {asked}); about {worst.images} would do"


def percent(share: float) -> str:
    """`2.5 %`."""
    return f"{100 * share:.3g} %"
