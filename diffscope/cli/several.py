"""What `icr` and `sweep` may be asked beside: several values of a setting, a share of the images, an accuracy."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from diffscope.cli.options import Measuring
from diffscope.errors import UsageError

if TYPE_CHECKING:
    from diffscope.studies.sweep.shards import Shard


@dataclass(frozen=True)
class Several:
    """A setting that takes several values in one result."""

    key: str
    """augment or num_images."""
    values: tuple[str | int, ...]


def varied(measuring: Measuring, augment: str, num_images: str | None) -> tuple[Measuring, Several | None]:
    """The options with the command's own two; where one of these has several values, the last stands for all."""
    counts = _counts(num_images)
    if augment == "all" and len(counts) > 1:
        raise UsageError(f"--augment all with --num-images {num_images}: vary one of the two at a time")
    several = Several("num_images", counts) if len(counts) > 1 else None
    if augment == "all":
        from diffscope.studies.sweep.variation import EVERY_AUGMENTATION

        several, augment = Several("augment", EVERY_AUGMENTATION), EVERY_AUGMENTATION[-1]
    return replace(measuring, augment=augment, num_images=counts[-1] if counts else None), several


def _counts(text: str | None) -> tuple[int, ...]:
    """Rising; UsageError where it is not a number or a list of different ones, all above 0."""
    words = [] if text is None else [word.strip() for word in text.split(",")]
    if not all(re.fullmatch(r"\d{1,18}", word) for word in words):
        raise UsageError(f"--num-images {text}: expected a number of images, or several such as 500,1000,2000")
    counts = sorted({int(word) for word in words})
    if counts and counts[0] < 1:
        raise UsageError(f"--num-images {text}: expected at least 1")
    if len(counts) < len(words):
        raise UsageError(f"--num-images {text}: expected each number once")
    return tuple(counts)


def shard_of(
    text: str | None, out: Path | None, several: Several | None, **others: object
) -> tuple[Shard, Path] | None:
    """What --shard asks for and where to; UsageError without --out, or beside what needs the whole."""
    if text is None:
        return None
    from diffscope.studies.sweep.shards import Shard

    shard = Shard.parse(text)
    if out is None:
        raise UsageError(f"--shard {text} needs --out DIR, a folder of its own for each shard")
    if several is not None:
        raise UsageError(f"--shard {text}: one measurement; give --{several.key.replace('_', '-')} one value at a time")
    for name, value in others.items():
        if value:
            raise UsageError(f"--shard {text}: --{name.replace('_', '-')} needs the whole; give it to diffscope merge")
    return shard, out


def accuracy_of(text: str | None, shard: str | None, several: Several | None, self_check: bool) -> float | None:
    """--accuracy as a share; UsageError, also beside what needs all images at all levels."""
    if text is None:
        return None
    if shard is not None or several is not None or self_check:
        other = "shard" if shard else "self-check" if several is None else several.key.replace("_", "-")
        raise UsageError(f"--accuracy {text}: not together with --{other}, which needs all images at all noise levels")
    try:
        return float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        raise UsageError(f"--accuracy {text}: expected a share of ICR such as 2%") from None
