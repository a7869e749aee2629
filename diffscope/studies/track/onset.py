"""When does a training run begin to memorize? ICR over its snapshots falls, and turns where single images are learnt.

Li et al., "Evaluating the representation space of diffusion models via self-supervised principles", 2026,
https://arxiv.org/abs/2606.09718. All snapshots are measured on the same images, blocks and draws, with y_t = log ICR:

    m_t = median(y_{t−W+1} … y_t),   best = the window with the lowest m so far,   D = m_t − m_best

The rule fires where D exceeds three things `persist` times in a row: a least rise that matters, the error that the
images leave in y_t − y_best (paired jackknife), and the scatter of the run itself from snapshot to snapshot, of which
no error over images knows. It looks at nothing after t. A run that has merely flattened has not turned.
`scripts/simulate_onset.py` measures how often the rule errs and how long it waits.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from diffscope.errors import UsageError
from diffscope.measure.difference import Difference, paired_difference
from diffscope.names import first_few
from diffscope.numerics import FloatArray, jackknife_se, student_quantile
from diffscope.results import Minimum, OnsetRow


@dataclass(frozen=True)
class Rule:
    """When to say that ICR has turned. Every number that grows makes alarms rarer and later."""

    window: int
    """W, snapshots in a median."""
    rise: float
    """Least relative rise that matters."""
    alpha: float
    """One-sided level of the paired test."""
    k_mad: float
    """Multiple of the run's own scatter; 0 leaves that term out."""
    persist: int
    """Snapshots in a row above the threshold."""
    warm: int
    """Index before which the rule does not fire."""
    span: int = 30
    """Steps back over which the scatter is taken."""
    lag: int = 3
    """Snapshots between the two of a difference in the scatter: neighbours move together."""


LONG = Rule(window=5, rise=0.05, alpha=0.001, k_mad=3, persist=3, warm=10)
SHORT = Rule(window=3, rise=0.05, alpha=0.01, k_mad=0, persist=2, warm=6)
PRESETS = {"long": LONG, "short": SHORT}
POOLED = SHORT
"""How a run in which the alarm has not fired is described."""
LONG_FROM = 30
"""Snapshots from which on `auto` is the long rule."""

ALPHA = 0.05
"""Two-sided level of the fall from the first snapshot, and of all comparisons with the minimum together."""
RESOLVED = 3.0
"""Standard errors in the smallest difference that is found with 80 % power."""


@dataclass(frozen=True)
class Alarms:
    """How often a run that only flattens out is taken for one that memorizes."""

    fluctuation: float
    """Up to which this holds, as `fluctuation` measures it."""
    fires: float
    """Share of runs in which the rule fires."""
    turned: float
    """Share called `turned` once the run is over, looking back as well."""


FALSE_ALARMS = {
    "long": (
        Alarms(0.0090, 0.005, 0.008),
        Alarms(0.0135, 0.035, 0.07),
        Alarms(0.0180, 0.17, 0.21),
        Alarms(0.0225, 0.30, 0.33),
    ),
    "short": (
        Alarms(0.0130, 0.001, 0.001),
        Alarms(0.0205, 0.005, 0.02),
        Alarms(0.0275, 0.021, 0.10),
        Alarms(0.0345, 0.11, 0.28),
    ),
}
"""By preset: 4000 plateaus of `scripts/simulate_onset.py` with an own fluctuation of 0.5, 1, 1.5 and 2 %, φ = 0.5 (the
worst: neighbours move together), standard error 1 %, or 2 % where that was worse. What is measured there is more
(median), as the fall before the plateau and the error of the estimate add to it. None of 4000 stands as 0.001, which
is above its upper 95 % limit.

The design's table says .003, .018 and .31 for `long` at 0.3 %, 1 % and (φ = 0.5) 2 %: found .001, .012 and .30 of 1000.
For `short` it says .000 at 2 %, which holds for runs that go on falling but not for a plateau.
"""


