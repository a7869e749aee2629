"""diffscope inspect: what is this file?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from diffscope.options.option import Declared, Option
from diffscope.options.settings import CheckpointFile, Loading
from diffscope.options.signature import Without
from diffscope.results import Record


@dataclass(frozen=True)
class Reading(Declared):
    """How much of the file is read."""

    sha256: Annotated[bool, Option("Hash the file too: seconds for gigabytes.")] = False
    verify: Annotated[bool, Option("Compare every checksum in the file with its bytes: seconds for gigabytes.")] = False


def run(
    checkpoint: CheckpointFile,
    loading: Annotated[Loading, Without(("vae", "latent_stats", "prompt", "prompt_from"))],
    reading: Reading,
) -> Record:
    """What is this checkpoint? Family, class, noise convention, input, and all layers with their shapes.

    Example: diffscope inspect network-snapshot-200000.pkl
    """
    from diffscope.cache.inspected import Inspected

    kept = None
    if loading.network is None and not (reading.sha256 or reading.verify):  # what runs code, or reads all of the file
        kept = Inspected.of(checkpoint, vars(loading))
        if (known := kept.read()) is not None:
            return Record("inspect", known)
    from diffscope.measure.opening import load
    from diffscope.studies.inspect import inspect

    found, denoiser = load(checkpoint, loading, outline=True, verify=reading.verify)
    record = inspect(found, denoiser, found.sha256() if reading.sha256 else None)
    if kept is not None:
        kept.write(record)
    return record


WITHOUT = ("quiet", "overwrite")
