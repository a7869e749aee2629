"""The monitor as a callback of Lightning, whichever of its two packages is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

from diffscope.callbacks import has_turned, require_steps
from diffscope.studies.track.monitor import Monitor

if TYPE_CHECKING:
    import pytorch_lightning as pl
else:
    try:
        import lightning.pytorch as pl
    except ModuleNotFoundError:
        import pytorch_lightning as pl


class MonitorCallback(pl.Callback):
    """Logs ICR as `icr`, in the first process, whenever the monitor is due.

    Args:
        monitor: With `every=` for a cadence in steps.
        network: What is measured of the LightningModule, such as `lambda module: module.ema`.
        stop: Whether training ends once the alarm has fired.

    Raises:
        UsageError: `stop` with a monitor that does not count steps.
    """

    def __init__(self, monitor: Monitor, network: Callable[[Any], nn.Module], stop: bool = False) -> None:
        require_steps(monitor, stop)
        self.monitor, self.network, self.stop = monitor, network, stop

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Measures after the optimiser's step."""
        step = trainer.global_step
        if not (trainer.is_global_zero or self.stop) or not self.monitor.due(step):
            return
        if trainer.is_global_zero:
            row = self.monitor(self.network(pl_module), step)
            if row["icr"] is not None:  # the network has diverged otherwise; row.notes says how
                pl_module.log("icr", row["icr"], rank_zero_only=True)
        if self.stop and has_turned(self.monitor):
            trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ends what the monitor has begun to log."""
        self.monitor.close()
