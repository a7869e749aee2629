"""Limits on what is in memory at a time, however many threads read images."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Room:
    """Lets in what fits into `capacity` together; what does not fit waits, and what never would goes in alone."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._taken = 0
        self._free = threading.Condition()

    @contextmanager
    def of(self, amount: int) -> Iterator[None]:
        """Takes `amount` of the capacity for the time inside; waits until it is free."""
        with self._free:
            self._free.wait_for(lambda: not self._taken or self._taken + amount <= self.capacity)
            self._taken += amount
        try:
            yield
        finally:
            with self._free:
                self._taken -= amount
                self._free.notify_all()


# A thread asks for the first, then, holding it, for the second: in this order alone, so that none waits for another.
STORED = Room(128 << 20)
"""Bytes of pictures as they are stored."""
DECODED = Room(16 << 20)
"""Their pixels."""
