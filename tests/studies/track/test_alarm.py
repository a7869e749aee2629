"""The alarm over a run: when it fires, on what, and that it never looks ahead."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from diffscope.numerics import FloatArray
from diffscope.results import Row
from diffscope.studies.track.alarm import LOSS, PERSIST, WITH_VIEWS, Limit, Pooled, fires
from diffscope.studies.track.course import Course, course_of, judged

BLOCKS = 16
RNG = np.random.default_rng(5)
CELLS = (("enc", 0.14), ("enc", 0.3), ("dec", 0.14), ("dec", 0.3))
FALLING = np.linspace(0.0, -1.0, 6)
RISING = np.linspace(-1.0, -0.4, 9)[1:]
TURN = np.concatenate([FALLING, RISING])
FLAT = np.concatenate([FALLING, np.full(8, -1.0)])


def replicates(y: FloatArray, error: float) -> FloatArray:
    """Of estimates whose errors come from the same images at all snapshots, but for a tenth."""
    shared, own = RNG.standard_normal(BLOCKS), RNG.standard_normal((len(y), BLOCKS)) / 10
    noise = error * BLOCKS**0.5 / (BLOCKS - 1) * (shared + own)
    return np.asarray(y[:, None] - (noise - noise.mean(1, keepdims=True)))


def rows(icr: FloatArray, loss: FloatArray | None, error: float = 0.01, name: str = "loss_views") -> list[list[Row]]:
    """Of each snapshot, all cells."""
    cells = {cell: icr + 0.1 * i for i, cell in enumerate(CELLS)}
    blocks = {cell: replicates(y, error) for cell, y in cells.items()}
    losses = {} if loss is None else {sigma: (loss + sigma, replicates(loss + sigma, error)) for sigma in (0.14, 0.3)}
    return [
        [
            Row(
                layer=layer,
                sigma=sigma,
                n=64,
                icr=float(np.exp(cells[layer, sigma][t])),
                replicates=blocks[layer, sigma][t].tolist(),
                **{
                    key: value
                    for level, (y, own) in losses.items()
                    if level == sigma
                    for key, value in ((name, float(np.exp(y[t]))), (f"{name}_replicates", own[t].tolist()))
                },
                notes=(),
            )
            for layer, sigma in CELLS
        ]
        for t in range(len(icr))
    ]


def course(found: Sequence[Sequence[Row]]) -> Course:
    made = course_of([(1000 * t, f"snapshot-{t}.pt", each) for t, each in enumerate(found)])
    assert made is not None
    return made


def test_both_must_rise() -> None:
    turned, alarm = judged(course(rows(TURN, TURN)), None)
    assert alarm.fired_at is not None
    assert turned.state == "turned"
    assert (turned.fired_at, turned.keep_step, turned.keep) == (alarm.fired_at, 5000, "snapshot-5.pt")
    assert (turned.layer, turned.sigma, turned.rule) == (None, None, "alarm")
    for icr, loss in ((TURN, FLAT), (FLAT, TURN), (FLAT, FLAT), (FALLING, FALLING)):
        verdict, alarm = judged(course(rows(icr, loss)), None)
        assert alarm.fired_at is None
        assert verdict.state != "turned"


def test_it_fires_at_the_second_snapshot_in_a_row() -> None:
    _, alarm = judged(course(rows(TURN, TURN, error=0.001)), None)
    exceeds = [point.exceeds for point in alarm.points]
    first = exceeds.index(True)
    assert alarm.fired_at == 1000 * (first + PERSIST - 1)
    assert alarm.points[first].icr_rise > WITH_VIEWS.rise
    assert alarm.points[first].loss_rise is not None
    assert alarm.points[first].loss_rise > LOSS.rise
    once = TURN[:8].copy()
    once[6], once[7] = once[6] + 0.5, once[5]
    assert judged(course(rows(once, once)), None)[1].fired_at is None


def test_a_run_that_ends_earlier_says_the_same_until_there() -> None:
    whole = rows(TURN, TURN)
    points = judged(course(whole), None)[1].points
    fired = judged(course(whole), None)[1].fired_at
    for t in range(1, len(whole)):
        alarm = judged(course(whole[: t + 1]), None)[1]
        assert alarm.points == points[: t + 1]
        assert alarm.fired_at == (fired if fired is not None and fired <= 1000 * t else None)


def test_the_pooled_value_is_the_geometric_mean_and_its_error_knows_what_cells_share() -> None:
    made = course(rows(TURN, TURN))
    icr = np.exp([one.y[3] for one in made.cells.values()])
    assert judged(made, None)[1].points[3].icr == pytest.approx(float(np.prod(icr) ** (1 / len(icr))))
    alone = made.cells[CELLS[0]]
    same = Pooled.of(np.repeat(TURN[:, None], 4, 1), np.repeat(alone.blocks[:, None], 4, 1))
    assert same.rise(5, 9).se == pytest.approx(alone.rise(5, 9).se)  # four times the same cell is no more evidence
    assert judged(made, None)[1].points[9].icr_rise_se < alone.rise(5, 9).se


def test_without_a_loss_icr_alone_must_rise_further_and_have_fallen_first() -> None:
    _, alarm = judged(course(rows(TURN, None)), None)
    assert [limit.quantity for limit in alarm.limits] == ["icr"]
    assert alarm.fired_at is not None
    assert any(note.startswith("icr_alone") for note in alarm.notes)
    slight = np.concatenate([FALLING, np.full(8, -1.0 + np.log(1.03))])
    assert judged(course(rows(slight, None, 0.001)), None)[1].fired_at is None
    beginning = np.array([-1.0, -0.8, -0.7, -0.6, -0.5])
    assert judged(course(rows(beginning, None, 0.001)), None)[1].fired_at is None
    assert judged(course(rows(beginning, beginning, 0.001)), None)[1].fired_at is not None


def test_a_rise_within_its_error_is_none() -> None:
    rises = Pooled(np.array([0.0, 0.3, 0.3]), RNG.standard_normal((3, BLOCKS)))
    assert fires({"x": rises.rises()}, {"x": Limit(0.05, 3)}, 1) is None
    assert fires({"x": rises.rises()}, {"x": Limit(0.05, 0)}, 2) == 2


def test_held_out_images_take_the_place_of_views_and_icr() -> None:
    found = rows(FLAT, TURN, name="loss_holdout")
    level = {"loss": float(np.exp(TURN[0] - 0.7)), "loss_replicates": [TURN[0] - 0.7] * BLOCKS}
    both = [
        [row.having(loss_views=1.0, loss_views_replicates=[0.0] * BLOCKS, **level) for row in each] for each in found
    ]
    _, alarm = judged(course(both), None)
    assert [limit.quantity for limit in alarm.limits] == ["loss_gap"]
    gaps = [point.loss_rise for point in alarm.points]
    shift = (0.14 + 0.3) / 2  # of the two levels, which the training loss here does not have
    assert gaps == pytest.approx([float(np.expm1(y - TURN[0] + 0.7 + shift)) for y in TURN], rel=1e-6)
    high = [t for t, gap in enumerate(gaps) if gap is not None and gap > 0.2]
    assert alarm.fired_at == 1000 * next(t for t in high if t - 1 in high)


def test_a_snapshot_without_some_cell_is_left_out_and_named() -> None:
    found = rows(TURN, TURN)
    found[7][2] = found[7][2].having(icr=None)
    verdict, alarm = judged(course(found), 12.0)
    assert 7000 not in [point.step for point in alarm.points]
    assert any("7000" in note for note in verdict.notes)
    assert alarm.passes == 12.0
    assert course_of([(0, "a.pt", [row.having(icr=None) for row in found[0]])]) is None


def test_cells_that_rose_most_surely_stand_first() -> None:
    found = rows(TURN, TURN)
    for t, each in enumerate(found):
        each[3] = each[3].having(icr=each[3]["icr"] * (1 + 0.2 * max(0, t - 5)))
    _, alarm = judged(course(found), None)
    assert (alarm.cells[0].layer, alarm.cells[0].sigma) == CELLS[3]
    ratios = [cell.rise / cell.rise_se for cell in alarm.cells]
    assert ratios == sorted(ratios, reverse=True)
