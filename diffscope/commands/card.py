"""diffscope card: results as a section of a model's card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from diffscope.options.option import OUTPUT, Argument, Declared, Option
from diffscope.results import Record, Result

Results = Annotated[
    tuple[Any, ...],
    Argument(
        "Results of one model: result.json, or the folders that --out wrote.",
        metavar="RESULT...",
        several=True,
        python="str | Path | Result | Sequence[str | Path | Result]",
    ),
]


@dataclass(frozen=True)
class Naming(Declared):
    """What the results do not say."""

    name: Annotated[
        str | None,
        Option("Of the model, in the metadata.", group=OUTPUT, metavar="NAME", shown="its checkpoint's"),
    ] = None


def run(results: Results, naming: Naming) -> Record:
    """Results as a section of a model's card: Markdown, with metadata that the Hugging Face Hub reads.

    It goes to stdout; nothing is uploaded.

    Example: diffscope card sweep/ track/ > card.md
    """
    from diffscope.report.card import card
    from diffscope.results import read_result

    return Record("card", card([one if isinstance(one, Result) else read_result(one) for one in results], naming.name))


WITHOUT = ("out", "overwrite", "quiet")
