"""diffscope demo: does it work here?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from diffscope.cli import options
from diffscope.errors import UsageError

MODELS = {"edm": "unet.safetensors", "sit": "sit.safetensors"}
IMAGES = 1000
NEIGHBORS: dict[str, Any] = {"num_images": 400, "views": 15, "pool": "mean"}
"""Fewer images than the sweep has: 15 views of each are a quarter of its passes. Pooled over positions, as for ICR."""


def run(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the result and its figures go.")] = Path(
        "diffscope-demo"
    ),
    family: Annotated[str, typer.Option("--family", help="edm: the U-Net; sit: the transformer.")] = "edm",
    json: options.Json = False,
) -> None:
    """Does it work here? Sweeps an embedded model, trained on Fashion-MNIST, over 12 noise levels.

    Then shows, at the level that the sweep recommends, which images are near by what their views share, and which
    views by what they differ in.

    Example: diffscope demo
    """
    if family not in MODELS:
        raise UsageError(f"--family {family}: the demo has {' and '.join(MODELS)}")
    from diffscope import demo
    from diffscope.api import prepare_job
    from diffscope.cli.running import run_and_report
    from diffscope.options.settings import Settings

    folder = Path(demo.__file__).parent
    model, images = str(folder / MODELS[family]), str(folder / "images.zip")
    job = prepare_job(model, images, Settings(num_images=IMAGES))
    run_and_report(job, "sweep", [], out, json, overwrite=True)
    _draw_neighbors(model, images, out, json)


def _draw_neighbors(model: str, images: str, out: Path, json: bool) -> None:
    """At the recommended level; nothing where the sweep has none."""
    from diffscope.cli.neighboring import search
    from diffscope.cli.running import print_result
    from diffscope.options.settings import Loading, Settings
    from diffscope.results import read_result
    from diffscope.sources.base import open_source
    from diffscope.studies.neighbors.choices import Choices
    from diffscope.studies.neighbors.neighbors import open_neighbors

    sigma = read_result(str(out / "result.json")).window[0].sigma
    if sigma is None:
        return
    settings = Settings(sigma=(sigma,), **NEIGHBORS)
    study = open_neighbors([model], open_source(images), settings, Loading(), Choices())
    found = search(study, out / "neighbors", overwrite=True)
    if not json:
        print()
        print_result(found.result, json, pictured=True)
    found.forget()
