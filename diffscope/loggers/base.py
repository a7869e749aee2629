"""The contract of a destination of `--log`: a file in this folder, with two functions, a constant and a class.

    LIBRARY = "wandb"                                       # the package that it needs, as it is imported and installed

    def accepts(spec: str) -> bool: ...                     # cheap, never raises: is this spelling mine?
    def open(spec: str, title: str) -> Destination: ...     # ready to be told of results

The library is imported in `open`, so that it is loaded only where it is named. A destination is told plain numbers,
pictures and text; what a result is made into stands once, in `diffscope.loggers`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

EXPECTED = "tensorboard:DIR, wandb[:PROJECT], mlflow[:URI] or trackio[:PROJECT]"
PROJECT = "diffscope"
"""Of runs of our own, where nobody names another."""


class Destination(ABC):
    """Where somebody already looks at numbers. Names are like `diffscope/icr/blocks.13/sigma_0.3`."""

    @abstractmethod
    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to each curve.

        Args:
            step: Of the training, at least 0; of one destination they may come in any order, and more than once.
            values: By the name of the curve; finite.
        """

    @abstractmethod
    def image(self, step: int, name: str, png: bytes) -> None:
        """Shows a picture, in the place of an earlier one of that name.

        Args:
            step: Of the training.
            name: Of the picture.
            png: Its file.
        """

    @abstractmethod
    def text(self, step: int, name: str, text: str) -> None:
        """Shows a text, in the place of an earlier one of that name."""

    @abstractmethod
    def close(self, failed: bool) -> None:
        """Writes what is not written yet, and ends a run of our own; one that was there before goes on.

        Args:
            failed: Whether the command ends in an error.
        """


def rest_of(spec: str) -> str:
    """What follows the name: `runs` of `tensorboard:runs`; empty where nothing does."""
    return spec.partition(":")[2]


def is_named(spec: str, name: str) -> bool:
    """Whether a spelling begins with the name of a destination."""
    return spec.partition(":")[0] == name
