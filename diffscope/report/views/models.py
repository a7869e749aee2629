"""Published checkpoints by short name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from diffscope.report.parts import Columns, Part, Text, table
from diffscope.report.views.base import View
from diffscope.results import Record

COLUMNS: Columns = {
    "name": lambda model: str(model["name"]),
    "to be had as": lambda model: str(model["reference"] or model["file"]),
    "parameters": lambda model: "" if model["parameters"] is None else f"{model['parameters']:,}",
    "VAE": lambda model: "yes" if model["needs"] else "",
    "licence": lambda model: str(model["licence"] or ""),
}


class _View(View[Record]):
    number = "parameters"
    names = ("name",)
    labels = ()

    def parts(self, shown: Record, pictured: bool = False) -> Iterator[Part]:
        models = shown["models"]
        needed = dict.fromkeys(option for model in models for option in model["needs"])
        yield table(
            COLUMNS,
            models,
            left=["name", "to be had as", "VAE", "licence"],
            dropped_first=[["licence"], ["parameters"], ["VAE"]],
            beneath=[f"VAE: works on latents, and needs {option}" for option in needed],
        )
        where: dict[str, list[str]] = {}
        for model in models:
            if model["reference"] is None:
                where.setdefault(model["where"], []).append(model["name"])
        yield Text([f"{_family(names)}: {place}" for place, names in where.items()], "Files to download first:")
        yield Text([self.verdict(shown), "What is left empty is not known here; `diffscope inspect` tells it."])

    def verdict(self, shown: Record) -> str:
        fetched = sum(model["reference"] is not None for model in shown["models"])
        rest = len(shown["models"]) - fetched
        return f"{fetched} are fetched from the Hub by their names; {rest} are read as local files."

    def records(self, shown: Record) -> list[dict[str, Any]]:
        return [_record(model) for model in shown["models"]]


VIEW = _View()


def _record(model: Mapping[str, Any]) -> dict[str, Any]:
    return {**model, "needs": " ".join(model["needs"])}


def _family(names: list[str]) -> str:
    """`edm:…` of several, the name itself of one."""
    return names[0] if len(names) == 1 else f"{names[0].partition(':')[0]}:…"
