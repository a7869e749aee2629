"""diffscope compare: the paired difference of two results."""

from __future__ import annotations

from typing import Annotated

from diffscope.commands.base import Gates
from diffscope.options.option import Argument
from diffscope.results import Record

KEYS = ("change", "change_low", "change_high", "t", "p", "p_corrected", "icr_old", "icr_new")

Old = Annotated[str, Argument("An earlier result.json.", metavar="OLD.json", python="str | Path | Result")]
New = Annotated[str, Argument("A later one of the same protocol.", metavar="NEW.json", python="str | Path | Result")]


def run(old: Old, new: New) -> Record:
    """The paired difference of two results, row by row, with its interval; refused where their protocols disagree.

    Of many rows some differ by chance: a row is called lower or higher, and --fail-if "change>2%" holds, where its p
    is below .05 corrected for the number of rows (Holm). Beside it stands p of the row alone.

    Example: diffscope compare old/result.json new/result.json --fail-if "change>2%"
    """
    from diffscope.studies.compare.compare import compared

    return compared(old, new)


GATES = Gates(
    "any row; change>2%: and significantly so for all rows together",
    "change>2%",
    lambda values: KEYS,
    lambda record: record["rows"],
    percent=True,
)
WITHOUT = ("overwrite", "quiet")
