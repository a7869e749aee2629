"""Two results, row by row: the paired difference of ICR, for checkpoints measured on the same images and draws.

Of many rows one in twenty differs at 5 % by chance. What is called significant is so for all rows together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from diffscope import __version__
from diffscope.errors import DataError, ProtocolMismatch
from diffscope.measure.difference import corrected, paired_difference
from diffscope.protocol import CHECKPOINT_FIELDS, require_equal
from diffscope.results import SCHEMA, Record, Result, Row, Shown, read_result

ALPHA = 0.05
"""Share of comparisons of equal results in which any row at all may be called significant."""
EACH_TWO = 6
"""Results of which all fifteen pairs are still looked at."""


def compared(old: str | Result, new: str | Result) -> Record:
    """The record of `diffscope compare`: both sides, and a row for each that they share.

    Args:
        old: A result, or where its `result.json` is.
        new: A later one of the same protocol.

    Raises:
        ProtocolMismatch: Where anything but the checkpoint differs, by field.
        DataError: Where one of them is no result that can be compared.
    """
    before, after = (side if isinstance(side, Result) else read_result(side) for side in (old, new))
    sides = {
        name: {"path": side if isinstance(side, str) else result.checkpoint["path"], **result.checkpoint}
        for name, side, result in (("old", old, before), ("new", new, after))
    }
    head = {"diffscope": __version__, "schema": SCHEMA, "command": "compare"}
    return Record("compare", {**head, **sides, **compare(before, after)})


def compare_each_two(results: Sequence[Shown]) -> dict[tuple[int, int], Record | str]:
    """Each later result against each earlier one, of those that have ICR; of more than six against the first alone.

    Args:
        results: Of any commands.

    Returns:
        By the places of the two results: what `compare` found, or a sentence why the two may not be compared.
    """
    known = {i: result for i, result in enumerate(results) if isinstance(result, Result) and _has_icr(result)}
    pairs = [*combinations(known, 2)]
    if len(known) > EACH_TWO:
        pairs = pairs[: len(known) - 1]
    found: dict[tuple[int, int], Record | str] = {}
    for old, new in pairs:
        try:
            found[old, new] = compare(known[old], known[new])
        except (ProtocolMismatch, DataError) as error:
            found[old, new] = str(error)
    return found


def _has_icr(result: Result) -> bool:
    return bool(result.rows) and all({"icr", "replicates", "layer", "sigma"} <= row.keys() for row in result.rows)


def compare(old: Result, new: Result) -> Record:
    """Under `rows` one for each layer and noise level that both results have.

    `p` is that of the row alone, `p_corrected` that for the number of rows that could be compared, by which it is
    `significant`.

    Raises ProtocolMismatch, naming the field, where anything but the checkpoint differs; levels and layers may be
    subsets of each other, for all draws are keyed and shared.
    """
    for result in (old, new):
        if result.checkpoints:
            raise DataError(
                f"a result of {result.command} holds {len(result.checkpoints)} checkpoints, compared in it already; "
                "give results of icr or sweep"
            )
        if result.segmentation:
            raise DataError(f"a result of {result.command} with `masks=` has no ICR; give results of icr or sweep")
        if result.varied is not None:
            raise DataError(
                f"a result of {result.command} over --{result.varied.replace('_', '-')} holds several measurements; "
                "give results of one, measured with the value that you want to compare"
            )
    require_equal(old.protocol, new.protocol, CHECKPOINT_FIELDS | {"layers", "sigmas"}, "the two results")
    # With an accuracy, two checkpoints may have been given different numbers of images; rows tell by theirs.
    if old.protocol.get("accuracy") is None and old.data["skipped"] != new.data["skipped"]:
        raise DataError("the two results left out different unreadable images; measure both with `strict=`")
    before = {(row.layer, row.sigma): row for row in old.rows}
    common = [(before[row.layer, row.sigma], row) for row in new.rows if (row.layer, row.sigma) in before]
    if not common:
        raise DataError(
            f"the two results share no row: layers {_listed(old)} at {len(old.rows)} levels against {_listed(new)}; "
            "measure the same `layer=` and `sigma=`"
        )
    records = [_record(a, b) for a, b in common]
    tested = [record for record in records if record["p"] is not None]
    for record, p in zip(tested, corrected([record["p"] for record in tested]), strict=True):
        record.update(p_corrected=p, significant=p < ALPHA)
    head = {"diffscope": __version__, "schema": SCHEMA, "command": "compare"}
    return Record("compare", {**head, "old": dict(old.checkpoint), "new": dict(new.checkpoint), "rows": records})


def _record(a: Row, b: Row) -> dict[str, Any]:
    head: dict[str, Any] = {"layer": b.layer, "sigma": b.sigma, "icr_old": a["icr"], "icr_new": b["icr"]}
    keys = ("change", "change_low", "change_high", "t", "p")
    untested = {**head, **dict.fromkeys(keys), "p_corrected": None, "significant": None}
    if None in (a["icr"], b["icr"], a["replicates"], b["replicates"]):
        return {**untested, "notes": ["null_icr: one of the two has no ICR with an interval"]}
    if a.n != b.n:
        note = f"unequal_images: {a.n} and {b.n} images are behind the two; measure both without `accuracy=`"
        return {**untested, "notes": [note]}
    if a["replicates"] == b["replicates"] and a["icr"] == b["icr"]:
        return {**untested, **dict(zip(keys, (0.0, 0.0, 0.0, 0.0, 1.0), strict=True)), "notes": []}
    found = paired_difference(a["icr"], a["replicates"], b["icr"], b["replicates"])
    values = (found.change, found.change_low, found.change_high, found.t, found.p)
    numbers = {k: v if v is not None and math.isfinite(v) else None for k, v in zip(keys, values, strict=True)}
    return {**untested, **numbers, "notes": []}


def _listed(result: Result) -> str:
    names = list(dict.fromkeys(row.layer for row in result.rows))
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
