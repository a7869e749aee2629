"""Whose neighbours are asked for, and which images take part."""

from __future__ import annotations

from collections.abc import Sequence

from diffscope import seeding
from diffscope.errors import DataError, TooFewImages
from diffscope.options.settings import Settings
from diffscope.sources.base import Source
from diffscope.studies.neighbors.options import Queries
from diffscope.studies.neighbors.search import QuerySplit


def split(source: Source, settings: Settings, asked: Queries) -> QuerySplit:
    """Queries, the images whose neighbours are counted, and the others, from the seeded order."""
    order = [int(i) for i in seeding.permutation(settings.seed, len(source))]
    used = order[: settings.num_images or len(order)]
    if len(used) <= asked.k:
        raise TooFewImages(f"{len(used)} images; an image with `k={asked.k}` neighbours takes {asked.k + 1}")
    named = tuple(dict.fromkeys(_index_of(source, text) for text in asked.query))
    shown = named or _chosen(source, used, asked.rows)
    counted = tuple(used[: asked.num_queries]) if source.labels is not None else ()
    queries = tuple(dict.fromkeys([*shown, *counted]))
    among = set(queries)
    others = tuple(index for index in used if index not in among)
    return QuerySplit(shown, frozenset(named), counted, frozenset(used), queries, others)


def _index_of(source: Source, text: str) -> int:
    """An index, or the name of an image inside the source, or the end of one that no other has."""
    if text.isdecimal():
        if len(text) < 19 and int(text) < len(source):
            return int(text)
        raise DataError(
            f"`query={text}`: {source.path} has images 0 to {len(source) - 1}; expected one of these or a name such as "
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
    raise DataError(f"`query={text}`: {found} in {source.path}; expected an index or a name such as {example}")


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
