"""The options that describe a network of the user's own: its code, and what a checkpoint's file cannot say of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from diffscope.errors import NetworkError, UsageError
from diffscope.options.option import MEASURE, NETWORK, Declared, Option
from diffscope.textfile import read_text

REQUIRED = ("noise", "image_size", "channels")


def read_arguments(text: Any) -> dict[str, Any]:
    """Reads arguments of a constructor.

    Args:
        text: A file's path, .toml or else JSON, or the JSON object itself.

    Returns:
        Argument → value, plain JSON.

    Raises:
        UsageError: If the JSON object on the command line is none.
        NetworkError: If the file cannot be read.
    """
    spelled = str(text)
    if spelled.lstrip().startswith("{"):
        try:
            found = json.loads(spelled)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"`arguments={spelled[:60]}`: no JSON object ({error})") from None
    else:
        found = read_table(spelled, "arguments")
    try:
        return dict(json.loads(json.dumps(found, allow_nan=False)))
    except (TypeError, ValueError, RecursionError) as error:
        raise NetworkError(f"`arguments={spelled[:60]}`: {error}; expected numbers, texts, lists and tables") from None


def read_table(path: str, option: str) -> dict[str, Any]:
    """Reads a TOML or JSON file that holds a table.

    Args:
        path: JSON where it ends in .json, else TOML.
        option: The option that names it, for messages.

    Returns:
        The table.

    Raises:
        NetworkError: If it cannot be read, or holds something else.
    """
    try:
        text = read_text(path)
        found = json.loads(text) if path.endswith(".json") else _toml(text)
    except OSError as error:
        raise NetworkError(f"`{option}={path}`: {error.strerror or error}; expected a TOML or JSON file") from None
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.endswith(".json") else "TOML"
        raise NetworkError(f"`{option}={path}`: not {kind} ({' '.join(str(error).split())})") from None
    if not isinstance(found, dict):
        raise NetworkError(f"`{option}={path}`: a {type(found).__name__}; expected a table of names and values")
    return found


def _toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    found: dict[str, Any] = tomllib.loads(text)
    return found


@dataclass(frozen=True)
class OwnNetworkOptions(Declared):
    """A network whose code is the user's own."""

    network: Annotated[
        str | None,
        Option(
            "Code of your own that defines the network: a class, or a function that returns a torch.nn.Module. It is "
            "run, as python FILE.py would; a checkpoint, a Hub reference or a URL can never name it. Or "
            "package.module:NAME.",
            group=NETWORK,
            metavar="FILE.py:NAME",
            shown="",
        ),
    ] = None
    arguments: Annotated[
        Mapping[str, Any],
        Option(
            "Arguments of its constructor: a TOML or JSON file, or a JSON object.",
            group=NETWORK,
            metavar="FILE",
            shown="",
            read=read_arguments,
            repeated=False,
            path=True,
        ),
    ] = field(default_factory=dict)
    predicts: Annotated[
        str | None,
        Option(
            "What it predicts: eps, x0, v, velocity, denoised or score; needed only for denoised images.",
            group=NETWORK,
            shown="",
            metavar="NAME",
        ),
    ] = None
    noise: Annotated[
        str | None,
        Option(
            "What it is told of noise: edm, ve, vp, ddpm:linear, ddpm:cosine, ddpm:scaled_linear, ddpm:sigmoid, "
            "flow:data=0 or flow:data=1 (where the data are); more facts by commas, as steps=1000,beta_end=0.02.",
            group=NETWORK,
            shown="",
            metavar="NAME",
        ),
    ] = None
    call: Annotated[
        str,
        Option(
            "How it is called, in the order of its arguments: x the noisy input, t what it is told of noise, y:COUNT "
            "classes (y:COUNT:NULL with what stands for none); name=x by keyword.",
            group=NETWORK,
            metavar="x,t",
        ),
    ] = "x,t"
    image_size: Annotated[
        int | None,
        Option(
            "Side of the images in pixels: those of your own network, or of a text-to-image network, where smaller is "
            "cheaper.",
            group=MEASURE,
            metavar="N",
            shown="the model's own",
            least=1,
            below=1 << 14,
        ),
    ] = None
    channels: Annotated[
        int | None, Option("Channels of its input.", group=NETWORK, metavar="N", shown="", least=1, below=1 << 14)
    ] = None
    latent_scale: Annotated[
        float | None,
        Option(
            "It takes VAE latents, multiplied by this; with --vae.",
            group=NETWORK,
            metavar="F",
            shown="pixels in [-1, 1]",
        ),
    ] = None
    latent_factor: Annotated[
        int, Option("Side of the images over side of the latents.", group=NETWORK, metavar="N", least=1)
    ] = 8

    def __post_init__(self) -> None:
        """Checks that what belongs together is given together."""
        super().__post_init__()
        given = [
            one.name
            for one in fields(OwnNetworkOptions)
            if one.name != "image_size" and getattr(self, one.name) not in (None, {}, one.default)
        ]
        if given and self.network is None:
            raise UsageError(f"`{given[0]}=` is of a network of your own; add its code, `network=FILE.py:NAME`")
        if self.network is not None and (missing := [name for name in REQUIRED if getattr(self, name) is None]):
            raise UsageError(
                f"`network={self.network}`: what its file cannot say is missing: "
                + ", ".join(f"`{name}={_EXAMPLES[name]}`" for name in missing)
            )


_EXAMPLES = {"noise": "ddpm:linear", "image_size": "32", "channels": "3"}
OWN_NETWORK = tuple(one.name for one in fields(OwnNetworkOptions))
