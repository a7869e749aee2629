"""One line of a result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

VARIED = ("augment", "num_images")
"""What one result may hold several of."""
FEW_FEATURES = "few_features"
"""Code of the note on a layer that is not ranked."""
HEAD = ("checkpoint", "step", *VARIED, "layer", "sigma", "sigma_requested", "t", "n", "d")
"""Keys that stand first in a row, in this order; `notes` stand last."""
OPTIONAL = ("checkpoint", *VARIED, "sigma_requested")
"""Those that are left out where they are None; `step` with `checkpoint`."""


class Row(Mapping[str, Any]):
    """One line of a result: a mapping with the keys and values of `result.json`.

    What most rows have can be read as an attribute too. Metrics are numbers, None where one could not be computed;
    `replicates` and `lambda` are lists.
    """

    layer: str
    sigma: float
    """The noise-to-signal ratio that was used."""
    t: float
    """The same in the model's own noise variable."""
    n: int
    """Images."""
    d: int
    """Features."""
    sigma_requested: float | None
    """Where the model has discrete levels and another one was asked for."""
    checkpoint: str | None
    """The path, in a result of several checkpoints."""
    step: int | None
    """How far training was, there."""
    augment: str | None
    """In a result of several augmentations."""
    num_images: int | None
    """In a result of several numbers of images: how many were asked for."""

    __slots__ = ("_record",)

    def __init__(self, record: Mapping[str, Any] | None = None, /, **values: Any) -> None:
        known = {**(record or {}), **values}
        left_out = {key for key in OPTIONAL if known.get(key) is None}
        left_out |= {"step"} if "checkpoint" in left_out else set()
        head = {key: known[key] for key in HEAD if key in known and key not in left_out}
        notes = {"notes": list(known["notes"])} if "notes" in known else {}
        rest = {key: value for key, value in known.items() if key not in (*HEAD, "notes")}
        self._record: dict[str, Any] = {**head, **rest, **notes}

    def __getitem__(self, key: str) -> Any:
        return self._record[key]

    def get(self, key: str, default: Any = None, /) -> Any:
        """The value of a key; that of the base class takes three times as long, and of long runs there are many."""
        return self._record.get(key, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._record)

    def __len__(self) -> int:
        return len(self._record)

    def __repr__(self) -> str:
        return f"Row({self._record})"

    if not TYPE_CHECKING:  # a type checker knows the attributes that are declared, and no others

        def __getattr__(self, name: str) -> Any:
            if not name.startswith("_") and name in self._record:
                return self._record[name]
            if name in (*OPTIONAL, "step"):
                return None
            raise AttributeError(f"a row without {name!r}")

    @property
    def notes(self) -> tuple[str, ...]:
        """`code: sentence`, why a value is null or to be read with care."""
        return tuple(self._record.get("notes", ()))

    @property
    def metrics(self) -> dict[str, Any]:
        """What was measured, without what says where, and without the notes."""
        return {key: value for key, value in self._record.items() if key not in (*HEAD, "notes")}

    @property
    def is_ranked(self) -> bool:
        """Whether its layer has enough features to be ranked among layers."""
        return not has_few_features(self.notes)

    def having(self, **values: Any) -> Row:
        """The same row with other or further values."""
        return Row(self._record, **values)

    def to_json(self) -> dict[str, Any]:
        """The row as `result.json` has it."""
        return dict(self._record)


def has_few_features(notes: tuple[str, ...]) -> bool:
    """Whether they say that a layer is not to be ranked."""
    return any(note.startswith(f"{FEW_FEATURES}:") for note in notes)
