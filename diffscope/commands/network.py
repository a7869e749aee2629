"""diffscope network: what does a network of one's own do with what was said of it?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from diffscope.errors import UsageError
from diffscope.options.option import IMAGES, Argument, Option
from diffscope.options.settings import CheckpointFile, Data, Loading, Settings, count
from diffscope.options.signature import Without
from diffscope.results import Record

Action = Annotated[str, Argument("What to do: check.", metavar="check", completes="check")]
OF_FEATURES = ("layer", "num_levels", "input", "pool", "normalize", "augment", "augment_strength", "views", "reduce")
OF_LONG_RUNS = ("workers", "max_memory", "compile")


@dataclass(frozen=True)
class CheckSettings(Settings):
    """A few images are enough to see what denoises."""

    num_images: Annotated[
        int | None, Option("Images, a seeded subset.", group=IMAGES, metavar="N", least=1, read=count, shown="16")
    ] = 16


def run(
    action: Action,
    checkpoint: CheckpointFile,
    data: Data,
    settings: Annotated[CheckSettings, Without((*OF_FEATURES, *OF_LONG_RUNS))],
    loading: Annotated[Loading, Without(("family", "config"))],
) -> Record:
    """Does a network of your own do what you say of it? It is run on a few noisy images, at three noise levels.

    It says the shape of the output, how much of the noise is left for each thing that the network may predict (1:
    nothing is denoised), and which layers there are. Where --predicts is clearly wrong it ends with 3.

    Example: diffscope network check ckpt.pt --network models.py:UNet --predicts eps --noise ddpm:linear --image-size 32
    --channels 3 --data images/
    """
    if action != "check":
        raise UsageError(f"network {action}: expected check, as in diffscope network check CKPT")
    from diffscope.studies.network.check import check

    return check(checkpoint, data, settings, loading)


def held(record: Mapping[str, Any]) -> list[str]:
    """Where what was said is clearly wrong."""
    from diffscope.report.words.network import verdict

    return [verdict(record)] if record["verdict"] in ("wrong", "nothing") else []


PYTHON = False
WITHOUT = ("overwrite",)
