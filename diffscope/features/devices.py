"""Where and how a network computes: device, precision, and what the machine can do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from diffscope.errors import UsageError
from diffscope.features.plan import DTYPES
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
"""What devices are called elsewhere, and by torch."""


def resolve_device(name: str | None) -> str:
    """`cuda` where there is one, of several processes each its own, else `cpu`; UsageError for one that is not here."""
    mine = world().device
    if name in (None, "auto") or (mine is not None and name == "cuda"):
        return mine or ("cuda" if torch.cuda.is_available() else "cpu")
    assert name is not None
    try:
        torch.zeros(1, device=name).item()  # `meta` has no numbers
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        raise UsageError(f"--device {name}: {_why(name, error)}") from None
    return name


def _why(name: str, error: Exception) -> str:
    """What is wrong with a device, and which there are."""
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
    """What `auto` becomes: fp32 on a CPU, tf32 on CUDA, fp32 elsewhere."""
    if name == "auto":
        return "tf32" if device.startswith("cuda") else "fp32"
    if name not in DTYPES:
        raise UsageError(f"--precision {name}: expected auto, {', '.join(DTYPES)}")
    if name == "tf32" and not device.startswith("cuda"):
        raise UsageError(f"--precision tf32 exists on CUDA only, not on {device}; use fp32")
    return name


def cpu_capabilities() -> dict[str, bool]:
    """Instruction sets by torch's names; empty where torch cannot tell."""
    query = getattr(torch.cpu, "get_capabilities", None)
    return {} if query is None else {str(k): bool(v) for k, v in query().items()}


@contextlib.contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """How float32 products are computed inside, restored after: TF32 as asked on CUDA, oneDNN's on a CPU without AMX.

    On CPUs without AMX "medium" still computes in float32 (error 6e-7), on AMD twice as fast; with AMX it would
    round to bfloat16.
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
