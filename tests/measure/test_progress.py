"""Time that is left: said once when it is more than a minute, and line by line in a log, seldom."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from diffscope.measure.progress import Listener, Progress, in_words


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


Heard = tuple[Listener, Clock, list[str], list[float]]
Start = Callable[..., Heard]


@pytest.fixture
def start() -> Start:
    def started(total: float, unit: str = "passes", lines: bool = False) -> Heard:
        clock, said, advanced = Clock(), list[str](), list[float]()
        progress = Progress(Listener(advanced.append, said.append), total, unit, lines, clock)
        return progress.listener, clock, said, advanced

    return started


def work(heard: Heard, units: float, seconds: float, times: int = 1) -> None:
    for _ in range(times):
        heard[1].now += seconds
        heard[0].advance(units)


def test_a_long_run_says_once_what_is_left(start: Start) -> None:
    heard = start(1000)
    work(heard, 10, 1.0)  # warms up
    work(heard, 10, 1.0)
    assert heard[2] == []
    work(heard, 10, 1.0)
    assert heard[2] == ["30 of 1000 passes, about 2 min left"]
    work(heard, 10, 1.0, times=90)
    assert len(heard[2]) == 1
    assert heard[3] == [10] * 93


def test_a_short_run_says_nothing(start: Start) -> None:
    heard = start(600)
    work(heard, 10, 1.0, times=60)
    assert heard[2] == []


def test_a_run_that_slows_down_says_it_late(start: Start) -> None:
    heard = start(600)
    work(heard, 10, 1.0, times=10)
    assert heard[2] == []
    work(heard, 10, 10.0, times=3)
    assert heard[2] == ["110 of 600 passes, about 2 min left"]


def test_what_was_found_is_done_and_tells_no_rate(start: Start) -> None:
    heard = start(1000)
    heard[0].skip(500)
    work(heard, 1, 50.0)  # what comes before the first report is no work
    work(heard, 10, 1.0, times=2)
    assert heard[2] == []  # 48 s of work are left
    assert sum(heard[3]) == 521
    heard = start(1000)
    heard[0].skip(100)
    work(heard, 10, 1.0, times=3)
    assert heard[2] == ["130 of 1000 passes, about 87 s left"]


def test_the_first_share_of_a_snapshot_tells_nothing(start: Start) -> None:
    """It is read and compiled meanwhile."""
    heard = start(16, "snapshots")
    work(heard, 0.01, 3.0, times=3)
    assert heard[2] == []
    work(heard, 0.4, 3.0, times=5)
    assert heard[2] == ["1 of 16 snapshots, about 3 min left"]


def test_a_log_has_a_line_a_snapshot_at_most_one_in_ten_seconds(start: Start) -> None:
    heard = start(8, "snapshots", lines=True)
    work(heard, 0.5, 6.0, times=16)
    # The first share starts the clock.
    assert [line.split(",")[0] for line in heard[2]] == [f"{number} of 8 snapshots" for number in range(1, 8)]
    quick = start(8, "snapshots", lines=True)
    work(quick, 0.5, 2.0, times=16)
    assert [line.split(",")[0] for line in quick[2]] == [f"{number} of 8 snapshots" for number in (2, 5, 7)]
    fast = start(8, "snapshots", lines=True)
    work(fast, 0.5, 0.5, times=16)
    assert fast[2] == []


def test_a_log_has_a_line_a_tenth_of_a_run(start: Start) -> None:
    heard = start(1000, lines=True)
    work(heard, 10, 5.0, times=100)
    assert [line.split(" of ")[0] for line in heard[2]] == ["20", *(str(number) for number in range(100, 1000, 100))]


@pytest.mark.parametrize(("seconds", "words"), [(40, "40 s"), (720, "12 min"), (12_600, "3.5 h")])
def test_words_for_times(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_who_hears_of_work_hears_of_what_was_found() -> None:
    heard: list[float] = []
    Listener(heard.append).skip(3)
    assert heard == [3]
