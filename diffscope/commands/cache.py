"""diffscope cache: what is kept between runs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from diffscope.cache.sizes import bytes_of
from diffscope.errors import UsageError
from diffscope.options.option import Argument, Declared, Option
from diffscope.results import SCHEMA, Record

ACTIONS = ("dir", "ls", "prune")
SECONDS = {"h": 3600, "d": 86400, "w": 7 * 86400}

Action = Annotated[
    str,
    Argument(
        "Print the folder; list it; remove from it.", metavar="dir|ls|prune", shown="ls", completes="dir ls prune"
    ),
]


def _age(text: str) -> float:
    """Seconds of `30d`, `12h`, `2w`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", text.strip())
    if not match:
        raise UsageError(f"`older_than={text}`: expected hours, days or weeks, such as 12h, 30d or 2w")
    return float(match[1]) * SECONDS[match[2]]


def _size(text: str) -> int:
    """Bytes of `5GB`."""
    return bytes_of(text, "max_size")


@dataclass(frozen=True)
class Pruning(Declared):
    """What is removed."""

    older_than: Annotated[
        float | None,
        Option("prune: what was last used so long ago, such as 30d, 12h, 2w.", metavar="TIME", read=_age, shown=""),
    ] = None
    max_size: Annotated[
        int | None,
        Option(
            "prune: what was used longest ago, down to this, such as 5GB.",
            metavar="SIZE",
            read=_size,
            shown="",
        ),
    ] = None
    everything: Annotated[bool, Option("prune: all that no running process uses.", flag="--all")] = False

    @property
    def given(self) -> list[str]:
        """Names of the options that say what to remove."""
        told = {
            "older_than": self.older_than is not None,
            "max_size": self.max_size is not None,
            "everything": self.everything,
        }
        return [name for name, is_given in told.items() if is_given]


def run(pruning: Pruning, action: Action = "ls") -> Record:
    """What is kept between runs: VAE latents, prompt embeddings, blocks of unfinished runs, records of training runs.

    And what inspect found of files, to answer at once. All of it lies in $DIFFSCOPE_CACHE_DIR, else ~/.cache/diffscope.
    Of latents, $DIFFSCOPE_CACHE_SIZE (20GB) at most; those used longest ago make room for new ones, and 0 keeps none,
    nor what inspect found.

    Example: diffscope cache prune --older-than 30d
    """
    if action not in ACTIONS:
        raise UsageError(f"cache {action}: expected {', '.join(ACTIONS)}")
    if pruning.given and action != "prune":
        raise UsageError(f"`{pruning.given[0]}=` belongs to diffscope cache prune")
    if action == "prune" and not pruning.given:
        raise UsageError("cache prune: say what to remove, with `older_than=30d`, `max_size=5GB` or `everything=`")
    from diffscope import __version__
    from diffscope.cache.store import cache_folder

    head = {"diffscope": __version__, "schema": SCHEMA, "command": "cache", "action": action}
    if action == "dir":
        return Record("cache", {**head, "folder": str(cache_folder())})
    from diffscope.cache.contents import contents, prune

    if action == "ls":
        rows = [entry.to_json() for entry in contents(cache_folder())]
        total = sum(row["bytes"] for row in rows)
        return Record("cache", {**head, "folder": str(cache_folder()), "bytes": total, "rows": rows})
    age = -math.inf if pruning.everything else pruning.older_than
    pruned = prune(cache_folder(), age, pruning.max_size)
    removed, held = ([entry.to_json() for entry in entries] for entries in (pruned.removed, pruned.held))
    return Record("cache", {**head, "bytes": sum(row["bytes"] for row in removed), "removed": removed, "held": held})


def warnings(record: Mapping[str, Any]) -> list[str]:
    """What could not be removed."""
    held = record.get("held", ())
    return [f"{row['name']} ({row['kind']}) stays: a process uses it, or it cannot be removed" for row in held]


def notes(record: Record, out: object) -> list[str]:
    """How much there is, and where."""
    from diffscope.report.views.base import view_of

    return [view_of(record).verdict(record)] if record["action"] == "ls" else []


PYTHON = False
WITHOUT = ("out", "overwrite", "quiet")
