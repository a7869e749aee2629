"""Names of the files that guided-diffusion and improved-diffusion write: all that says what is in them.

`modelNNNNNN.pt` are the weights in training, `ema_RATE_NNNNNN.pt` their average of one rate, of which there may be
several side by side, `optNNNNNN.pt` the optimiser's state. The files themselves are bare state dicts.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

_WEIGHTS = re.compile(r"(?:model|ema_(0\.[0-9]+|1\.0)_)([0-9]{6,12})\.(?:pt|safetensors)")
_OPTIMISER = re.compile(r"opt[0-9]{6,12}\.pt")


@dataclass(frozen=True)
class RunFile:
    """What a file's name says."""

    rate: str | None
    """Of the average, as the name spells it; None for the weights in training."""
    step: int

    @property
    def weights(self) -> str:
        """Which set of weights it is: ema or model."""
        return "model" if self.rate is None else "ema"

    @property
    def kind(self) -> str:
        """The same in words."""
        return "the raw weights" if self.rate is None else f"an average (EMA) of rate {self.rate}"


def run_file(path: str) -> RunFile | None:
    """Reads the name of a file.

    Args:
        path: Of the file.

    Returns:
        What its name says; None where it is another name.
    """
    found = _WEIGHTS.fullmatch(os.path.basename(path))
    return None if found is None else RunFile(found[1], int(found[2]))


def is_optimiser(path: str) -> bool:
    """Tells whether a name is that of an optimiser's state, which holds no weights."""
    return _OPTIMISER.fullmatch(os.path.basename(path)) is not None
