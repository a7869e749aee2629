"""A page of the manual in a terminal: Markdown as Rich lays it out, without its frames, backgrounds and pictures.

The pages are written for GitHub as well. Where a link leads from there, a reader of the terminal has no use for it:
one to another page is shown as the command that prints it, one to a file as the file's path in the repository.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, TableElement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from diffscope.report.layout import READABLE
from diffscope.report.streams import can_carry, carry

FOLDER = "diffscope/manual"
"""Of the pages, from which their links are relative."""
LINK = re.compile(r"(!?)\[([^\]]+)\]\(([^)\s]+)\)")
OF_RICH = str.maketrans("•─", "*-")
"""What it draws itself, for streams that cannot carry it."""
INDENT = 2
"""Columns before a line of code."""
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")

PLAIN = Theme(
    {
        "markdown.h1": "bold",
        "markdown.h2": "bold",
        "markdown.h3": "italic",
        "markdown.code": "cyan",
        "markdown.item.bullet": "none",
        "markdown.table.border": "none",
        "markdown.table.header": "bold",
        "markdown.link_url": "none",
    }
)


def print_markdown(text: str, console: Console) -> None:
    """A page, as wide as the terminal and no wider than is read well."""
    text = _outside_fences(without_links, text)
    if console.color_system is None:  # else code is told by its colour
        text = _outside_fences(lambda prose: CODE.sub(r"`` `\1` ``", prose), text)
    page = _Page(carry(text, console.encoding), hyperlinks=False)
    with console.use_theme(PLAIN), console.capture() as captured:
        console.print(page, width=min(console.width, READABLE))
    lines = [line.rstrip() for line in captured.get().strip("\n").splitlines()]  # Rich fills them up with blanks
    if not can_carry(console.encoding):
        lines = [line.translate(OF_RICH) for line in lines]
    console.print(Text.from_ansi("\n".join(lines)), soft_wrap=True)


def _outside_fences(change: Callable[[str], str], text: str) -> str:
    """The text with its prose changed and its blocks of code as they are."""
    blocks = FENCE.findall(text)
    prose = [change(part) for part in FENCE.split(text)]
    return "".join(part + block for part, block in zip(prose, [*blocks, ""], strict=True))


def without_links(text: str) -> str:
    """Markdown whose links are words: commands, paths and addresses."""
    return LINK.sub(lambda found: _words(found[2], found[3], bool(found[1])), text)


def _words(label: str, target: str, is_picture: bool) -> str:
    path, _, _ = target.partition("#")
    if re.match(r"https?:", target):
        return target if label == target else f"{label} ({target})"
    path = posixpath.normpath(posixpath.join(FOLDER, path))
    if is_picture:
        return f"(Picture: {label}; `{path}`)"
    folder, name = posixpath.split(path)
    if folder == FOLDER and name.endswith(".md"):
        topic = name.removesuffix(".md")
        command = "diffscope help" if topic == "README" else f"diffscope help {topic}"
        return f"`{command}`" if label == topic else f"{label} (`{command}`)"
    return f"`{path}`" if label.strip("`") == posixpath.basename(path) else f"{label} (`{path}`)"


class _Heading(Heading):
    """On the left, where Rich would put the title into the middle."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text


class _Code(CodeBlock):
    """Indented, as it is; Rich would colour it for one background."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = Text(str(self.text).rstrip(), no_wrap=True, overflow="ignore")
        yield Padding(code, (0, 0, 0, INDENT), expand=False)


class _Table(TableElement):
    """The first column, which names things, keeps its words together."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
        cells = self.header.row.cells if self.header is not None and self.header.row is not None else []
        for cell in cells:
            table.add_column(cell.content)
        for row in self.body.rows if self.body is not None else []:
            table.add_row(*(cell.content for cell in row.cells))
        yield table


class _Page(Markdown):
    elements = {  # noqa: RUF012, as Rich declares it
        **Markdown.elements,
        "heading_open": _Heading,
        "fence": _Code,
        "code_block": _Code,
        "table_open": _Table,
    }
