"""`diffscope.Monitor` as a callback of others' training loops: one file a library, which is imported there alone.

    from diffscope.callbacks.lightning import MonitorCallback
    trainer = Trainer(callbacks=[MonitorCallback(diffscope.Monitor(images, every=1000), lambda module: module.ema)])

Accelerate has no callbacks: the monitor is called in the loop itself (scripts/monitor_accelerate.py).
"""

from __future__ import annotations

import torch

from diffscope.errors import UsageError
from diffscope.studies.track.monitor import Monitor


def require_steps(monitor: Monitor, stop: bool) -> None:
    """UsageError where processes would have to agree on when to stop, and a monitor goes by its own clock."""
    if stop and monitor.every is None:
        raise UsageError("`stop=True` needs a monitor that counts steps: Monitor(…, every=1000)")


def has_turned(monitor: Monitor) -> bool:
    """Whether the alarm has fired; of several processes what the first says, which measures. All of them ask."""
    said = [monitor.onset.fired_at is not None]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(said)
    return said[0]
