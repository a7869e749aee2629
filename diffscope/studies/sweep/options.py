"""What a sweep is told beside the settings of every measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from diffscope.errors import UsageError
from diffscope.options.option import STATISTICS, Declared, Option


def _share(text: str) -> float:
    """`2%` or `0.02`."""
    try:
        return float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        raise UsageError(f"accuracy={text}: expected a share of ICR such as 2%") from None


@dataclass(frozen=True)
class Accuracy(Declared):
    """Of a sweep that spends images where they decide."""

    accuracy: Annotated[
        float | None,
        Option(
            "Such as 2%: give more images only to noise levels that still decide where ICR is lowest, until it and the "
            "level are known so well.",
            group=STATISTICS,
            metavar="E",
            shown="",
            read=_share,
            protocol=True,
        ),
    ] = None

    def __post_init__(self) -> None:
        """Checks that it is a share."""
        super().__post_init__()
        if self.accuracy is not None and not 0 < self.accuracy < 1:
            raise UsageError(f"accuracy={self.accuracy:g}: expected a share of ICR such as 2%")
