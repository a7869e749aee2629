"""A training run in words: every state, every number that a reader decides by, one line for a new snapshot."""

from __future__ import annotations

import dataclasses
from typing import Any

import made_results
import pytest

from diffscope.report.words import series, training
from diffscope.results import OverlayAgainst, Result


def told(result: Result, **changed: Any) -> str:
    onset = dataclasses.replace(result.onset[0], **changed)
    result = result.having(onset=(onset,))
    return f"{training.HEADLINE[training.verdict(onset)]}. {training.finding(result, onset)}"


def test_a_run_that_turned_says_where_what_to_keep_and_how_often_the_rule_errs() -> None:
    text = told(made_results.track())
    for words in (
        "turned, onset of memorization.",
        "Lowest ICR 0.2608 (95 % interval [0.2504, 0.2726]) at step 128,000;",
        "snapshots from step 128,000 to 153,600 cannot be told apart from it.",
        "Checkpoint to keep: snapshot-0115200.safetensors (step 115,200).",
        "From there to the last snapshot ICR changed by +15.9 % (95 % interval [+12.9 %, +18.9 %]).",
        "(preset short) fired at step 230,400.",
        "In simulations of runs that only flatten out this rule fires in 1.8 % of runs of 20 snapshots at this "
        "fluctuation (0.98 % from one snapshot to the next).",
    ):
        assert words in text
    assert "of runs of 100 snapshots" in told(made_results.track(count=100))


def test_what_is_not_known_of_the_rule_is_said() -> None:
    made = made_results.track()
    assert "ICR fluctuates by 4 %" in told(made, fluctuation=0.04, false_alarms=None)
    assert "above what was simulated" in told(made, fluctuation=0.04, false_alarms=None)
    assert "too few snapshots to see how far" in told(made, fluctuation=None, false_alarms=None)
    assert "fires in none of runs" in told(made, false_alarms=0.0)


def test_looking_back_is_not_the_rule() -> None:
    text = told(made_results.track(fired=False))
    assert text.startswith("turned, seen looking back.")
    assert "has not fired" in text


@pytest.mark.parametrize(
    ("state", "headline", "meaning"),
    [
        ("falling", "still falling, no sign of memorization", "Train on"),
        ("flat", "flat, which is not memorizing", "A run that has merely flattened is not memorizing"),
        ("unclear", "undecided", "--num-images"),
    ],
)
def test_every_other_state_says_so_without_alarms(state: str, headline: str, meaning: str) -> None:
    made = made_results.track(state)
    text = told(made)
    assert text.startswith(f"{headline}. Lowest ICR")
    assert "has not fired" in text
    assert "simulations" not in text
    assert ("About 12,400 images would decide (--num-images 12400)." in text) == (state == "unclear")
    assert meaning in training.MEANING[training.verdict(made.onset[0])]


def test_a_minimum_that_stands_alone_and_a_last_snapshot_to_keep() -> None:
    made = made_results.track("falling")
    minimum = made.onset[0].minimum
    assert minimum is not None
    alone = dataclasses.replace(minimum, low_step=minimum.step, high_step=minimum.step)
    assert "every other snapshot can be told apart from it." in told(made, minimum=alone)
    assert "From there" not in told(made, rise=None)
    assert "changed by +2.0 %." in told(made, rise=0.02, rise_low=None, rise_high=None)


@pytest.mark.parametrize(
    ("turn", "lead", "correlation", "says"),
    [
        (9, 4, 0.831, "m: rank correlation with ICR +0.83 over 24 snapshots; ICR turned 4 snapshots before m."),
        (9, 1, -0.5, "ICR turned 1 snapshot before m."),
        (9, -3, 0.5, "ICR turned 3 snapshots after m."),
        (9, 0, 0.5, "ICR turned at the same snapshot as m."),
        (9, None, 0.5, "; it turned at step 128,000, ICR within the run did not."),
        (None, None, None, "m: no rank correlation with ICR (24 snapshots have both); m has no turn within the run."),
    ],
)
def test_overlay_in_words(turn: int | None, lead: int | None, correlation: float | None, says: str) -> None:
    made = made_results.track().having(overlay=(made_results.overlay("m", turn, lead, correlation),))
    [line] = training.overlay_lines(made)
    assert line.endswith(says)


