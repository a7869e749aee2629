"""The contract of this open folder: a file named after a command, whose VIEW says what there is to see of its results.

A whole member:

    class _View(View[Result]):
        number = "icr"                             # what --quiet prints of a row, and `names` before it

        def parts(self, shown, pictured=False):    # what stdout has: tables first, the verdict last
            yield table({"layer": lambda row: row.layer, "ICR": metric("icr", share)}, shown.rows, left=["layer"])
            yield Text([self.verdict(shown)])

        def verdict(self, shown):                  # one line
            return "enc.8x8_block3: ICR 0.3552 at σ = 0.057"

        def figures(self, shown):                  # pictures by the names of their files
            from diffscope.report.figures import curves    # matplotlib is loaded when something is drawn
            return {"icr": curves.icr(shown)}

        def charts(self, shown):                   # what a page draws, as data
            return [Chart("icr over sigma", "ICR", SIGMA, ICR, ("layer",), [Curve(("mid",), [0.1, 1], [0.4, 0.3])])]

    VIEW = _View()

Views import no sibling: what two of them need stands in `report/`. Results find theirs by their command's name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from diffscope import registry
from diffscope.errors import DataError
from diffscope.options.drawing import Drawing
from diffscope.report import files, html, layout, markdown
from diffscope.report.page import PAGE
from diffscope.report.parts import Part
from diffscope.report.scores import Score
from diffscope.report.terminal import Console
from diffscope.report.text import labelled
from diffscope.results import Record, Result, Shown, dumps

if TYPE_CHECKING:
    from diffscope.report.figures.canvas import Figure
    from diffscope.report.page.charts import Drawn
    from diffscope.report.page.document import Seen

    Figures = Mapping[str, Figure]

S = TypeVar("S", Result, Record)
Records = Sequence[Mapping[str, Any]]


class View(ABC, Generic[S]):
    """What is to be seen of one command's results."""

    number: ClassVar[str] = "icr"
    """Key of a row's main number."""
    names: ClassVar[tuple[str, ...]] = ("layer",)
    """Keys of names that a quiet line begins with."""
    labels: ClassVar[tuple[str, ...]] = ("sigma",)
    """Keys of what else tells rows apart; in a quiet line each stands before its value."""
    logged: ClassVar[tuple[str, ...]] = ("icr", "icr_low", "icr_high")
    """Keys of rows that `--log` draws over training steps, where a row has them."""
    pictures: ClassVar[Mapping[str, str]] = {}
    """Figures that show images, by the names of their files, and what is to be seen: a page holds them as they are."""

    @abstractmethod
    def parts(self, shown: S, pictured: bool = False) -> Iterator[Part]:
        """What there is to read: tables first, the verdict last.

        Args:
            shown: What was found out.
            pictured: Whether there are pictures to look at, so that what they show need not be told.
        """

    @abstractmethod
    def verdict(self, shown: S) -> str:
        """What was found, in one line."""

    def figures(self, shown: S) -> dict[str, Figure]:
        """The pictures, by the names of their files."""
        return {}

    def scores(self, shown: S) -> list[Score]:
        """The few numbers that stand for it, for a model's card."""
        return []

    def charts(self, shown: S) -> Sequence[Drawn]:
        """What a page draws."""
        return ()

    def records(self, shown: S) -> list[dict[str, Any]]:
        """Lines of `result.csv` and of a data frame."""
        return [dict(row) for row in shown.rows] if isinstance(shown, Result) else []

    def where(self, shown: S) -> str:
        """Checkpoint and images, on one line."""
        parts = (
            [str(shown.checkpoint.get("path", "")), str(shown.data.get("path", ""))]
            if isinstance(shown, Result)
            else []
        )
        return " on ".join(part for part in parts if part)

    # --- what no command needs to say for itself

    def show(self, shown: S, console: Console, pictured: bool = False) -> None:
        """Prints the parts, for stdout without `--json`."""
        layout.show(self.parts(shown, pictured), console)

    def markdown(self, shown: S) -> str:
        """The parts for the summary of a CI run."""
        title = ": ".join(filter(None, (f"diffscope {shown.command}", self.where(shown))))
        return markdown.document(title, self.parts(shown, pictured=True))

    def quiet(self, shown: S) -> list[str]:
        """What `--quiet` prints: of each row what tells it apart, and its main number last."""
        return [labelled(row, self.names, self.labels, self.number) for row in self.records(shown)]

    def brief(self, shown: S) -> str:
        """What, where, and the first sentence of the verdict, a line each."""
        rows = self.records(shown)
        what = f"diffscope {shown.command}, {len(rows)} row{'' if len(rows) == 1 else 's'}"
        return "\n".join(line for line in (what, self.where(shown), self.verdict(shown).split(". ")[0]) if line)

    def html(self, shown: S) -> str:
        """A table, the verdict and the first picture, for a notebook."""
        return html.page(self.brief(shown), self.parts(shown), next(iter(self._drawn(shown).values()), None))

    def figure(self, shown: S, **drawing: Any) -> Figure:
        """The first picture, drawn as options of `Drawing` say."""
        for figure in self._drawn(shown, Drawing(**drawing)).values():
            return figure
        raise DataError(f"a result of {shown.command} that has no picture: draw one from to_frame()")

    def images(self, shown: S) -> dict[str, bytes]:
        """The pictures as PNG, by their names."""
        drawn = self._drawn(shown, Drawing())
        if not drawn:
            return {}
        from diffscope.report.figures import canvas

        return {name: canvas.png(figure) for name, figure in drawn.items()}

    def save(
        self, shown: S, folder: Path, figures: bool = True, renewed: float | None = None, **drawing: Any
    ) -> list[Path]:
        """Writes `result.json`, `result.csv`, the pictures and the page; returns the paths.

        Args:
            shown: What was found out.
            folder: Made if it is not there.
            figures: Whether there are to be pictures.
            renewed: Seconds after which an open page loads itself again; None where nothing more is to come.
            drawing: How pictures are drawn, as options of `Drawing`.
        """
        drawn, records = self._drawn(shown, Drawing(**drawing)) if figures else {}, self.records(shown)
        page = partial(self._page, shown, records, renewed=renewed, drawn=drawn)
        return files.write(shown, records, drawn, folder, page)

    def finish(self, shown: S, folder: Path) -> None:
        """Writes the page of a finished result anew, in a folder that holds one that renews itself."""
        if (folder / PAGE).exists():
            files.write_page(self._page(shown, self.records(shown), dumps(shown), folder), folder / PAGE)

    def seen(
        self, shown: S, records: Records, text: str, folder: Path, name: str = "", drawn: Figures | None = None
    ) -> Seen:
        """What a page shows of it.

        Args:
            shown: What was found out.
            records: The lines of its table.
            text: Of its `result.json`.
            folder: Where its pictures are.
            name: What tells it apart from other results on the page.
            drawn: Its pictures, where they have just been drawn.
        """
        from diffscope.report.page import document

        pictures = document.pictures_in(folder, self.pictures, drawn or {})
        return document.Seen(
            name,
            shown.command,
            self.where(shown),
            self.verdict(shown),
            list(self.parts(shown, pictured=bool(pictures) or not self.pictures)),
            self.charts(shown),
            records,
            _facts(shown),
            text,
            pictures,
        )

    def _page(
        self,
        shown: S,
        records: Records,
        text: str,
        folder: Path,
        renewed: float | None = None,
        drawn: Figures | None = None,
    ) -> str:
        from diffscope.report.page import document

        return document.page([self.seen(shown, records, text, folder, drawn=drawn)], renewed=renewed)

    def _drawn(self, shown: S, drawing: Drawing | None = None) -> dict[str, Figure]:
        from diffscope.report.figures import canvas

        with canvas.look(drawing):
            return self.figures(shown)


def require_style(drawing: Drawing) -> None:
    """Reads the style file, if there is one, so that a wrong one costs no measurement; UsageError."""
    if drawing.style is not None:
        from diffscope.report.figures import style

        style.read(drawing.style)


def _facts(shown: Shown) -> dict[str, dict[str, str]]:
    """What the numbers depend on, and what measured them."""
    from diffscope.report.page.document import facts_of

    if not isinstance(shown, Result):
        known = {key: value for key, value in shown.to_json().items() if not isinstance(value, list)}
        return {"Record": facts_of(known)}
    warned = {"Warnings": {str(i): line for i, line in enumerate(shown.warnings, start=1)}}
    return {
        "Protocol": facts_of(shown.protocol),
        "Checkpoint": facts_of(shown.checkpoint),
        "Images": facts_of(shown.data),
        "Run": facts_of({"diffscope": shown.version, **shown.timing}),
        **(warned if shown.warnings else {}),
    }


def view_of(shown: Shown) -> View[Any]:
    """The view of the command that found this out."""
    view: View[Any] = registry.member(__package__, shown.command).VIEW
    return view
