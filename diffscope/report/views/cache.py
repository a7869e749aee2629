"""What is kept between runs: listed, or what was removed of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from diffscope.cache.sizes import in_bytes
from diffscope.report.parts import Columns, Part, Text, table
from diffscope.report.text import NULL
from diffscope.report.views.base import View
from diffscope.results import Record

COLUMNS: Columns = {
    "name": lambda entry: str(entry["name"]),
    "what": lambda entry: str(entry["kind"]),
    "holds": lambda entry: _holds(entry),
    "size": lambda entry: in_bytes(entry["bytes"]),
    "last used": lambda entry: _local(entry["used"]),
}


class _View(View[Record]):
    """Of `ls` and `prune`, by the record's `action`."""

    number = "bytes"
    names = ("name",)
    labels = ()

    def parts(self, shown: Record, pictured: bool = False) -> Iterator[Part]:
        rows = self.records(shown)
        if shown["action"] == "dir":
            yield Text([shown["folder"]])
        elif shown["action"] == "prune":
            said = [f"removed {row['name']} ({row['kind']}, {in_bytes(row['bytes'])})" for row in rows]
            yield Text([*said, self.verdict(shown)])
        elif rows:
            yield table(COLUMNS, rows, left=["name", "what", "holds"], dropped_first=[["last used"]])

    def verdict(self, shown: Record) -> str:
        rows = self.records(shown)
        if shown["action"] == "prune":
            return f"freed {in_bytes(shown['bytes'])}" if rows else "nothing to remove"
        return f"{in_bytes(shown['bytes'])} in {shown['folder']}" if rows else f"nothing is kept in {shown['folder']}"

    def records(self, shown: Record) -> list[dict[str, Any]]:
        return [dict(row) for row in shown.get("rows", shown.get("removed", ()))]


VIEW = _View()


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
