"""The contract of a study: a question that was opened and checked, ready to be computed by one lifecycle.

study = open_study(...)                 # settings, images and checkpoints agree; nothing computed
finished = study.run(folder, listener)  # the work; what is finished stays on disk
finished.result.save("out/")
finished.forget()                       # only now: the result is safe
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from diffscope.measure.progress import Listener
from diffscope.results import Record, Result

if TYPE_CHECKING:  # which needs torch
    from diffscope.measure.estimate import Estimate


@dataclass(frozen=True)
class Finished:
    """What a study came to."""

    result: Result | Record
    forget: Callable[[], None] = lambda: None
    """Removes what stands on disk of the run; to be called once the result is safe."""
    is_whole: bool = True
    """False of a share, which lies in its folder for `merge`."""


class Study(Protocol):
    """What every measuring command opens."""

    @property
    def total(self) -> float:
        """What progress counts up to."""

    @property
    def unit(self) -> str:
        """What it counts: passes, snapshots, samples."""

    def warnings(self) -> list[str]:
        """Lines for a person, before the run."""

    def estimate(self) -> Estimate:
        """What the run would take, by a short measurement; nothing is written."""

    def run(self, folder: Path | None, listener: Listener) -> Finished:
        """Computes the result.

        Args:
            folder: Where finished parts and records are kept, else in the cache.
            listener: Hears of the progress; `listener.agree` is told the protocol before anything is computed.

        Raises:
            DiffscopeError: Whatever keeps the question from being answered.
        """
