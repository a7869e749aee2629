"""What the README and the pages of the manual show: command lines, sessions, links, blocks of code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import diffscope

ROOT = Path(__file__).parents[1]
MANUAL = Path(diffscope.__file__).parent / "manual"
README = ROOT / "README.md"
PAGES = (README, *sorted(MANUAL.glob("*.md")))

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<![\d.])\d+\.\d+(?![\d.])")
"""With a decimal point; others may be a count, a year, a port."""


@dataclass(frozen=True)
class Line:
    """A command line, the exit code that is shown for it, and the numbers in the output that is shown."""

    text: str
    code: int = 0
    shown: tuple[str, ...] = field(default=(), compare=False)

    @property
    def argv(self) -> list[str]:
        return shlex.split(self.text, comments=True)[1:]


def blocks(text: str, *languages: str) -> Iterator[str]:
    """Fenced blocks of these languages."""
    return (block for language, block in FENCE.findall(text) if language in languages)


def lines_of(text: str) -> list[Line]:
    """Command lines in sh and console blocks; in a console block, those after a dollar sign, with what follows them."""
    return [*_in_scripts(text), *_in_sessions(text)]


def _in_scripts(text: str) -> Iterator[Line]:
    for block in blocks(text, "sh", "bash"):
        for line in _joined(block).splitlines():
            parts = [part.strip() for part in line.removeprefix("$ ").split("&&")]
            yield from (Line(part) for part in parts if part.startswith("diffscope "))


def _in_sessions(text: str) -> Iterator[Line]:
    for block in blocks(text, "console"):
        steps = re.split(r"^\$ ", _joined(block), flags=re.MULTILINE)[1:]
        for step, following in zip(steps, [*steps[1:], ""], strict=True):
            command, _, output = step.partition("\n")
            code = int(following.split()[2]) if following.startswith("echo $?") else 0
            parts = [part.strip() for part in command.split("&&")]
            yield from (
                Line(part, code, tuple(NUMBER.findall(output))) for part in parts if part.startswith("diffscope ")
            )


def _joined(block: str) -> str:
    return re.sub(r"\\\n\s*", " ", block)


def prose(text: str) -> str:
    """The text without its blocks of code."""
    return FENCE.sub("", text)


def inline_commands(text: str) -> list[Line]:
    """Command lines in inline code."""
    return [Line(" ".join(code.split())) for code in re.findall(r"`(diffscope [^`]+)`", prose(text))]


def links(text: str) -> list[str]:
    """Targets of links and pictures in the repository, with their anchors; addresses are left out."""
    return re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(text))


def headings(text: str) -> set[str]:
    """Anchors of its headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def words(text: str) -> int:
    """Of prose, tables and code, as `wc -w` counts them."""
    return len(text.split())


def table_of(text: str, heading: str) -> list[list[str]]:
    """The rows of the first table whose first heading is this, cell by cell."""
    match = re.search(rf"^\| {re.escape(heading)} \|.*\n\|[ \-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert match, f"no table of {heading}"
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in match[1].splitlines()]