def test_overlay_names_the_series_where_there_are_several() -> None:
    made = made_results.track_of_layers(2)
    column = made_results.overlay("fid", 9, 2, 0.5)
    against = tuple(OverlayAgainst(f"blocks.{i}", 0.3, 24, 0.5, i) for i in range(2))
    lines = training.overlay_lines(made.having(overlay=(dataclasses.replace(column, against=against),)))
    assert [line.split(":")[0] for line in lines] == [f"fid (blocks.{i}, σ = 0.3)" for i in range(2)]


def test_a_new_snapshot_is_one_line() -> None:
    made = made_results.track()
    line = training.training_line(made.rows[-1], made.onset)
    assert line == (
        "step 307,200: ICR 0.3095 [0.2971, 0.3234], turned: memorization onset fired at step 230,400, "
        "keep snapshot-0115200.safetensors (step 115,200)"
    )
    still = made_results.track("falling")
    assert training.training_line(still.rows[3], still.onset).endswith("], falling")
    assert (
        training.training_line(made.rows[0], ()) == "step 12,800 (enc.8x8_block3, σ = 0.3): ICR 0.4500 [0.4320, 0.4703]"
    )
    nothing = made_results.track_of_nothing()
    assert training.training_line(nothing.rows[0], nothing.onset) == "step 12,800: ICR – rank_deficient, unclear"
    several = made_results.track_of_layers(2)
    assert "step 12,800 (blocks.1, σ = 0.3): ICR" in training.training_line(several.rows[24], several.onset)


def test_series_are_named_by_what_tells_them_apart() -> None:
    def names(result: Result) -> list[str]:
        return list(series.by_series(result.rows))

    assert names(made_results.track()) == ["enc.8x8_block3, σ = 0.3"]
    assert names(made_results.track_of_layers(2)) == ["blocks.0", "blocks.1"]
    assert names(made_results.track_of_layers(1, levels=(0.1, 0.5))) == ["σ = 0.1", "σ = 0.5"]
    assert names(made_results.track_of_layers(2, levels=(0.1, 0.5)))[1] == "blocks.0, σ = 0.5"


def test_rows_in_any_order_are_shown_by_rising_step() -> None:
    [rows] = series.by_series(made_results.track().rows[::-1]).values()
    assert rows == list(made_results.track().rows)


@pytest.mark.parametrize(
    ("paths", "names", "run"),
    [
        (["runs/a/1.pt", "runs/a/2.pt"], ["1.pt", "2.pt"], "a"),
        (["runs/1/net.pt", "runs/2/net.pt"], ["1/net.pt", "2/net.pt"], "runs"),
        (["hf://o/n/1/unet", "hf://o/n/2/unet"], ["1/unet", "2/unet"], "n"),
        (["/x/1.pt", "1.pt"], ["/x/1.pt", "1.pt"], ""),
        (["runs/a/1.pt"], ["1.pt"], "1.pt"),
    ],
)
def test_files_have_as_many_folders_as_it_takes(paths: list[str], names: list[str], run: str) -> None:
    made = made_results.track().having(checkpoints=tuple({"path": path} for path in paths))
    found = series.file_names(made)
    assert series.run_name(made) == run
    assert len(set(found.values())) == len(paths)
    if names[0] != "/x/1.pt":
        assert list(found.values()) == names


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (512, "512"), (92_160, "92.16 k"), (200_000_000, "200 M"), (1.25e6, "1.25 M")]
)
def test_short_steps(value: float, text: str) -> None:
    assert series.short(value) == text
