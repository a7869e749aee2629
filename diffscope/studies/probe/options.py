"""What a probe is told beside the settings of a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from diffscope.errors import UsageError
from diffscope.options.option import STATISTICS, Declared, Option

RANK = 5
"""Of a class's subspace."""


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"`label_noise={text}`: expected shares such as 0.2,0.4") from None


@dataclass(frozen=True)
class Probing(Declared):
    """How features are probed."""

    test_share: Annotated[float, Option("Of --data, kept for the test; seeded.", group=STATISTICS, metavar="F")] = 0.25
    head: Annotated[
        str,
        Option(
            "logistic, or batchnorm-linear: batch normalisation, then a linear layer, by AdamW; seeded.",
            group=STATISTICS,
            choices=("logistic", "batchnorm-linear"),
        ),
    ] = "logistic"
    solver: Annotated[
        str,
        Option("sklearn, or torch: the same minimum, for large sets.", group=STATISTICS, choices=("sklearn", "torch")),
    ] = "sklearn"
    knn: Annotated[int, Option("Neighbours that vote.", group=STATISTICS, metavar="K", least=1)] = 20
    label_noise: Annotated[
        tuple[float, ...],
        Option(
            "Also train with these shares of labels replaced, such as 0.2,0.4.",
            group=STATISTICS,
            metavar="F,F",
            shown="",
            read=_share,
        ),
    ] = ()
    ensemble: Annotated[
        int,
        Option("Also the soft vote of N neighbouring levels, N odd.", group=STATISTICS, metavar="N", least=1),
    ] = 1
    posterior: Annotated[bool, Option("Also probe the denoised images.")] = False
    absolute: Annotated[
        bool,
        Option("With --posterior: also their absolute values, for data as likely as their negative.", group=STATISTICS),
    ] = False
    distance_to_best: Annotated[
        bool,
        Option("Also the sliced Wasserstein distance of features to those of the best level.", group=STATISTICS),
    ] = False
    rank: Annotated[
        int, Option("Directions of a class's subspace, for CSNR.", group=STATISTICS, metavar="R", least=1)
    ] = RANK

    def __post_init__(self) -> None:
        """Checks shares and the ensemble."""
        super().__post_init__()
        if not 0 < self.test_share < 1:
            raise UsageError(f"`test_share={self.test_share:g}`: expected a share between 0 and 1")
        for share in self.label_noise:
            if not 0 < share < 1:
                raise UsageError(f"`label_noise={share:g}`: expected shares between 0 and 1, such as 0.2,0.4")
        if self.head != "logistic" and self.solver != "sklearn":
            raise UsageError(f"`solver={self.solver}` is of `head=logistic`, not of `head={self.head}`; drop one")
        if self.ensemble % 2 == 0:
            raise UsageError(f"`ensemble={self.ensemble}`: expected an odd number, a level and its neighbours")
        if self.absolute and not self.posterior:
            raise UsageError("`absolute=`: its values are those of the denoised images; add `posterior=`")
