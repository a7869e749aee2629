"""Whose neighbours are asked for, and which images take part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffscope import seeding
from diffscope.errors import DataError, TooFewImages, UsageError
from diffscope.options.settings import Settings
from diffscope.sources.base import Source
from diffscope.studies.neighbors.search import QuerySplit


@dataclass(frozen=True)
class Choices:
    """Whose neighbours, and how many."""

    queries: tuple[str, ...] = ()
    """Images to show: indices, or names inside the source; a seeded choice where none are given."""
    rows: int = 4
    """How many to choose."""
    k: int = 5
    """Neighbours of each query."""
    num_queries: int = 2000
    """Images whose neighbours' classes are counted, where classes are known."""
    clusters: bool = False
    """Also the views of the images shown, in the plane of their first two principal components."""

    def __post_init__(self) -> None:
        for name, number in (("--rows", self.rows), ("--k", self.k), ("--num-queries", self.num_queries)):
            if number < 1:
                raise UsageError(f"{name} {number}: expected at least 1")


def split(source: Source, settings: Settings, choices: Choices) -> QuerySplit:
    """Queries, the images whose neighbours are counted, and the others, from the seeded order."""
    order = [int(i) for i in seeding.permutation(settings.seed, len(source))]
    used = order[: settings.num_images or len(order)]
    if len(used) <= choices.k:
        raise TooFewImages(f"{len(used)} images; an image with --k {choices.k} neighbours takes {choices.k + 1}")
    asked = tuple(dict.fromkeys(_index_of(source, text) for text in choices.queries))
    shown = asked or _chosen(source, used, choices.rows)
    counted = tuple(used[: choices.num_queries]) if source.labels is not None else ()
    queries = tuple(dict.fromkeys([*shown, *counted]))
    among = set(queries)
    others = tuple(index for index in used if index not in among)
    return QuerySplit(shown, frozenset(asked), counted, frozenset(used), queries, others)


def _index_of(source: Source, text: str) -> int:
    """An index, or the name of an image inside the source, or the end of one that no other has."""
    if text.isdecimal():
        if len(text) < 19 and int(text) < len(source):
            return int(text)
        raise DataError(
            f"--query {text}: {source.path} has images 0 to {len(source) - 1}; expected one of these or a name such as "
            f"{source.name(0)}"
        )
    matches = []
    for index in range(len(source)):
        name = source.name(index)
        if name == text:
            return index
        if name.endswith(f"/{text}"):
            matches.append(index)
    if len(matches) == 1:
        return matches[0]
    found = f"{len(matches)} images of that name" if matches else "no such image"
    example = source.name(matches[0] if matches else 0)
    raise DataError(f"--query {text}: {found} in {source.path}; expected an index or a name such as {example}")


def _chosen(source: Source, order: Sequence[int], count: int) -> tuple[int, ...]:
    """The first of the seeded order, of as many classes as there are."""
    if source.labels is None:
        return tuple(order[:count])
    by_turn: dict[int, int] = {}
    turns = []
    for place, index in enumerate(order):
        label = int(source.labels[index])
        by_turn[label] = by_turn.get(label, -1) + 1
        turns.append((by_turn[label], place))
    return tuple(order[place] for _, place in sorted(turns)[:count])
