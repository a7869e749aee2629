"""diffscope convert: any checkpoint as safetensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from diffscope.options.network import OWN_NETWORK
from diffscope.options.option import OUTPUT, Argument, Declared, Option
from diffscope.options.settings import CheckpointFile, Loading
from diffscope.options.signature import Without
from diffscope.results import Record

Out = Annotated[str, Argument("The file to write.", metavar="OUT.safetensors")]


@dataclass(frozen=True)
class Writing(Declared):
    """How the file is written."""

    dtype: Annotated[
        str | None,
        Option(
            "Store as float32, float16 or bfloat16.",
            choices=("float32", "float16", "bfloat16"),
            shown="as in the file",
        ),
    ] = None
    overwrite: Annotated[bool, Option("Replace a file that was not made from the same weights.", group=OUTPUT)] = False


def run(
    checkpoint: CheckpointFile,
    out: Out,
    loading: Annotated[Loading, Without(("vae", "latent_stats", "prompt", "prompt_from", *OWN_NETWORK))],
    writing: Writing,
) -> Record:
    """Any checkpoint as safetensors, with family, constructor and provenance in its metadata.

    Example: diffscope convert network-snapshot-200000.pkl model.safetensors
    """
    from diffscope.measure.folder import require_safetensors
    from diffscope.measure.opening import load
    from diffscope.studies.convert import convert, refuse_other_weights

    require_safetensors(Path(out))
    found, denoiser = load(checkpoint, loading)
    if not writing.overwrite:
        refuse_other_weights(found, Path(out))
    return Record("convert", convert(found, denoiser, Path(out), writing.dtype))


WITHOUT = ("quiet",)
WRITES_ITSELF = True
