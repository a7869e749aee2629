"""The library names fields (`views=0`), the command line names flags (--views 0)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial

from diffscope.report import streams


def in_flags(text: str, flags: Mapping[str, str]) -> str:
    """A text of the library in the command line's words.

    Args:
        text: One line, in which fields stand in backticks: `name=value`, or `name=` where no value is meant.
        flags: Name of a field → flag.
    """

    def flag(found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        return found[0] if name not in flags else f"{flags[name]} {value}" if value else flags[name]

    return re.sub(r"`(\w+)=([^`]*)`", flag, text)


def flags_of(argv: Sequence[str]) -> Mapping[str, str]:
    """Name of a field → flag: of the command that was called, and of the others where it has no such option."""
    from diffscope.commands.base import commands

    known = commands()
    called = next((word for word in argv if word in known), None)
    chosen = [*known.values(), *([] if called is None else [known[called]])]
    entries = [entry.declared for command in chosen for entry in command.entries]
    return {one.name: one.flag for one in entries if one is not None}


def speak_in_flags(argv: Sequence[str]) -> None:
    """Has all that is said from now on name flags of the command that is called."""
    streams.translate = partial(in_flags, flags=flags_of(argv))
