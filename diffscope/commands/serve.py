"""diffscope serve: a folder's results in a browser."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from diffscope.errors import UsageError
from diffscope.options.option import OUTPUT, Argument, Declared, Option

Folder = Annotated[str, Argument("The folder that holds results, at any depth.", metavar="DIR")]


@dataclass(frozen=True)
class Serving(Declared):
    """Where it is served."""

    host: Annotated[
        str, Option("Address to listen on; any but 127.0.0.1 asks for a token.", group=OUTPUT, metavar="ADDRESS")
    ] = "127.0.0.1"
    port: Annotated[int, Option("Port to listen on; 0: any that is free.", group=OUTPUT, least=0, below=65536)] = 8765
    token: Annotated[
        str | None,
        Option(
            "What a browser has to know, 16 characters or more.",
            group=OUTPUT,
            metavar="TOKEN",
            envvar="DIFFSCOPE_TOKEN",
            shown="made anew, where one is needed",
        ),
    ] = None

    def __post_init__(self) -> None:
        """Checks the token: a short one can be guessed."""
        super().__post_init__()
        token = self.token
        if token is not None and not (len(token) >= 16 and token.isascii() and token.isprintable()):
            raise UsageError("`token=`: expected at least 16 printable ASCII characters")


def run(folder: Folder, serving: Serving) -> None:
    """Show a folder's results in a browser until Ctrl-C: read-only, on this machine alone.

    With --host others can see them too, over plain HTTP; they need the token in the address that is printed.

    Example: diffscope serve runs/
    """
    from diffscope.report.serving import serve

    serve(Path(folder), serving.host, serving.port, serving.token)


PYTHON = False
