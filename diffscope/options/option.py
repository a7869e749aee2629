"""What a declaration says of an option, and how values are brought to its form and held to its range."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from diffscope.errors import UsageError

MEASURE = "What to measure"
IMAGES = "What to measure it on"
STATISTICS = "Statistics"
SPEED = "Speed"
NETWORK = "A network of your own"
OUTPUT = "Output"
GROUPS = (MEASURE, IMAGES, STATISTICS, SPEED, NETWORK, OUTPUT)
"""Of a command's help, in this order."""


@dataclass(frozen=True)
class Option:
    """One option, in all that is said of it.

    Args:
        help: One or two sentences, with the unit.
        group: One of GROUPS.
        metavar: How the value is called on the command line.
        flag: On the command line; by default the field's name, with hyphens.
        short: A flag of one letter.
        choices: What a value may be.
        least: What a number is at least.
        below: What a number is less than.
        shown: The default in words, where the value itself says little.
        envvar: An environment variable that gives the default on the command line.
        protocol: Whether numbers depend on it, so that the protocol holds it under the field's name.
        python: Whether the Python function has it.
        repeated: Whether several values may be given one by one on the command line, beside a list by commas; else the
            last occurrence holds.
        read: Makes a value of the command line's text; UsageError.
        path: Whether its text names a file or folder: Python takes a Path as well.
        completes: What a shell completes values from: `choices`, `layers`, `families`.
    """

    help: str
    group: str = MEASURE
    metavar: str | None = None
    flag: str | None = None
    short: str | None = None
    choices: tuple[str, ...] = ()
    least: float | None = None
    below: float | None = None
    shown: str | None = None
    envvar: str | None = None
    protocol: bool = False
    python: bool = True
    repeated: bool = True
    read: Callable[[str], Any] | None = None
    path: bool = False
    completes: str | None = None


@dataclass(frozen=True)
class Argument:
    """A positional argument of the command line and the Python function.

    Args:
        help: One or two sentences.
        metavar: How it is called in the help.
        shown: The default in words.
        several: Whether the command line takes any number of them.
        python: Its type in the Python function, as written there.
        optional: Whether the Python function may be called without it, though it takes several.
        completes: As of an option.
    """

    help: str
    metavar: str
    shown: str | None = None
    several: bool = False
    python: str = "str | Path"
    optional: bool = False
    completes: str | None = None


@dataclass(frozen=True)
class Declaration:
    """An option under the name of its field, with type and default."""

    name: str
    kind: Any
    """The type of a value: a class, or a union with None, or tuple[X, ...] of several."""
    default: Any
    """MISSING where it has to be given."""
    option: Option

    @property
    def flag(self) -> str:
        """On the command line."""
        return self.option.flag or f"--{self.name.replace('_', '-')}"

    @property
    def optional(self) -> bool:
        """Whether None is a value of it."""
        return type(None) in get_args(self.kind)

    @property
    def item(self) -> Any:
        """The type of a single value: of several, of one of them; None left out."""
        return self._items[0] if self._items else self._given

    @property
    def several(self) -> bool:
        """Whether it takes any number of values."""
        return ... in self._items

    @property
    def fixed(self) -> int:
        """How many values it takes, where that is a fixed number above one; else 0."""
        return 0 if self.several else len(self._items)

    @property
    def _given(self) -> Any:
        """The type of what is given, None left out."""
        parts = [part for part in get_args(self.kind) if part is not type(None)]
        return parts[0] if self.optional else self.kind

    @property
    def _items(self) -> tuple[Any, ...]:
        """What a tuple holds; nothing of any other type."""
        return get_args(self._given) if get_origin(self._given) is tuple else ()

    @property
    def is_mapping(self) -> bool:
        """Whether it takes pairs of key and value."""
        return get_origin(self.kind) is Mapping


class Declared:
    """Base of the dataclasses whose fields are options: their values have the declared form and range."""

    def __post_init__(self) -> None:
        """Brings values to their form.

        Raises:
            UsageError: Where one is out of its range.
        """
        for declaration in declarations(type(self)):
            object.__setattr__(self, declaration.name, accepted(declaration, getattr(self, declaration.name)))


