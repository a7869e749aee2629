"""Copies from host to device; on CUDA on a stream of their own, from pinned memory, while another batch is computed."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

AHEAD = 2
"""Batches that the host may be ahead of the device: one in transit while one is computed. More would only fill it."""


class Uploads:
    """Moves batches to a device; elsewhere than on CUDA a plain copy."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._begun: deque[torch.cuda.Event] = deque()

    def __call__(self, tensor: Tensor) -> Tensor:
        """Returns the tensor on the device; what is computed there next waits for it, the host does not."""
        if self._stream is None:
            return tensor.to(self.device)
        with torch.cuda.stream(self._stream):
            moved = tensor.pin_memory().to(self.device, non_blocking=True)
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self._stream)
        moved.record_stream(current)  # its memory is not given away while `current` may still read it
        return moved

    def pace(self) -> None:
        """Waits until the device has come to the batch before the last; call it before each batch."""
        if self._stream is None:
            return
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        self._begun.append(event)
        if len(self._begun) > AHEAD:
            self._begun.popleft().synchronize()
