"""The same with Accelerate, the monitor in the loop itself: `python scripts/monitor_accelerate.py --steps 2000`"""

import argparse
from itertools import chain, islice, repeat
from typing import Any

import torch
from accelerate import Accelerator
from monitor_plain import Denoiser, demo_images, loss_of
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

import diffscope

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    steps = parser.parse_args().steps
    images = demo_images()
    data: Any = list(torch.from_numpy(images)[:, None] / 127.5 - 1)
    accelerator = Accelerator(cpu=True)  # with log_with="wandb", accelerator.log below goes there
    network = Denoiser()
    network, optimiser, loader = accelerator.prepare(
        network, torch.optim.Adam(network.parameters(), lr=1e-3), DataLoader(data, batch_size=64, shuffle=True)
    )
    ema = AveragedModel(accelerator.unwrap_model(network), multi_avg_fn=get_ema_multi_avg_fn(0.99))
    monitor = diffscope.Monitor(images, every=max(1, steps // 10), posterior_mean=ema)
    for step, batch in enumerate(islice(chain.from_iterable(repeat(loader)), steps), start=1):
        optimiser.zero_grad()
        accelerator.backward(loss_of(network, batch))
        optimiser.step()
        ema.update_parameters(accelerator.unwrap_model(network))
        if accelerator.is_main_process and monitor.due(step):
            row = monitor(ema, step)
            accelerator.log({"icr": row["icr"]}, step=step)
            print(f"step {step}: ICR {row['icr']}, {monitor.onset.state}", flush=True)
            if monitor.onset.fired_at is not None:
                accelerator.set_trigger()
        if accelerator.check_trigger():  # every process ends, whichever of them measures
            break
