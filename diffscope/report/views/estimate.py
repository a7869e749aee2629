"""What a run would take (`--dry-run`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diffscope.report.parts import Part, Text
from diffscope.report.views.base import View
from diffscope.results import Record


class _View(View[Record]):
    number = "seconds"
    names = ()
    labels = ("passes",)

    def parts(self, shown: Record, pictured: bool = False) -> Iterator[Part]:
        yield Text([*shown["lines"], f"{self.verdict(shown)}; nothing was written."])

    def verdict(self, shown: Record) -> str:
        return f"Protocol {shown['protocol']['hash'][:16]}"

    def records(self, shown: Record) -> list[dict[str, Any]]:
        return [{"passes": shown["passes"], "seconds": shown["seconds"]}]


VIEW = _View()
