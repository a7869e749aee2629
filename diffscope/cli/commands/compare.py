"""diffscope compare: the paired difference of two results."""

from __future__ import annotations

from typing import Annotated

import typer

from diffscope.cli import options

KEYS = ("change", "change_low", "change_high", "t", "p", "p_corrected", "icr_old", "icr_new")


def run(
    old: Annotated[str, typer.Argument(metavar="OLD.json", help="An earlier result.json.", show_default=False)],
    new: Annotated[
        str, typer.Argument(metavar="NEW.json", help="A later one of the same protocol.", show_default=False)
    ],
    json: options.Json = False,
    fail_if: options.FailIfCompared = None,
) -> None:
    """The paired difference of two results, row by row, with its interval; refused where their protocols disagree.

    Of many rows some differ by chance: a row is called lower or higher, and --fail-if "change>2%" holds, where its p
    is below .05 corrected for the number of rows (Holm). Beside it stands p of the row alone.

    Example: diffscope compare old/result.json new/result.json --fail-if "change>2%"
    """
    from diffscope.cli.gates import check, parse
    from diffscope.cli.running import print_result
    from diffscope.results import read_result
    from diffscope.studies.compare.compare import compare

    gates = [parse(text, KEYS, percent=True) for text in fail_if or []]
    found = compare(read_result(old), read_result(new))
    print_result(found, json)
    check(gates, found["rows"])
