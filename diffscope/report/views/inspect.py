"""What a checkpoint is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from diffscope.report.parts import Columns, Facts, Part, Text, table
from diffscope.report.text import number
from diffscope.report.views.base import View
from diffscope.results import Record


class _View(View[Record]):
    number = "features"
    names = ("name",)
    labels = ()

    def parts(self, shown: Record, pictured: bool = False) -> Iterator[Part]:
        columns: Columns = {
            "layer": lambda layer: str(layer["name"]),
            "shape": lambda layer: " x ".join(str(size) for size in layer["shape"]),
            "features": lambda layer: str(layer["features"]),
            "FLOPs so far": lambda layer: "" if layer.get("share") is None else f"{layer['share']:.0%}",
            "": lambda layer: _marks(layer, shown["default_layer"]),
        }
        yield Facts(_facts(shown))
        yield table(columns, shown["layers"], left=["layer", ""], dropped_first=[["FLOPs so far"]])
        if cited := [f"* {layer['name']}: {layer['cited']}" for layer in shown["layers"] if layer.get("cited")]:
            yield Text(cited)
        if warnings := shown.get("warnings"):
            yield Text([f"warning: {text}" for text in warnings])

    def verdict(self, shown: Record) -> str:
        return f"{shown['class']} of family {shown['family']}, {shown['parameters']:,} parameters"

    def where(self, shown: Record) -> str:
        return str(shown["path"])

    def records(self, shown: Record) -> list[dict[str, Any]]:
        return [dict(layer) for layer in shown["layers"]]


VIEW = _View()


def _marks(layer: Mapping[str, Any], default: str) -> str:
    return " ".join([*(["default"] if layer["name"] == default else []), *(["*"] if layer.get("cited") else [])])


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and text of every fact, in the order in which a user asks."""
    return [
        ("file", f"{record['path']} ({record['container']})"),
        ("family", f"{record['family']} ({record['evidence']})"),
        ("class", f"{record['class']}, {record['parameters']:,} parameters"),
        ("weights", f"{record['weights']} ({record['weights_reason']})"),
        ("step", _step(record)),
        ("input", _input(record["input"])),
        ("noise", _noise(record["noise"])),
        ("classes", _classes(record["classes"])),
        *([("cost", f"{number(record['gflops'])} GFLOPs an image")] if _costs_alone(record) else []),
        ("default layer", record["default_layer"]),
        ("constructor", " ".join(f"{key}={_value(value)}" for key, value in record["constructor"].items())),
        *((name, record[name]) for name in ("revision", "sha256") if record.get(name)),
        *([("checksums", _checksums(record["checksums"]))] if record.get("checksums") is not None else []),
    ]


def _costs_alone(record: Mapping[str, Any]) -> bool:
    """Whether the cost of a pass is known, but not how much of it lies before each layer."""
    return bool(record.get("gflops")) and all(layer.get("share") is None for layer in record["layers"])


def _checksums(count: int) -> str:
    return (
        f"{count:,} compared, all of them right" if count else "none in this kind of file; --sha256 tells copies apart"
    )


def _step(record: Mapping[str, Any]) -> str:
    if record["step"] is None:
        return "the file does not say"
    return f"{record['step']:,} {record['step_unit'] or ''}".rstrip()


def _input(space: Mapping[str, Any]) -> str:
    """Channels and side of what the network takes, and of the images where those differ (latent models)."""
    text = f"{space['kind']}, {space['channels']} x {space['side']} x {space['side']}"
    return text if space["image_side"] == space["side"] else f"{text}, from images of side {space['image_side']}"


def _noise(noise: Mapping[str, Any]) -> str:
    low = "above 0" if not noise["sigma_min"] else f"from {number(noise['sigma_min'])}"
    high = "without upper limit" if noise["sigma_max"] is None else f"to {number(noise['sigma_max'])}"
    levels = ", discrete levels" if noise["discrete"] else ""
    return f"σ {low} {high}{levels}; the network is fed {noise['native']}"


def _classes(classes: Mapping[str, Any]) -> str:
    if not classes["count"]:
        return "none (unconditional)"
    trained = {True: "trained", False: "not trained", None: "not known whether trained"}[classes["null_trained"]]
    return f"{classes['count']}, {trained} without a class"


def _value(value: Any) -> str:
    """As `--config` takes it back: a list without blanks; of a library's own arguments those that are set."""
    if isinstance(value, Mapping):
        said = {key: part for key, part in value.items() if part is not None and part is not False}
        return f"({' '.join(f'{key}={_value(part)}' for key, part in said.items())})"
    return ",".join(str(part) for part in value) if isinstance(value, (list, tuple)) else str(value)