def declarations(declared: type) -> tuple[Declaration, ...]:
    """The options of a dataclass, in the order of its fields."""
    return _declarations(declared)


@cache
def _declarations(declared: Hashable) -> tuple[Declaration, ...]:
    assert isinstance(declared, type)
    hints = get_type_hints(declared, include_extras=True)
    return tuple(
        Declaration(field.name, hints[field.name].__origin__, _default(field), option)
        for field in fields(declared)
        for option in getattr(hints[field.name], "__metadata__", ())
        if isinstance(option, Option)
    )


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def accepted(declaration: Declaration, value: Any) -> Any:
    """A value as the field holds it: several as a tuple, paths as text, text in its own form read.

    A single value stands for a tuple of it: `layer="mid"` means `layer=("mid",)`.

    Raises:
        UsageError: Where it is none that the option takes.
    """
    value = _formed(declaration, value)
    for one in value if declaration.several and value is not None else (value,):
        _check(declaration, one)
    return value


def _formed(declaration: Declaration, value: Any) -> Any:
    if value is None and declaration.optional:
        return None
    if declaration.several:
        alone = isinstance(value, (str, os.PathLike)) or not isinstance(value, Iterable)
        return tuple(_single(declaration, one) for one in ((value,) if alone else value))
    return _single(declaration, value)


def _single(declaration: Declaration, value: Any) -> Any:
    if isinstance(value, os.PathLike) and declaration.item is str:
        return os.fspath(value)
    text = isinstance(value, str) or (declaration.is_mapping and not isinstance(value, Mapping))
    if text and declaration.item is not str and declaration.option.read is not None:
        return declaration.option.read(value)
    if declaration.item is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if declaration.item is str and isinstance(value, int):
        return str(value)
    return value


def _check(declaration: Declaration, value: Any) -> None:
    """Holds a value to the declared type, choices and range; UsageError."""
    if value is None:
        if not declaration.optional:
            raise UsageError(f"`{declaration.name}=None`: expected a value")
        return
    option, name = declaration.option, declaration.name
    if declaration.item in (int, float, bool) and not _is_a(declaration.item, value):
        words = {int: "a whole number", float: "a number", bool: "True or False"}
        raise UsageError(f"`{name}={value!r}`: expected {words[declaration.item]}")
    if option.choices and value not in option.choices:
        raise UsageError(f"`{name}={value}`: expected {in_words(option.choices)}")
    if option.least is not None and value < option.least:
        raise UsageError(f"`{name}={value}`: expected at least {option.least:g}")
    if option.below is not None and value >= option.below:
        raise UsageError(f"`{name}={value}`: expected less than {_power(option.below)}")


def _is_a(kind: type, value: object) -> bool:
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if kind is int:
        return hasattr(value, "__index__")
    return hasattr(value, "__float__")


def _power(number: float) -> str:
    exponent = math.log2(number)
    return f"2^{exponent:g}" if exponent > 40 and exponent == int(exponent) else f"{number:g}"


def in_words(choices: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join([", ".join(choices[:-1]), choices[-1]] if len(choices) > 1 else choices)


def protocol_values(declared: Iterable[Declared]) -> Iterator[tuple[str, Any]]:
    """Field and value of the options that the protocol holds."""
    for one in declared:
        for declaration in declarations(type(one)):
            if declaration.option.protocol:
                yield declaration.name, getattr(one, declaration.name)


def key_values(pairs: str | Iterable[str] | Mapping[str, str]) -> dict[str, str]:
    """`KEY=VALUE`, one or several with commas between, as a dictionary.

    Raises:
        UsageError: Where one of them is not of this form.
    """
    if isinstance(pairs, Mapping):
        return {str(key): str(value) for key, value in pairs.items()}
    found = {}
    # A comma may also stand in a value: the next pair begins with a name and a sign of equality.
    texts = [pairs] if isinstance(pairs, str) else pairs
    for pair in [part for text in texts for part in re.split(r",(?=\s*\w+=)", text)]:
        key, equals, value = pair.partition("=")
        if not (key and equals and value):
            raise UsageError(f"`config={pair}`: expected KEY=VALUE, such as num_heads=6")
        found[key.strip()] = value.strip()
    return found
