"""diffscope help: the manual's pages, in the terminal."""

from __future__ import annotations

import re
from difflib import get_close_matches
from importlib import resources
from typing import Annotated

from diffscope.errors import UsageError
from diffscope.options.option import Argument

ENTRY = re.compile(r"^- \[(\w+)\]\(\1\.md\): (.+)$", re.MULTILINE)
"""A page in the list of pages, `README.md`: its topic, and a line on it."""

Topic = Annotated[
    str | None, Argument("A page of the manual.", metavar="TOPIC", shown="the list of topics", completes="topics")
]


def run(topic: Topic = None) -> None:
    """The manual: how to use diffscope, what its numbers mean, how it is built.

    Example: diffscope help window
    """
    known = topics()
    if topic is None:
        _print_topics(known)
    elif topic in known:
        _print_page(topic)
    else:
        raise UsageError(_unknown(topic, known))


def topics() -> dict[str, str]:
    """Topic → a line on it, in the order of reading."""
    return dict(ENTRY.findall(read_page("README")))


def read_page(name: str) -> str:
    """The text of a page, in Markdown."""
    return (resources.files("diffscope") / "manual" / f"{name}.md").read_text(encoding="utf-8")


def _print_topics(known: dict[str, str]) -> None:
    width = max(map(len, known)) + 2
    for topic, line in known.items():
        print(f"{topic:<{width}}{line}")
    print("\nA page: diffscope help TOPIC. A command: diffscope COMMAND --help.")


def _print_page(topic: str) -> None:
    from diffscope.report import terminal
    from diffscope.report.manual import print_markdown

    print_markdown(read_page(topic), terminal.stdout_console())


def _unknown(topic: str, known: dict[str, str]) -> str:
    close = get_close_matches(topic, known, n=1)
    hint = f"did you mean {close[0]}? (diffscope help {close[0]})" if close else f"there are {', '.join(known)}"
    return f"no topic '{topic}' in the manual; {hint}"


PYTHON = False
