"""What a declaration makes of values, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest

from diffscope.cli.flags import in_flags
from diffscope.errors import UsageError
from diffscope.options.option import Declared, Option, declarations, key_values, protocol_values
from diffscope.options.settings import Loading, Settings
from diffscope.options.signature import built, entries


@dataclass(frozen=True)
class Some(Declared):
    """One option of each kind."""

    names: Annotated[tuple[str, ...], Option("Names.")] = ("a",)
    levels: Annotated[tuple[float, ...], Option("Levels.")] = ()
    count: Annotated[int | None, Option("How many.", least=1, protocol=True)] = None
    mode: Annotated[str, Option("Which.", choices=("one", "two"), protocol=True)] = "one"
    pairs: Annotated[Mapping[str, str], Option("Pairs.", read=key_values)] = field(default_factory=dict)
    two: Annotated[tuple[str, str] | None, Option("Both files.")] = None
    on: Annotated[bool, Option("Whether.")] = False


def test_one_value_stands_for_several() -> None:
    assert Some(names="b", levels=3).names == ("b",)  # type: ignore[arg-type]
    assert Some(levels=3).levels == (3.0,)  # type: ignore[arg-type]
    assert Some(names=["b", Path("c")]).names == ("b", "c")  # type: ignore[arg-type]


def test_kinds_are_known() -> None:
    known = {one.name: one for one in declarations(Some)}
    assert [one.several for one in known.values()] == [True, True, False, False, False, False, False]
    assert (known["two"].fixed, known["count"].optional, known["count"].item) == (2, True, int)
    assert known["pairs"].is_mapping


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"count": 0}, "`count=0`: expected at least 1"),
        ({"count": "3"}, "`count='3'`: expected a whole number"),
        ({"count": True}, "`count=True`: expected a whole number"),
        ({"mode": "three"}, "`mode=three`: expected one or two"),
        ({"on": 1}, "`on=1`: expected True or False"),
        ({"pairs": "a"}, "`config=a`: expected KEY=VALUE"),
        ({"levels": "low"}, "`levels='low'`: expected a number"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as told:
        Some(**values)
    assert str(told.value).startswith(words)


def test_the_protocol_holds_what_is_declared_to_be_in_it() -> None:
    assert dict(protocol_values([Some(count=2)])) == {"count": 2, "mode": "one"}
    assert {"views", "pool", "augment", "seed", "input"} <= dict(protocol_values([Settings()])).keys()
    assert "batch_size" not in dict(protocol_values([Settings()]))


def test_a_function_s_parameters_are_expanded_and_put_together_again() -> None:
    def run(some: Some, loading: Loading) -> None: ...

    assert [entry.name for entry in entries(run)][:3] == ["names", "levels", "count"]
    arguments = built(run, {"count": 4, "family": "toy"})
    assert (arguments["some"].count, arguments["loading"].family) == (4, "toy")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("`views=0`: expected at least 1", "--views 0: expected at least 1"),
        ("raise `num_images=`, or give more with `data=`", "raise --num-images, or give more with --data"),
        ("`class_label=9`: none", "--class 9: none"),
        ("seed=3.pt: no such file; `unknown=1`", "seed=3.pt: no such file; `unknown=1`"),
    ],
)
def test_the_command_line_speaks_of_flags(text: str, said: str) -> None:
    flags = {
        "views": "--views",
        "num_images": "--num-images",
        "data": "--data",
        "class_label": "--class",
        "seed": "--seed",
    }
    assert in_flags(text, flags) == said
