"""Whose neighbours are asked for, and how many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from diffscope.options.option import STATISTICS, Declared, Option
from diffscope.options.settings import REPEATABLE


@dataclass(frozen=True)
class Queries(Declared):
    """The images that are shown and counted with their neighbours."""

    query: Annotated[
        tuple[str, ...],
        Option(
            f"Image to show: its index, or its name inside --data {REPEATABLE}; where that has commas, its index.",
            metavar="IMAGE",
            shown="--rows, chosen by --seed",
        ),
    ] = ()
    rows: Annotated[int, Option("Queries to choose where none is given.", metavar="R", least=1)] = 4
    k: Annotated[int, Option("Neighbours of each query.", metavar="K", least=1)] = 5
    num_queries: Annotated[
        int,
        Option("Images whose neighbours' classes are counted.", group=STATISTICS, metavar="Q", least=1),
    ] = 2000
    clusters: Annotated[bool, Option("Also the views of the queries in the plane of their largest variance.")] = False
