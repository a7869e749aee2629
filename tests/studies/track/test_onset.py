"""The onset of memorization: the vectors, the rule forward in time, the four states, and runs with gaps."""

# mypy: disable-error-code="arg-type, attr-defined, call-arg"

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from vectors import expected

from diffscope.errors import UsageError
from diffscope.numerics import FloatArray, student_quantile
from diffscope.results import OnsetRow
from diffscope.studies.track.onset import (
    FALSE_ALARMS,
    LONG,
    PRESETS,
    SHORT,
    Rule,
    Snapshot,
    fire,
    fluctuation,
    judge,
    preset,
)

SCRIPT = Path(__file__).parents[3] / "scripts" / "simulate_onset.py"
G = 16
ZIGZAG = np.where(np.arange(G) % 2, 1.0, -1.0) / np.sqrt(G - 1)
"""Replicates whose jackknife SE is 1: Σ z² = G/(G−1)."""


def memorizing(count: int = 60) -> FloatArray:
    t = np.arange(1.0, count + 1)
    return rich(np.minimum(t, 25)) + np.log1p(0.01 * np.maximum(t - 25, 0)) + 0.004 * np.cos(1.3 * t)


def rich(t: FloatArray) -> FloatArray:
    return np.log(0.3 + 0.5 * t**-0.7)


def run(icr: list[float] | FloatArray, se: list[float] | float = 0.001, n: int = 1000) -> list[Snapshot]:
    """Snapshots at steps 0, 10, … whose difference of log ICR has a standard error of |se_a − se_b|."""
    errors = np.broadcast_to(np.asarray(se, dtype=float), (len(icr),))
    # By default each snapshot has its own small error; equal errors would cancel in the difference.
    scale = errors * (1 + np.arange(len(icr)) % 2) if np.isscalar(se) else errors
    return [
        Snapshot(10 * i, f"{i}.pt", float(value), (np.log(value) + scale[i] * ZIGZAG).tolist(), n)
        for i, value in enumerate(icr)
    ]


def codes(row: OnsetRow) -> set[str]:
    return {note.split(":")[0] for note in row.notes}


# --- the rule


def test_vectors() -> None:
    vector = {key: (value["fire_index"], value["best_index"]) for key, value in expected("G_onset").items()}
    t = np.arange(1.0, 61)
    never = fire(rich(t) + 0.004 * np.cos(1.3 * t), None, LONG)
    assert (-1, never[1]) == vector["rich_default"]
    assert never[0] is None
    assert fire(memorizing(), None, LONG) == vector["mem_default"] == (38, 23)
    noisy = memorizing()[:, None] + 0.03 * np.cos(np.arange(G) * (1 + 0.2 * t[:, None]))
    assert fire(memorizing(), noisy, LONG) == vector["mem_noisy_blocks"] == (58, 23)
    assert fire(memorizing(), None, replace(LONG, window=3)) == vector["mem_window3"]
    t = np.arange(1.0, 17)
    short = rich(np.minimum(t, 6)) + np.log1p(0.05 * np.maximum(t - 6, 0))
    assert fire(short, None, SHORT) == vector["short_preset"] == (9, 4)
    assert fire(short, None, LONG) == vector["short_with_default"]


def test_a_rise_of_exactly_the_threshold_on_paper() -> None:
    """W = 1 and no other guard: of 0, 0, .06, .06 the second snapshot above log 1.05 fires."""
    rule = Rule(window=1, rise=0.05, alpha=0.05, k_mad=0, persist=2, warm=0)
    assert fire([0, 0, 0.06, 0.06], None, rule) == (3, 0)
    assert fire([0, 0, 0.04, 0.04], None, rule) == (None, 0)
    assert fire([0, 0, 0.06, 0, 0.06], None, rule) == (None, 0)  # not in a row
    assert fire([0, 0, 0.06, 0.06], None, replace(rule, warm=4)) == (None, 0)
    # A single outlier never moves a median of three; smooth series turn at the centre of the best window.
    assert fire([0, 0, 0, 9, 0, 0, 0], None, replace(rule, window=3, persist=1)) == (None, 1)


def test_the_paired_error_silences_the_rule() -> None:
    rule = Rule(window=1, rise=0.05, alpha=0.05, k_mad=0, persist=1, warm=0)
    y = np.array([0.0, 0.1])
    for se, fires in ((0.05, True), (0.06, False)):
        # t_15(.95) = 1.753: 0.1 is beyond 1.753 · 0.05 and not beyond 1.753 · 0.06.
        blocks = y[:, None] + np.array([0.0, se])[:, None] * ZIGZAG
        assert (fire(y, blocks, rule)[0] == 1) is fires


