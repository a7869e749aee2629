"""diffscope features: the features themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from diffscope.errors import UsageError
from diffscope.measure.study import Study
from diffscope.options.option import OUTPUT, Declared, Option
from diffscope.options.settings import Checkpoint, Data, Loading, Settings


@dataclass(frozen=True)
class FeatureFile(Declared):
    """Where the features go."""

    out: Annotated[
        str | None,
        Option(
            "The .safetensors file to write.",
            group=OUTPUT,
            flag="--output",
            short="-o",
            metavar="FILE",
            shown="",
            path=True,
        ),
    ] = None
    overwrite: Annotated[
        bool, Option("Replace features of another protocol, or another file, in FILE.", group=OUTPUT)
    ] = False


def run(checkpoint: Checkpoint, data: Data, settings: Settings, loading: Loading, file: FeatureFile) -> Study:
    """Write pooled features for other tools: a tensor a layer, [levels, views, images, features].

    Example: diffscope features ckpt.pkl --data images/ --sigma 0.3 -o features.safetensors
    """
    if file.out is None:
        raise UsageError("features needs a file to write: `out=FILE.safetensors`")
    from diffscope.measure.folder import require_safetensors
    from diffscope.studies.features.export import open_export

    require_safetensors(Path(file.out))
    return open_export(checkpoint, data, settings, loading, path=Path(file.out), overwrite=file.overwrite)


DISTRIBUTED = True
WITHOUT = ("quiet",)
WRITES_ITSELF = True
