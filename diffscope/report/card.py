"""Results of one model as a section of its card: scores in the metadata, then each result's tables and verdict.

Of paths only the last part is told: a card is for others to read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from diffscope.errors import DataError
from diffscope.hub.card import model_card
from diffscope.names import visible
from diffscope.report import markdown
from diffscope.report.scores import Score
from diffscope.report.text import number
from diffscope.report.views.base import view_of
from diffscope.results import Result

HEADING = "## Features over noise levels, measured by diffscope"
ABOUT = (
    "ICR, the [Invariant Contamination Ratio](https://arxiv.org/abs/2606.09718), is 0 where features depend on the "
    "image alone and 1 where they depend on everything but."
)
DATASET = re.compile(r"hf://datasets/([^/@]+/[^/@]+)")


def card(results: Sequence[Result], name: str | None = None) -> dict[str, Any]:
    """The document, and what stands in its metadata.

    Args:
        results: Of one model.
        name: Of the model; by default that of its checkpoint.

    Returns:
        `name`, `scores` as the metadata have them, and `text`.

    Raises:
        DataError: There are results of several models.
    """
    _require_one_model(results)
    name = visible(name or _name(str(results[0].checkpoint.get("path", ""))))
    scores = [_metadata(result, score) for result in results for score in view_of(result).scores(result)]
    sections = [HEADING, ABOUT, *map(_section, results)]
    return {"name": name, "scores": scores, "text": model_card(name, scores, "\n\n".join(sections))}


def _require_one_model(results: Sequence[Result]) -> None:
    """A training run is a series of checkpoints, and may stand beside any of them."""
    known: dict[str, str] = {}
    for result in results:
        if not result.checkpoints:
            path = str(result.checkpoint.get("path"))
            known.setdefault(result.checkpoint.get("sha256") or path, path)
    if len(known) > 1:
        found = ", ".join(list(known.values())[:3])
        raise DataError(f"results of {len(known)} checkpoints ({found}): a card is of one model; make one for each")


def _name(path: str) -> str:
    """Without folder and ending; of a reference to the Hub the repository's name."""
    if path.startswith("hf://"):
        return path.removeprefix("hf://").split("/")[1].partition("@")[0]
    last = PurePath(path)
    return last.stem if len(last.suffix) in (3, 4, 5, 12) else last.name


def _metadata(result: Result, score: Score) -> dict[str, Any]:
    """Fields of an evaluation on the Hub."""
    data = str(result.data.get("path", ""))
    published = DATASET.match(data)
    name = published[1] if published else _last(data)
    return {
        "dataset_type": published[1] if published else "images",
        "dataset_name": visible(name),
        "dataset_args": {"images": result.data.get("used"), "fingerprint": result.data.get("fingerprint")},
        "metric_type": score.kind,
        "metric_name": visible(score.name),
        "metric_value": score.value,
        "metric_args": {key: visible(value) if isinstance(value, str) else value for key, value in score.at.items()}
        | {"protocol": result.protocol.get("hash"), "diffscope": result.version},
    }


def _section(result: Result) -> str:
    """A heading with names alone, then what a CI run's summary shows."""
    of = " on ".join(filter(None, (_last(str(head.get("path", ""))) for head in (result.checkpoint, result.data))))
    parts = markdown.document(f"diffscope {result.command}: {of}", view_of(result).parts(result, pictured=True))
    return f"{parts}\n{_how(result.protocol, result)}"


def _how(protocol: Mapping[str, Any], result: Result) -> str:
    facts = {
        "images": result.data.get("used"),
        "views": protocol.get("views"),
        "augmentation": protocol.get("augment"),
        "protocol": str(protocol.get("hash"))[:12],
        "diffscope": result.version,
    }
    told = [f"{key} {number(value) if isinstance(value, float) else value}" for key, value in facts.items() if value]
    return markdown.escaped(", ".join(told))


def _last(path: str) -> str:
    """`images` of `/home/me/images/`; a reference to the Hub, or anything else with a colon, as it is."""
    return path if ":" in path else PurePath(path).name
