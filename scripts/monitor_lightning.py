"""The same with Lightning, by the callback of the package: `python scripts/monitor_lightning.py --steps 2000`"""

import argparse
import logging
import warnings
from typing import Any

import torch
from monitor_plain import Denoiser, demo_images, loss_of
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

try:
    import lightning.pytorch as pl
except ModuleNotFoundError:
    import pytorch_lightning as pl

import diffscope
from diffscope.callbacks.lightning import MonitorCallback

# Its tips, about workers for instance, and its news of processors.
warnings.filterwarnings("ignore", module="(pytorch_)?lightning")
for name in ("lightning.pytorch", "pytorch_lightning"):
    logging.getLogger(name).setLevel(logging.WARNING)


class Training(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = Denoiser()
        self.ema = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(0.99))

    def training_step(self, data: Tensor, _: int) -> Tensor:
        return loss_of(self.network, data)

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        super().optimizer_step(*arguments, **named)
        self.ema.update_parameters(self.network)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters(), lr=1e-3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    steps = parser.parse_args().steps
    images = demo_images()
    data: Any = list(torch.from_numpy(images)[:, None] / 127.5 - 1)
    monitor = diffscope.Monitor(images, every=max(1, steps // 10), layer="trunk", sigma=0.3)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        callbacks=[MonitorCallback(monitor, lambda module: module.ema)],
        logger=False,  # one of its loggers writes `icr` beside the loss
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Training(), DataLoader(data, batch_size=64, shuffle=True))
    for row in monitor.rows:
        print(f"step {row.step}: ICR {row['icr']}, {monitor.onset.state}", flush=True)
    print(f"logged: {trainer.logged_metrics['icr']:.6f}")
