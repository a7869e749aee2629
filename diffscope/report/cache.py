"""What is kept between runs, in words: plain strings for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from diffscope.cache.sizes import in_bytes
from diffscope.report.cells import NULL

HEADINGS = ("name", "what", "holds", "size", "last used")
LEFT = ("name", "what", "holds")


def table(records: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Cells of one line each."""
    return [[r["name"], r["kind"], _holds(r), in_bytes(r["bytes"]), _local(r["used"])] for r in records]


def total(folder: str, records: Sequence[Mapping[str, Any]]) -> str:
    if not records:
        return f"nothing is kept in {folder}"
    return f"{in_bytes(sum(record['bytes'] for record in records))} in {folder}"


def removed(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each, then what it came to."""
    lines = [f"removed {record['name']} ({record['kind']}, {in_bytes(record['bytes'])})" for record in records]
    return [*lines, f"freed {in_bytes(sum(record['bytes'] for record in records))}" if lines else "nothing to remove"]


def _holds(record: Mapping[str, Any]) -> str:
    """Of latents: how many, of which size, and from what; of the rest the number of files."""
    if record["kind"] != "latents":
        return f"{record['files']} files" if record["files"] != 1 else "1 file"
    if not {"shape", "augment", "seed", "vae", "path"} <= record.keys():
        return NULL
    shape = "×".join(str(size) for size in record["shape"])
    return (
        f"{record['images']:,} images × {record['views']} views, {shape}, {record['augment']}, "
        f"seed {record['seed']}, VAE {record['path']} ({record['vae'][:8]})"
    )


def _local(used: str) -> str:
    """In the reader's own time, to the minute."""
    return f"{datetime.fromisoformat(used).astimezone():%Y-%m-%d %H:%M}"
