"""What a track is told beside the settings of every measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from diffscope.errors import UsageError
from diffscope.options.option import IMAGES, OUTPUT, STATISTICS, Declared, Option
from diffscope.options.settings import REPEATABLE, StepFrom
from diffscope.studies.sweep.options import read_share

OUTPUT_KEYS = (
    *("icr_holdout", "icr_holdout_low", "icr_holdout_high"),
    *("loss", "loss_se", "loss_views", "loss_views_se", "loss_holdout", "loss_holdout_se", "freedom"),
)
"""Of rows, where images that were not trained on are measured too, or the output beside the features."""


@dataclass(frozen=True)
class Following(Declared):
    """What belongs to a training run."""

    step_from: StepFrom = None
    holdout: Annotated[
        str | None,
        Option(
            "Images not trained on: the alarm watches their loss; single layers and levels show their ICR, too.",
            group=IMAGES,
            metavar="DATA",
            shown="",
            path=True,
        ),
    ] = None
    num_holdout: Annotated[
        int | None,
        Option(
            "Of --holdout, a seeded subset.",
            group=IMAGES,
            metavar="N",
            least=1,
            shown="128 for the alarm, else as many as are tracked",
        ),
    ] = None
    overlay: Annotated[
        str | None,
        Option("Numbers you have of the run: a column step, any others beside it.", metavar="CSV", shown="", path=True),
    ] = None
    column: Annotated[
        tuple[str, ...], Option(f"Of --overlay, this column {REPEATABLE}.", metavar="NAME", shown="all")
    ] = ()
    rule: Annotated[
        str,
        Option(
            "Of the onset: alarm (pools layers and levels, watches the loss), or of each layer and level alone long "
            "(from 30 snapshots on) or short; auto: alarm where no layer and level is chosen.",
            group=STATISTICS,
            choices=("auto", "alarm", "long", "short"),
        ),
    ] = "auto"
    accuracy: Annotated[
        float | None,
        Option(
            "Such as 5%: only as many images, the same for all snapshots, as make ICR of the first one known so well.",
            group=STATISTICS,
            metavar="E",
            shown="",
            read=read_share,
        ),
    ] = None

    def __post_init__(self) -> None:
        """Checks what belongs together."""
        super().__post_init__()
        if self.num_holdout is not None and self.holdout is None:
            raise UsageError(f"`num_holdout={self.num_holdout}`: chooses from `holdout=DATA`, which is not given")
        if self.column and self.overlay is None:
            raise UsageError("`column=` chooses from `overlay=`, which is not given")
        if self.accuracy is not None and not 0 < self.accuracy < 1:
            raise UsageError(f"`accuracy={self.accuracy:g}`: expected a share of ICR such as 5%")


@dataclass(frozen=True)
class Watching(Declared):
    """What the command line alone has: to stay beside a training."""

    watch: Annotated[
        str | None,
        Option("Stay, and measure each snapshot as it appears there.", metavar="DIR", shown="", python=False),
    ] = None
    every: Annotated[float, Option("Between two looks of --watch.", metavar="SECONDS", python=False)] = 5.0
    on_onset: Annotated[
        str | None,
        Option(
            "Run by the shell when memorization sets in, with DIFFSCOPE_STEP, DIFFSCOPE_KEEP and DIFFSCOPE_KEEP_STEP.",
            group=OUTPUT,
            metavar="CMD",
            shown="",
            python=False,
        ),
    ] = None

    def __post_init__(self) -> None:
        """Checks the time between two looks."""
        super().__post_init__()
        if self.every <= 0:
            raise UsageError(f"`every={self.every:g}`: expected seconds, more than 0")
