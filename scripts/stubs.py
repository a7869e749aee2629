"""Writes diffscope/__init__.pyi: the public functions with explicit, typed keywords, for editors and type checkers.

python scripts/stubs.py           # writes it
python scripts/stubs.py --check   # fails where it is not up to date
"""

from __future__ import annotations

import argparse
import inspect
import sys
import textwrap
from pathlib import Path
from typing import Any

import diffscope
from diffscope import api
from diffscope.commands.base import Command, commands
from diffscope.measure.study import Study

STUB = Path(diffscope.__file__).with_suffix(".pyi")

HEAD = '''"""The public functions, as scripts/stubs.py writes them from the commands' declarations."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from diffscope.api import load as load
from diffscope.api import read_result as read_result
from diffscope.families import wrap as wrap
from diffscope.families.base import Denoiser
from diffscope.results import Record, Result
from diffscope.studies.track.monitor import Monitor as Monitor

__version__: str
'''


def stub() -> str:
    """The text of the stub."""
    functions = [_function(command) for command in commands().values() if command.in_python]
    return "\n".join([HEAD, *functions])


def _function(command: Command) -> str:
    made = api.function(command.name)
    signature = inspect.signature(made)
    lines, starred = [], False
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not starred:
            starred = True
            lines.append("    *,")
        lines.append(f"    {parameter.name}: {parameter.annotation}{_default(parameter)},")
    returns = "Result" if command.returns is Study else command.returns.__name__
    text = textwrap.indent(f'"""{made.__doc__}\n"""', "    ", lambda line: bool(line.strip()))
    return "\n".join([f"def {command.name}(", *lines, f") -> {returns}:", text, ""])


def _default(parameter: inspect.Parameter) -> str:
    default: Any = parameter.default
    if default is inspect.Parameter.empty:
        return ""
    return f" = {default!r}" if not isinstance(default, dict) else " = ..."


def main() -> None:
    """Writes the stub, or compares it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="Compare only.")
    if parser.parse_args().check:
        if STUB.read_text(encoding="utf-8") != stub():
            sys.exit("diffscope/__init__.pyi is not what the commands declare: run python scripts/stubs.py")
        return
    STUB.write_text(stub(), encoding="utf-8")


if __name__ == "__main__":
    main()
