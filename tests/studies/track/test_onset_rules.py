"""Each rule of the onset by itself, on runs small enough for paper: thresholds, pairing, and what the notes say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diffscope.results import OnsetRow
from diffscope.studies.track import onset
from diffscope.studies.track.onset import LONG, SHORT, Alarms, Rule, Snapshot, fire, fluctuation, judge

G = 16
ZIGZAG = np.where(np.arange(G) % 2, 1.0, -1.0) / np.sqrt(G - 1)
"""Replicates whose jackknife SE is 1: Σ z² = G/(G−1)."""
ALONE = Rule(window=1, rise=-0.9, alpha=0.05, k_mad=0, persist=1, warm=0)
"""Neither a median nor a least rise: any other threshold can be looked at by itself."""


def run(icr: list[float], se: list[float] | None = None, shared: float = 0.0, n: int = 1000) -> list[Snapshot]:
    """Snapshots at steps 0, 10, …; `shared` is the error of log ICR common to all, `se` that of each alone."""
    own = np.zeros(len(icr)) if se is None else np.array(se)
    return [
        Snapshot(10 * i, f"{i}.pt", value, (np.log(value) + (own[i] + shared) * ZIGZAG).tolist(), n)
        for i, value in enumerate(icr)
    ]


def code(row: OnsetRow) -> set[str]:
    return {note.split(":")[0] for note in row.notes}


# --- the rule forward in time


@pytest.mark.parametrize(
    ("rule", "at"),
    [
        # y = t/10, so that m = (t − 2)/10, best is the first window's, and D > log 1.05 from the snapshot after it.
        (replace(LONG, warm=0, persist=1, k_mad=0), 5),
        (replace(LONG, warm=0, persist=3, k_mad=0), 7),
        # The scatter of a straight line is 0, but asks for 8 snapshots: t = 7.
        (replace(LONG, warm=0, persist=1), 7),
        (replace(LONG, warm=0), 9),
        (LONG, 10),
        (replace(SHORT, warm=0, persist=1), 3),
        (replace(SHORT, warm=0), 4),
        (SHORT, 6),
    ],
)
def test_a_straight_rise_fires_as_soon_as_the_rule_may(rule: Rule, at: int) -> None:
    best = (rule.window - 1) // 2
    assert fire(0.1 * np.arange(20.0), None, rule) == (at, best)
    assert fire(0.1 * np.arange(float(at)), None, rule) == (None, best)


def test_the_least_rise_is_relative() -> None:
    """Of 5 %: log 1.05 = .04879."""
    rule = replace(ALONE, rise=0.05)
    assert fire([0, 0.0489], None, rule) == (1, 0)
    assert fire([0, 0.0487], None, rule) == (None, 0)


@pytest.mark.parametrize(("rule", "quantile"), [(LONG, 3.7328), (SHORT, 2.6025), (ALONE, 1.7531)])
def test_the_error_is_one_sided_at_the_level_of_the_rule(rule: Rule, quantile: float) -> None:
    """t_15 at .999, .99 and .95, and errors that two snapshots share leave nothing of themselves."""
    alone = replace(ALONE, alpha=rule.alpha)
    for factor, fires in ((0.999, False), (1.001, True)):
        y = np.array([0.0, factor * quantile * 0.01])
        blocks = y[:, None] + np.array([0.5, 0.51])[:, None] * ZIGZAG
        assert fire(y, blocks, alone)[0] == (1 if fires else None)


def test_a_run_that_stays_where_it_is_exceeds_no_threshold_of_zero() -> None:
    y = np.zeros(12)
    assert fire(y, None, replace(ALONE, rise=0.0)) == (None, 0)
    assert fire(y, np.zeros((12, G)), ALONE) == (None, 0)
    assert fire(y, None, replace(ALONE, k_mad=1)) == (None, 0)


def test_the_scatter_is_that_of_the_last_thirty_snapshots() -> None:
    """And of the one in question: y_{t−30} … y_t, in differences over three snapshots."""
    y = 0.01 * np.random.default_rng(0).standard_normal(60)
    y[-1] = y.min() + 0.5
    limit = 0.5 / fluctuation(y[29:], lag=3)
    for factor, fires in ((0.999, True), (1.001, False)):
        assert (fire(y, None, replace(ALONE, k_mad=factor * limit, warm=59))[0] == 59) is fires
    assert (LONG.k_mad, LONG.span, LONG.lag) == (3, 30, 3)


def test_the_scatter_has_its_factor() -> None:
    """q of 0, 0, 0, 1, 2, 3, 5, x is 1, 2, 3, 4, x − 2. For x = 6.5 median 3, deviations 2, 1, 0, 1, 1.5: median 1."""
    y = np.array([0, 0, 0, 1, 2, 3, 5, 6.5])
    assert fluctuation(y) == pytest.approx(1.4826 / 2**0.5)
    limit = 6.5 / (1.4826 / 2**0.5)
    assert fire(y, None, replace(ALONE, k_mad=limit * 0.999, warm=7)) == (7, 0)
    assert fire(y, None, replace(ALONE, k_mad=limit * 1.001, warm=7)) == (None, 0)


def test_the_best_is_the_first_of_equals_up_to_the_alarm() -> None:
    rule = replace(ALONE, rise=0.05, persist=2)
    assert fire([0.3, 0.1, 0.1, 0.2, 0.2], None, rule) == (4, 1)
    # Windows of four have their centre at the second, as of three.
    assert fire([5, 4, 3, 2, 1.0], None, replace(rule, window=4)) == (None, 3)
    assert fire([3, 2, 1.0], None, replace(rule, window=3)) == (None, 1)


# --- looking back


def test_what_snapshots_share_cancels_looking_back_as_well() -> None:
    """An error of 50 % in common and of 2 % in the last alone: a rise of 10 % is 4.8 standard errors."""
    row = judge("enc", 0.3, run([0.5, 0.4, 0.44], [0.0, 0.0, 0.02], shared=0.5))
    assert (row.state, code(row)) == ("turned", {"retrospective"})
    assert "10.0% above the lowest, at step 10" in row.notes[0]
    assert row.minimum is not None
    assert (row.minimum.low_step, row.minimum.high_step) == (10, 10)


def test_looking_back_the_scatter_counts_from_the_lowest_median() -> None:
    """One snapshot a quarter low, and the last like all others: 33 % above the lowest, and 0 above the median."""
    dip = [0.4] * 6 + [0.3] + [0.4] * 8
    row = judge("enc", 0.3, run(dip), "long")
    assert (row.fluctuation, row.state, code(row)) == (0, "unclear", {"fluctuating"})
    assert "33.3% above the lowest, at step 60, which the run's own scatter explains" in row.notes[0]
    assert judge("enc", 0.3, run([*dip[:-1], 0.41]), "long").state == "turned"
    # The short rule knows no scatter.
    assert judge("enc", 0.3, run(dip), "short").state == "turned"


@pytest.mark.parametrize(("last", "state"), [(3.14, "unclear"), (3.15, "turned")])
def test_looking_back_the_scatter_counts_three_times(last: float, state: str) -> None:
    """In units of .05, q is 1, 2, 3, 4 and last − 2: median 2, deviations of median 1. 3 · 1.4826/√2 = 3.145."""
    row = judge("enc", 0.3, run((0.4 * np.exp(0.05 * np.array([0, 0, 0, 1, 2, 3, 5, last]))).tolist()), "long")
    assert row.fluctuation == pytest.approx(0.05 * 1.4826 / 2**0.5)
    assert row.state == state


@pytest.mark.parametrize(("icr", "state"), [(0.41999, "unclear"), (0.42001, "turned")])
def test_five_per_cent_above_the_lowest_have_turned(icr: float, state: str) -> None:
    row = judge("enc", 0.3, run([0.5, *[0.4] * 5, icr], [0.0] * 6 + [0.001]))
    assert row.state == ("flat" if state == "unclear" else state)


def test_falling_needs_a_significant_fall_from_the_first() -> None:
    """t_15(.975) = 2.1314, two-sided at 5 %; below it the error asks for images, and the first is named."""
    for factor, state in ((1.001, "falling"), (0.999, "unclear")):
        fall = factor * 2.13145 * 0.02
        row = judge("enc", 0.3, run([0.4 * np.exp(fall), 0.4], [0.0, 0.02]))
        assert row.state == state
    assert code(row) == {"few_images"}
    assert "do not show a change of 5% from the first snapshot to the last" in row.notes[0]


def test_a_run_has_to_have_fallen_lately() -> None:
    """Of windows of three: lowest among the last three."""
    assert judge("enc", 0.3, run([0.5, 0.4, 0.401, 0.402])).state == "falling"
    assert judge("enc", 0.3, run([0.5, 0.4, 0.401, 0.402, 0.403])).state == "flat"
    # And be below its first snapshot.
    assert judge("enc", 0.3, run([0.4, 0.399, 0.401])).state == "flat"


def test_few_images_are_told_of_the_lowest_and_the_last() -> None:
    """3 · .02/log 1.05 = 1.2298; its square is 1.5123."""
    row = judge("enc", 0.3, run([0.41, 0.4, 0.401], [0.0, 0.0, 0.02], n=2000))
    assert (row.state, row.images_needed) == ("unclear", 3025)
    assert "2000 images do not show a change of 5% from the lowest snapshot to the last" in row.notes[0]
    # Exactly three standard errors in 5 % are not enough either.
    se = np.log1p(0.05) / 3
    below, above = (judge("enc", 0.3, run([0.4, 0.4], [0.0, f * se])) for f in (0.999, 1.001))
    assert (below.state, above.state, above.images_needed) == ("flat", "unclear", 1003)


def test_the_note_of_a_rise_in_a_run_that_goes_on() -> None:
    row = judge("enc", 0.3, run([0.5, 0.4, 0.44]), online=True)
    assert row.notes == (
        "rising: the last snapshot is 10.0% above the lowest, at step 10; the rule waits for more snapshots to "
        "confirm it",
    )


def test_the_minimum_spans_what_the_corrected_test_cannot_tell_apart() -> None:
    """Three snapshots beside the lowest: t_15(1 − .05/3) = 2.3425, on either side of it."""
    quantile, se = 2.3425, 0.01
    for factor, apart in ((0.999, False), (1.001, True)):
        y = factor * quantile * se
        icr = 0.4 * np.exp([0.5, y, 0.0, y])
        minimum = judge("enc", 0.3, run(icr.tolist(), [se, se, 0.0, se], shared=0.3)).minimum
        assert minimum is not None
        assert (minimum.low_step, minimum.high_step) == ((20, 20) if apart else (10, 30))
    # A single comparison is at 5 %: t_15(.95) = 1.7531.
    for factor, high in ((0.999, 10), (1.001, 0)):
        icr = 0.4 * np.exp([0.0, factor * 1.75305 * se])
        minimum = judge("enc", 0.3, run(icr.tolist(), [0.0, se])).minimum
        assert minimum is not None
        assert (minimum.low_step, minimum.high_step) == (0, high)


# --- what the verdict rests on, and what it says


def test_the_lowest_single_snapshot_may_be_the_one_that_fires() -> None:
    """Medians of three are up by 10 % twice when a single snapshot falls: no fall after the alarm."""
    y = [0, 0, 0, 0, 0, 0.1, 0.1, -1.0]
    row = judge("enc", 0.3, run((0.4 * np.exp(y)).tolist()))
    assert (row.fired_at, row.minimum and row.minimum.step, row.keep_step) == (70, 70, 10)
    assert (row.state, row.notes) == ("turned", ())
    # One snapshot later it is one after the alarm.
    row = judge("enc", 0.3, run((0.4 * np.exp([*y[:-1], 0.1, -1.0])).tolist()))
    assert (row.fired_at, code(row)) == (70, {"fell_again"})
    assert "lowest at step 80, after the rule fired at step 70" in row.notes[0]


def test_a_rise_from_the_first_snapshot_on_may_have_turned_before() -> None:
    assert code(judge("enc", 0.3, run([0.4, 0.44]))) == {"retrospective", "minimum_first"}
    assert code(judge("enc", 0.3, run([0.41, 0.4, 0.44]))) == {"retrospective"}
    assert code(judge("enc", 0.3, run([0.4, 0.4]))) == set()


def test_alarms_are_those_of_the_first_fluctuation_that_is_not_exceeded(monkeypatch: pytest.MonkeyPatch) -> None:
    icr = (0.4 * np.exp([0, 0, 0, 0.01, 0.02, 0.03, 0.05, 0.065])).tolist()
    scatter = judge("enc", 0.3, run(icr)).fluctuation
    assert scatter == pytest.approx(0.01 * 1.4826 / 2**0.5)
    known = (Alarms(0.9 * scatter, 0.1, 0.2), Alarms(scatter, 0.3, 0.4), Alarms(2 * scatter, 0.5, 0.6))
    monkeypatch.setitem(onset.FALSE_ALARMS, "short", known)
    assert judge("enc", 0.3, run(icr)).false_alarms == 0.3
    monkeypatch.setitem(onset.FALSE_ALARMS, "short", known[:1])
    assert judge("enc", 0.3, run(icr)).false_alarms is None
    # Of seven snapshots on there is a fluctuation; looking back, its share of false alarms is told.
    monkeypatch.setitem(onset.FALSE_ALARMS, "short", (Alarms(1.0, 0.3, 0.4),))
    row = judge("enc", 0.3, run([0.41, 0.4, 0.4, 0.4, 0.4, 0.4, 0.44]))
    assert (row.state, code(row)) == ("turned", {"retrospective", "looking_back"})
    assert "0.4 look turned in the end" in row.notes[0]


def test_five_steps_are_listed_and_more_are_counted() -> None:
    whole = run([0.4] * 8)
    for gaps, words in ((5, "at step 0, 10, 20, 30, 40; the"), (6, "at step 0, 10, 20, 30, 40 and 1 more; the")):
        row = judge("enc", 0.3, [replace(one, icr=None) if i < gaps else one for i, one in enumerate(whole)])
        assert words in row.notes[0]
        # However many are left out, the others are judged.
        assert row.minimum is not None
        assert row.minimum.step == 10 * gaps


@pytest.mark.parametrize("icr", [0.0, -0.1, float("inf"), float("nan"), None])
def test_what_has_no_logarithm_is_left_out(icr: float | None) -> None:
    whole = run([0.5, 0.45, 0.42])
    row = judge("enc", 0.3, [whole[0], replace(whole[1], icr=icr), whole[2]])
    assert "snapshots_skipped: no ICR with replicates at step 10;" in row.notes[0]
    assert row.minimum is not None
    assert row.minimum.step == 20


@pytest.mark.parametrize(
    ("replicates", "usable"), [([], False), ([-1.0], False), ([-1.0, -1.1], True), ([-1.0, float("nan"), -1.1], False)]
)
def test_two_blocks_are_the_fewest(replicates: list[float], usable: bool) -> None:
    row = judge("enc", 0.3, [replace(one, replicates=replicates) for one in run([0.5, 0.45])])
    assert ("snapshots_skipped" in code(row)) is not usable
    assert (row.minimum is not None) is usable


def test_one_snapshot_is_no_run() -> None:
    row = judge("enc", 0.3, run([0.4]))
    assert row.notes == ("few_snapshots: 1 snapshot (limit 2): a run needs more than one",)
    assert (row.keep, row.rise) == ("0.pt", None)
