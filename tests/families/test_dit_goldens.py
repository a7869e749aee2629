"""DiT's thousand steps against the recorded table, and the posterior mean from the noise that it predicts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from diffscope import families
from diffscope.checkpoints import Checkpoint
from diffscope.errors import NoiseLevelError
from diffscope.families.dit import DDPMSteps

DATA = Path(__file__).parents[1] / "data" / "sit"
TABLE: dict[str, Any] = json.loads((DATA / "noise_levels.json").read_text())["dit_ddpm_linear"]


def test_every_step() -> None:
    """1e-9: the table is float64."""
    steps = DDPMSteps()
    assert (steps.sigma_min, steps.sigma_max) == pytest.approx((TABLE["sigma_min"], TABLE["sigma_max"]), rel=1e-9)
    for row in TABLE["forward"]:
        assert steps.to_sigma(row["t"]) == pytest.approx(row["sigma"], rel=1e-9)
        assert steps.input_scale(row["sigma"]) == pytest.approx(row["alpha"], rel=1e-9)


def test_the_nearest_step_stands_for_a_level() -> None:
    steps = DDPMSteps()
    for row in TABLE["inverse"]:
        if row["t_nearest"] is None:
            with pytest.raises(NoiseLevelError, match="outside this model's range"):
                steps.check(row["sigma"])
            continue
        assert steps.to_native(row["sigma"]) == row["t_nearest"]
        assert steps.check(row["sigma"]) == steps.to_sigma(row["t_nearest"])


@pytest.mark.parametrize("t", [-1, 0.5, 1000])
def test_only_whole_steps_exist(t: float) -> None:
    with pytest.raises(NoiseLevelError, match="expected a whole step"):
        DDPMSteps().to_sigma(t)


def test_the_posterior_mean_takes_the_predicted_noise_away() -> None:
    tensors = load_file(DATA / "dit.safetensors")
    state = {key[3:]: value for key, value in tensors.items() if key.startswith("sd/")}
    model = families.load(Checkpoint("my-DiT.pt", "state-dict", state, "model", ""), config={"num_heads": "3"})
    row = 1  # its step is 81; the network was fed signal · (data + sigma · noise)
    sigma = model.noise.to_sigma(float(tensors["in/t"][row]))
    x = tensors["in/x"][row : row + 1] * math.hypot(1, sigma)
    mean = model.denoise(x, torch.tensor([sigma]), tensors["in/y"][row : row + 1])
    noise = tensors["out/final"][row : row + 1, : x.shape[1]]
    torch.testing.assert_close(mean, x - sigma * noise, rtol=1e-4, atol=1e-5)  # float32 through the network
