"""Options from a file that a lab writes once: `--preset ours.toml`.

    network = "models.py:UNet"     # at the top: of every command that has the option
    noise = "ddpm:linear"
    image-size = 32
    channels = 3

    [arguments]                    # an option that takes names and values
    width = 64

    [sweep]                        # of one command
    num-levels = 8

Names are those of flags, or of the Python functions. Paths are taken from the preset's own folder. What is given on the
command line, or to the function, comes before what stands here.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from diffscope.errors import UsageError
from diffscope.options.network import read_table
from diffscope.options.option import Declaration, Declared, Option
from diffscope.options.signature import Entry, nearest


@dataclass(frozen=True)
class Presets(Declared):
    """Where options come from that are not given."""

    preset: Annotated[
        str | None,
        Option(
            "A TOML file of options, of this command and of others; those that are given come before it.",
            group="Other",
            metavar="FILE",
            shown="",
            path=True,
        ),
    ] = None


def read_preset(path: str, command: str, known: Mapping[str, Sequence[Entry]]) -> dict[str, Any]:
    """Reads what a preset says of one command.

    Args:
        path: A TOML file, or JSON where it ends in .json.
        command: Its name.
        known: Of every command its arguments and options.

    Returns:
        Name of an option → value, as TOML has it; paths made whole.

    Raises:
        UsageError: If it has a key that is no option, a table that is no command, or a value of another kind.
        NetworkError: If it cannot be read.
    """
    options = {
        name: {one.name: one for one in map(_declared, entries) if one is not None} for name, entries in known.items()
    }
    anywhere = {name: one for of_one in options.values() for name, one in of_one.items()}
    table = read_table(path, "preset")
    mine: dict[str, Any] = {}
    common: dict[str, Any] = {}
    for key, value in table.items():
        name = _name(key, anywhere)
        if isinstance(value, dict) and not (name in anywhere and anywhere[name].is_mapping):
            if key not in options:
                raise UsageError(f"`preset={path}`: no command [{key}]{nearest(key, [*options])}")
            for inner, given in value.items():
                found = _name(inner, options[key])
                if found not in options[key]:
                    raise UsageError(f"`preset={path}`: {key} has no option '{inner}'{_close(inner, options[key])}")
                if key == command:
                    mine[found] = _value(path, inner, given, options[key][found])
        elif name not in anywhere:
            raise UsageError(f"`preset={path}`: no command has an option '{key}'{_close(key, anywhere)}")
        elif name in options[command]:
            common[name] = _value(path, key, value, options[command][name])
    return {**common, **mine}


def _declared(entry: Entry) -> Declaration | None:
    return None if entry.name == "preset" else entry.declared


def _name(key: str, known: Mapping[str, Declaration]) -> str:
    """The field's name of a key, which may be spelled as the flag is."""
    spelled = key.replace("-", "_")
    flags = {one.flag.removeprefix("--").replace("-", "_"): name for name, one in known.items()}
    return spelled if spelled in known else flags.get(spelled, spelled)


def _close(key: str, known: Mapping[str, Declaration]) -> str:
    found = nearest(key.replace("-", "_"), [*known])
    return found if "did you mean" in found else ""


def _value(path: str, key: str, value: Any, declared: Declaration) -> Any:
    """A value of the option's kind, its paths taken from the preset's folder; UsageError."""
    if isinstance(value, dict) and not declared.is_mapping:
        raise UsageError(f"`preset={path}`: '{key}': a table where a value is expected")
    if isinstance(value, list) and not (declared.several or declared.fixed or declared.is_mapping):
        raise UsageError(f"`preset={path}`: '{key}': a list where one value is expected")
    if declared.item is bool and not isinstance(value, bool):
        raise UsageError(f"`preset={path}`: '{key}': expected true or false")
    if declared.item in (int, float) and declared.option.read is None:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, bool) or not isinstance(one, (int, float)):
                raise UsageError(f"`preset={path}`: '{key}': {one!r}; expected a number")
    if isinstance(value, list):
        return [_placed(path, one, declared) for one in value]
    return _placed(path, value, declared)


def _placed(path: str, value: Any, declared: Declaration) -> Any:
    """A path of the preset as seen from here; hf://, synthetic: and their like are none."""
    is_path = declared.option.path or (declared.name == "network" and ".py:" in str(value))
    if not (is_path and isinstance(value, str)) or re.match(r"[a-z_]{2,}:", value) or value.lstrip().startswith("{"):
        return value
    return os.path.join(os.path.dirname(path), value)


def as_typed(declared: Declaration, value: Any) -> Any:
    """Spells a value of a preset as it would be typed.

    Args:
        declared: The option.
        value: From `read_preset`.

    Returns:
        A text, or several; a boolean where the option is a switch.
    """
    if isinstance(value, bool):
        return value if declared.item is bool else str(value)
    if isinstance(value, dict):
        return json.dumps(value) if not declared.option.repeated else [f"{key}={one}" for key, one in value.items()]
    if declared.fixed:
        return tuple(map(str, value)) if isinstance(value, list) else value
    texts = [str(one) for one in value] if isinstance(value, list) else [str(value)]
    several = (declared.several or declared.is_mapping) and declared.option.repeated
    return texts if several else ",".join(texts)