@dataclass(frozen=True)
class Snapshot:
    """One checkpoint of a run, measured in one layer at one noise level."""

    step: int
    checkpoint: str
    """Path."""
    icr: float | None
    replicates: Sequence[float] | None
    """Block replicates y_g [G] of log ICR."""
    n: int
    """Images."""


def preset(name: str, count: int) -> tuple[str, Rule]:
    """Name and rule of `long`, `short`, or what `auto` means for `count` snapshots.

    `auto` looks at how many there are in the end: a run that is watched keeps one rule, chosen when it starts.
    """
    if name == "auto":
        name = "long" if count >= LONG_FROM else "short"
    if name not in PRESETS:
        raise UsageError(f"no rule '{name}'; expected auto, {' or '.join(PRESETS)}; auto fits most runs")
    return name, PRESETS[name]


def fire(log_icr: ArrayLike, replicates: ArrayLike | None, rule: Rule) -> tuple[int | None, int]:
    """Index at which the rule first fires (None: never), and index of the best snapshot up to there.

    `log_icr` y [T], finite, T ≥ 1; `replicates` [T, G] of it, None for no error. Best is the centre of the window with
    the lowest median; with fewer snapshots than a window, the lowest of them.
    """
    y = np.asarray(log_icr, dtype=np.float64)
    blocks = None if replicates is None else np.asarray(replicates, dtype=np.float64)
    if len(y) < rule.window:
        return None, int(np.argmin(y))
    # Windows are named by their last snapshot: that is when they are known.
    m = dict(enumerate(_medians(y, rule.window).tolist(), start=rule.window - 1))
    best, in_a_row = rule.window - 1, 0
    for t in m:
        if m[t] < m[best]:
            best = t
        in_a_row = in_a_row + 1 if _exceeds(m[t] - m[best], y, blocks, t, best, rule) else 0
        if in_a_row >= rule.persist and t >= rule.warm:
            return t, best - (rule.window - 1) // 2
    return None, best - (rule.window - 1) // 2


def _medians(y: FloatArray, window: int) -> FloatArray:
    """Of all windows [T − W + 1] of y [T]; of everything where that is shorter than a window."""
    return np.asarray(np.median(sliding_window_view(y, min(window, len(y))), axis=-1))


def _exceeds(rise: float, y: FloatArray, blocks: FloatArray | None, t: int, best: int, rule: Rule) -> bool:
    """Whether the rise D from `best` to `t` is above all three thresholds; the cheap one first."""
    if rise <= math.log1p(rule.rise):
        return False
    if blocks is not None and rise <= _reach(blocks[t] - blocks[best], rule.alpha):
        return False
    if rule.k_mad == 0:
        return True
    start = max(0, t - rule.span)
    # One snapshot more than the scatter itself asks for: its median should rest on five differences.
    if t - start < rule.lag + 4:
        return False
    scatter = fluctuation(y[start : t + 1], rule.lag)
    return scatter is not None and rise > rule.k_mad * scatter


def _reach(differences: FloatArray, alpha: float) -> float:
    """What a difference with replicates D_g [G] must exceed to be above 0 at the one-sided level."""
    return student_quantile(1 - alpha, len(differences) - 1) * float(jackknife_se(differences))


def fluctuation(log_icr: ArrayLike, lag: int = 3) -> float | None:
    """Relative scatter of single snapshots, 1.4826 · median|q − median q| / √2 with q = y_t − y_{t−lag}; y is [T].

    Medians make a trend and a few jumps harmless, in a series that is long beside them. None below lag + 4 snapshots.
    """
    y = np.asarray(log_icr, dtype=np.float64)
    if len(y) < lag + 4:
        return None
    q = y[lag:] - y[:-lag]
    # 1.4826 makes the median absolute deviation of a Gaussian its standard deviation.
    return float(1.4826 * np.median(np.abs(q - np.median(q))) / math.sqrt(2))


