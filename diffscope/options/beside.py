"""Reference encoders that a user names, and the permission to run a program among them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from diffscope.errors import UsageError
from diffscope.options.option import MEASURE, Declared, Option
from diffscope.options.settings import REPEATABLE

_PROGRAM = re.compile(r"(.+\.(?:pt|pth|ts|jit|torchscript))(?::side=([1-9]\d{0,3}))?")


def program_of(spec: str) -> tuple[str, int | None] | None:
    """Reads the spelling of a TorchScript program, `FILE.pt` or `FILE.pt:side=S`.

    Args:
        spec: An encoder as the user spelled it.

    Returns:
        (file, side of its images or None); None of other encoders.
    """
    found = _PROGRAM.fullmatch(spec)
    if found is None or "://" in spec:
        return None
    return found[1], int(found[2]) if found[2] else None


def require_permission(path: str, option: str, allowed: bool) -> None:
    """Refuses a program that the user did not allow to be run.

    Args:
        path: Of the file.
        option: Which named it.
        allowed: Whether the user says so.

    Raises:
        UsageError: If not.
    """
    if not allowed:
        raise UsageError(
            f"`{option}={path}`: a TorchScript file is a program, and to use it is to run it, which diffscope does "
            "with no file unless told to; if you trust where it comes from, add `allow_torchscript=`"
        )


@dataclass(frozen=True)
class Beside(Declared):
    """Encoders whose features of the same images stand beside the network's."""

    beside: Annotated[
        tuple[str, ...],
        Option(
            "Another encoder of the same images: pixels; random, the same network untrained (random:LAYER); a "
            ".safetensors file of features (FILE:TENSOR); a TorchScript file (FILE.pt:side=S); a folder or hf:// of a "
            f"ViT, ViT-MAE, DINOv2, CLIP or I-JEPA; timm:NAME {REPEATABLE}.",
            group=MEASURE,
            metavar="ENCODER",
            shown="",
            path=True,
        ),
    ] = ()
    allow_torchscript: Annotated[
        bool, Option("Run the program in --beside FILE.pt: trust where it comes from.", group=MEASURE)
    ] = False

    def __post_init__(self) -> None:
        """Checks that each is named once."""
        super().__post_init__()
        if len(set(self.beside)) < len(self.beside):
            raise UsageError(f"`beside={','.join(self.beside)}`: expected each encoder once")
        if self.allow_torchscript and not self.beside:
            raise UsageError("`allow_torchscript=` is for `beside=FILE.pt`, which is not given")
