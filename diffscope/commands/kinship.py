"""diffscope kinship: how alike layers, noise levels, checkpoints and encoders see the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from diffscope.commands.base import Gates
from diffscope.measure.study import Study
from diffscope.options.beside import Beside
from diffscope.options.option import IMAGES, SPEED, Argument, Option
from diffscope.options.settings import Data, Loading, Settings, count, memory
from diffscope.options.signature import Without
from diffscope.studies.kinship.options import Kin

Checkpoints = Annotated[
    tuple[Any, ...],
    Argument(
        "One checkpoint, or several to be compared with each other.",
        metavar="CKPT...",
        several=True,
        python="str | Path | Denoiser | Sequence[str | Path | Denoiser]",
    ),
]
OWN = ("augment", "augment_strength", "views", "reduce")
"""Of a measurement of ICR alone."""


@dataclass(frozen=True)
class KinshipSettings(Settings):
    """As many images as tell representations apart."""

    num_images: Annotated[
        int | None,
        Option("Images, a seeded subset.", group=IMAGES, metavar="N", least=1, read=count, shown="2000, or all"),
    ] = None
    max_memory: Annotated[
        int | None,
        Option("For two representations, such as 8GB.", group=SPEED, metavar="SIZE", read=memory, shown="half of RAM"),
    ] = None


def run(
    checkpoints: Checkpoints,
    data: Data,
    settings: Annotated[KinshipSettings, Without(OWN)],
    kin: Kin,
    loading: Loading,
    beside: Beside,
) -> Study:
    """Do two layers, noise levels, checkpoints or encoders see the same images alike? Linear CKA and CKNNA of each two.

    CKA (unbiased) compares all distances: 1 for the same up to rotation and scale, 0 for unrelated. CKNNA compares the
    nearest neighbours alone; it depends on --num-images and --k. Images are plain, with the noise of their level.

    Example: diffscope kinship ckpt.pkl --data images/ --layer all --sigma 0.3 --out kinship/
    """
    from dataclasses import replace

    from diffscope.measure.opening import open_images
    from diffscope.studies.kinship.kinship import open_kinship

    source = open_images(settings, data)
    chosen = replace(settings, num_images=settings.num_images or min(DEFAULT_IMAGES, len(source)))
    return open_kinship(checkpoints, source, chosen, loading, kin, beside)


DEFAULT_IMAGES = 2000


def _keys(values: Mapping[str, Any]) -> tuple[str, ...]:
    ends = ("", "_se", "_low", "_high")
    return tuple(f"{name}{end}" for name in ("cka", "cknna", "mutual_knn") for end in ends)


GATES = Gates("any pair", "cka<0.5", _keys, lambda result: result.rows)
