"""How often nearest neighbours are of the query's class."""

from __future__ import annotations

from diffscope.report.page.charts import Axis, Chart, Curve, Dot, Dots, Drawn, curve
from diffscope.report.words import neighbors as words
from diffscope.results import Result, Row


def charts(result: Result) -> list[Drawn]:
    """By s and by ξ: over the steps of a run, else below each other; none without classes."""
    rows = [row for row in result.rows if row["same_class"] is not None]
    if not rows:
        return []
    title = f"Nearest neighbours of the query's class, of {rows[0]['k']}"
    axis, said = Axis("share of the query's class"), "Bands: 95 % intervals. Line: chance."
    if words.several(result) and all(row["step"] is not None for row in rows):
        x = Axis("training step", whole=True)
        return [
            Chart("same class over steps", title, x, axis, ("by",), [_course(rows, key, name) for key, name in
                  words.SYMBOL.items()], best="highest", reference=rows[0]["chance"], said=said)
        ]  # fmt: skip
    dots = [_dot(row, words.several(result)) for row in rows]
    return [Dots("same class", title, axis, dots, reference=rows[0]["chance"], said=said.replace("Bands", "Bars"))]


def _course(rows: list[Row], component: str, name: str) -> Curve:
    own = sorted((row for row in rows if row["component"] == component), key=lambda row: int(row["step"]))
    return curve((name,), own, lambda row: float(row["step"]), "same_class")


def _dot(row: Row, several: bool) -> Dot:
    name = f"by {words.SYMBOL[row['component']]}"
    share, error = row["same_class"], row["same_class_se"]
    ends = (None, None) if error is None else (share - 1.96 * error, share + 1.96 * error)
    return Dot(f"{words.file_name(row)}, {name}" if several else name, share, *ends)
