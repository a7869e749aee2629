"""Actions → seconds a call, measured in turns, so that what else the machine does meanwhile falls on all alike.

Each sample is as many calls as take at least 0.1 s, ended by waiting for the device. The first sample of an action
warms it up (kernels are chosen, caches filled) and counts only where there is no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

import torch

SAMPLES = 9
"""Of each action, after the one that warms it up."""
SHORTEST = 0.1
"""Seconds of a sample, at least: a thousandth of that is what reading the clock and waiting for a device take."""

Clock = Callable[[], float]


@dataclass
class Action:
    """Something to be timed."""

    run: Callable[[], object]
    size: float = 1.0
    """Work in one call, in any unit that it shares with `like`."""
    like: Action | None = None
    """An action of the same kind whose time, in proportion to its size, tells beforehand what this one will take."""
    samples: list[float] = field(default_factory=list)
    """Seconds a call, by the stopwatch's gauge."""
    elapsed: list[float] = field(default_factory=list)
    """The same by its clock."""
    too_large: bool = False
    """The device's memory did not hold it."""

    @property
    def kept(self) -> list[float]:
        """Samples without the first, which warms up, unless it is the only one."""
        return self.samples[1:] or self.samples

    @property
    def typical(self) -> float:
        """Median of the seconds a call."""
        return median(self.kept)

    @property
    def fastest(self) -> float:
        """The least seconds a call: what remains where something else has slowed most samples down."""
        return min(self.kept)

    @property
    def expected(self) -> float:
        """Seconds of the next call by the clock, as far as they can be told; 0 where nothing is known."""
        if self.elapsed:
            return self.elapsed[-1]
        return self.like.expected * self.size / self.like.size if self.like is not None else 0.0


@dataclass(frozen=True)
class Stopwatch:
    """Times actions on one device."""

    device: torch.device
    clock: Clock = time.perf_counter
    gauge: Clock | None = None
    """What samples are measured by, where that is not the clock: `time.process_time` leaves out what other processes
    take, and is the same on an idle machine if the work is done by one thread."""

    def alternate(
        self, actions: Sequence[Action], seconds: float, advance: Callable[[float], None] = lambda n: None
    ) -> None:
        """Fill `samples` of all actions, those with the fewest first, in about `seconds` together.

        An action that would not fit into what is left of the time is left out, those of unknown length never; one that
        needs more memory than the device has is marked, as are the larger ones like it. `advance(1)` after each sample.
        """
        end = self.clock() + seconds
        while True:
            left = end - self.clock()
            ready = [action for action in actions if not action.too_large and _is_due(action, left)]
            if not ready:
                return
            action = min(ready, key=lambda a: len(a.samples))
            try:
                self._sample(action)
            except torch.cuda.OutOfMemoryError:
                torch.cuda.empty_cache()
                kind = action.like or action
                for other in actions:
                    other.too_large |= (other is kind or other.like is kind) and other.size >= action.size
            advance(1)

    def _sample(self, action: Action) -> None:
        gauge = self.gauge or self.clock
        calls = max(1, round(SHORTEST / max(action.samples[-1], 1e-6))) if action.samples else 1
        synchronise(self.device)
        start, gauged = self.clock(), gauge()
        for _ in range(calls):
            action.run()
        synchronise(self.device)
        action.samples.append((gauge() - gauged) / calls)
        action.elapsed.append((self.clock() - start) / calls)


def _is_due(action: Action, left: float) -> bool:
    if not action.samples and action.like is None:
        return True
    return len(action.samples) <= SAMPLES and action.expected <= left


def undisturbed(device: torch.device) -> Clock | None:
    """The gauge for what torch does by itself: the process's time where that is one thread's, else None."""
    return time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else None


def synchronise(device: torch.device) -> None:
    """Wait for what the device was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
