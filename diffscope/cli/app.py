"""The typer application: one command for every file in `commands/`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

import typer

from diffscope import __version__, registry

ORDER = ("demo", "inspect", "icr", "sweep")


def build_app() -> typer.Typer:
    """A newcomer's order first, then the rest by name."""
    app = typer.Typer(
        name="diffscope",
        help="Looks inside pretrained diffusion models: the Invariant Contamination Ratio (ICR) over noise levels and "
        "layers, from images alone: no labels, no sampling, no other network.",
        epilog="First: diffscope demo. Then: diffscope inspect CKPT, diffscope sweep CKPT --data IMAGES. The manual: "
        "diffscope help.",
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=True,
    )
    app.callback(invoke_without_command=True)(_root)
    found = registry.load("diffscope.cli.commands")
    for name in sorted(found, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n)):
        app.command(name, short_help=_first_sentence(found[name].run))(found[name].run)
    return app


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print versions and exit.", is_eager=True)] = False,
) -> None:
    if version:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as installed

        try:
            torch = installed("torch")
        except PackageNotFoundError:
            torch = "not installed"
        typer.echo(f"diffscope {__version__} (torch {torch})")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _first_sentence(command: Callable[..., object]) -> str:
    """For the list of commands, which would otherwise end in three dots."""
    text = " ".join((command.__doc__ or "").split())
    return re.split(r"(?<=[.?])\s", text, maxsplit=1)[0]
