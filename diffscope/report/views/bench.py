"""Throughput on this machine: the rate of each stage, and what a sweep would take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from diffscope.report.parts import Columns, Facts, Part, Table, Text, table
from diffscope.report.text import NULL, labelled, number
from diffscope.report.views.base import View
from diffscope.results import Record

UNITS = {"image": "images", "pass": "passes", "level": "images x levels"}
OPERATIONS = {
    "convolution": "convolution (3×3, 256 to 256 channels, 32×32)",
    "linear": "matrix product (1152 to 4608)",
}
STAGES: Columns = {
    "stage": lambda stage: str(stage["stage"]),
    "a second": lambda stage: _rate(stage["per_second"]),
    "": lambda stage: UNITS[stage["unit"]],
    "ms each": lambda stage: number(1000 * stage["seconds"]),
    "share of a sweep": lambda stage: _percent(stage["share"]),
}


class _View(View[Record]):
    number = "share"

    def parts(self, shown: Record, pictured: bool = False) -> Iterator[Part]:
        yield Facts(_facts(shown))
        yield table(STAGES, shown["stages"], left=["stage", ""], dropped_first=[["ms each"]])
        yield Table(["images a batch", "passes a second", ""], _batches(shown), left=[""])
        for heading, text in _verdicts(shown):
            yield Text([text], heading)

    def verdict(self, shown: Record) -> str:
        return " ".join(_verdicts(shown)[0])

    def where(self, shown: Record) -> str:
        return f"{shown['checkpoint']['path']} on {shown['data']['path']}"

    def quiet(self, shown: Record) -> list[str]:
        return [labelled(shown, (), (), self.number)]

    def records(self, shown: Record) -> list[dict[str, Any]]:
        return [dict(stage) for stage in shown["stages"]]


VIEW = _View()


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and text of what was measured, and on what."""
    machine, settings, network = record["machine"], record["settings"], record["checkpoint"]
    device = machine["device_name"] or machine["device"]
    cores = f"{_several(machine['cores'], 'core')}, {_several(machine['threads'], 'thread')}"
    layers = settings["layers"]
    to = layers[-1] if len(layers) == 1 else f"{layers[-1]}, {len(layers)} layers"
    return [
        ("machine", f"{machine['cpu']}, {cores}; torch {machine['torch']} on {device}, {settings['precision']}"),
        ("network", f"{network['class']}, {network['parameters']:,} parameters, to {to}; {network['path']}"),
        ("images", f"{record['data']['path']} ({record['data']['count']:,})"),
    ]


def _batches(record: Mapping[str, Any]) -> list[list[str]]:
    """A line a batch size, with the marks of the sweep's own and of the fastest, or why there is no rate."""
    sizes = record["batch_size"]
    marks = {sizes["best"]: "fastest"}
    marks[sizes["used"]] = ", ".join(["this sweep's", *([marks[sizes["used"]]] if sizes["used"] in marks else [])])
    return [
        [
            f"{tried['images']:,}",
            NULL if tried["passes_per_second"] is None else _rate(tried["passes_per_second"]),
            ", ".join(filter(None, (marks.get(tried["images"]), tried["why"]))),
        ]
        for tried in sizes["tried"]
    ]


def _verdicts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Heading and sentence: what holds a sweep up, how near the machine's limit it is, batch size, and time."""
    return [
        ("Bottleneck:", _bottleneck(record)),
        ("Share of the machine's limit:", _limit(record)),
        ("Batch size:", _batch_size(record)),
        ("Your sweep:", _forecast(record)),
    ]


def _bottleneck(record: Mapping[str, Any]) -> str:
    name, outside = record["bottleneck"], record["share_outside"]
    (share,) = (stage["share"] for stage in record["stages"] if stage["stage"] == name)
    text = f"{name}, with {_percent(share)} of a sweep's time"
    if name == "network":
        return f"{text}; all that is not the network takes {_percent(outside)}."
    return f"{text}; all that is not the network takes {_percent(outside)}. {REMEDY[name]}"


REMEDY = {
    "decode": "More --workers, or the images at the model's size, would help.",
    "views": "A shorter --augment, or more noise levels for the same views, would help.",
    "VAE": "More noise levels for the same views cost no more of it.",
    "moments": "Fewer layers at a time, or --pool mean, would help.",
}


def _limit(record: Mapping[str, Any]) -> str:
    limit, network = record["limit"], record["network"]
    bounds = " and ".join(f"{_flops(limit[name])} in a large {text}" for name, text in OPERATIONS.items())
    machine = f"this machine sustains {bounds}"
    if record["share"] is None:
        return f"{NULL}. The walk to {network['layer']} has neither convolutions nor matrix products; {machine}."
    against = "convolution" if limit["operation"] == "convolution" else "matrix product"
    return (
        f"{record['share']:.2f} of its best {against}. The walk to {network['layer']} computes "
        f"{_flops(network['flops_per_second'])}; {machine}."
    )


def _batch_size(record: Mapping[str, Any]) -> str:
    sizes = record["batch_size"]
    used, advised, gain = sizes["used"], sizes["recommended"], sizes["gain"]
    if gain is None:
        return f"{used} took too much time or memory to be tried; of the others, {advised} is the fastest."
    if advised == used:
        return f"{used} is right; no other is more than 3 % faster."
    return f"--batch-size {advised}: {_percent(gain)} faster than {used}."


def _forecast(record: Mapping[str, Any]) -> str:
    forecast = record["forecast"]
    levels = _several(forecast["levels"], "noise level")
    return (
        f"{forecast['images']:,} images × {_several(forecast['views'], 'view')} × {levels} would take about "
        f"{_duration(forecast['seconds'])} here, beside reading the files and working out the numbers."
    )


def _duration(seconds: float) -> str:
    """In the largest unit of which there are two: 90 s, 45 min, 30 h, 3 days."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{number(seconds / length, 2)} {unit}"
    return f"{number(seconds, 2)} s"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else number(value)


def _flops(value: float) -> str:
    return f"{number(value / 1e12)} TFLOP/s" if value >= 1e12 else f"{number(value / 1e9)} GFLOP/s"


def _percent(value: float) -> str:
    if 0 < value < 0.001:
        return "<0.1 %"
    return f"{100 * value:.0f} %" if value >= 0.0995 else f"{100 * value:.2g} %"


def _several(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
