"""diffscope cache: what is kept between runs."""

from __future__ import annotations

import math
import re
from typing import Annotated

import typer

from diffscope.cache.sizes import bytes_of
from diffscope.cli import options
from diffscope.cli.output import print_json
from diffscope.errors import UsageError

ACTIONS = ("dir", "ls", "prune")
SECONDS = {"h": 3600, "d": 86400, "w": 7 * 86400}


def run(
    action: Annotated[
        str, typer.Argument(metavar="dir|ls|prune", help="Print the folder; list it; remove from it.")
    ] = "ls",
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than", metavar="TIME", help="prune: what was last used so long ago, such as 30d, 12h, 2w."
        ),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option("--max-size", metavar="SIZE", help="prune: what was used longest ago, down to this, such as 5GB."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="prune: all that no running process uses.")] = False,
    json: options.Json = False,
) -> None:
    """What is kept between runs: VAE latents, blocks of unfinished runs, records of training runs.

    All of it lies in $DIFFSCOPE_CACHE_DIR, else ~/.cache/diffscope. Of latents, $DIFFSCOPE_CACHE_SIZE (20GB) at most;
    those used longest ago make room for new ones, and 0 keeps none.

    Example: diffscope cache prune --older-than 30d
    """
    if action not in ACTIONS:
        raise UsageError(f"cache {action}: expected {', '.join(ACTIONS)}")
    given = {"--older-than": older_than is not None, "--max-size": max_size is not None, "--all": everything}
    chosen = [option for option, is_given in given.items() if is_given]
    if chosen and action != "prune":
        raise UsageError(f"{chosen[0]} belongs to diffscope cache prune")
    if action == "prune" and not chosen:
        raise UsageError("cache prune: say what to remove, with --older-than 30d, --max-size 5GB or --all")
    if action == "dir":
        _print_folder(json)
    elif action == "ls":
        _print_contents(json)
    else:
        age = -math.inf if everything else None if older_than is None else _seconds(older_than)
        _prune(age, None if max_size is None else bytes_of(max_size, "--max-size"), json)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", text.strip())
    if not match:
        raise UsageError(f"--older-than {text}: expected hours, days or weeks, such as 12h, 30d or 2w")
    return float(match[1]) * SECONDS[match[2]]


def _print_folder(json: bool) -> None:
    from diffscope.cache.store import cache_folder

    folder = str(cache_folder())
    if json:
        print_json({**_head("dir"), "folder": folder})
    else:
        print(folder)


def _print_contents(json: bool) -> None:
    from diffscope.cache.contents import contents
    from diffscope.cache.store import cache_folder
    from diffscope.cli.running import print_result
    from diffscope.report import terminal
    from diffscope.report.views.base import view_of
    from diffscope.results import Record

    folder = cache_folder()
    rows = [entry.to_json() for entry in contents(folder)]
    total = sum(row["bytes"] for row in rows)
    listed = Record("cache", {**_head("ls"), "folder": str(folder), "bytes": total, "rows": rows})
    print_result(listed, json)
    if not json:
        terminal.note(view_of(listed).verdict(listed))


def _prune(older_than: float | None, max_bytes: int | None, json: bool) -> None:
    from diffscope.cache.contents import prune
    from diffscope.cache.store import cache_folder
    from diffscope.cli.running import print_result
    from diffscope.report import terminal
    from diffscope.results import Record

    pruned = prune(cache_folder(), older_than, max_bytes)
    removed, held = ([entry.to_json() for entry in entries] for entries in (pruned.removed, pruned.held))
    freed = sum(row["bytes"] for row in removed)
    print_result(Record("cache", {**_head("prune"), "bytes": freed, "removed": removed, "held": held}), json)
    for row in held:
        terminal.warn(f"{row['name']} ({row['kind']}) stays: a process uses it, or it cannot be removed")


def _head(action: str) -> dict[str, object]:
    from diffscope import __version__
    from diffscope.results import SCHEMA

    return {"diffscope": __version__, "schema": SCHEMA, "command": "cache", "action": action}
