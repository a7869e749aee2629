"""What is said of a network beside its tensors: by `--config`, else by its file, else by what the tensors show.

Whatever a file says is anybody's text. A fact is asked for by its name with what is allowed of it, and comes back as
that or as an error that names the fact, the value found and what is allowed.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from diffscope.checkpoints.base import Checkpoint
from diffscope.errors import CheckpointError, DiffscopeError, UsageError

T = TypeVar("T")

MAX_SIZE = 1 << 24
"""Of any one size that a fact may name: the widest tables of published networks have 2^20 entries."""
MAX_LIST = 64
"""Entries of a list, such as one multiplier for each resolution: published networks have up to 7."""


@dataclass(frozen=True)
class Facts:
    """Reads facts of one file; UsageError where `--config` is wrong about one, `refusal` where the file is."""

    path: str
    said: Mapping[str, Any]
    """By the file; null is not said."""
    config: Mapping[str, str] = field(default_factory=dict)
    """By the user, who comes first."""
    known: Collection[str] = ()
    """Keys that `config` may have."""
    refusal: type[DiffscopeError] = CheckpointError

    def __post_init__(self) -> None:
        for key in self.config:
            if key not in self.known:
                raise UsageError(f"--config {shown(key)}: this family knows {', '.join(sorted(self.known))}")

    def integer(self, key: str, default: int, low: int = 1, high: int = MAX_SIZE) -> int:
        def accept(value: object) -> int | None:
            number = _finite(value)
            return int(number) if number is not None and number == int(number) and low <= number <= high else None

        return self._read(key, default, int, accept, f"a whole number from {low} to {high}")

    def number(self, key: str, default: float, low: float, high: float, above: bool = True) -> float:
        """Above `low` (`above`) or from it on, up to `high`; infinite only where that is."""

        def accept(value: object) -> float | None:
            number = _finite(math.inf if value == "inf" else value, infinite=math.isinf(high))
            inside = number is not None and low <= number <= high and not (above and number == low)
            return number if inside else None

        words = f"{'above' if above else 'from'} {low:g}"
        words += "; or inf" if math.isinf(high) else f" {'up to' if above else 'to'} {high:g}"
        return self._read(key, default, float, accept, f"a number {words}")

    def choice(self, key: str, default: str, choices: Collection[str]) -> str:
        def accept(value: object) -> str | None:
            return value if isinstance(value, str) and value in choices else None

        return self._read(key, default, str, accept, f"one of {', '.join(choices)}")

    def numbers(
        self, key: str, default: list[Any], low: float, high: float, whole: bool = False, least: int = 1
    ) -> list[Any]:
        """A list of `least` to MAX_LIST numbers from `low` to `high`; those that are whole as integers."""

        def accept(value: object) -> list[Any] | None:
            if not isinstance(value, (list, tuple)) or not least <= len(value) <= MAX_LIST:
                return None
            found = [_finite(part) for part in value]
            if not all(n is not None and low <= n <= high and (n == int(n) or not whole) for n in found):
                return None
            return [integer_if_whole(n) for n in found if n is not None]

        def parse(text: str) -> list[float]:
            return [float(part) for part in text.strip("[]()").replace(",", " ").split()]

        kind = "whole numbers" if whole else "numbers"
        return self._read(
            key, default, parse, accept, f"a list of {least} to {MAX_LIST} {kind} from {low:g} to {high:g}"
        )

    def says(self, key: str) -> bool:
        """Whether the file or the user says it."""
        return key in self.config or self.said.get(key) is not None

    def _read(
        self, key: str, default: T, parse: Callable[[str], T], accept: Callable[[object], T | None], allowed: str
    ) -> T:
        if key in self.config:
            text = self.config[key]
            try:
                found = accept(parse(text))
            except ValueError:
                found = None
            if found is None:
                raise UsageError(f"--config {key}={shown(text, quotes=False)}: expected {allowed}")
            return found
        value = default if self.said.get(key) is None else self.said[key]
        if (found := accept(value)) is None:
            advice = f"; say it with --config {key}=VALUE" if key in self.known else ""
            raise self.refusal(f"{self.path}: {key} is {shown(value)}; expected {allowed}{advice}")
        return found


def file_arguments(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the file says of its constructor: our own metadata, a pickle's arguments. CheckpointError if malformed."""
    try:
        given = json.loads(checkpoint.metadata.get("arguments", "{}"))
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise CheckpointError(f"{checkpoint.path}: 'arguments' in its metadata is not a JSON object")
    return {**given, **checkpoint.arguments}


def text_of(said: Mapping[str, Any], key: str) -> str:
    """A text that decides between families; empty where it is none."""
    value = said.get(key)
    return value if isinstance(value, str) else ""


def integer_if_whole(number: float) -> int | float:
    """A whole number as an integer, as constructors spell it."""
    return int(number) if number == int(number) else number


def shown(value: object, quotes: bool = True) -> str:
    """A value from a file, short and printable."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    try:
        text = short.repr(value)
    except ValueError:  # Python does not print integers of more than 4300 digits
        return f"a {type(value).__name__} too long to show"
    text = text if quotes else text[1:-1]
    return text if len(text) <= 100 else f"{text[:97]}..."


def _finite(value: object, infinite: bool = False) -> float | None:
    """As a number: no boolean, no text, neither NaN nor (unless `infinite`) infinity."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) or (infinite and number > 0) else None
