"""Batch normalisation, then a linear layer, trained by AdamW: the probe of tables 1 and 2 of Wang et al.

"Understanding representation dynamics of diffusion models via low-dimensional modeling", 2025,
https://arxiv.org/abs/2502.05743, appendix A.3: "a probe consisting of a BatchNorm1d layer followed by a linear layer",
and an ensemble takes the mean of logits. The paper tells no more. Ours: normalisation without weight and shift, which
the linear layer has; cross entropy; AdamW at 0.003, which falls to 0 along half a cosine, with torch's decay of 0.01;
batches of 256 images, 100 epochs, and as many more as 1,000 steps take.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from diffscope.studies.probe.class_metrics import Labels
from diffscope.studies.probe.classifiers import Features, Prediction

EPOCHS, LEAST_STEPS, BATCH = 100, 1000, 256
LEARNING_RATE, DECAY = 3e-3, 1e-2


def probe(z: Features, labels: Labels, test: Features, seed: int) -> Prediction:
    """Trains on z and classifies test, on the CPU in float32.

    Args:
        z: [n, d], n ≥ 2.
        labels: [n], 0…K−1, all of them present.
        test: [m, d].
        seed: Of the first weights and the order of images.

    Returns:
        The logits as scores.
    """
    with _one_thread():
        network = _trained(torch.tensor(z), torch.tensor(labels), int(labels.max()) + 1, seed)
        with torch.inference_mode():
            logits = network(torch.tensor(test)).double().numpy()
    return Prediction(logits.argmax(1), logits, converged=True)


def _trained(z: torch.Tensor, labels: torch.Tensor, classes: int, seed: int) -> nn.Module:
    draws = np.random.default_rng([seed, 3])  # apart from the split, label noise and the silhouette's images
    with torch.random.fork_rng(devices=[]):  # torch's first weights come from the generator that all share
        torch.manual_seed(int(draws.integers(2**63)))
        network = nn.Sequential(nn.BatchNorm1d(z.shape[1], affine=False), nn.Linear(z.shape[1], classes))
    # What is left of a whole batch waits for the next epoch: a small one would have a normalisation of its own.
    whole = max(1, len(z) // BATCH)
    epochs = max(EPOCHS, math.ceil(LEAST_STEPS / whole))
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * whole)
    for _ in range(epochs):
        order = torch.from_numpy(draws.permutation(len(z)))
        for batch in torch.split(order[: whole * BATCH], BATCH):
            loss = nn.functional.cross_entropy(network(z[batch]), labels[batch])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return network.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of several threads come in another order, and a probe would depend on the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
