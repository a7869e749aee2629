# mypy: disable-error-code="arg-type"
"""What people type: whatever it is, it is understood or refused by an error of the project; and spelling is undone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from diffscope import families, names
from diffscope.cache.sizes import bytes_of, in_bytes
from diffscope.checkpoints import read
from diffscope.cli import gates
from diffscope.commands.cache import SECONDS, Pruning
from diffscope.errors import CheckpointError, DataError, DiffscopeError, UnknownLayer, UsageError
from diffscope.hub import reference
from diffscope.sources.base import open_source
from diffscope.studies.probe.options import Probing
from diffscope.studies.sweep.options import Accuracy, Variation
from diffscope.studies.sweep.shards import Shard

KEYS = ("icr", "icr_low", "change", "window", "onset")

PIECES = ["0", "1", "9" * 400, "9" * 5000, "²", "٣", "1e999", "-", "+", ".", "e", "nan", "inf", "_", ",", "=", "%", "/",
          "<", ">=", "==", " ", "\n", "\0", "\ud800", "GB", "d", "icr", "window", "none", "count", "seed", "side", "d=",
          "delta", "classes", "rank", "@", "..", "hf://", "datasets/", "owner/name", "main", "\\", "é"]  # fmt: skip
"""What numbers, lists, gates and references are made of, and what has no place in them."""

odd = st.one_of(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), st.text(max_size=12))

PARSERS: dict[str, Callable[[str], Any]] = {
    "--fail-if": lambda text: gates.parse(text, KEYS),
    "--fail-if, percent": lambda text: gates.parse(text, KEYS, percent=True),
    "--max-size": lambda text: bytes_of(text, "--max-size"),
    "--older-than": lambda text: Pruning(older_than=text),  # type: ignore[arg-type]
    "--label-noise": lambda text: Probing(label_noise=(text,)),  # type: ignore[arg-type]
    "--num-images": lambda text: Variation(num_images=(text,)),  # type: ignore[arg-type]
    "--accuracy": lambda text: Accuracy(text),  # type: ignore[arg-type]
    "--shard": Shard.parse,
    "hf://, model": lambda text: reference.parse(text, "model"),
    "hf://, data": lambda text: reference.parse(text, "dataset"),
    "hf://, by hand": lambda text: reference.parts_by_hand(text),
    "no hf://": lambda text: reference.hint(text, "model"),
    "synthetic:": lambda text: open_source(f"synthetic:{text}"),
    "mixture: images": lambda text: open_source(f"mixture:{text}"),
    "toy:": lambda text: families.load(read(f"toy:{text}")),
    "mixture:": lambda text: families.load(read(f"mixture:{text}")),
}


@pytest.mark.parametrize("name", PARSERS)
@given(text=odd)
@example("")
@example("9" * 5000)
@example("9" * 400 + "TB")
@example("count=" + "9" * 5000)
@example("side=" + "9" * 5000)
@example("9" * 5000 + "/" + "9" * 5000)
def test_whatever_is_typed_is_understood_or_refused_in_one_line(name: str, text: str) -> None:
    said = ""
    try:
        PARSERS[name](text)
    except ValueError:
        assert name == "hf://, by hand"
    except DiffscopeError as error:
        said = str(error)
    assert said.count("\n") <= text.count("\n"), "the parser's own words stand on one line"


numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)


@given(st.sampled_from(["icr", "icr_low"]), st.sampled_from([">", ">=", "<", "<=", "==", "!="]), numbers, numbers)
def test_a_gate_holds_as_python_says(key: str, op: str, number: float, value: float) -> None:
    gate = gates.parse(f" {key} {op} {number!r} ", KEYS)
    assert (gate.key, gate.op, gate.number) == (key, op, number)
    below, equal = value < number, value == number
    assert gate.holds(value) is {"<": below, "<=": below or equal, "==": equal, "!=": not equal,
                                 ">=": not below, ">": not below and not equal}[op]  # fmt: skip


@given(st.integers(-10_000, 10_000))
def test_a_gate_in_percent(percent: int) -> None:
    assert gates.parse(f"change>{percent}%", KEYS, percent=True).number == percent / 100
    with pytest.raises(UsageError):
        gates.parse(f"change>{percent}%", KEYS)


@given(st.integers(10**4, 10**15))
def test_sizes_are_read_as_they_are_shown(size: int) -> None:
    assert bytes_of(str(size), "--max-size") == size
    assert bytes_of(in_bytes(size), "--max-size") == pytest.approx(size, rel=0.06)
    assert bytes_of(f"{size}kB", "--max-size") == pytest.approx(1000 * size, rel=1e-15)


@given(st.integers(0, 10**6), st.sampled_from(sorted(SECONDS)))
def test_ages(count: int, unit: str) -> None:
    assert Pruning(older_than=f"{count}{unit}").older_than == count * SECONDS[unit]  # type: ignore[arg-type]


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=6))
def test_lists_of_counts(counts: list[int]) -> None:
    if len(set(counts)) == len(counts):
        assert Variation(num_images=tuple(counts)).num_images == tuple(sorted(counts))
    else:
        with pytest.raises(UsageError, match="once"):
            Variation(num_images=tuple(counts))


@given(st.lists(st.floats(0, 1), max_size=5))
def test_lists_of_shares(given_shares: list[float]) -> None:
    given = tuple(map(repr, given_shares))
    if all(0 < share < 1 for share in given_shares):
        assert Probing(label_noise=given).label_noise == tuple(given_shares)  # type: ignore[arg-type]
    else:
        with pytest.raises(UsageError, match="between 0 and 1"):
            Probing(label_noise=given)  # type: ignore[arg-type]


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_shards(index: int, count: int) -> None:
    if index > count:
        with pytest.raises(UsageError):
            Shard.parse(f"{index}/{count}")
    else:
        shard = Shard.parse(f"{index}/{count}")
        assert Shard.parse(str(shard)) == shard


NAME = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_]|[-.](?=[A-Za-z0-9])){0,20}", fullmatch=True).filter(
    lambda name: not name.endswith(".git")
)
PATH = st.lists(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,10}", fullmatch=True), max_size=3).map("/".join)


@given(NAME, NAME, st.none() | NAME, PATH, st.sampled_from(["model", "dataset"]))
def test_references_are_spelled_as_they_were_read(
    owner: str, repo: str, revision: str | None, path: str, kind: reference.Kind
) -> None:
    found = reference.Reference("", kind, f"{owner}/{repo}", revision, path)
    if owner in reference.TYPES:
        return
    again = reference.parse(found.at(path), kind)
    assert (again.kind, again.repo, again.revision, again.path) == (kind, found.repo, revision, path)
    assert again.at(again.path) == found.at(path)
    with pytest.raises((CheckpointError, DataError)):
        reference.parse(found.at(path), "model" if kind == "dataset" else "dataset")


@given(st.integers(1, 10**6), st.integers(0, 2**64 - 1))
def test_synthetic_images_are_as_many_as_asked(count: int, seed: int) -> None:
    assert len(open_source(f"synthetic:count={count},seed={seed}")) == count
    assert len(open_source(f"synthetic:seed={seed},count={count}")) == count


@given(st.integers(1, 12), st.integers(1, 200))
def test_toy_models_are_as_they_are_spelled(side: int, d: int) -> None:
    spelled = f"toy:d={d},side={side}"
    if d > side**2:
        with pytest.raises(UsageError):
            families.load(read(spelled))
        return
    denoiser = families.load(read(spelled))
    assert denoiser.layer("mid").width == d
    assert denoiser.space.side == side
    said = ",".join(f"{key}={value}" for key, value in denoiser.constructor.items())
    assert families.load(read(f"toy:{said}")).constructor == denoiser.constructor


TOY = families.load(read("toy:d=4,side=2"))


@given(odd | st.sampled_from([layer.name for layer in TOY.layers]))
def test_a_layer_is_found_by_its_name_or_refused(name: str) -> None:
    known = {layer.name for layer in TOY.layers}
    try:
        found = TOY.layer(name)
    except UnknownLayer:
        assert name not in known
    else:
        assert found.name == name or name == "mid" or found.name.endswith(f".{name}")


@given(st.text(max_size=30))
def test_cells_read_back_and_names_are_printable(text: str) -> None:
    shown = names.visible(text)
    assert names.visible(shown) == shown
    assert not names.HIDDEN.search(shown)
    assert names.read_cell(names.cell(text)) == shown
    assert not names.cell(text).startswith(names.FORMULA)


@given(st.floats(1e-6, 0.99))
def test_an_accuracy_is_a_share_or_percent(share: float) -> None:
    assert Accuracy(repr(share)).accuracy == share
    assert math.isclose(Accuracy(f"{100 * share!r}%").accuracy or 0, share)
