"""Each condition of `sweep --accuracy` by itself: its threshold, the images that would do, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, log1p

import numpy as np
import pytest
from scipy.linalg import hadamard

from diffscope.numerics import student_quantile
from diffscope.studies.sweep.recommended import scatter_of_minimum
from diffscope.studies.sweep.stopping import Decision, LayerVerdict, Reading, Rule, curve, decide, interval, looks, rule

G = 16
WAVES = hadamard(G)[1:] / np.sqrt(G - 1)
"""Replicates, a row each, whose jackknife SE is 1 (Σ z² = G/(G−1)) and whose errors have nothing in common."""
AT = (250, 500, 1000, 2000)
SHARE = 0.05 * 250 / 2000
"""Of the error that the first look may spend."""


def asked(accuracy: float, levels: int = 3, at: Sequence[int] = AT) -> Rule:
    return rule(accuracy, np.geomspace(0.01, 1, levels).tolist(), at, 2)


def reading(icr: float, own: float, level: int = 0, images: int = 250, shared: float = 0.0) -> Reading:
    """Of log ICR, `shared` is the standard error that cancels between levels and `own` that which does not."""
    return Reading(icr, log(icr) + shared * WAVES[-1] + own * WAVES[level], images)


def first(question: Rule, icr: Sequence[float], own: Sequence[float], shared: float = 0.0) -> Decision:
    tracks = [[reading(v, e, n, shared=shared)] for n, (v, e) in enumerate(zip(icr, own, strict=True))]
    return decide(question, 0, {"a": tracks})


def reasons(verdict: LayerVerdict) -> set[tuple[str, int]]:
    return {(still.what, still.level) for still in verdict.open}


# --- the looks


@pytest.mark.parametrize(
    ("images", "width", "views", "expected"),
    [
        # 4d = 1024; the rest in three steps of 4.883^(1/3) = 1.697, to the nearest sixteen.
        (5000, 256, 2, (1024, 1744, 2944, 5000)),
        (5000, 256, 5, (256, 464, 848, 1520, 2752, 5000)),
        # 4d is more than half: 2.5d = 2880 without a block, by 16/15 is 3072.
        (5000, 1152, 2, (3072, 5000)),
        # Half is not more than half.
        (2048, 256, 2, (1024, 2048)),
        (2047, 256, 2, (688, 1184, 2047)),
        # Eight images a block at the least; no more than three quarters of all.
        (512, 4, 2, (128, 256, 512)),
        (513, 4, 2, (128, 208, 320, 513)),
        (171, 4, 2, (128, 171)),
        (170, 4, 2, (170,)),
        (1024, 33, 2, (144, 272, 528, 1024)),
        # Five residuals an image: 4 · 161/5 = 128.8; two: 2.5 · 2000/2 · 16/15 = 2666.7.
        (1000, 161, 6, (144, 272, 528, 1000)),
        (5000, 2000, 3, (2672, 5000)),
    ],
)
def test_looks_on_paper(images: int, width: int, views: int, expected: tuple[int, ...]) -> None:
    assert looks(images, [2, width, 3], views) == expected


def test_blocks_of_another_number() -> None:
    """Of eight: 64 images at the first look; 2.5d without one of eight blocks is 2.5d · 8/7."""
    assert looks(200, [4], 2, blocks=8)[0] == 64
    assert looks(5000, [1152], 2, blocks=8)[0] == 8 * 412


def test_the_levels_of_a_single_comparison() -> None:
    """One level has none to be compared with; of three each gets half, of each look its share of the images."""
    assert asked(0.1, 1).pair_levels == pytest.approx([0.05 * share for share in (0.125, 0.125, 0.25, 0.5)])
    assert asked(0.1, 3).pair_levels == pytest.approx([0.025 * share for share in (0.125, 0.125, 0.25, 0.5)])
    assert asked(0.1, 3).interval_levels == pytest.approx([0.05 * share for share in (0.125, 0.125, 0.25, 0.5)])


@pytest.mark.parametrize("views", [2, 5])
def test_the_interval_on_paper(views: int) -> None:
    """T = V/ICR − (V − 1) = 4 with an error of 10 % in its logarithm, two-sided."""
    theta = 4 * np.exp(0.1 * WAVES[0])
    factor = exp(0.1 * student_quantile(1 - 0.02 / 2, G - 1))
    ends = interval(views / (views - 1 + 4), np.log(views / (views - 1 + theta)), views, 0.02)
    assert ends == pytest.approx((views / (views - 1 + 4 * factor), views / (views - 1 + 4 / factor)))


# --- (a) the best is settled


def test_a_rival_is_open_while_it_may_be_lower_by_more_than_the_accuracy() -> None:
    """c·SE − D against log 1.05, with D = log 1.02 and the error in the rival alone."""
    c = student_quantile(1 - SHARE / 3, G - 1)
    limit, rise = log1p(0.05), log(1.02)
    for factor, settled in ((0.999, True), (1.001, False), (1.1, False)):
        se = factor * (limit + rise) / c
        decision = first(asked(0.05, 4), (0.6, 0.4, 0.408, 0.6), (0.0, 0.0, se, 0.0))
        verdict = decision.layers["a"]
        assert verdict.settled is settled
        assert (("best", 2) in reasons(verdict)) is not settled
    (still,) = (one for one in verdict.open if one.what == "best")
    assert still.found == pytest.approx(exp(c * se - rise) - 1)
    # The reach must shrink by 1.1, which takes 1.21 times the images.
    assert still.images == 303
    assert decision.reason == (
        "layer a: ICR at sigma = 0.2154 may be lower than the lowest by 5.72 % after 250 of 2000 images (asked for "
        "5 %); about 303 would do"
    )


def test_a_level_is_ruled_out_in_pairs() -> None:
    """Beyond c·SE, with c at the share of the look by two comparisons; the 30 % that levels share cancel."""
    c = student_quantile(1 - SHARE / 2, G - 1)
    for factor, rivals in ((0.999, {1, 2}), (1.001, {1})):
        icr = (0.6, 0.4, 0.4 * exp(factor * c * 0.05))
        assert first(asked(0.01), icr, (0.001, 0.0, 0.05), shared=0.3).layers["a"].rivals == rivals


# --- (b) its ICR is known


def half_width(icr: float, se: float) -> float:
    """Relative, of an interval from replicates with this error of log ICR about `icr`."""
    low, high = interval(icr, log(icr) + se * WAVES[0], 2, SHARE)
    return (high - low) / 2 / icr


def test_the_interval_is_open_while_it_is_wider_than_the_accuracy() -> None:
    half = half_width(0.4, 0.02)
    for factor, known in ((1.001, True), (1, True), (0.999, False)):
        question = rule(factor * half, [0.1], AT, 2)
        decision = first(question, (0.4,), (0.02,))
        assert decision.reached is known
    (still,) = decision.layers["a"].open
    assert (still.what, still.level) == ("interval", 0)
    assert still.found == pytest.approx(half)
    assert still.images == 251
    assert decision.reason == (
        f"layer a: the lowest ICR, at sigma = 0.1, is known to {100 * half:.3g} % after 250 of 2000 images "
        f"(asked for {100 * question.accuracy:.3g} %); about 251 would do"
    )


def test_twice_as_accurate_takes_four_times_the_images() -> None:
    half = half_width(0.4, 0.02)
    (still,) = first(rule(half / 2, [0.1], AT, 2), (0.4,), (0.02,)).layers["a"].open
    assert still.images in (1000, 1001)  # of rounding in the half-width


# --- (c) the ends are known


@pytest.mark.parametrize("rise", [0.10, 0.03, 0.01])
def test_an_end_is_open_while_its_rise_may_be_two_per_cent_or_not(rise: float) -> None:
    """c·SE against |D − log 1.02|, or log(1 + ε) where that is more."""
    c = student_quantile(1 - SHARE / 2, G - 1)
    wanted = max(log1p(0.03), abs(log1p(rise) - log1p(0.02)))
    for factor, known in ((0.999, True), (1.001, False), (1.1, False)):
        icr = (0.4 * (1 + rise), 0.4, 0.6)
        verdict = first(asked(0.03), icr, (factor * wanted / c, 0.0, 0.001)).layers["a"]
        assert (("end", 0) not in reasons(verdict)) is known
    (still,) = (one for one in verdict.open if one.what == "end")
    assert still.found == pytest.approx(exp(1.1 * wanted) - 1)
    assert still.images == 303


def test_both_ends_are_asked_and_no_other_level() -> None:
    levels = (0.5, 0.55, 0.4, 0.55, 0.5)
    verdict = first(asked(0.03, 5), levels, (0.06, 0.06, 0.0, 0.06, 0.06)).layers["a"]
    assert reasons(verdict) == {("end", 0), ("end", 4)}
    assert verdict.needed >= {0, 2, 4}
    # An end that is the best itself has no rise.
    assert reasons(first(asked(0.03), (0.4, 0.45, 0.5), (0.0, 0.02, 0.0001)).layers["a"]) == set()


def test_the_reason_is_that_which_takes_most() -> None:
    """A rise of 20 % in the logarithm known to .19, where .18 is asked for, takes more than an interval of 3.02 %."""
    decision = first(asked(0.03), (0.4 * exp(0.2), 0.4, 0.8), (0.058, 0.0095, 0.001))
    opened = decision.layers["a"].open
    most = max(opened, key=lambda still: still.images)
    assert {still.what for still in opened} == {"interval", "end"}
    assert most.what == "end"
    assert decision.reason == (
        f"layer a: the rise of ICR to sigma = 0.01 is known to {100 * most.found:.3g} % after 250 of 2000 images "
        f"(asked for 3 %); about {most.images} would do"
    )


# --- the neighbours of the best


def going(icr: Sequence[float], own: Sequence[float], missing: int | None = None) -> frozenset[int]:
    """Who goes on beside a best that is settled, whose interval is open and whose ends are known."""
    tracks: list[list[Reading | None]] = [
        [None if level == missing else reading(value, error, level, shared=0.2)]
        for level, (value, error) in enumerate(zip(icr, own, strict=True))
    ]
    decision = decide(rule(0.2, np.geomspace(0.01, 10, len(icr)).tolist(), AT, 2), 0, {"a": tracks})
    assert decision.layers["a"].settled
    assert {still.what for still in decision.layers["a"].open} == {"interval"}
    return decision.going


@pytest.mark.parametrize("best", range(7))
def test_two_levels_on_either_side_place_the_recommended_one(best: int) -> None:
    """Of a level at an end there is nothing to place; of others by two on either side, with errors of 4.5 %."""
    icr = [0.35 * exp(0.005 * (level - best) ** 2 if abs(level - best) <= 2 else 1.0) for level in range(7)]
    icr[0], icr[6] = (0.35 if best == end else 0.42 for end in (0, 6))
    own = [0.045 if 0 < abs(level - best) <= 2 and level not in (0, 6) else 0.0 for level in range(7)]
    expected = {best} if best in (0, 6) else set(range(max(0, best - 2), min(6, best + 2) + 1))
    assert going(icr, own) == expected
    # The scatter that the grid leaves anyway is not worth more images.
    assert going(icr, [error / 30 for error in own]) == {best}


BOWL = [0.9, 0.357, 0.352, 0.35, 0.352, 0.357, 0.9]


@pytest.mark.parametrize("end", [0, 6])
@pytest.mark.parametrize(("factor", "around"), [(0.999, False), (1.001, True)])
def test_neighbours_of_a_curve_that_may_be_a_u(end: int, factor: float, around: bool) -> None:
    """As long as D + c·SE of both ends is above the least rise, log 1.02; here D = .005."""
    c = student_quantile(1 - SHARE / 6, G - 1)
    icr, own = list(BOWL), [0.0, 0.03, 0.0, 0.0, 0.0, 0.0, 0.0]
    icr[end], own[end] = 0.35 * exp(0.005), (factor * log1p(0.02) - 0.005) / c
    assert going(icr, own) == ({1, 2, 3, 4, 5} if around else {3})


def test_neighbours_go_on_while_they_move_it_by_more_than_the_grid_does() -> None:
    """A quarter of the step of half a decade, .125; the error of level 1 that gives as much is bisected."""
    x = np.log10(np.geomspace(0.01, 10, 7))[1:6]

    def scatter(own: float) -> float:
        y = np.tile(np.log(BOWL[1:6]), (G, 1))
        y[:, 0] += own * WAVES[1]
        return scatter_of_minimum(x, y)

    low, high = 0.0, 0.03
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if scatter(middle) > 0.125 else (middle, high)
    assert going(BOWL, [0.0, 0.999 * low, *[0.0] * 5]) == {3}
    assert going(BOWL, [0.0, 1.001 * high, *[0.0] * 5]) == {1, 2, 3, 4, 5}


def test_neighbours_without_an_icr_place_nothing() -> None:
    own = [0.0, 0.03, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert going(BOWL, own) == {1, 2, 3, 4, 5}
    # A rival that has none goes on, as it may yet be the best.
    question = asked(0.2, 7)
    tracks: list[list[Reading | None]] = [
        [reading(v, e, n, shared=0.2)] for n, (v, e) in enumerate(zip(BOWL, own, strict=True))
    ]
    tracks[4] = [None]
    verdict = decide(question, 0, {"a": tracks}).layers["a"]
    assert 4 in verdict.rivals
    assert verdict.needed == {3}


# --- from look to look


def settled_with_a_rival() -> tuple[Rule, list[list[Reading | None]], list[list[Reading | None]], Decision]:
    """One look at two layers: level 1 of `a` is settled with level 0 as a rival and level 2 ruled out; nothing is of
    `b`, so that all levels go on."""
    question = asked(0.02)
    a = [[reading(0.401, 0.005, 0, shared=0.2)], [reading(0.4, 0, 1, shared=0.2)], [reading(0.5, 0.001, 2, shared=0.2)]]
    b = [[reading(0.4, 0.1, level)] for level in range(3)]
    before = decide(question, 0, {"a": a, "b": b})
    verdict = before.layers["a"]
    assert (verdict.best, verdict.settled, verdict.rivals) == (1, True, {0, 1})
    assert before.going == {0, 1, 2}
    return question, [list(track) for track in a], [list(track) for track in b], before


def test_rivals_are_ruled_out_for_good_and_a_settled_best_stays() -> None:
    """At the second look levels 0 and 2 would be lower."""
    question, a, b, before = settled_with_a_rival()
    for level, icr in enumerate((0.35, 0.4, 0.3)):
        a[level].append(reading(icr, 0.001, level, images=500, shared=0.2))
        b[level].append(reading(0.4, 0.1, level, images=500))
    verdict = decide(question, 1, {"a": a, "b": b}, before).layers["a"]
    assert (verdict.best, verdict.icr, verdict.images, verdict.settled, verdict.rivals) == (1, 0.4, 500, True, {0, 1})
    assert "best" not in {still.what for still in verdict.open}


def test_a_settled_best_without_an_icr_is_settled_anew() -> None:
    question, a, b, before = settled_with_a_rival()
    for level, one in enumerate((reading(0.35, 0.001, 0, images=500, shared=0.2), None, None)):
        a[level].append(one)
        b[level].append(reading(0.4, 0.1, level, images=500))
    verdict = decide(question, 1, {"a": a, "b": b}, before).layers["a"]
    assert (verdict.best, verdict.icr) == (0, 0.35)
    # Against level 1 at the look that both have, where it was higher by .0025 ± c·.005.
    assert 1 in verdict.rivals


def test_a_layer_of_which_nothing_is_known_wants_everything() -> None:
    (verdict,) = decide(asked(0.1), 0, {"a": [[None]] * 3}).layers.values()
    everything = frozenset({0, 1, 2})
    assert verdict == LayerVerdict(None, None, None, None, 0, False, everything, everything, ())
    assert not verdict.reached


def test_levels_that_are_the_same_cannot_be_told_apart() -> None:
    """To the last bit, with no error of the difference at all."""
    assert first(asked(0.1), (0.4, 0.4, 0.5), (0, 0, 0), shared=0.1).layers["a"].rivals == {0, 1}


def test_until_it_is_settled_the_best_is_the_lowest_of_the_look() -> None:
    question = asked(0.02)
    tracks = [[reading(icr, 0.05, level)] for level, icr in enumerate((0.40, 0.41, 0.42))]
    before = decide(question, 0, {"a": tracks})
    assert (before.layers["a"].best, before.layers["a"].settled) == (0, False)
    assert before.going == {0, 1, 2}
    for level, (track, icr) in enumerate(zip(tracks, (0.41, 0.42, 0.40), strict=True)):
        track.append(reading(icr, 0.05, level, images=500))
    after = decide(question, 1, {"a": tracks}, before)
    assert (after.layers["a"].best, after.layers["a"].images) == (2, 500)


def test_the_last_look_ends_it_whatever_is_open() -> None:
    question = asked(0.001, 2, at=(250, 500))
    tracks = [[reading(0.4, 0.05, level)] for level in range(2)]
    decision = decide(question, 0, {"a": tracks})
    assert decision.going == {0, 1}
    for level, track in enumerate(tracks):
        track.append(reading(0.4, 0.05, level, images=500))
    decision = decide(question, 1, {"a": tracks}, decision)
    assert (decision.reached, decision.going) == (False, frozenset())
    assert "after 500 of 500 images" in decision.reason


def test_an_unusable_reading_is_none() -> None:
    """Not finite, or not above 0: neither the best nor ruled out."""
    one_nan = np.where(np.arange(G) == 3, np.nan, log(0.4))
    values = (float("nan"), float("inf"), 0.0, -0.1)
    for bad in (Reading(0.4, one_nan, 250), *(Reading(icr, np.zeros(G), 250) for icr in values)):
        tracks = [[bad], [reading(0.45, 0.001, 1)], [reading(0.5, 0.001, 2)]]
        verdict = decide(asked(0.1), 0, {"a": tracks}).layers["a"]
        assert (verdict.best, verdict.rivals) == (1, {0, 1})


def test_the_curve_goes_through_the_best_at_the_last_look_in_common() -> None:
    """Levels at ratios of 1.1 and 1.2 to the best at looks 0 and 1; the best ends at .3."""
    best = [reading(0.5, 0.01), reading(0.4, 0.02), reading(0.3, 0.03)]
    tracks = [[reading(0.55, 0.0)], best, [reading(0.9, 0.0), reading(0.48, 0.0)]]
    icr, replicates = curve(tracks, 1)
    assert icr == pytest.approx([0.33, 0.3, 0.36])
    assert replicates[:, 1] == pytest.approx(log(0.3) + 0.03 * WAVES[0])
    assert replicates[:, 0] == pytest.approx(log(0.33) + (0.03 - 0.01) * WAVES[0])
    assert replicates[:, 2] == pytest.approx(log(0.36) + (0.03 - 0.02) * WAVES[0])
