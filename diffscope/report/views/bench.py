"""Throughput on this machine."""

from __future__ import annotations

from typing import Any

from diffscope.report import benchmark
from diffscope.report.cells import labelled
from diffscope.report.terminal import Console
from diffscope.report.views.base import View
from diffscope.results import Record


class _View(View[Record]):
    number = "share"
    names = ("stage",)
    labels = ()

    def show(self, shown: Record, console: Console, pictured: bool = False) -> None:
        benchmark.print_benchmark(shown, console)

    def verdict(self, shown: Record) -> str:
        return " ".join(benchmark.verdicts(shown)[0])

    def where(self, shown: Record) -> str:
        return f"{shown['checkpoint']['path']} on {shown['data']['path']}"

    def quiet(self, shown: Record) -> list[str]:
        return [labelled(shown, (), (), "share")]

    def records(self, shown: Record) -> list[dict[str, Any]]:
        return [dict(stage) for stage in shown["stages"]]


VIEW = _View()
