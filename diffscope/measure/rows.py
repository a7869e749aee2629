"""Rows of numbers from moments: what is read once the network has run, whoever ran it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from diffscope.errors import EstimationError
from diffscope.extraction import SPACING
from diffscope.measure.job import Job, Level
from diffscope.metrics import base as metrics
from diffscope.metrics.base import Context, measure_all
from diffscope.moments import Moments
from diffscope.results import FEW_FEATURES, Row, finite

FEWEST_FEATURES = 16
"""Of a layer that is ranked among others; a convention."""

AddToRow = Callable[[Row, Moments | None], Row]
"""What a study adds to a row from the moments behind it; None where its layer was refused before any were made."""


class Features(NamedTuple):
    """A layer, pooled."""

    layer: str
    width: int
    positions: int
    """Averaged over."""
    refused: str | None
    """Why the images do not determine its covariance; None where they do."""


@dataclass(frozen=True)
class Outline:
    """What rows say beside what is in moments; plain JSON both ways, so that they can be read without the network."""

    features: tuple[Features, ...]
    """In the order of execution. Moments are numbered without those that were refused."""
    levels: tuple[Level, ...]
    spacing: float
    """Of neighbouring numbers at 1, of what the network computed in."""
    reduce: bool
    images: int
    blocks: int
    channels: int
    """Of the network's input."""

    @property
    def measured(self) -> list[Features]:
        """Those that were not refused, as moments are numbered."""
        return [one for one in self.features if one.refused is None]

    def to_json(self) -> dict[str, Any]:
        """As a plain record."""
        return asdict(self) | {"features": [one._asdict() for one in self.features]}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Outline:
        """What `to_json` gave."""
        features = tuple(Features(**one) for one in record["features"])
        return Outline(**{**record, "features": features, "levels": tuple(Level(**one) for one in record["levels"])})


def outline_of(job: Job, refused: Mapping[str, str]) -> Outline:
    """`refused`: layer → why."""
    plan = job.plan
    features = tuple(
        Features(
            layer.name,
            plan.width(layer),
            layer.positions if plan.pool == "mean" else 1,
            refused.get(layer.name),
        )
        for layer in plan.layers
    )
    return Outline(
        features=features,
        levels=job.levels,
        spacing=SPACING[plan.precision],
        reduce=job.settings.reduce,
        images=len(job.indices),
        blocks=job.blocks,
        channels=job.denoiser.space.channels,
    )


def read_rows(
    outline: Outline,
    cells: Sequence[tuple[int, int]],
    moments: Callable[[int, int], Moments],
    add: AddToRow | None = None,
) -> tuple[list[Row], list[EstimationError]]:
    """A row for each (level, layer), from its moments; nulls with the reason where there is no number."""
    rows, failures = [], []
    for number, place in cells:
        level, features = outline.levels[number], outline.measured[place]
        found = moments(number, place)
        try:
            measured = measure_all(found, Context(outline.spacing, features.positions, outline.reduce))
        except EstimationError as error:
            failures.append(error)
            row = null_row(features.layer, level, found.total.n, found.d, note_of(error))
        else:
            values = {key: _plain(value) for key, value in measured.values.items()}
            n, d = int(values.pop("n")), int(values.pop("d"))
            notes = (*_few_features(outline, features), *measured.notes)
            row = Row(_place(features.layer, level), n=n, d=d, **values, notes=notes)
        rows.append(row if add is None else add(row, found))
    return rows, failures


def _few_features(outline: Outline, features: Features) -> list[str]:
    if features.width >= FEWEST_FEATURES and features.width > outline.channels:
        return []
    return [
        f"{FEW_FEATURES}: a layer of fewer than {FEWEST_FEATURES} features, or of no more than its input has channels, "
        "holds mean colours rather than features: it is neither ranked nor recommended"
    ]


def all_rows(outline: Outline, rows: Sequence[Row], used: int, add: AddToRow | None = None) -> tuple[Row, ...]:
    """With those of the layers that were refused, in the order of execution, by rising noise; `used` images."""
    nulls = [
        null_row(one.layer, level, used, one.width, f"too_few_images: {one.refused}")
        for one in outline.features
        if one.refused is not None
        for level in outline.levels
    ]
    order = {one.layer: number for number, one in enumerate(outline.features)}
    whole = [*rows, *(nulls if add is None else [add(row, None) for row in nulls])]
    return tuple(sorted(whole, key=lambda row: (order[row.layer], row.sigma)))


def require_one(rows: Sequence[Row], failures: Sequence[EstimationError]) -> None:
    """The first failure, where there was nothing else."""
    if rows and len(failures) == len(rows):
        raise failures[0]


def null_row(layer: str, level: Level, n: int, d: int, note: str) -> Row:
    """A row whose numbers could not be computed, with the reason."""
    keys = [key for key in metrics.row_keys() if key not in ("n", "d")]
    return Row(_place(layer, level), n=n, d=d, **dict.fromkeys(keys), notes=(note,))


def _place(layer: str, level: Level) -> dict[str, Any]:
    return {"layer": layer, "sigma": level.sigma, "sigma_requested": level.requested, "t": level.t}


def row_keys() -> set[str]:
    """What a gate on a row may ask for: its numbers."""
    return {"sigma", "t", *metrics.scalar_keys()}


def note_of(error: EstimationError) -> str:
    """`too_few_images: …` of TooFewImages."""
    name = type(error).__name__
    code = "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
    return f"{code}: {error}"


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [float(v) for v in value]
    return finite(None if value is None else float(value))
