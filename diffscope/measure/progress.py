"""What a caller hears of a run while it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class Listener:
    """All silent by default."""

    advance: Callable[[int], None] = lambda passes: None
    """Forward passes finished: images × views × levels."""
    say: Callable[[str], None] = lambda text: None
    """One line for a person."""
    warn: Callable[[str], None] = lambda text: None
    """One line that a person should not miss."""
    agree: Callable[[Mapping[str, Any]], None] = lambda protocol: None
    """Told of the protocol before anything is computed; may raise."""


class Foresight:
    """Says once, before a run of more than a minute, what it will take; judged by its first batches."""

    def __init__(self, what: str, total: float, listener: Listener) -> None:
        self.what, self.total, self.listener = what, total, listener
        self.start = time.perf_counter()
        self.passes, self.said = 0, False

    def observe(self, passes: int) -> None:
        """Of `total`, so many more are done."""
        self.passes += passes
        elapsed = time.perf_counter() - self.start
        if self.said or elapsed < 2:
            return
        self.said = True
        expected = elapsed / self.passes * self.total
        if expected > 60:
            self.listener.say(f"{self.what}, about {expected / 60:.0f} min")
