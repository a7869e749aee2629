"""`diffscope help`: the manual in the terminal."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import io

import pytest
from commands import diffscope, refused
from rich.cells import cell_len
from rich.console import Console

from diffscope import registry
from diffscope.commands.help import read_page, topics
from diffscope.report.manual import print_markdown, without_links

TOPICS = topics()
WIDTH = 80


def rendered(topic: str, width: int = WIDTH, colour: bool = True) -> str:
    stream = io.StringIO()
    system = "standard" if colour else None
    print_markdown(read_page(topic), Console(file=stream, width=width, force_terminal=colour, color_system=system))
    return stream.getvalue()


def test_it_lists_the_topics_with_a_line_each() -> None:
    ran = diffscope("help")
    assert (ran.code, ran.err) == (0, "")
    listed = ran.out.splitlines()
    assert [line.split()[0] for line in listed[: len(TOPICS)]] == list(TOPICS)
    assert all(len(line) <= WIDTH for line in listed)
    assert "diffscope help TOPIC" in listed[-1]


@pytest.mark.parametrize("topic", TOPICS)
def test_a_page_is_plain_text_in_a_pipe(topic: str) -> None:
    ran = diffscope("help", topic)
    assert (ran.code, ran.err) == (0, "")
    assert "\x1b" not in ran.out
    assert ran.out.splitlines()[0] == read_page(topic).splitlines()[0].removeprefix("# ")
    assert not [line for line in ran.out.splitlines() if line != line.rstrip()]
    assert "](" not in ran.out


@pytest.mark.parametrize("topic", TOPICS)
def test_a_page_fits_a_terminal_of_80_columns(topic: str) -> None:
    lines = rendered(topic, colour=False).splitlines()
    assert [line for line in lines if cell_len(line) > WIDTH and "http" not in line] == []


@pytest.mark.parametrize("topic", TOPICS)
def test_no_word_is_broken_at_80_columns(topic: str) -> None:
    """Nor cut off: every word of the page as it is where there is room stands in the narrow one."""
    narrow, wide = (set(rendered(topic, width, colour=False).split()) for width in (WIDTH, 400))
    assert {word for word in wide - narrow if "─" not in word} == set()


def test_code_is_told_by_its_colour_or_by_its_marks() -> None:
    assert "`--num-levels`" in diffscope("help", "window").out
    assert "`inspect --verify`" in diffscope("help", "security").out  # broken between two lines in its page
    coloured = rendered("window")
    assert "\x1b[36m--num-levels\x1b[0m" in coloured
    assert "`" not in coloured


def test_links_become_commands_paths_and_addresses() -> None:
    assert without_links("see [numbers](numbers.md)") == "see `diffscope help numbers`"
    assert without_links("[what notes mean](numbers.md#notes)") == "what notes mean (`diffscope help numbers`)"
    assert without_links("[all](README.md)") == "all (`diffscope help`)"
    assert without_links("[a.md](../../scripts/a.md)") == "`scripts/a.md`"
    assert without_links("[the paper](https://arxiv.org)") == "the paper (https://arxiv.org)"
    assert without_links("![a curve](../x.png)") == "(Picture: a curve; `diffscope/x.png`)"


def test_an_unknown_topic_is_refused_with_the_nearest() -> None:
    refused(diffscope("help", "windwo"), 2, "windwo", "diffscope help window")
    refused(diffscope("help", "qqq"), 2, "qqq", *TOPICS)


def test_a_commands_name_gives_its_help() -> None:
    helped = diffscope("help", "sweep")
    assert (helped.code, helped.err) == (0, "")
    assert helped.out.startswith("Usage: diffscope sweep")
    assert "--num-levels" in helped.out
    assert not set(TOPICS) & set(registry.members("diffscope.commands"))


def test_a_terminal_without_greek_can_read_it() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_markdown(read_page("window"), Console(file=stream, width=WIDTH, color_system=None))
    stream.flush()
    assert b"sigma" in stream.buffer.getvalue()  # type: ignore[attr-defined]