def judge(
    layer: str | None,
    sigma: float | None,
    snapshots: Sequence[Snapshot],
    rule_name: str = "auto",
    online: bool = False,
    alarm: tuple[int | None, int] | None = None,
) -> OnsetRow:
    """What a run says in one layer at one noise level, or in all of them pooled.

    Snapshots without ICR or replicates, or with another number of blocks than most, are left out with a note.
    `online`: the run goes on, so that only the rule may say `turned`. Else the last snapshot counts too: it may stand
    well above the lowest before the rule has seen enough.
    `alarm`: of all pooled, the index at which it fired, if it has, and that of the snapshot to keep. Then it alone says
    `turned`.
    """
    used, notes = _usable(snapshots)
    name, rule = ("alarm", POOLED) if rule_name == "alarm" else preset(rule_name, len(used))
    if not used:
        return _nothing(layer, sigma, name, notes)
    icr = np.array([snapshot.icr for snapshot in used], dtype=np.float64)
    blocks = np.array([snapshot.replicates for snapshot in used], dtype=np.float64)
    scatter = fluctuation(np.log(icr), rule.lag)
    lowest, last = int(np.argmin(icr)), len(used) - 1
    known = FALSE_ALARMS.get(name, ())
    alarms = next((one for one in known if scatter is not None and scatter <= one.fluctuation), None)
    fired, centre = fire(np.log(icr), blocks, rule) if alarm is None else alarm
    if fired is None:
        verdict = _not_fired(used, icr, blocks, scatter, rule, online or alarm is not None)
        if verdict.state == "turned" and alarms is not None:
            notes.append(
                f"looking_back: of simulated runs that only flatten out, {alarms.turned:.2g} look turned in the end at "
                "this fluctuation"
            )
    else:
        verdict = _Verdict("turned", _fell_again(used, lowest, fired))
    if verdict.state == "turned" and lowest == 0:
        notes.append("minimum_first: ICR is lowest at the first snapshot; it may have turned before: add earlier ones")
    keep = lowest if fired is None and alarm is None else centre
    rise = _difference(icr, blocks, keep, last) if keep != last else None
    return OnsetRow(
        layer=layer,
        sigma=sigma,
        state=verdict.state,
        minimum=_minimum(used, icr, blocks, lowest),
        fired_at=None if fired is None else used[fired].step,
        rise=rise.change if rise else None,
        rise_low=rise.change_low if rise else None,
        rise_high=rise.change_high if rise else None,
        keep=used[keep].checkpoint,
        keep_step=used[keep].step,
        rule=name,
        fluctuation=scatter,
        false_alarms=None if alarms is None else alarms.fires,
        images_needed=verdict.images_needed,
        notes=(*notes, *([verdict.note] if verdict.note else [])),
    )


def _nothing(layer: str | None, sigma: float | None, rule: str, notes: list[str]) -> OnsetRow:
    """Of a run without a snapshot that could be used."""
    return OnsetRow(
        layer=layer,
        sigma=sigma,
        state="unclear",
        minimum=None,
        fired_at=None,
        rise=None,
        rise_low=None,
        rise_high=None,
        keep=None,
        keep_step=None,
        rule=rule,
        fluctuation=None,
        false_alarms=None,
        images_needed=None,
        notes=(*notes, "few_snapshots: none with ICR and replicates (limit 2): a run needs more than one"),
    )


def _usable(snapshots: Sequence[Snapshot]) -> tuple[list[Snapshot], list[str]]:
    """Those with an ICR and replicates of one common number of blocks, by rising step; notes on the others."""
    ordered = sorted(snapshots, key=lambda snapshot: snapshot.step)
    counts = Counter(count for count in map(_blocks, ordered) if count)
    most = counts.most_common(1)[0][0] if counts else 0
    notes = []
    missing = [str(snapshot.step) for snapshot in ordered if not _blocks(snapshot)]
    if missing:
        notes.append(
            f"snapshots_skipped: no ICR with replicates at step {first_few(missing)}; the verdict is that of the others"
        )
    others = [str(snapshot.step) for snapshot in ordered if _blocks(snapshot) not in (0, most)]
    if others:
        notes.append(
            f"blocks_differ: not {most} block replicates at step {first_few(others)}, left out as they cannot be "
            "paired; measure all snapshots with one number of blocks"
        )
    return [snapshot for snapshot in ordered if most and _blocks(snapshot) == most], notes


