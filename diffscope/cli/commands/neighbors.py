"""diffscope neighbors: what lies near an image by the invariant part of its features, and by the residual."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from diffscope.cli import options

Checkpoints = Annotated[
    list[str],
    typer.Argument(metavar="CKPT...", help="A checkpoint, or several of one run, or their folder.", show_default=False),
]
Query = Annotated[
    list[str] | None,
    typer.Option(
        "--query",
        metavar="IMAGE",
        callback=options.listed,
        help=f"Image to show: its index, or its name inside --data {options.REPEATABLE}; where that has commas, its "
        "index.",
        show_default="--rows, chosen by --seed",
    ),
]


def own_defaults(command: Callable[..., Any]) -> Callable[..., Any]:
    """Of options that all measuring commands share, what is meant here: as in the paper, and all images."""
    own: dict[str, tuple[Any, Any]] = {
        "views": (
            Annotated[int, typer.Option("--views", metavar="V", help="Views of each image, the first as it is.")],
            15,
        ),
        "pool": (Annotated[str, typer.Option("--pool", help="flatten, or mean over positions.")], "flatten"),
        "num_images": (
            Annotated[
                int | None,
                typer.Option("--num-images", metavar="N", help="Images, a seeded subset.", show_default="all"),
            ],
            None,
        ),
        "max_memory": (
            Annotated[
                str | None,
                typer.Option(
                    "--max-memory", metavar="SIZE", help="For the features, such as 8GB.", show_default="half of RAM"
                ),
            ],
            None,
        ),
    }
    signature = inspect.signature(command)
    parameters = [
        parameter.replace(annotation=own[name][0], default=own[name][1]) if name in own else parameter
        for name, parameter in signature.parameters.items()
    ]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


@own_defaults
@options.with_measuring
def run(
    checkpoints: Checkpoints,
    measuring: options.Measuring,
    query: Query = None,
    rows: Annotated[int, typer.Option("--rows", metavar="R", help="Queries to choose where none is given.")] = 4,
    k: Annotated[int, typer.Option("--k", metavar="K", help="Neighbours of each query.")] = 5,
    num_queries: Annotated[
        int, typer.Option("--num-queries", metavar="Q", help="Images whose neighbours' classes are counted.")
    ] = 2000,
    clusters: Annotated[
        bool, typer.Option("--clusters", help="Also the views of the queries in the plane of their largest variance.")
    ] = False,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    fail_if: options.FailIf = None,
) -> None:
    """What lies near an image by the invariant part s of its features, and near a view by the residual ξ?

    A grid of pictures, for several checkpoints one below the other, and the share of neighbours of the query's class.
    ICR beside it is that of diffscope icr, of two views pooled by mean, whatever --views and --pool are.

    Example: diffscope neighbors ckpt.pkl --data images/ --sigma 0.3 --out neighbors/
    """
    settings = measuring.settings()
    from diffscope.cli.gates import parse
    from diffscope.cli.neighboring import GATE_KEYS, run_and_report
    from diffscope.measure.opening import open_images
    from diffscope.options.settings import Loading
    from diffscope.studies.neighbors.choices import Choices
    from diffscope.studies.neighbors.neighbors import check_settings, open_neighbors

    gates = [parse(text, GATE_KEYS) for text in fail_if or []]
    choices = Choices(tuple(query or ()), rows, k, num_queries, clusters)
    loading = Loading(measuring.family, options.key_values(measuring.config), measuring.weights, measuring.vae)
    check_settings(settings)
    study = open_neighbors(checkpoints, open_images(settings, measuring.data), settings, loading, choices)
    run_and_report(study, gates, out, json, quiet, overwrite)
