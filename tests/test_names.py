"""What outside names would say to a terminal, to a reader and to a spreadsheet is escaped, and only that."""

from __future__ import annotations

import json

import pytest

from diffscope.names import cell, in_json, read_cell, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\x00b\x07\x08\x7f", "a\\x00b\\x07\\x08\\x7f"),
        ("\x9b2J\x85", "\\x9b2J\\x85"),
        ("gnp.\u202eexe", "gnp.\\u202eexe"),
        ("\u2066a\u2069\u200f\u061c", "\\u2066a\\u2069\\u200f\\u061c"),
        ("two\nlines\u2028three\r", "two\\x0alines\\u2028three\\x0d"),
        ("Grüße, 猫, שלום, [red]σ[/] \U0001f408", "Grüße, 猫, שלום, [red]σ[/] \U0001f408"),
    ],
)
def test_hidden_characters_are_seen_and_no_others_touched(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


def test_json_reads_back_what_it_hides() -> None:
    record = {"\u202ename": ["\x1b[31m", "\x9b", "\x7f", "ä\n", "caf\udcff", "\ufeff"]}
    text = in_json(json.dumps(record, indent=2, ensure_ascii=False))
    assert json.loads(text) == record
    assert visible(text, spared="\n") == text


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "'=x", "''@x"])
def test_a_formula_is_quoted_and_comes_back(text: str) -> None:
    assert cell(text) == f"'{text}"
    assert read_cell(cell(text)) == text


@pytest.mark.parametrize("text", ["", "enc.8x8", "'quoted'", "1-2", "–", " ", "'"])
def test_other_cells_are_left_alone(text: str) -> None:
    assert cell(text) == read_cell(text) == text
