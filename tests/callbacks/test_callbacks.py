"""The monitor in others' loops: when it is asked, what it tells them, and when it ends them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

import diffscope as package
from diffscope.callbacks import trainer
from diffscope.errors import UsageError
from diffscope.results import Row


class Known:
    """A monitor whose rows and verdict are known, and which says what it was asked."""

    def __init__(self, every: int | None = 2, fires_at: int = 6) -> None:
        self.every, self.fires_at, self.closed = every, fires_at, False
        self.measured: list[tuple[Any, int]] = []

    def due(self, step: int) -> bool:
        return step % (self.every or 1) == 0

    def __call__(self, network: Any, step: int) -> Row:
        self.measured.append((network, step))
        return Row(icr=0.1 * step)

    @property
    def onset(self) -> Any:
        fired = any(step >= self.fires_at for _, step in self.measured)
        return SimpleNamespace(state="turned" if fired else "unclear", fired_at=self.fires_at if fired else None)

    def close(self) -> None:
        self.closed = True


def test_a_trainer_of_transformers() -> None:
    from transformers import TrainerControl, TrainerState

    monitor, model = Known(), nn.Linear(1, 1)
    callback = trainer.MonitorCallback(monitor, lambda model: model.weight, stop=True)  # type: ignore[arg-type]
    control, state = TrainerControl(), TrainerState()
    for step in range(1, 7):
        state.global_step = step
        callback.on_step_end(None, state, control, model=model)
        assert control.should_training_stop == (step == 6)
    assert [step for _, step in monitor.measured] == [2, 4, 6]
    assert all(network is model.weight for network, _ in monitor.measured)
    assert state.log_history[0] == {"step": 2, "icr": 0.2, "onset": "unclear"}
    assert state.log_history[-1]["onset"] == "turned"
    callback.on_train_end(None, state, control)
    assert monitor.closed


def test_a_process_that_does_not_lead_measures_nothing() -> None:
    from transformers import TrainerControl, TrainerState

    monitor = Known()
    callback = trainer.MonitorCallback(monitor)  # type: ignore[arg-type]
    state = TrainerState(is_world_process_zero=False)
    callback.on_step_end(None, state, TrainerControl(), model=nn.Linear(1, 1))
    assert monitor.measured == []


def test_lightning_s_trainer() -> None:
    from diffscope.callbacks import lightning  # which takes seconds

    monitor, logged = Known(), []
    module: Any = SimpleNamespace(ema=nn.Linear(1, 1), log=lambda name, value, **_: logged.append((name, value)))
    callback = lightning.MonitorCallback(monitor, lambda module: module.ema, stop=True)  # type: ignore[arg-type]
    fit: Any = SimpleNamespace(global_step=0, is_global_zero=True, should_stop=False)
    for step in range(1, 7):
        fit.global_step = step
        callback.on_train_batch_end(fit, module, None, None, step)
        assert fit.should_stop == (step == 6)
    assert logged == [("icr", pytest.approx(0.1 * step)) for step in (2, 4, 6)]
    callback.on_train_end(fit, module)
    assert monitor.closed


def test_processes_can_only_agree_on_steps() -> None:
    from diffscope.callbacks import lightning

    clocked: Any = Known(every=None)
    for kind in (lightning.MonitorCallback, trainer.MonitorCallback):
        with pytest.raises(UsageError, match="every=1000"):
            kind(clocked, lambda module: module, stop=True)
        kind(clocked, lambda module: module)


def test_the_monitor_itself_has_what_they_use() -> None:
    made = package.Monitor("synthetic:count=64", channels=3, side=8, every=2, augment="none")
    assert (made.every, made.onset.fired_at, made.onset.state) == (2, None, "unclear")
    made.close()
