"""diffscope demo: does it work here?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from diffscope.measure.study import Study
from diffscope.options.option import OUTPUT, Option
from diffscope.options.settings import Loading, Settings
from diffscope.results import Result

MODELS = {"edm": "unet.safetensors", "sit": "sit.safetensors"}
SWEPT = Settings(num_images=1000)
NEIGHBORS = Settings(num_images=400, views=15, pool="mean")
"""Fewer images than the sweep has: 15 views of each are a quarter of its passes. Pooled over positions, as for ICR."""

Out = Annotated[str, Option("Where the result and its figures go.", group=OUTPUT, metavar="DIR", path=True)]
Family = Annotated[str, Option("edm: the U-Net; sit: the transformer.", choices=tuple(MODELS))]


def run(family: Family = "edm", out: Out = "diffscope-demo") -> Study:
    """Does it work here? Sweeps an embedded model, trained on Fashion-MNIST, over 12 noise levels.

    Then shows, at the level that the sweep recommends, which images are near by what their views share, and which
    views by what they differ in.

    Example: diffscope demo
    """
    from diffscope.studies.sweep.study import open_sweep

    model, images = _embedded(family)
    return open_sweep(model, images, SWEPT, Loading())


def then(result: Result, values: Mapping[str, Any]) -> tuple[Study, str] | None:
    """The neighbours at the recommended level, and where they go; nothing where the sweep recommends none."""
    sigma = result.window[0].sigma
    if sigma is None:
        return None
    from diffscope.measure.opening import open_images
    from diffscope.studies.neighbors.neighbors import open_neighbors
    from diffscope.studies.neighbors.options import Queries

    model, images = _embedded(values["family"])
    settings = replace(NEIGHBORS, sigma=(sigma,))
    return open_neighbors([model], open_images(settings, images), settings, Loading(), Queries()), str(
        Path(values["out"]) / "neighbors"
    )


def _embedded(family: str) -> tuple[str, str]:
    """Model and images that come with the package."""
    from diffscope import demo

    folder = Path(demo.__file__).parent
    return str(folder / MODELS[family]), str(folder / "images.zip")


OVERWRITES = True
PYTHON = False
WITHOUT = ("overwrite", "quiet", "dry_run")
