"""What the option parser refuses, in one line: what was found, what the command takes, what to type instead.

The parser's exceptions moved between versions of typer and are known by their shape; the next step comes from the
command's own help, which ends in an example.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from diffscope import registry

FOLDER = "diffscope.commands"
SHOWN = 2
"""Arguments too many that are named; a glob may give thousands."""


def explained(error: Any, argv: Sequence[str]) -> str | None:
    """The line for what the parser raised on these words; None where it was not the parser."""
    if not hasattr(error, "format_message"):
        return None
    text = " ".join(str(error.format_message()).split())
    known = registry.members(FOLDER)
    if unknown := re.search(r"No such command '([^']*)'", text):
        return _unknown_command(unknown[1], known)
    command = next((word for word in argv if word in known), None)
    if command is None:
        return f"{text.rstrip('.')}; all commands and options: diffscope --help"
    said = _said(error, text, command, argv)
    return f"{said} (diffscope {command} --help)"


def _unknown_command(word: str, known: Sequence[str]) -> str:
    if close := get_close_matches(word, known, n=1):
        return f"No such command '{word}'. Did you mean '{close[0]}'? (diffscope --help)"
    if os.path.exists(word) or word.startswith("hf://"):
        return f"No such command '{word}'; a checkpoint comes after the command: diffscope inspect {word}"
    return f"No such command '{word}'; there are {', '.join(known)} (diffscope --help)"


def _said(error: Any, text: str, command: str, argv: Sequence[str]) -> str:
    if extra := re.search(r"unexpected extra arguments?(?:\(s\))? \((.*)\)", text):
        return _too_many(error, extra[1].split(), command)
    if option := getattr(error, "option_name", None) if text.startswith("No such option") else None:
        close = get_close_matches(option, getattr(error, "possibilities", None) or [], n=1)
        if close:
            return f"No such option: {option}. Did you mean '{close[0]}'?"
        return f"No such option of {command}: {option}; for example: {_example(command)}"
    if invalid := re.search(r"Invalid value for '(-[^']*)'.*valid (integer|number|float)", text):
        option, kind = invalid[1], "a whole number" if invalid[2] == "integer" else "a number"
        return f"{option} {', '.join(_values(option, argv))}: expected {kind}"
    return f"{text.rstrip('.')}; for example: {_example(command)}"


def _too_many(error: Any, extra: Sequence[str], command: str) -> str:
    """Two checkpoints where one is taken, or what a shell made of `--data images/*`."""
    named = ", ".join(extra[:SHOWN]) + (f" and {len(extra) - SHOWN} more" if len(extra) > SHOWN else "")
    taken = [(p.metavar or p.name).strip("[]") for p in error.ctx.command.params if p.param_type_name == "argument"]
    takes = "one CKPT" if taken == ["CKPT"] else " and ".join(taken) or "no argument"
    found = f"{command} takes {takes}; found {named} {'as well' if taken else ''}".rstrip()
    from diffscope.formats import PICTURE_ENDINGS

    if extra[0].lower().endswith(PICTURE_ENDINGS):
        folder = os.path.dirname(extra[0]) or "."
        return f"{found}; --data takes the folder of the images: --data {folder}"
    if taken == ["CKPT"]:
        return (
            f"{found}; several snapshots of one run: diffscope track CKPT... --data IMAGES; two checkpoints: measure "
            "each with --out DIR, then diffscope compare DIR DIR"
        )
    return f"{found}; for example: {_example(command if taken else 'sweep')}"


def _values(option: str, argv: Sequence[str]) -> list[str]:
    """What was typed after it, each time, as `--option VALUE` or `--option=VALUE`."""
    return [
        after if word == option else word[len(option) + 1 :]
        for word, after in zip(argv, [*argv[1:], ""], strict=True)
        if word == option or word.startswith(f"{option}=")
    ]


def _example(command: str) -> str:
    """The last line of the command's help."""
    text = str(registry.load(FOLDER)[command].run.__doc__)
    return " ".join(text.rpartition("Example:")[2].split())
