"""The same with the Trainer of transformers, by its callback: `python scripts/monitor_trainer.py --steps 2000`"""

import argparse
import tempfile

import torch
from monitor_plain import Denoiser, demo_images, loss_of
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainingArguments

import diffscope
from diffscope.callbacks.trainer import MonitorCallback


class Training(nn.Module):
    """A model that gives its loss, as the Trainer wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Denoiser()

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        return {"loss": loss_of(self.network, data)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    steps = parser.parse_args().steps
    images = demo_images()
    monitor = diffscope.Monitor(images, every=max(1, steps // 10), layer="trunk", sigma=0.3)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=64,
            learning_rate=1e-3,
            report_to="none",  # one of its loggers writes the loss; Monitor(log="wandb") writes ICR beside it
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = Trainer(
            model=Training(),
            args=arguments,
            train_dataset=[{"data": one} for one in torch.from_numpy(images)[:, None] / 127.5 - 1],
            callbacks=[MonitorCallback(monitor, lambda model: model.network, stop=True)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    for entry in trainer.state.log_history:
        if "icr" in entry:
            print(f"step {entry['step']}: ICR {entry['icr']}, {entry['onset']}", flush=True)
