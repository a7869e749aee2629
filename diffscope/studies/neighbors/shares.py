"""How often neighbours are of the query's class."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np


def class_shares(
    labels: np.ndarray | None,
    queries: Sequence[int],
    neighbours: np.ndarray,
    counted: Collection[int],
    used: Sequence[int],
) -> tuple[dict[str, Any], list[str]]:
    """The share of neighbours of the query's class, its standard error over queries, and chance.

    Args:
        labels: Of all images of the source; None where there are no classes.
        queries: Images [Q].
        neighbours: Images [Q, k], the nearest of each query.
        counted: Those of the queries that are counted.
        used: Images that may be neighbours.

    Returns:
        Values under the keys of a row, and notes.
    """
    k = neighbours.shape[1]
    if labels is None:
        nulls = {"k": k, "same_class": None, "same_class_se": None, "chance": None, "queries": 0}
        return nulls, ["no_labels: same_class needs classes: class folders, or labels beside the images"]
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
