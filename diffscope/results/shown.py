"""What results and records have in common: how they are looked at and kept.

How that is done is the command's view to say, which is found by the command's name, as members of open folders are:
this room imports none.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from diffscope import registry
from diffscope.errors import DataError, DiffscopeError

VIEWS = "diffscope.report.views"


class View(Protocol):
    """What a command's view knows to make of a result (`report/views/base.py`)."""

    def brief(self, shown: Any) -> str:
        """One to three lines."""

    def html(self, shown: Any) -> str:
        """A table, the verdict and the picture."""

    def figure(self, shown: Any, **drawing: Any) -> Any:
        """The first picture, as a matplotlib figure."""

    def save(self, shown: Any, folder: Path, **drawing: Any) -> list[Path]:
        """Writes files, and returns their paths."""

    def records(self, shown: Any) -> list[dict[str, Any]]:
        """The lines of its table, for a data frame and for CSV."""


class Shown:
    """What a result and a record have in common: how they are looked at and kept."""

    command: str

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The contents of `result.json`."""

    def __repr__(self) -> str:
        try:
            return self._view().brief(self)
        except DataError:
            return f"{type(self).__name__} of {self.command!r}"

    def _repr_html_(self) -> str:
        return self._view().html(self)

    def to_frame(self) -> Any:
        """The rows as a pandas data frame, a column for each of their keys.

        Raises:
            DiffscopeError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise DiffscopeError("to_frame() needs pandas, which is not installed: pip install pandas") from None
        return pandas.DataFrame(self._view().records(self))

    def plot(
        self, *, size: float | str | None = None, style: str | Path | None = None, step_scale: str = "linear"
    ) -> Any:
        """The command's picture as a matplotlib figure, which is not shown.

        Args:
            size: Its width: column (3.25 inches), page (6.75), or a number of inches.
            style: A style file of matplotlib's, laid over ours.
            step_scale: Of the axis of training steps: linear or log.

        Raises:
            DataError: There is nothing to draw.
            UsageError: What is said of the drawing is not understood.
        """
        return self._view().figure(self, size=size, style=style, step_scale=step_scale)

    def save(
        self,
        folder: str | Path,
        *,
        format: str | Sequence[str] = ("png", "svg"),
        size: float | str | None = None,
        style: str | Path | None = None,
        step_scale: str = "linear",
    ) -> list[Path]:
        """Writes what `--out` does: `result.json`, `result.csv` and the pictures.

        Args:
            folder: Made if it is not there; files of the same names are replaced.
            format: Of the pictures: png, svg, pdf, or a list of them.
            size: As of `plot`.
            style: As of `plot`.
            step_scale: As of `plot`.

        Returns:
            The paths written, `result.json` first.

        Raises:
            StoreError: The folder cannot be written to.
            UsageError: What is said of the drawing is not understood.
        """
        return self._view().save(self, Path(folder), format=format, size=size, style=style, step_scale=step_scale)

    def _view(self) -> View:
        names = registry.members(VIEWS)
        if self.command not in names:
            raise DataError(
                f"a result of {self.command!r}: expected one of {', '.join(names)}; take the diffscope that wrote it"
            )
        view: View = registry.member(VIEWS, self.command).VIEW
        return view
