"""What a probe of pixels is told beside the settings of a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from diffscope.errors import UsageError
from diffscope.options.option import IMAGES, STATISTICS, Declared, Option, declarations
from diffscope.options.settings import Settings
from diffscope.studies.probe.options import Probing

TRAIN_PIXELS = 20_000


@dataclass(frozen=True)
class PixelProbing(Declared):
    """Which pixels are probed, and how."""

    masks: Annotated[
        str | None,
        Option(
            "Probe pixels: folder of class-index PNGs, named as the images; 255 is void, classes.txt names the others.",
            group=IMAGES,
            metavar="DIR",
            shown="",
            path=True,
        ),
    ] = None
    pixel_head: Annotated[
        str,
        Option(
            "Classifier of a pixel: linear, or mlp (ten small ones that vote).",
            group=STATISTICS,
            choices=("linear", "mlp"),
        ),
    ] = "linear"
    train_pixels: Annotated[
        int,
        Option(
            "Pixels to train on, seeded, spread over the training images; memory grows with them.",
            group=STATISTICS,
            metavar="N",
            least=1,
        ),
    ] = TRAIN_PIXELS

    def __post_init__(self) -> None:
        """Checks that what is said of pixels comes with their masks."""
        super().__post_init__()
        if self.masks is None:
            for name, value in _changed(self, ("pixel_head", "train_pixels")):
                raise UsageError(f"`{name}={value}` is of pixels; add their classes with `masks=DIR`")


def refuse_what_is_of_images(settings: Settings, probing: Probing, test: str | None) -> None:
    """What a probe of pixels has no use for is refused: it would be left out in silence.

    Raises:
        UsageError: Naming the option.
    """
    told = [
        *([("test", test)] if test is not None else []),
        *_changed(probing, ("head", "solver", "knn", "label_noise", "ensemble", "posterior")),
        *_changed(probing, ("distance_to_best", "rank")),
        *_changed(settings, ("pool", "normalize", "views", "reduce", "augment_strength")),
        *[("augment", settings.augment) for _ in _changed(settings, ("augment",)) if settings.augment != "none"],
    ]
    for name, given in told:
        value = ",".join(map(str, given)) if isinstance(given, tuple) else "" if given is True else given
        raise UsageError(f"`{name}={value}` is of a probe of images, and `masks=` probes pixels; leave out one of them")


def _changed(declared: Declared, names: tuple[str, ...]) -> list[tuple[str, object]]:
    """Those of the options that have another value than their default."""
    known = {one.name: one.default for one in declarations(type(declared)) if one.name in names}
    return [(name, getattr(declared, name)) for name in names if getattr(declared, name) != known[name]]