def test_the_runs_own_scatter_silences_the_rule() -> None:
    """± 5 % in turn: q is ± 10 %, and 3 · 1.4826 · .1/√2 = .31 is more than the rise of 30 % in the end."""
    y = memorizing() + 0.05 * np.where(np.arange(60) % 2, 1, -1)
    assert fire(y, None, replace(LONG, k_mad=0))[0] is not None
    assert fire(y, None, LONG)[0] is None


@pytest.mark.parametrize("name", PRESETS)
def test_nothing_that_comes_later_changes_what_was_said(name: str) -> None:
    rng = np.random.default_rng(3)
    y = memorizing() + 0.01 * rng.standard_normal(60)
    blocks = y[:, None] + 0.002 * rng.standard_normal((60, G))
    whole, best = fire(y, blocks, PRESETS[name])
    assert whole is not None
    for count in range(1, 61):
        fired, centre = fire(y[:count], blocks[:count], PRESETS[name])
        assert fired == (whole if count > whole else None)
        assert count <= whole or centre == best
    late = np.concatenate([y[: whole + 1], y[whole + 1 :] - 5])
    assert fire(late, blocks, PRESETS[name]) == (whole, best)


def noisy(y: FloatArray, rng: np.random.Generator, own: float = 0.01, error: float = 0.005) -> list[FloatArray]:
    """A curve with fluctuation, and replicates whose jackknife is the error that was added."""
    blocks = error * np.sqrt(G) * rng.standard_normal((len(y), G))
    y = y + own * rng.standard_normal(len(y)) + blocks.mean(1)
    return [y, y[:, None] - (blocks - blocks.mean(1, keepdims=True)) / (G - 1)]


@pytest.mark.parametrize(("name", "count"), [("long", 100), ("short", 20)])
def test_a_falling_series_raises_no_alarm(name: str, count: int) -> None:
    """Simulated share of alarms below 0.001: of 200 none is expected."""
    y = rich(np.arange(1.0, count + 1))
    found = [fire(*noisy(y, np.random.default_rng(seed)), PRESETS[name])[0] for seed in range(200)]
    assert found == [None] * 200


@pytest.mark.parametrize(
    ("name", "count", "lowest", "rate", "delay"), [("long", 100, 30, 0.01, 20), ("short", 20, 7, 0.05, 8)]
)
def test_memorizing_is_found_after_its_minimum(name: str, count: int, lowest: int, rate: float, delay: int) -> None:
    t = np.arange(1.0, count + 1)
    y = rich(np.minimum(t, lowest)) + np.log1p(rate * np.maximum(t - lowest, 0))
    for seed in range(50):
        fired, best = fire(*noisy(y, np.random.default_rng(seed)), PRESETS[name])
        assert fired is not None
        assert lowest - 1 < fired <= lowest - 1 + delay
        assert abs(best - (lowest - 1)) <= 10


def test_few_snapshots_never_fire() -> None:
    assert fire([0.5], None, LONG) == (None, 0)
    assert fire([0.5, 0.4, 0.6], None, LONG) == (None, 1)
    assert fire([0.5, 0.4, 0.6], None, SHORT) == (None, 1)


def test_inputs_are_unchanged() -> None:
    y = memorizing()
    blocks = y[:, None] + 0.01 * np.random.default_rng(0).standard_normal((60, G))
    before = y.copy(), blocks.copy()
    fire(y, blocks, LONG)
    np.testing.assert_array_equal(y, before[0])
    np.testing.assert_array_equal(blocks, before[1])


def test_presets() -> None:
    assert preset("auto", 29) == ("short", SHORT)
    assert preset("auto", 30) == ("long", LONG)
    assert preset("short", 1000) == ("short", SHORT)
    assert preset("long", 1) == ("long", LONG)
    with pytest.raises(UsageError, match=r"'fast'; expected auto, long or short"):
        preset("fast", 10)


# --- the run's own scatter


def test_fluctuation_on_paper() -> None:
    """q of 0, 0, 0, 1, 2, 3, 5 is 1, 2, 3, 4: median 2.5, deviations 1.5, .5, .5, 1.5 with median 1."""
    assert fluctuation([0, 0, 0, 1, 2, 3, 5]) == pytest.approx(1.4826 / np.sqrt(2))
    assert fluctuation([0, 0, 0, 1, 2, 3]) is None


def test_fluctuation_is_the_standard_deviation_whatever_the_trend() -> None:
    y = 0.02 * np.random.default_rng(0).standard_normal(4000)
    for trend in (0.0, -0.01):
        # 4000 overlapping differences: the median absolute deviation is known to 2–3 %.
        assert fluctuation(y + trend * np.arange(4000)) == pytest.approx(0.02, rel=0.08)


# --- the verdict


