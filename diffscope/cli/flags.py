"""The library names fields (`views=0: expected at least 1`), the command line names flags (`--views 0: …`)."""

from __future__ import annotations

import re
from collections.abc import Mapping


def in_flags(text: str, flags: Mapping[str, str]) -> str:
    """A text of the library in the command line's words: `name=value` becomes `--name value`, `name=` `--name`.

    Args:
        text: One line.
        flags: Name of a field → flag.
    """
    names = "|".join(sorted(flags, key=len, reverse=True))
    return re.sub(
        rf"(?<![^\s(])({names})=(?=(\S?))",
        lambda found: flags[found[1]] + ("" if found[2] in ("", ",", ";", ":", ")", ".") else " "),
        text,
    )


def known_flags() -> dict[str, str]:
    """Of all options of all commands."""
    from diffscope.options.option import declarations
    from diffscope.options.settings import Loading, Output, Settings
    from diffscope.studies.sweep.options import Accuracy

    return {one.name: one.flag for kind in (Settings, Loading, Output, Accuracy) for one in declarations(kind)}
