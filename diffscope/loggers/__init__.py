"""Results where people already look: one file a destination, found by what it accepts.

    with Log(["tensorboard:runs"], "diffscope track") as log:
        log.open()
        log.result(result)

The rows of a result become curves over training steps, its figures pictures, its verdict a text.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from diffscope import registry
from diffscope.errors import DiffscopeError, GateHeld, StoreError, UsageError
from diffscope.loggers.base import EXPECTED, Destination
from diffscope.names import visible
from diffscope.report.views.base import view_of
from diffscope.results import VARIED, Result, Row, WindowRow

__all__ = ["Destination", "Log", "scalars_of"]

PREFIX = "diffscope"
"""Of all names: they stand beside those of a training."""
OF_WINDOW = {"window_sigma": "sigma", "window_low": "low", "window_high": "high", "window_icr": "icr"}
"""Curves of a sweep's verdict on a layer, and their fields."""


class Log:
    """Some destinations, and what they have been told already: nothing is told twice.

    Args:
        specs: How they are spelled; none are as good as any.
        title: Of a run that a destination begins.

    Raises:
        UsageError: No destination is spelled like that.
        DiffscopeError: The library of one is not installed.
    """

    def __init__(self, specs: Sequence[str], title: str) -> None:
        self._kinds = [(spec, _kind_of(spec)) for spec in specs]
        self._title = title
        self._open: list[tuple[str, Destination]] = []
        self._told: dict[tuple[int, str], float | str] = {}

    def __enter__(self) -> Log:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(failed=kind is not None and not issubclass(kind, GateHeld))

    def open(self) -> None:
        """Opens what is not open yet.

        Raises:
            DiffscopeError: A destination cannot be opened.
        """
        for spec, kind in self._kinds[len(self._open) :]:
            with _answered(spec):
                self._open.append((spec, kind.open(spec, self._title)))

    def result(self, result: Result) -> None:
        """Tells what is new in a result: curves, pictures and the verdict.

        Raises:
            StoreError: A destination does not take it.
        """
        self.open()
        if not self._open:
            return
        by_step: dict[int, dict[str, float]] = {}
        for step, name, value in scalars_of(result):
            if self._is_new(step, name, value):
                by_step.setdefault(step, {})[name] = value
        for step in sorted(by_step):
            self._tell_of_step(step, by_step[step])
        if by_step:
            self._tell_of_whole(result, max(by_step))

    def close(self, failed: bool = False) -> None:
        """Ends what was opened."""
        closing, self._open = self._open, []
        for spec, destination in closing:
            with _answered(spec):
                destination.close(failed)

    def _tell_of_step(self, step: int, values: Mapping[str, float]) -> None:
        self._tell(lambda one: one.scalars(step, values))

    def _tell_of_picture(self, step: int, name: str, png: bytes) -> None:
        self._tell(lambda one: one.image(step, name, png))

    def _tell_of_whole(self, result: Result, step: int) -> None:
        view = view_of(result)
        for name, png in view.images(result).items():
            self._tell_of_picture(step, f"{PREFIX}/{name}", png)
        text = "\n\n".join(visible(line) for line in (view.verdict(result), *_provenance(result)))
        self._tell(lambda one: one.text(step, f"{PREFIX}/verdict", text))

    def _is_new(self, step: int, name: str, value: float) -> bool:
        is_new = self._told.get((step, name)) != value
        self._told[step, name] = value
        return is_new

    def _tell(self, do: Callable[[Destination], None]) -> None:
        for spec, destination in self._open:
            with _answered(spec):
                do(destination)


def scalars_of(result: Result) -> Iterator[tuple[int, str, float]]:
    """The curves of a result.

    Args:
        result: Of a command that measures.

    Yields:
        Step (0 where the checkpoint does not say how far its training was), name and number: of every row the keys that
        its command logs, of every window its level, ends and lowest ICR.
    """
    otherwise = result.checkpoint.get("step") or 0
    keys = view_of(result).logged
    # Where an alarm pools layers and levels, theirs together and each alone.
    for row in result.rows if result.alarm is None else (*result.shown_rows, *result.rows):
        for key in keys:
            if _is_number(row.get(key)):
                yield _step(row, otherwise), f"{PREFIX}/{key}{_place(row)}", float(row[key])
    for window in result.window:
        for name, key in OF_WINDOW.items():
            if _is_number(value := getattr(window, key)):
                yield _step(window, otherwise), f"{PREFIX}/{name}{_place(window, with_level=False)}", float(value)


def _step(one: Row | WindowRow, otherwise: int) -> int:
    return otherwise if one.step is None else int(one.step)


def _place(one: Row | WindowRow, with_level: bool = True) -> str:
    """`/blocks.13/sigma_0.3`: what tells curves of the same key apart; empty of all pooled."""
    parts = [f"{name}_{getattr(one, name)}" for name in VARIED if getattr(one, name) is not None]
    if one.layer is not None:
        parts.append(visible(one.layer))
    if with_level and one.sigma is not None:
        parts.append(f"sigma_{one.sigma:.6g}")
    return "".join(f"/{part}" for part in parts)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _provenance(result: Result) -> list[str]:
    """What the numbers are of."""
    where, protocol = view_of(result).where(result), result.protocol.get("hash")
    return [line for line in (where, f"protocol {protocol}" if protocol else "") if line]


def _kind_of(spec: str) -> ModuleType:
    """The one file that accepts a spelling, whose library is there."""
    found = next((module for module in registry.load(__name__).values() if module.accepts(spec)), None)
    if found is None:
        raise UsageError(f"`log={spec}`: expected {EXPECTED}")
    if not _is_installed(found.LIBRARY):
        raise DiffscopeError(
            f"`log={spec}`: needs {found.LIBRARY}, which is not installed: pip install {found.LIBRARY}"
        )
    return found


def _is_installed(library: str) -> bool:
    """A folder of that name, such as the one that wandb makes for its runs, is no library."""
    found = find_spec(library)
    return found is not None and found.origin is not None


@contextlib.contextmanager
def _answered(spec: str) -> Iterator[None]:
    """Whatever a library raises, as one line of ours; what it prints stays off stdout, which is for the result."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except DiffscopeError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise StoreError(f"`log={spec}`: {text}") from error