def test_a_rule_that_fires() -> None:
    row = judge("enc", 0.3, run(np.exp(memorizing())))
    assert (row.state, row.rule, row.fired_at, row.keep, row.keep_step) == ("turned", "long", 380, "23.pt", 230)
    assert row.minimum is not None
    assert row.minimum.step == 240
    assert row.minimum.icr == pytest.approx(np.exp(memorizing()).min())
    assert row.notes == ()
    rise = np.exp(memorizing()[-1] - memorizing()[23]) - 1
    assert row.rise == pytest.approx(rise)
    # Snapshots 23 and 59 are both odd: their errors are the same and cancel.
    assert row.rise_low == pytest.approx(rise)
    assert row.fluctuation == pytest.approx(fluctuation(memorizing()))


def test_rise_has_its_paired_interval() -> None:
    row = judge("enc", 0.3, run([0.5, 0.4, 0.5], se=[0.0, 0.0, 0.02]))
    reach = student_quantile(0.975, G - 1) * 0.02
    assert row.rise == pytest.approx(0.25)
    assert (row.rise_low, row.rise_high) == pytest.approx((1.25 * np.exp(-reach) - 1, 1.25 * np.exp(reach) - 1))


@pytest.mark.parametrize(
    ("icr", "state"),
    [
        ([0.5, 0.45, 0.42, 0.40], "falling"),
        ([0.5, 0.45, 0.40, 0.41], "falling"),  # the lowest among the last three, the last still below the first
        ([0.5, 0.4], "falling"),
        ([0.5, 0.4, 0.4, 0.4, 0.4, 0.41], "flat"),  # fell, and has been flat for longer than a window
        ([0.5, 0.501, 0.499, 0.5], "flat"),
        ([0.5, 0.5], "flat"),
        ([0.5, 0.4, 0.43], "turned"),
        ([0.5, 0.4, 0.39, 0.4, 0.42, 0.45], "turned"),
        ([0.4, 0.5], "turned"),
        ([0.5], "unclear"),
        ([], "unclear"),
    ],
)
def test_states(icr: list[float], state: str) -> None:
    row = judge("enc", 0.3, run(icr))
    assert row.state == state
    assert row.fired_at is None
    assert ("retrospective" in codes(row)) is (state == "turned")
    assert (row.rise is None) is (not icr or int(np.argmin(icr)) == len(icr) - 1)


def test_looking_back_asks_for_five_per_cent_and_for_the_test() -> None:
    below, above = judge("enc", 0.3, run([0.5, 0.4, 0.4196])), judge("enc", 0.3, run([0.5, 0.4, 0.4204]))
    assert (below.state, above.state) == ("falling", "turned")
    # t_15(.99) = 2.60: a rise of log 1.1 = .0953 is beyond 2.60 · .036 and not beyond 2.60 · .037.
    for se, state in ((0.036, "turned"), (0.037, "unclear")):
        row = judge("enc", 0.3, run([0.41, 0.4, 0.44], se=[0.0, 0.0, se]))
        assert row.state == state


def test_a_run_that_goes_on_is_turned_by_the_rule_alone() -> None:
    """And is not said to be falling or flat while it clearly rises."""
    for icr in ([0.5, 0.4, 0.43], [0.4, 0.5], [0.5, 0.4, 0.39, 0.4, 0.42, 0.45]):
        row = judge("enc", 0.3, run(icr), online=True)
        assert row.state == "unclear"
        assert codes(row) == {"rising"}
        assert row.images_needed is None
    watched = [judge("enc", 0.3, run(np.exp(memorizing(t))), "long", online=True) for t in range(1, 61)]
    assert [row.fired_at for row in watched] == [None] * 38 + [380] * 22
    assert {row.keep for row in watched[38:]} == {"23.pt"}


def test_unclear_says_how_many_images_would_decide() -> None:
    # 3 · .02 / log 1.05 = 1.2298; squared, 1.5123 times as many images.
    row = judge("enc", 0.3, run([0.4, 0.401], se=[0.0, 0.02], n=1000))
    assert (row.state, row.images_needed, codes(row)) == ("unclear", 1513, {"few_images"})
    enough = judge("enc", 0.3, run([0.4, 0.401], se=[0.0, 0.02 / np.sqrt(1.513)], n=1513))
    assert (enough.state, enough.images_needed) == ("flat", None)
    # The last is the lowest: it is held against the first, not against itself.
    row = judge("enc", 0.3, run([0.401, 0.4], se=[0.0, 0.02], n=1000))
    assert row.images_needed == 1513


def test_a_rise_that_the_test_does_not_confirm_is_not_flat() -> None:
    """At α = .001 t must be 3.73: a rise of 5.2 % with t = 3.2 would be resolved, and is none of the states."""
    row = judge("enc", 0.3, run([0.4, 0.4208], se=[0.0, 0.0507 / 3.2]), "long")
    assert (row.state, row.images_needed, codes(row)) == ("unclear", None, {"not_significant"})


