"""What a network of one's own does with noisy images, read in every way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from diffscope.report.parts import Columns, Facts, Part, Text, table
from diffscope.report.text import number
from diffscope.report.views.base import View
from diffscope.report.words import network as words
from diffscope.results import Record


class _View(View[Record]):
    number = "left"
    names = ("predicts", "noise")
    labels = ("sigma",)

    def parts(self, shown: Record, pictured: bool = False) -> Iterator[Part]:
        yield Facts(_facts(shown))
        columns: Columns = {
            "read as": lambda row: " ".join(filter(None, (row["predicts"], row["noise"]))),
            **{f"σ = {number(sigma)}": _left(place) for place, sigma in enumerate(shown["sigmas"])},
            "mean": lambda row: number(row["mean"]),
            "nearer": lambda row: f"{sum(row['nearer'])} of {len(row['nearer']) * shown['data']['used']}",
            "": lambda row: "as said" if row["chosen"] else "",
        }
        beneath = [
            "Noise left in the denoised images, of 1 in the noisy ones; and how many came nearer to the clean image."
        ]
        yield table(columns, shown["rows"], left=["read as", ""], beneath=beneath)
        yield Text([words.layers(shown)], "Layers:")
        yield Text([self.verdict(shown)], "Prediction:")

    def verdict(self, shown: Record) -> str:
        return words.verdict(shown)

    def where(self, shown: Record) -> str:
        return f"{shown['path']} on {shown['data']['path']}"

    def records(self, shown: Record) -> list[dict[str, Any]]:
        return [
            {"predicts": row["predicts"], "noise": row["noise"] or shown["noise"], "sigma": sigma, "left": left}
            for row in shown["rows"]
            for sigma, left in zip(shown["sigmas"], row["left"], strict=True)
        ]


VIEW = _View()


def _left(place: int) -> Any:
    return lambda row: number(row["left"][place])


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    made = record["constructor"]
    sources = ", ".join(f"{name} (sha256 {digest[:12]}…)" for name, digest in made["sources"].items())
    times = ", ".join(f"{time:.4g}" for time in record["times"])
    return [
        ("network", f"{record['class']} of {sources}, {record['parameters']:,} parameters"),
        ("weights", f"{record['weights']} ({record['weights_reason']})"),
        ("images", f"{record['data']['used']} of {record['data']['path']}"),
        ("call", f"{made['call']}, with t = {times}; {record['noise_variable']}"),
        ("input", " x ".join(map(str, record["input"]))),
        ("output", " x ".join(map(str, record["output"]))),
    ]
