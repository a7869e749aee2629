"""A function's parameters, expanded: from them follow the command line, the Python signature, stub and manual.

A parameter of a command's function is an argument (`Annotated[..., Argument(...)]`), an option of its own
(`Annotated[..., Option(...)]`), or a dataclass of options, which stands for all of its fields.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from difflib import get_close_matches
from typing import Any, get_type_hints

from diffscope.options.option import Argument, Declaration, Declared, Option, accepted, declarations

Function = Callable[..., Any]


@dataclass(frozen=True)
class Without:
    """Options of a dataclass that a command does not have: they keep their defaults."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """One argument or option of a command."""

    name: str
    owner: str
    """The function's parameter that it is, or is a field of."""
    declared: Declaration | None
    """None of an argument."""
    argument: Argument | None
    default: Any

    @property
    def is_required(self) -> bool:
        """Whether it has to be given."""
        return self.default in (MISSING, inspect.Parameter.empty)

    @property
    def option(self) -> Option | None:
        """What is declared of it; None of an argument."""
        return None if self.declared is None else self.declared.option


def entries(function: Function, extra: Sequence[type[Declared]] = ()) -> tuple[Entry, ...]:
    """The arguments and options of a command's function.

    Args:
        function: The command.
        extra: Dataclasses of options that it takes beside those of its parameters; their fields have the dataclass as
            owner, by its name.

    Returns:
        Each name once. Where two dataclasses declare it, the later declaration holds, in the place of the earlier.
    """
    hints = get_type_hints(function, include_extras=True)
    found: dict[str, Entry] = {}
    for parameter in inspect.signature(function).parameters.values():
        for entry in _expanded(parameter, hints[parameter.name]):
            found[entry.name] = entry
    for kind in extra:
        for declaration in declarations(kind):
            found.setdefault(declaration.name, _of_declaration(declaration, kind.__name__))
    return tuple(found.values())


def _expanded(parameter: inspect.Parameter, hint: Any) -> list[Entry]:
    told = getattr(hint, "__metadata__", ())
    kind = getattr(hint, "__origin__", hint)
    argument = next((one for one in told if isinstance(one, Argument)), None)
    if argument is not None:
        return [Entry(parameter.name, parameter.name, None, argument, parameter.default)]
    option = next((one for one in told if isinstance(one, Option)), None)
    if option is not None:
        return [_of_declaration(Declaration(parameter.name, kind, parameter.default, option), parameter.name)]
    if isinstance(kind, type) and issubclass(kind, Declared):
        left = next((one.names for one in told if isinstance(one, Without)), ())
        return [_of_declaration(one, parameter.name) for one in declarations(kind) if one.name not in left]
    return []


def _of_declaration(declaration: Declaration, owner: str) -> Entry:
    return Entry(declaration.name, owner, declaration, None, declaration.default)


def built(function: Function, values: Mapping[str, Any]) -> dict[str, Any]:
    """The function's own arguments, from the values of its entries.

    Args:
        function: The command.
        values: By name of the entry; what is missing has its default.

    Raises:
        UsageError: Where a value is out of its range.
    """
    hints = get_type_hints(function, include_extras=True)
    own = entries(function)
    arguments: dict[str, Any] = {}
    for name in inspect.signature(function).parameters:
        given = {entry.name: values[entry.name] for entry in own if entry.owner == name and entry.name in values}
        kind = getattr(hints[name], "__origin__", hints[name])
        if isinstance(kind, type) and issubclass(kind, Declared):
            arguments[name] = kind(**given)
        elif name in given:
            declared = next(entry.declared for entry in own if entry.name == name)
            arguments[name] = given[name] if declared is None else accepted(declared, given[name])
    return arguments


def nearest(name: str, known: Sequence[str]) -> str:
    """`; did you mean num_images?`, where one of the known names is near."""
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"
