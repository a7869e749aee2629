"""diffscope merge: the shards of one measurement as one result."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

from diffscope.commands.base import Gates, windows_or_rows
from diffscope.measure.study import Study
from diffscope.options.option import Argument
from diffscope.studies.sweep.options import WINDOW_KEYS

Parts = Annotated[
    tuple[str, ...],
    Argument(
        "Folders that --shard I/N --out FOLDER wrote.",
        metavar="PARTS...",
        several=True,
        python="Sequence[str | Path]",
    ),
]


def run(parts: Parts) -> Study:
    """Put the shards of one measurement together: the same result as one run would give.

    Neither the checkpoint nor the images are needed. Shards of different protocols are refused, by field.

    Example: diffscope merge shard-*/ --out sweep/
    """
    from diffscope.studies.sweep.shards import MergeStudy

    return MergeStudy([Path(part) for part in parts])


def _keys(values: Mapping[str, Any]) -> Collection[str]:
    from diffscope.measure.rows import row_keys
    from diffscope.studies.sweep.shards import MergeStudy

    return WINDOW_KEYS if MergeStudy([Path(part) for part in values["parts"]]).command == "sweep" else row_keys()


GATES = Gates("any row, or layer's window", "icr>0.5", _keys, windows_or_rows)
WITHOUT = ("dry_run",)
