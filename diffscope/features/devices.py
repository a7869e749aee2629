"""Where and how a network computes: device, precision, and what the machine can do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from diffscope.errors import UsageError
from diffscope.features.plan import DTYPES
from diffscope.ranks import world


def resolve_device(name: str | None) -> str:
    """`cuda` where there is one, of several processes each its own, else `cpu`; UsageError for one that is not here."""
    mine = world().device
    if name in (None, "auto") or (mine is not None and name == "cuda"):
        return mine or ("cuda" if torch.cuda.is_available() else "cpu")
    assert name is not None
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name}: {' '.join(str(error).split())[:120]}") from None
    return name


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
