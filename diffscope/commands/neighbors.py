"""diffscope neighbors: what lies near an image by the invariant part of its features, and by the residual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from diffscope.commands.base import Gates
from diffscope.measure.study import Study
from diffscope.options.beside import Beside
from diffscope.options.option import IMAGES, SPEED, STATISTICS, Argument, Option
from diffscope.options.settings import Data, Loading, Settings, count, memory
from diffscope.options.signature import Without
from diffscope.studies.neighbors.options import Queries

Checkpoints = Annotated[
    tuple[Any, ...],
    Argument(
        "A checkpoint, or several of one run, or their folder.",
        metavar="CKPT...",
        several=True,
        python="str | Path | Denoiser | Sequence[str | Path]",
    ),
]
KEYS = ("same_class", "same_class_se", "same_class_xi", "same_class_xi_se", "chance", "icr", "sigma", "step")


@dataclass(frozen=True)
class NeighborSettings(Settings):
    """As in the paper, and of all images."""

    pool: Annotated[str, Option("flatten, or mean over positions.", choices=("mean", "flatten"), protocol=True)] = (
        "flatten"
    )
    num_images: Annotated[
        int | None, Option("Images, a seeded subset.", group=IMAGES, metavar="N", least=1, read=count, shown="all")
    ] = None
    views: Annotated[
        int,
        Option("Views of each image, the first as it is.", group=STATISTICS, metavar="V", least=1, protocol=True),
    ] = 15
    max_memory: Annotated[
        int | None,
        Option("For the features, such as 8GB.", group=SPEED, metavar="SIZE", read=memory, shown="half of RAM"),
    ] = None


def run(
    checkpoints: Checkpoints,
    data: Data,
    settings: Annotated[NeighborSettings, Without(("num_levels",))],
    queries: Queries,
    loading: Loading,
    beside: Beside,
) -> Study:
    """What lies near an image by the invariant part s of its features, and near a view by the residual ξ?

    A grid of pictures, for several checkpoints one below the other, and the share of neighbours of the query's class.
    ICR beside it is that of diffscope icr, of two views pooled by mean, whatever --views and --pool are. --beside adds
    the neighbours by another encoder, which sees each image as it is.

    Example: diffscope neighbors ckpt.pkl --data images/ --sigma 0.3 --out neighbors/
    """
    from diffscope.measure.opening import open_images
    from diffscope.studies.neighbors.neighbors import open_neighbors

    return open_neighbors(checkpoints, open_images(settings, data), settings, loading, queries, beside)


def _gated(result: Any) -> Sequence[Mapping[str, Any]]:
    """One row a checkpoint: `same_class` is that by s, which is meant to be high."""
    pairs = zip(result.rows[::2], result.rows[1::2], strict=True)
    keys = ("same_class", "same_class_se")
    return [{**by_s, **{key.replace("class", "class_xi"): by_xi[key] for key in keys}} for by_s, by_xi in pairs]


def notes(result: Any, out: object) -> list[str]:
    """Where the pictures are, if they are nowhere."""
    return ["no pictures without `out=DIR`"] if out is None else []


GATES = Gates("any checkpoint", "same_class<0.5", lambda values: KEYS, _gated)
