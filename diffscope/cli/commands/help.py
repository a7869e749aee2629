"""diffscope help: the manual's pages, in the terminal."""

from __future__ import annotations

import re
from difflib import get_close_matches
from importlib import resources
from typing import Annotated, Any

import typer

from diffscope.cli.output import reader_may_leave
from diffscope.errors import UsageError

ENTRY = re.compile(r"^- \[(\w+)\]\(\1\.md\): (.+)$", re.MULTILINE)
"""A page in the list of pages, `README.md`: its topic, and a line on it."""


def run(
    context: typer.Context,
    topic: Annotated[
        str | None, typer.Argument(metavar="TOPIC", help="A page of the manual.", show_default="the list of topics")
    ] = None,
) -> None:
    """The manual: how to use diffscope, what its numbers mean, how it is built.

    Example: diffscope help window
    """
    known = topics()
    if topic is None:
        _print_topics(known)
    elif topic in known:
        _print_page(topic)
    elif help_text := _of_command(topic, context):
        typer.echo(help_text)
    else:
        raise UsageError(_unknown(topic, known))


def topics() -> dict[str, str]:
    """Topic → a line on it, in the order of reading."""
    return dict(ENTRY.findall(read_page("README")))


def read_page(name: str) -> str:
    return (resources.files("diffscope") / "manual" / f"{name}.md").read_text(encoding="utf-8")


def _print_topics(known: dict[str, str]) -> None:
    width = max(map(len, known)) + 2
    with reader_may_leave():
        for topic, line in known.items():
            print(f"{topic:<{width}}{line}")
        print("\nA page: diffscope help TOPIC. A command: diffscope COMMAND --help.")


def _print_page(topic: str) -> None:
    from diffscope.report import terminal
    from diffscope.report.manual import print_markdown

    with reader_may_leave():
        print_markdown(read_page(topic), terminal.stdout_console())


def _of_command(name: str, context: typer.Context) -> str | None:
    """The help of a command, for who asks for it here."""
    root = context.find_root()
    command: Any = root.command
    found = command.commands.get(name)
    return None if found is None else str(found.get_help(type(root)(found, info_name=name, parent=root)))


def _unknown(topic: str, known: dict[str, str]) -> str:
    close = get_close_matches(topic, known, n=1)
    hint = f"did you mean {close[0]}? (diffscope help {close[0]})" if close else f"there are {', '.join(known)}"
    return f"no topic '{topic}' in the manual; {hint}"
