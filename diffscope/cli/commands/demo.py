"""diffscope demo: does it work here?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffscope.cli import options
from diffscope.errors import UsageError

MODELS = {"edm": "unet.safetensors", "sit": "sit.safetensors"}
IMAGES = 1000


def run(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the result and its figures go.")] = Path(
        "diffscope-demo"
    ),
    family: Annotated[str, typer.Option("--family", help="edm: the U-Net; sit: the transformer.")] = "edm",
    json: options.Json = False,
) -> None:
    """Does it work here? Sweeps an embedded model, trained on Fashion-MNIST, over 12 noise levels.

    Example: diffscope demo
    """
    if family not in MODELS:
        raise UsageError(f"--family {family}: the demo has {' and '.join(MODELS)}")
    from diffscope import demo
    from diffscope.api import prepare_job
    from diffscope.cli.running import run_and_report
    from diffscope.studies.settings import Settings

    folder = Path(demo.__file__).parent
    settings = Settings(num_images=IMAGES)
    job = prepare_job(str(folder / MODELS[family]), str(folder / "images.zip"), settings)
    run_and_report(job, "sweep", [], out, json, overwrite=True)
