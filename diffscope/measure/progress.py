"""What a caller hears of a run while it goes on, and how long the rest of it will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any


def _as_advance(units: float) -> None:
    """Stands for `advance` where a listener says nothing of `skip`."""


@dataclass
class Listener:
    """All silent by default.

    Attributes:
        advance: Told of units finished now: passes, snapshots, samples.
        say: Told one line for a person.
        warn: Told one line that a person should not miss.
        agree: Told of the protocol before anything is computed; may raise.
        skip: Told of units that take no time: an earlier run finished them, or they were left out.
    """

    advance: Callable[[float], None] = lambda units: None
    say: Callable[[str], None] = lambda text: None
    warn: Callable[[str], None] = lambda text: None
    agree: Callable[[Mapping[str, Any]], None] = lambda protocol: None
    skip: Callable[[float], None] = _as_advance

    def __post_init__(self) -> None:
        if self.skip is _as_advance:
            self.skip = self.advance


WORTH_SAYING = 60.0
"""Seconds that are left, from which on a person is told."""
FIRST_JUDGED = 2.0, 0.01, 20.0
"""Seconds of work and share of it after which a rate means something, or seconds alone."""
BETWEEN_LINES = 10.0
"""Seconds, at least."""


class Progress:
    """Counts what is done and says how long the rest will take: once if that is more than a minute, or line by line.

        heard = Progress(Listener(bar, note, warn, agree), study.total, study.unit, lines=not sys.stderr.isatty())
        study.run(folder, heard.listener)

    The rate is that of work alone: the first report starts the clock, so that what comes before it (reading the
    network, compiling it) is not taken for work, and what was found on disk counts as done without any.

    Args:
        listener: Hears of everything; `say` is told how long it will take.
        total: Units of the whole run.
        unit: What they are; of snapshots, and whatever else is few, each is worth a line.
        lines: Say a line for each snapshot or tenth of the run, at most one in ten seconds: for logs, which show no
            bar.
        clock: Seconds, rising.
    """

    def __init__(
        self,
        listener: Listener,
        total: float,
        unit: str,
        lines: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._heard, self.total, self.unit, self._lines, self._clock = listener, total, unit, lines, clock
        self.done = 0.0
        self._worked = 0.0
        self._start: float | None = None
        self._last_line = clock()
        self._milestone, self._said = 0, False

    @property
    def listener(self) -> Listener:
        """What a run is to be given."""
        return replace(self._heard, advance=self._advance, skip=self._skip)

    @property
    def seconds_left(self) -> float | None:
        """At the rate so far; None before there is one."""
        if self._start is None or not self._worked:
            return None
        return (self._clock() - self._start) / self._worked * max(0.0, self.total - self.done)

    def _advance(self, units: float) -> None:
        self._heard.advance(units)
        self.done += units
        if self._start is None:
            self._start = self._clock()
            return
        self._worked += units
        self._tell()

    def _skip(self, units: float) -> None:
        self._heard.skip(units)
        self.done += units

    def _tell(self) -> None:
        left = self.seconds_left
        if left is None or self._start is None or self.done >= self.total:
            return
        now = self._clock()
        step = 1.0 if self.unit == "snapshots" else self.total / 10
        milestone = int(self.done / step + 1e-9)
        if self._lines and milestone > self._milestone and now - self._last_line >= BETWEEN_LINES:
            self._last_line, self._milestone = now, milestone
        else:
            seconds, share, enough = FIRST_JUDGED
            worked = now - self._start
            enough_units = max(share * self.total, 1.0)
            known = worked >= seconds and (self._worked >= enough_units or worked >= enough)
            if self._said or not known or left <= WORTH_SAYING:
                return
        self._said = True
        self._heard.say(f"{int(self.done + 1e-9)} of {self.total:.0f} {self.unit}, about {in_words(left)} left")


def in_words(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
