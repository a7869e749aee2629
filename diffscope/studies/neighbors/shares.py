"""How often neighbours are of the query's class."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from diffscope.sources.base import Source


def class_shares(
    source: Source,
    queries: Sequence[int],
    neighbours: np.ndarray,
    counted: Collection[int],
    used: Sequence[int],
) -> tuple[dict[str, Any], list[str]]:
    """The share of neighbours of the query's class, its standard error over queries, and chance.

    Args:
        source: Of the images and their classes, where they have any.
        queries: Images [Q].
        neighbours: Images [Q, k], the nearest of each query.
        counted: Those of the queries that are counted.
        used: Images that may be neighbours.

    Returns:
        Values under the keys of a row, and notes.
    """
    k = neighbours.shape[1]
    labels = source.labels
    if labels is None:
        nulls = {"k": k, "same_class": None, "same_class_se": None, "chance": None, "queries": 0}
        wanted = source.lacking or "class folders, or labels beside the images"
        return nulls, [f"no_labels: same_class needs classes: {wanted}"]
    rows = [row for row, image in enumerate(queries) if image in counted]
    own = labels[[queries[row] for row in rows]]
    shares = (labels[neighbours[rows]] == own[:, None]).mean(1)
    among = dict(zip(*np.unique(labels[list(used)], return_counts=True), strict=True))
    chance = float(np.mean([(among[label] - 1) / (len(used) - 1) for label in own]))
    notes, error = [], None
    if len(shares) > 1:
        error = float(shares.std(ddof=1) / np.sqrt(len(shares)))
    else:
        notes.append("one_query: the standard error of one query is not known; raise `num_queries=`")
    found = {"same_class": float(shares.mean()), "same_class_se": error, "chance": chance}
    return {"k": k, **found, "queries": len(shares)}, notes
