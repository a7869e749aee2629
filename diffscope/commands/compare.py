"""diffscope compare: the paired difference of two results, or the curves of several in one figure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any

from diffscope.commands.base import Gates
from diffscope.errors import UsageError
from diffscope.options.option import Argument, Option
from diffscope.results import Record

KEYS = ("change", "change_low", "change_high", "t", "p", "p_corrected", "icr_old", "icr_new")

Old = Annotated[str, Argument("An earlier result.json.", metavar="OLD.json", python="str | Path | Result")]
New = Annotated[str, Argument("A later one of the same protocol.", metavar="NEW.json", python="str | Path | Result")]
More = Annotated[
    tuple[Any, ...],
    Argument(
        "Further ones, with --figure.",
        metavar="[MORE.json...]",
        shown="",
        several=True,
        python="Sequence[str | Path | Result]",
        optional=True,
    ),
]
Figure = Annotated[
    bool,
    Option(
        "No test: the ICR of all of them in one figure (in --out), sweeps over noise or tracked runs over their steps; "
        "they may differ in their protocols, which is then said."
    ),
]


def run(old: Old, new: New, more: More = (), figure: Figure = False) -> Record:
    """The paired difference of two results, row by row, with its interval; refused where their protocols disagree.

    Of many rows some differ by chance: a row is called lower or higher, and --fail-if "change>2%" holds, where its p
    is below .05 corrected for the number of rows (Holm). Beside it stands p of the row alone.

    With --figure any number of results are drawn together instead.

    Example: diffscope compare old/result.json new/result.json --fail-if "change>2%"
    """
    if figure:
        from diffscope.studies.compare.together import together

        return together([old, new, *more])
    if more:
        raise UsageError(f"{2 + len(more)} results: differences are of two; several in one picture: `figure=`")
    from diffscope.studies.compare.compare import compared

    return compared(old, new)


def _keys(values: Mapping[str, Any]) -> Collection[str]:
    if values.get("figure"):
        raise UsageError("`fail_if=` is of the differences of two results; leave `figure=` out")
    return KEYS


GATES = Gates(
    "any row; change>2%: and significantly so for all rows together",
    "change>2%",
    _keys,
    lambda record: record["rows"],
    percent=True,
)
WITHOUT = ("overwrite", "quiet")
DRAWS = True
OVER_STEPS = True
