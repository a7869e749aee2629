"""diffscope bench: throughput on this machine, as a share of its limit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from diffscope.commands.base import Gates
from diffscope.options.option import IMAGES, Argument, Option
from diffscope.options.settings import DATA_HELP, Loading, Settings
from diffscope.results import Record

Checkpoint = Annotated[
    Any,
    Argument(
        "Checkpoint, as for sweep.", metavar="[CKPT]", shown="the demo's U-Net", python="str | Path | Denoiser | None"
    ),
]
Data = Annotated[str | None, Option(DATA_HELP, group=IMAGES, metavar="DATA", path=True, shown="the demo's images")]
KEYS = ("share", "share_outside", "gain", "passes_per_second", "flops_per_second", "seconds")


def run(settings: Settings, loading: Loading, checkpoint: Checkpoint = None, data: Data = None) -> Record:
    """How fast is a sweep on this machine, what holds it up, and what share of the machine's limit does it reach?

    Takes the options of sweep, with the same meanings; measures each stage in 10 to 60 seconds together, and estimates
    the time of the whole. --fail-if knows share (of the machine's limit), share_outside (of a sweep's time, outside the
    network), gain (of the best batch size), passes_per_second, flops_per_second and seconds.

    Example: diffscope bench ckpt.pkl --data images/ --fail-if "share<0.5"
    """
    from diffscope import demo
    from diffscope.measure.opening import open_images, open_job
    from diffscope.report import terminal
    from diffscope.studies.bench.benchmark import benchmark

    embedded = Path(demo.__file__).parent
    # Of images that stand in for the user's there may be as many as the user's are.
    images = None if data else settings.num_images
    source = open_images(settings, data or str(embedded / "images.zip"))
    job = open_job(checkpoint or str(embedded / "unet.safetensors"), source, settings, loading)
    return Record("bench", benchmark(job, images, terminal.progress).to_json())


def _gated(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    network, numbers = record["network"], {key: record[key] for key in ("share", "share_outside")}
    rates = {key: network[key] for key in ("passes_per_second", "flops_per_second")}
    gain, seconds = record["batch_size"]["gain"], record["forecast"]["seconds"]
    return [{"layer": network["layer"], **numbers, "gain": gain, **rates, "seconds": seconds}]


def warnings(record: Mapping[str, Any]) -> list[str]:
    """What makes the figures doubtful."""
    return [*record["warnings"], *record["notes"]]


GATES = Gates("the measurement", "share<0.5", lambda values: KEYS, _gated)
WITHOUT = ("overwrite",)
