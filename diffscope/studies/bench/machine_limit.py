"""What this machine can do at best: the largest convolution and matrix product that it sustains, in FLOP/s.

A network is held against them: they run in the same process, on the same threads, in the same precision. FLOPs count 2
a multiply-add.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from diffscope.extraction import DTYPES, arithmetic
from diffscope.studies.bench.stopwatch import Action, Stopwatch, undisturbed

SECONDS = 5.0
"""Given to each limit where it is measured by itself."""


@dataclass(frozen=True)
class Operation:
    """One call of a large operation."""

    name: str
    flops: int
    run: Callable[[], object]

    def action(self) -> Action:
        """The operation as something to be timed, in FLOPs."""
        return Action(self.run, self.flops)

    def rate(self, action: Action) -> float:
        """FLOP/s of the fastest sample."""
        return self.flops / action.fastest


def convolution(precision: str, device: str = "cpu") -> Operation:
    """A 3×3 convolution, 256 → 256 channels at 32×32, channels_last: 8 images, on a GPU 128, which fill it."""
    images, channels, side = 8 if device == "cpu" else 128, 256, 32
    x = torch.randn(images, channels, side, side).to(device, DTYPES[precision])
    x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3).to(device, DTYPES[precision])
    weight = weight.contiguous(memory_format=torch.channels_last)

    def run() -> None:
        with torch.inference_mode(), arithmetic(precision, torch.device(device)):
            torch.nn.functional.conv2d(x, weight, padding=1)

    return Operation("convolution", 2 * images * side * side * channels * channels * 9, run)


def linear(precision: str, device: str = "cpu") -> Operation:
    """A `Linear` of 1152 → 4608 on 2048 rows, on a GPU 16384."""
    rows, inputs, outputs = 2048 if device == "cpu" else 16384, 1152, 4608
    x = torch.randn(rows, inputs).to(device, DTYPES[precision])
    weight = torch.randn(outputs, inputs).to(device, DTYPES[precision])
    bias = torch.zeros(outputs).to(device, DTYPES[precision])

    def run() -> None:
        with torch.inference_mode(), arithmetic(precision, torch.device(device)):
            torch.nn.functional.linear(x, weight, bias)

    return Operation("linear", 2 * rows * inputs * outputs, run)


def conv_limit(precision: str, device: str = "cpu", seconds: float = SECONDS) -> float:
    """FLOP/s of the best of several repeats of `convolution`, on torch's threads as they are set."""
    return _best(convolution(precision, device), device, seconds)


def linear_limit(precision: str, device: str = "cpu", seconds: float = SECONDS) -> float:
    """FLOP/s of the best of several repeats of `linear`, on torch's threads as they are set."""
    return _best(linear(precision, device), device, seconds)


def _best(operation: Operation, device: str, seconds: float) -> float:
    action = operation.action()
    place = torch.device(device)
    Stopwatch(place, gauge=undisturbed(place)).alternate([action], seconds)
    return operation.rate(action)


def described_machine(device: str) -> dict[str, Any]:
    """cpu: its name; cores: that this process may use; threads: torch's; device, its name where it is a GPU; torch."""
    on_cuda = device.startswith("cuda")
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "device_name": torch.cuda.get_device_name(device) if on_cuda else None,
        "torch": torch.__version__,
    }


def _cpu_name() -> str:
    """As Linux has it, else what Python knows."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
