"""The sequential rule of `sweep --accuracy`: its looks, who goes on, when it ends, and how often it errs."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard

from diffscope.errors import EstimationError, UsageError
from diffscope.metrics.icr import estimate
from diffscope.moments import BlockAccumulator, Moments, size_problem
from diffscope.numerics import FloatArray, student_quantile
from diffscope.studies.sweep.stopping import ALPHA, Decision, Reading, Rule, curve, decide, interval, looks, rule
from diffscope.studies.sweep.window import semantic_window

SCRIPT = Path(__file__).parents[3] / "scripts" / "simulate_accuracy.py"
G = 16
WAVES = hadamard(G)[1:] / np.sqrt(G - 1)
"""Replicates, a row each, whose jackknife SE is 1 (Σ z² = G/(G−1)) and whose errors have nothing in common."""
AT = (250, 500, 1000, 2000)
SIGMAS = tuple(np.geomspace(0.01, 10, 7).tolist())
U = (0.45, 0.40, 0.36, 0.35, 0.36, 0.40, 0.45)


def asked(accuracy: float = 0.05, at: Sequence[int] = AT, sigmas: Sequence[float] = SIGMAS) -> Rule:
    return rule(accuracy, sigmas, at, 2)


def reading(icr: float, own: float, images: int, shared: float = 0.02, level: int = 0) -> Reading:
    """Of log ICR, `shared` is the standard error that cancels between levels and `own` that which does not."""
    return Reading(icr, log(icr) + shared * WAVES[0] + own * WAVES[1 + level], images)


def level_of(icr: Sequence[float], own: Sequence[float] | float, look: int = 0) -> list[list[Reading]]:
    """Tracks of one look or, repeated, of the first `look` + 1, their errors shrinking with the images."""
    errors = np.broadcast_to(np.asarray(own, dtype=float), (len(icr),))
    return [
        [reading(value, error * (AT[0] / m) ** 0.5, m, 0.02 * (AT[0] / m) ** 0.5, level) for m in AT[: look + 1]]
        for level, (value, error) in enumerate(zip(icr, errors, strict=True))
    ]


# --- the looks


def test_looks_determine_the_widest_layer_and_at_most_double() -> None:
    at = looks(5000, [64, 256], views=2)
    assert at[-1] == 5000
    assert at[0] >= 4 * 256
    assert size_problem(at[0], 2, 256) is None
    assert all(m % G == 0 for m in at[:-1])
    assert all(1 < b / a < 2.02 for a, b in pairwise(at))


def test_looks_of_wide_layers_begin_where_extrapolation_does() -> None:
    at = looks(5000, [1152], views=2)
    assert 2.5 * 1152 <= at[0] * (G - 1) / G < 4 * 1152


@pytest.mark.parametrize(("images", "width"), [(200, 64), (64, 4), (1000, 400)])
def test_one_look_where_stages_save_little(images: int, width: int) -> None:
    assert looks(images, [width], views=2) == (images,)


def test_more_views_determine_with_fewer_images() -> None:
    assert looks(5000, [512], views=5)[0] == 512


def test_errors_add_up_over_looks_and_levels() -> None:
    found = asked()
    assert sum(found.interval_levels) == pytest.approx(ALPHA)
    assert sum(found.pair_levels) * (len(SIGMAS) - 1) == pytest.approx(ALPHA)
    assert found.interval_levels[0] == pytest.approx(ALPHA * 250 / 2000)


@pytest.mark.parametrize("accuracy", [0.0, -0.01, 1.0, 2.0, float("nan")])
def test_an_accuracy_that_is_no_share_is_refused(accuracy: float) -> None:
    with pytest.raises(UsageError, match="such as 2%"):
        asked(accuracy)


@pytest.mark.parametrize("sigmas", [(), (1.0, 0.1), (0.1, 0.1)])
def test_levels_that_do_not_rise_are_refused(sigmas: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="noise levels"):
        asked(sigmas=sigmas)


# --- the interval


def test_the_interval_at_five_per_cent_is_that_of_icr_and_widens_with_the_looks() -> None:
    rng = np.random.default_rng(0)
    blocks = []
    for _ in range(G):
        accumulator = BlockAccumulator(3, 4)
        accumulator.update(torch.from_numpy(rng.standard_normal((20, 1, 4)) + rng.standard_normal((20, 3, 4))))
        blocks.append(accumulator.finish())
    found = estimate(Moments.from_blocks(blocks))
    assert found.replicates is not None
    assert interval(found.icr, found.replicates, 3, 0.05) == pytest.approx((found.low, found.high), rel=1e-9)
    low, high = interval(found.icr, found.replicates, 3, 0.01)
    assert found.low is not None
    assert found.high is not None
    assert low < found.low < found.icr < found.high < high


# --- who goes on


def test_clear_losers_stop_at_the_first_look() -> None:
    decision = decide(asked(), 0, {"a": level_of((0.9, 0.5, 0.36, 0.35, 0.36, 0.5, 0.9), 0.02)})
    verdict = decision.layers["a"]
    assert verdict.best == 3
    assert verdict.rivals == {2, 3, 4}
    assert not {0, 6} & decision.going


def test_ties_do_not_stop() -> None:
    decision = decide(asked(0.01), 0, {"a": level_of((0.4, 0.401, 0.4, 0.402, 0.399, 0.4, 0.401), 0.05)})
    assert decision.going == set(range(7))
    assert not decision.layers["a"].settled


def test_the_threshold_is_the_corrected_quantile() -> None:
    question = asked(0.001)
    bound = student_quantile(1 - question.pair_levels[0], G - 1)
    for factor, stops in ((0.99, False), (1.01, True)):
        icr = [0.4] * 7
        icr[2] = 0.4 * np.exp(factor * bound * 0.01)
        # The others have no error of their own: all of the difference's is that of level 2.
        tracks = level_of(icr, [0, 0, 0.01, 0, 0, 0, 0])
        assert (2 not in decide(question, 0, {"a": tracks}).layers["a"].rivals) is stops
    # At one look and without the correction the quantile would be 1.75.
    assert bound > 3.5


def test_what_is_shared_cancels() -> None:
    """All levels move by 20 % together: still told apart by 3 %."""
    tracks = [[reading(value, 0.001, AT[0], shared=0.2)] for value in U]
    assert decide(asked(), 0, {"a": tracks}).layers["a"].rivals == {3}


def test_the_best_goes_on_alone_once_it_is_settled_and_only_its_interval_is_open() -> None:
    tracks = [[reading(value, 0.001, AT[0], shared=0.2)] for value in U]
    decision = decide(asked(), 0, {"a": tracks})
    assert decision.layers["a"].settled
    assert [still.what for still in decision.layers["a"].open] == ["interval"]
    assert decision.going == {3}


def test_an_end_goes_on_until_its_rise_is_known() -> None:
    """5 ± 4 % above the minimum: no longer of interest as a minimum, but is it a rise of 2 %?"""
    icr = (0.3675, 0.40, 0.36, 0.35, 0.36, 0.40, 0.45)
    errors = [0.01, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001]
    first = decide(asked(0.02), 0, {"a": level_of(icr, errors)})
    assert 0 not in first.layers["a"].rivals
    assert [still.level for still in first.layers["a"].open if still.what == "end"] == [0]
    assert first.going == {0, 3}
    errors[0] = 0.001
    assert 0 not in decide(asked(0.02), 0, {"a": level_of(icr, errors)}).going


def test_neighbours_go_on_while_they_move_the_recommended_level() -> None:
    icr = [0.9, 0.357, 0.352, 0.35, 0.352, 0.357, 0.9]

    def going(doubt: float) -> frozenset[int]:
        errors = [0.0, doubt, 0.0, 0.0, 0.0, 0.0, 0.0]
        tracks = [[reading(v, e, AT[0], 0.2, n)] for n, (v, e) in enumerate(zip(icr, errors, strict=True))]
        decision = decide(asked(0.2), 0, {"a": tracks})
        assert decision.layers["a"].settled
        return decision.going

    assert going(0.03) == {1, 2, 3, 4, 5}
    assert going(0.003) == {3}
    # Without a rise at one end there is no level to interpolate.
    icr[0] = 0.351
    assert going(0.03) == {3}


def test_a_settled_best_is_not_overtaken_by_noise() -> None:
    tracks = [[reading(0.4 + 0.0001 * level, 0.001, AT[0], shared=0.2)] for level in range(7)]
    first = decide(asked(), 0, {"a": tracks})
    assert first.layers["a"].best == 0
    assert first.going == {0}
    tracks[0].append(reading(0.42, 0.001, AT[1], shared=0.15))
    second = decide(asked(), 1, {"a": tracks}, first)
    assert second.layers["a"].best == 0
    assert second.layers["a"].icr == 0.42


def test_levels_without_an_icr_neither_win_nor_stop() -> None:
    tracks: list[list[Reading | None]] = [list(track) for track in level_of(U, 0.05)]
    tracks[5] = [None]
    decision = decide(asked(0.01), 0, {"a": tracks})
    assert decision.layers["a"].best == 3
    assert 5 in decision.going
    nothing = decide(asked(0.01), 0, {"a": [[None]] * 7})
    assert nothing.layers["a"].best is None
    assert nothing.going == set(range(7))
    assert not nothing.reached
    assert "no level has an ICR" in nothing.reason


def test_a_level_goes_on_if_any_layer_needs_it() -> None:
    steep = level_of((0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), 0.001)
    other = level_of((0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.35), 0.001)
    alone = [decide(asked(0.04), 0, {"a": layer}).going for layer in (steep, other)]
    assert alone == [{0}, {6}]
    together = decide(asked(0.04), 0, {"a": steep, "b": other})
    assert together.going == {0, 6}


def test_a_layer_that_is_known_asks_for_nothing_more_and_stays_as_it_is() -> None:
    known, unknown = ([[reading(v, 0.0005, AT[0], shared=s)] for v in U] for s in (0.005, 0.2))
    first = decide(asked(), 0, {"a": known, "b": unknown})
    assert first.layers["a"].reached
    assert not first.layers["a"].needed
    assert first.going == first.layers["b"].needed
    for track in (*known, *unknown):
        track.append(reading(0.5, 0.2, AT[1]))
    assert decide(asked(), 1, {"a": known, "b": unknown}, first).layers["a"] == first.layers["a"]


# --- the end


def test_it_ends_when_all_is_known() -> None:
    decision = decide(asked(), 0, {"a": [[reading(v, 0.0005, AT[0], shared=0.005)] for v in U]})
    assert decision.reached
    assert not decision.going
    verdict = decision.layers["a"]
    assert verdict.low is not None
    assert verdict.high is not None
    assert (verdict.high - verdict.low) / 2 / 0.35 <= 0.05
    assert decision.reason == "known to 5 % after 250 of 2000 images"


def test_it_ends_with_the_images_and_says_how_many_would_do() -> None:
    question = asked(0.01)
    decision: Decision | None = None
    tracks: list[list[Reading]] = [[] for _ in U]
    for look in range(len(AT)):
        for track, whole in zip(tracks, level_of(U, 0.002, look), strict=True):
            track.append(whole[look])
        decision = decide(question, look, {"a": tracks}, decision)
    assert decision is not None
    assert not decision.reached
    assert not decision.going
    still = decision.layers["a"].open[0]
    assert still.what == "interval"
    assert still.images == pytest.approx(2000 * (still.found / 0.01) ** 2, abs=1)
    assert f"about {still.images} would do" in decision.reason
    assert "after 2000 of 2000 images" in decision.reason


def test_looks_come_in_order() -> None:
    tracks = level_of(U, 0.05)
    first = decide(asked(0.01), 0, {"a": tracks})
    with pytest.raises(EstimationError, match="look 1 of 4"):
        decide(asked(0.01), 1, {"a": tracks})
    with pytest.raises(EstimationError, match="look 0 of 4"):
        decide(asked(0.01), 0, {"a": tracks}, first)
    with pytest.raises(EstimationError, match="look 4 of 4"):
        decide(asked(0.01), 4, {"a": tracks}, first)


# --- the curve


def test_the_curve_compares_on_the_same_images() -> None:
    """Level 0 stopped after the first look; the best has since moved by what both had in common."""
    tracks = [[reading(0.44, 0.001, 250, 0.2)], [reading(0.40, 0.0, 250, 0.2), reading(0.36, 0.0, 500, 0.1)]]
    icr, replicates = curve(tracks, 1)
    assert icr == pytest.approx([0.396, 0.36])
    assert semantic_window([0.1, 1.0], icr, replicates).t[0] == pytest.approx(log(1.1) / 0.001)
    # Side by side they could not be told apart.
    last = [track[-1] for track in tracks]
    plain = semantic_window([0.1, 1.0], [r.icr for r in last], np.stack([r.replicates for r in last], axis=1))
    assert plain.t[0] < 2.5


def test_the_curve_leaves_out_what_shares_no_look_with_the_best() -> None:
    icr, replicates = curve([[None], [reading(0.4, 0.01, 250)]], 1)
    assert np.isnan(icr[0])
    assert np.isnan(replicates[:, 0]).all()
    assert icr[1] == pytest.approx(0.4)


# --- how often it errs

NEAR_TIE = np.where(np.arange(12) == 6, 0.39996, 0.4)


def measured(true: FloatArray, at: Sequence[int], rng: np.random.Generator) -> list[list[Reading]]:
    """All readings of a sweep whose log ICR errs by 1 at one image, by half of that in common with other levels."""
    steps = np.diff([0, *at]) // G
    errors = np.stack([rng.standard_normal((len(true) + 1, G)) * step**0.5 for step in steps], axis=-1)
    blocks = (errors[1:] + errors[:1]).cumsum(-1) / 2**0.5 / (np.array(at) // G)
    mean = blocks.mean(1, keepdims=True)
    y = np.log(true)[:, None, None] + mean
    # Without block g the estimate moves by −(error of g − mean)/(G − 1).
    replicates = y - (blocks - mean) / (G - 1)
    return [
        [Reading(float(np.exp(y[level, 0, k])), replicates[level, :, k], m) for k, m in enumerate(at)]
        for level in range(len(true))
    ]


def staged(question: Rule, whole: list[list[Reading]]) -> tuple[Decision, list[frozenset[int]]]:
    """The decision at the end, and who went on after each look."""
    tracks = [[track[0]] for track in whole]
    trail = []
    decision = decide(question, 0, {"a": tracks})
    while decision.going:
        trail.append(decision.going)
        for level in decision.going:
            tracks[level].append(whole[level][len(trail)])
        decision = decide(question, len(trail), {"a": tracks}, decision)
    return decision, trail


RUNS = 150
CHANCE = 3 * (0.05 * 0.95 / RUNS) ** 0.5
"""Three standard errors of a share of 5 %."""


def shares(question: Rule, true: FloatArray) -> tuple[float, float, float]:
    """Of RUNS: the true minimum ruled out, the interval missing, a settled best more than ε above the minimum."""
    rng = np.random.default_rng(1)
    ruled_out = missed = regrets = 0
    for _ in range(RUNS):
        verdict = staged(question, measured(true, question.looks, rng))[0].layers["a"]
        assert verdict.best is not None
        assert verdict.low is not None
        assert verdict.high is not None
        ruled_out += int(np.argmin(true)) not in verdict.rivals
        missed += not verdict.low <= true[verdict.best] <= verdict.high
        regrets += verdict.settled and true[verdict.best] > true.min() * (1 + question.accuracy)
    return ruled_out / RUNS, missed / RUNS, regrets / RUNS


LOOKS = (128, 256, 512, 1024, 2048)


def test_false_claims_stay_rare_and_would_not_without_the_correction() -> None:
    question = rule(0.05, np.geomspace(0.01, 10, 12).tolist(), LOOKS, 2)
    ruled_out, missed, _ = shares(question, NEAR_TIE)
    assert ruled_out <= ALPHA + CHANCE
    assert missed <= ALPHA + CHANCE
    hasty = replace(question, pair_levels=(ALPHA,) * 5, interval_levels=(0.2,) * 5)
    ruled_out, missed, _ = shares(hasty, NEAR_TIE)
    assert ruled_out > 2 * (ALPHA + CHANCE)
    assert missed > ALPHA + CHANCE


def test_a_settled_best_is_within_the_accuracy() -> None:
    true = np.geomspace(0.40, 0.60, 12)
    question = rule(0.05, np.geomspace(0.01, 10, 12).tolist(), LOOKS, 2)
    assert shares(question, true)[2] <= ALPHA + CHANCE
    hasty = replace(question, pair_levels=(0.5,) * 5)
    assert shares(hasty, true)[2] > ALPHA + CHANCE


def test_the_same_evidence_gives_the_same_decisions_and_nobody_comes_back() -> None:
    question = rule(0.03, np.geomspace(0.01, 10, 12).tolist(), LOOKS, 2)
    rng = np.random.default_rng(2)
    for true in (NEAR_TIE, np.geomspace(0.4, 0.8, 12), 0.4 + 0.01 * np.abs(np.arange(12) - 5)):
        whole = measured(true, LOOKS, rng)
        before = [[r.replicates.copy() for r in track] for track in whole]
        first, second = staged(question, whole), staged(question, whole)
        assert first == second
        assert all(later <= earlier for earlier, later in pairwise(first[1]))
        assert all(
            np.array_equal(a, b.replicates)
            for old, track in zip(before, whole, strict=True)
            for a, b in zip(old, track, strict=True)
        )


def test_the_script_prints_its_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--runs", "2", "--cell", "rising", "--accuracy", "0.05"])
    done = []
    for _ in range(2):
        runpy.run_path(str(SCRIPT), run_name="__main__")
        done.append(capsys.readouterr().out)
    assert done[0] == done[1]
    head, rule_line, row = done[0].strip().splitlines()
    assert len({line.count("|") for line in (head, rule_line, row)}) == 1
    assert row.startswith("| rising, 16 | 5% |")
