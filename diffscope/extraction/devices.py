"""Where and how a network computes: device, precision, and what the machine can do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from diffscope.errors import UsageError
from diffscope.extraction.plan import DTYPES
from diffscope.ranks import world

ALIASES = {
    "gpu": "cuda",
    "nvidia": "cuda",
    "rocm": "cuda",
    "hip": "cuda",
    "metal": "mps",
    "apple": "mps",
    "cuda0": "cuda:0",
}
"""Names that devices have elsewhere → torch's."""


def resolve_device(name: str | None) -> str:
    """Chooses where the network computes.

    Args:
        name: By torch's name, such as `cuda:1`; None or `auto` takes CUDA where it is. Each of several processes has
            its own device, which `auto` and `cuda` mean there.

    Returns:
        A device that computes.

    Raises:
        UsageError: There is no such device here.
    """
    mine = world().device
    if name in (None, "auto") or (mine is not None and name == "cuda"):
        return mine or ("cuda" if torch.cuda.is_available() else "cpu")
    assert name is not None
    try:
        torch.zeros(1, device=name).item()  # `meta` has no numbers
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        raise UsageError(f"`device={name}`: {_why(name, error)}") from None
    return name


def _why(name: str, error: Exception) -> str:
    """What is wrong with a device, and which ones there are."""
    kind = name.split(":")[0].lower()
    here = "cpu" if not torch.cuda.is_available() else "cpu, cuda and cuda:0 to cuda:{}"
    here = here.format(torch.cuda.device_count() - 1)
    if kind in ALIASES:
        return f"did you mean {ALIASES[kind]}? Here there is {here}"
    if name != name.lower() and name.lower().split(":")[0] in ("cpu", "cuda", "mps"):
        return f"did you mean {name.lower()}? Here there is {here}"
    said = " ".join(str(error).split()).split(". ")[0].rstrip(".")
    said = "no such kind of device" if said.startswith("Expected one of") else said[:120]
    return f"{said}; here there is {here}"


def resolve_precision(name: str, device: str) -> str:
    """Chooses what the network computes in.

    Args:
        name: A key of DTYPES or `auto`: tf32 on CUDA, fp32 elsewhere.
        device: By torch's name.

    Returns:
        A key of DTYPES.

    Raises:
        UsageError: The name is unknown, or the device has no such precision.
    """
    if name == "auto":
        return "tf32" if device.startswith("cuda") else "fp32"
    if name not in DTYPES:
        raise UsageError(f"`precision={name}`: expected auto, {', '.join(DTYPES)}")
    if name == "tf32" and not device.startswith("cuda"):
        raise UsageError(f"`precision=tf32` exists on CUDA only, not on {device}; use fp32")
    return name


def cpu_capabilities() -> dict[str, bool]:
    """Returns which instruction sets the CPU has, by torch's names; empty where torch cannot tell."""
    query = getattr(torch.cpu, "get_capabilities", None)
    return {} if query is None else {str(k): bool(v) for k, v in query().items()}


@contextlib.contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Sets how float32 products are computed inside, and restores it after.

    On CUDA, TF32 is on if asked for. On CPUs without AMX, "medium" still computes in float32 (error 6e-7), on AMD twice
    as fast; with AMX it would round to bfloat16, and is left alone.

    Args:
        precision: A key of DTYPES.
        device: Where the network computes.
    """
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    medium = device.type == "cpu" and precision == "fp32" and cpu_capabilities().get("amx_bf16") is False
    before = torch.get_float32_matmul_precision()
    try:
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        elif medium:
            torch.set_float32_matmul_precision("medium")
        yield
    finally:
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn
        elif medium:
            torch.set_float32_matmul_precision(before)
