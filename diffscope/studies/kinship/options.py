"""What a comparison of representations is told beside the settings of a measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from diffscope.options.option import STATISTICS, Declared, Option


@dataclass(frozen=True)
class Kin(Declared):
    """How two representations are compared."""

    k: Annotated[int, Option("Nearest neighbours of CKNNA.", group=STATISTICS, metavar="K", least=2)] = 10