def _blocks(snapshot: Snapshot) -> int:
    """G; 0 for a snapshot that cannot be compared."""
    y = snapshot.replicates
    if snapshot.icr is None or not (math.isfinite(snapshot.icr) and snapshot.icr > 0) or y is None or len(y) < 2:
        return 0
    return len(y) if all(map(math.isfinite, y)) else 0


def _difference(icr: FloatArray, blocks: FloatArray, a: int, b: int) -> Difference:
    return paired_difference(float(icr[a]), blocks[a], float(icr[b]), blocks[b])


@dataclass(frozen=True)
class _Verdict:
    state: str
    note: str | None = None
    images_needed: int | None = None


def _fell_again(used: list[Snapshot], lowest: int, fired: int) -> str | None:
    if lowest <= fired:
        return None
    return (
        f"fell_again: ICR was lowest at step {used[lowest].step}, after the rule fired at step {used[fired].step}: "
        "a false alarm, or another turn later"
    )


def _not_fired(
    used: list[Snapshot], icr: FloatArray, blocks: FloatArray, scatter: float | None, rule: Rule, online: bool
) -> _Verdict:
    """The state of a run in which the rule has not fired, from its last snapshot."""
    lowest, last = int(np.argmin(icr)), len(used) - 1
    if last == 0:
        return _Verdict("unclear", "few_snapshots: 1 snapshot (limit 2): a run needs more than one")
    up = _difference(icr, blocks, lowest, last)
    risen = f"the last snapshot is {up.change:.1%} above the lowest, at step {used[lowest].step}"
    rises = up.log_ratio >= math.log1p(rule.rise)
    certain = up.log_ratio > _reach(blocks[last] - blocks[lowest], rule.alpha)
    outside = not rule.k_mad or scatter is None or _above_best_window(np.log(icr), rule) > rule.k_mad * scatter
    if rises and certain and outside:
        if online:
            return _Verdict("unclear", f"rising: {risen}; the rule waits for more snapshots to confirm it")
        return _Verdict("turned", f"retrospective: {risen}, and the paired test agrees; the rule has not fired")
    down = _difference(icr, blocks, 0, last)
    if lowest > last - rule.window and down.log_ratio < 0 and down.p < ALPHA:
        return _Verdict("falling")
    if rises and certain:
        return _Verdict("unclear", f"fluctuating: {risen}, which the run's own scatter explains; add snapshots")
    against = up if lowest < last else down
    resolved = RESOLVED * against.se / math.log1p(rule.rise)
    if resolved >= 1:
        count = used[last].n
        compared = "the lowest" if lowest < last else "the first"
        note = (
            f"few_images: {count} images do not show a change of {rule.rise:.0%} from {compared} snapshot to the last"
        )
        # The error falls with the square root of the images.
        return _Verdict("unclear", note, math.ceil(count * resolved**2))
    if rises:
        return _Verdict("unclear", f"not_significant: {risen}, but the paired test does not agree; add snapshots")
    return _Verdict("flat")


def _above_best_window(y: FloatArray, rule: Rule) -> float:
    """Rise of the last snapshot above the lowest median.

    Not above the lowest snapshot: of a hundred that scatter about a plateau one is always low.
    """
    return float(y[-1] - _medians(y, rule.window).min())


def _minimum(used: list[Snapshot], icr: FloatArray, blocks: FloatArray, lowest: int) -> Minimum:
    """The lowest snapshot, and the run around it that cannot be told from it at α divided by the comparisons."""
    count = len(used)
    level = ALPHA / max(1, count - 1)
    above = [j for j in range(count) if np.log(icr[j] / icr[lowest]) > _reach(blocks[j] - blocks[lowest], level)]
    low = max((j for j in above if j < lowest), default=-1) + 1
    high = min((j for j in above if j > lowest), default=count) - 1
    return Minimum(used[lowest].step, float(icr[lowest]), used[low].step, used[high].step)