def test_a_last_snapshot_within_the_runs_own_scatter_has_not_turned() -> None:
    """A plateau that jumps by ± 3 % where images leave no error: one high at the end says nothing."""
    jumps = 0.03 * np.random.default_rng(1).standard_normal(60)
    jumps[-1] = 0.03
    row = judge("enc", 0.3, run(0.4 * np.exp(jumps)))
    assert (row.state, codes(row)) == ("unclear", {"fluctuating"})
    jumps[-1] = 0.2
    row = judge("enc", 0.3, run(0.4 * np.exp(jumps)))
    assert row.state == "turned"


def test_alarms_before_a_new_minimum_are_called_so() -> None:
    y = np.concatenate([memorizing(), np.full(10, np.log(0.2))])
    row = judge("enc", 0.3, run(np.exp(y)))
    assert (row.state, row.fired_at, codes(row)) == ("turned", 380, {"fell_again"})
    assert row.rise is not None
    assert row.rise < 0


def test_a_run_that_only_rises_may_have_turned_before() -> None:
    assert "minimum_first" in codes(judge("enc", 0.3, run([0.4, 0.45, 0.5])))


def test_minimum_comes_with_all_that_cannot_be_told_from_it() -> None:
    # Errors of the difference from snapshot 2: .01 each. t_15(1 − .05/4) = 2.49: within 2.5 % of the lowest.
    row = judge("enc", 0.3, run([0.402, 0.45, 0.4, 0.408, 0.415], se=[0.01, 0.01, 0.0, 0.01, 0.01]))
    assert row.minimum is not None
    # The first cannot be told from it either, but the second stands between.
    assert (row.minimum.step, row.minimum.low_step, row.minimum.high_step) == (20, 20, 30)
    alone = judge("enc", 0.3, run([0.4])).minimum
    assert alone is not None
    assert (alone.low_step, alone.high_step) == (0, 0)


def test_gaps_are_left_out_by_name() -> None:
    whole = run([0.5, 0.45, 0.42, 0.41, 0.40, 0.395])
    nan = [float("nan")] * G
    gaps = [whole[0], replace(whole[1], icr=None), whole[2], replace(whole[3], replicates=None), *whole[4:]]
    gaps[2] = replace(gaps[2], replicates=nan)
    row = judge("enc", 0.3, gaps)
    assert codes(row) == {"snapshots_skipped"}
    assert "step 10, 20, 30;" in row.notes[0]
    kept = judge("enc", 0.3, [whole[0], *whole[4:]])
    assert replace(row, notes=()) == kept


def test_other_blocks_are_left_out_by_name() -> None:
    whole = run([0.5, 0.45, 0.42, 0.41])
    assert whole[1].replicates is not None
    row = judge("enc", 0.3, [whole[0], replace(whole[1], replicates=whole[1].replicates[:8]), *whole[2:]])
    assert codes(row) == {"blocks_differ"}
    assert "not 16 block replicates at step 10," in row.notes[0]
    assert replace(row, notes=()) == judge("enc", 0.3, [whole[0], *whole[2:]])


def test_nothing_to_judge() -> None:
    row = judge("enc", 0.3, [replace(run([0.4])[0], icr=None)])
    assert (row.state, row.minimum, row.keep, row.rise) == ("unclear", None, None, None)
    assert codes(row) == {"snapshots_skipped", "few_snapshots"}


def test_order_does_not_matter() -> None:
    whole = run(np.exp(memorizing()))
    assert judge("enc", 0.3, whole[::-1]) == judge("enc", 0.3, whole)


def test_equal_snapshots_are_flat() -> None:
    assert judge("enc", 0.3, run([0.4] * 5, se=[0.0] * 5)).state == "flat"


@pytest.mark.parametrize("name", PRESETS)
def test_false_alarms_are_those_of_the_next_fluctuation(name: str) -> None:
    for known in FALSE_ALARMS[name]:
        assert 0 < known.fires <= known.turned < 1
    for attribute in ("fluctuation", "fires", "turned"):
        column = [getattr(known, attribute) for known in FALSE_ALARMS[name]]
        assert column == sorted(column)
    rng = np.random.default_rng(0)
    for own in (0.002, 0.01, 0.2):
        row = judge("enc", 0.3, run(0.4 * np.exp(own * rng.standard_normal(40))), name)
        assert row.fluctuation is not None
        above = [known.fires for known in FALSE_ALARMS[name] if known.fluctuation >= row.fluctuation]
        assert row.false_alarms == (above[0] if above else None)
    assert judge("enc", 0.3, run([0.5, 0.4, 0.43]), name).false_alarms is None


def test_the_simulation_runs() -> None:
    command = [sys.executable, str(SCRIPT), "--runs", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines() if ":" in line] == list(PRESETS)
