"""What a sweep is told beside the settings of every measurement."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from diffscope.errors import UsageError
from diffscope.options.option import IMAGES, SPEED, STATISTICS, Declared, Option
from diffscope.options.settings import AUGMENTATIONS, DEFAULT_AUGMENTATION, Settings

WINDOW_KEYS = (
    *("icr", "sigma", "t", "low", "high", "sigma_error", "practical_low", "practical_high", "lowest_sigma"),
    "window",
)
"""What a gate on a sweep may ask of a layer's window."""


def read_share(text: str) -> float:
    """`2%` or `0.02`."""
    try:
        return float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        raise UsageError(f"`accuracy={text}`: expected a share of ICR such as 2%") from None


@dataclass(frozen=True)
class Accuracy(Declared):
    """Of a sweep that spends images where they decide."""

    accuracy: Annotated[
        float | None,
        Option(
            "Such as 2%: give more images only to noise levels that still decide where ICR is lowest, until it and the "
            "level are known so well.",
            group=STATISTICS,
            metavar="E",
            shown="",
            read=read_share,
            protocol=True,
        ),
    ] = None

    def __post_init__(self) -> None:
        """Checks that it is a share."""
        super().__post_init__()
        if self.accuracy is not None and not 0 < self.accuracy < 1:
            raise UsageError(f"`accuracy={self.accuracy:g}`: expected a share of ICR such as 2%")


@dataclass(frozen=True)
class SplitHalf(Declared):
    """A check of the estimate on the user's own images."""

    self_check: Annotated[bool, Option("Also from half of the images; the two must agree.", group=STATISTICS)] = False


@dataclass(frozen=True)
class Sharding(Declared):
    """A share of the images, for runs that know nothing of each other."""

    shard: Annotated[
        str | None,
        Option(
            "Measure the I-th of N shares of the images into --out, for diffscope merge.",
            group=SPEED,
            metavar="I/N",
            shown="",
            python=False,
        ),
    ] = None


def _counts(text: str) -> int:
    if not text.strip().isdecimal() or len(text) > 100:  # Python reads no number of thousands of digits
        raise UsageError(f"`num_images={text}`: expected a number of images, or several such as 500,1000,2000")
    return int(text)


@dataclass(frozen=True)
class Variation(Declared):
    """Settings that `sweep` and `icr` take several values of, in place of those of all measuring commands."""

    num_images: Annotated[
        tuple[int, ...],
        Option(
            "Images, a seeded subset; several, as 500,1000,2000: nested subsets, each measured anew, as one result.",
            group=IMAGES,
            metavar="N[,N...]",
            least=1,
            shown="all, at most max(5000, 4 x features)",
            repeated=False,
            read=_counts,
        ),
    ] = ()
    augment: Annotated[
        str,
        Option(
            f"{', '.join(AUGMENTATIONS[:-1])} or {AUGMENTATIONS[-1]}; all: each of them but none, as one result.",
            group=IMAGES,
            choices=(*AUGMENTATIONS, "all"),
            completes="choices",
        ),
    ] = DEFAULT_AUGMENTATION

    def __post_init__(self) -> None:
        """Checks that one of the two varies at most, and each number stands once."""
        super().__post_init__()
        if len(set(self.num_images)) < len(self.num_images):
            raise UsageError(f"`num_images={','.join(map(str, self.num_images))}`: expected each number once")
        if self.augment == "all" and len(self.num_images) > 1:
            raise UsageError(
                f"`augment=all` with `num_images={','.join(map(str, self.num_images))}`: vary one of the two at a time"
            )
        object.__setattr__(self, "num_images", tuple(sorted(self.num_images)))

    @property
    def varied(self) -> tuple[str, tuple[str | int, ...]] | None:
        """The setting that takes several values, and these; None where none does."""
        if self.augment == "all":
            return "augment", AUGMENTATIONS[1:]  # views that differ in noise alone are no augmentation
        return ("num_images", self.num_images) if len(self.num_images) > 1 else None

    def applied(self, settings: Settings) -> Settings:
        """The settings with these values; the last of several."""
        augment = AUGMENTATIONS[-1] if self.augment == "all" else self.augment
        return replace(settings, augment=augment, num_images=self.num_images[-1] if self.num_images else None)
