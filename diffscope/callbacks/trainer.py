"""The monitor as a callback of the Trainer of transformers, and of loops that call its callbacks as it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState

from diffscope.callbacks import has_turned, require_steps
from diffscope.studies.track.monitor import Monitor


class MonitorCallback(TrainerCallback):
    """Adds ICR as `icr` to the trainer's log history, in the first process, whenever the monitor is due.

    Args:
        monitor: With `every=` for a cadence in steps.
        network: What is measured of the trainer's model; the model itself by default.
        stop: Whether training ends once the alarm has fired.

    Raises:
        UsageError: `stop` with a monitor that does not count steps.
    """

    def __init__(
        self, monitor: Monitor, network: Callable[[Any], nn.Module] = lambda model: model, stop: bool = False
    ) -> None:
        require_steps(monitor, stop)
        self.monitor, self.network, self.stop = monitor, network, stop

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Measures after the optimiser's step."""
        step, leads = state.global_step, state.is_world_process_zero
        if not (leads or self.stop) or not self.monitor.due(step):
            return
        if leads:
            row = self.monitor(self.network(given["model"]), step)
            entry: dict[str, Any] = {"step": step, "icr": row["icr"], "onset": self.monitor.onset.state}
            state.log_history.append(entry)
        if self.stop and has_turned(self.monitor):
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Ends what the monitor has begun to log."""
        self.monitor.close()
