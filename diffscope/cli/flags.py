"""The library names fields (`views=0`), the command line names flags (--views 0)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache


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


@cache
def known_flags() -> Mapping[str, str]:
    """Of all options of all commands."""
    from diffscope.commands.base import commands

    entries = (entry.declared for command in commands().values() for entry in command.entries)
    return {one.name: one.flag for one in entries if one is not None}
