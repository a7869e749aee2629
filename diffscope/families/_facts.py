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
"""Largest size that a fact may name: the widest tables of published networks have 2^20 entries."""
MAX_LIST = 64
"""Most entries of a list, such as one multiplier for each resolution: published networks have up to 7."""


@dataclass(frozen=True)
class Facts:
    """Reads facts of one network, from `--config`, else from its file, else from a default.

    Every reader raises UsageError where `--config` is wrong about a fact, and `refusal` where the file is.
    """

    path: str
    said: Mapping[str, Any]
    """What the file says; null counts as nothing."""
    config: Mapping[str, str] = field(default_factory=dict)
    """What the user says, who comes first."""
    known: Collection[str] = ()
    """Keys that `config` may have."""
    refusal: type[DiffscopeError] = CheckpointError

    def __post_init__(self) -> None:
        for key in self.config:
            if key not in self.known:
                raise UsageError(f"`config={shown(key)}`: this family knows {', '.join(sorted(self.known))}")

    def integer(self, key: str, default: int, low: int = 1, high: int = MAX_SIZE) -> int:
        """Reads a whole number.

        Args:
            key: Name of the fact.
            default: If nobody says it.
            low: Smallest allowed value.
            high: Largest allowed value.

        Returns:
            A value in [low, high].
        """

        def accept(value: object) -> int | None:
            number = _finite(value)
            return int(number) if number is not None and number == int(number) and low <= number <= high else None

        return self._read(key, default, int, accept, f"a whole number from {low} to {high}")

    def number(self, key: str, default: float, low: float, high: float, above: bool = True) -> float:
        """Reads a number.

        Args:
            key: Name of the fact.
            default: If nobody says it.
            low: Lower bound.
            high: Largest allowed value; infinity is allowed only where this is infinite.
            above: Whether the value must be above `low`, rather than from it on.

        Returns:
            A value in (low, high], or [low, high] without `above`.
        """

        def accept(value: object) -> float | None:
            number = _finite(math.inf if value == "inf" else value, infinite=math.isinf(high))
            inside = number is not None and low <= number <= high and not (above and number == low)
            return number if inside else None

        words = f"{'above' if above else 'from'} {low:g}"
        words += "; or inf" if math.isinf(high) else f" {'up to' if above else 'to'} {high:g}"
        return self._read(key, default, float, accept, f"a number {words}")

    def boolean(self, key: str, default: bool) -> bool:
        """Reads a yes or no.

        Args:
            key: Name of the fact.
            default: If nobody says it.

        Returns:
            The value; a user may spell it true, yes or 1, false, no or 0.
        """

        def parse(text: str) -> bool:
            if (word := text.lower()) not in ("true", "yes", "1", "false", "no", "0"):
                raise ValueError(text)
            return word in ("true", "yes", "1")

        def accept(value: object) -> bool | None:
            return value if isinstance(value, bool) else None

        return self._read(key, default, parse, accept, "true or false")

    def choice(self, key: str, default: str, choices: Collection[str]) -> str:
        """Reads one of several words.

        Args:
            key: Name of the fact.
            default: If nobody says it.
            choices: The words that are allowed.

        Returns:
            One of `choices`.
        """

        def accept(value: object) -> str | None:
            return value if isinstance(value, str) and value in choices else None

        return self._read(key, default, str, accept, f"one of {', '.join(choices)}")

    def numbers(
        self, key: str, default: list[Any], low: float, high: float, whole: bool = False, least: int = 1
    ) -> list[Any]:
        """Reads a list of numbers.

        Args:
            key: Name of the fact.
            default: If nobody says it.
            low: Smallest allowed value.
            high: Largest allowed value.
            whole: Whether all must be whole.
            least: Smallest allowed length; the largest is MAX_LIST.

        Returns:
            The numbers; those that are whole as integers.
        """

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
        """Tells whether the file or the user says a fact.

        Args:
            key: Name of the fact.

        Returns:
            False where only a default is left.
        """
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
                raise UsageError(f"`config={key}={shown(text, quotes=False)}`: expected {allowed}")
            return found
        value = default if self.said.get(key) is None else self.said[key]
        if (found := accept(value)) is None:
            advice = f"; say it with `config={key}=VALUE`" if key in self.known else ""
            raise self.refusal(f"{self.path}: {key} is {shown(value)}; expected {allowed}{advice}")
        return found


def file_arguments(checkpoint: Checkpoint) -> dict[str, Any]:
    """Collects what a file says of its network's constructor, in our own metadata or in a pickle's arguments.

    Args:
        checkpoint: As it was read.

    Returns:
        Argument → value, unchecked; the pickle's come first.

    Raises:
        CheckpointError: If the metadata's `arguments` are not a JSON object.
    """
    try:
        given = json.loads(checkpoint.metadata.get("arguments", "{}"))
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise CheckpointError(f"{checkpoint.path}: 'arguments' in its metadata is not a JSON object")
    return {**given, **checkpoint.arguments}


def text_of(said: Mapping[str, Any], key: str) -> str:
    """Reads a text that decides between families.

    Args:
        said: What the file says.
        key: Name of the fact.

    Returns:
        The text; "" where the file says none.
    """
    value = said.get(key)
    return value if isinstance(value, str) else ""


def integer_if_whole(number: float) -> int | float:
    """Spells a number as constructors do: a whole one as an integer."""
    return int(number) if number == int(number) else number


def shown(value: object, quotes: bool = True) -> str:
    """Spells a value from a file for a message.

    Args:
        value: Anything that a pickle or JSON can hold.
        quotes: Whether to keep the outer quotation marks of a text.

    Returns:
        At most 100 printable characters.
    """
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    try:
        text = short.repr(value)
    except ValueError:  # Python does not print integers of more than 4300 digits
        return f"a {type(value).__name__} too long to show"
    text = text if quotes else text[1:-1]
    return text if len(text) <= 100 else f"{text[:97]}..."


def _finite(value: object, infinite: bool = False) -> float | None:
    """The value as a number: no boolean, no text, neither NaN nor (unless `infinite`) infinity."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) or (infinite and number > 0) else None
