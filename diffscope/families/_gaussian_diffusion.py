"""What GaussianDiffusion's buffers say: the noise level of each step, and what the network predicts.

Schedules: Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021,
https://arxiv.org/abs/2102.09672 (cosine); Jabri et al., "Scalable Adaptive Computation for Iterative Generation", 2023,
https://arxiv.org/abs/2212.11972 (sigmoid). Min-SNR weights: Hang et al., 2023, https://arxiv.org/abs/2303.09556.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from diffscope.errors import CheckpointError, UsageError
from diffscope.families._facts import Facts

SCHEDULES = ("linear", "cosine", "sigmoid")
PREDICTS = {"pred_noise": "eps", "pred_x0": "x0", "pred_v": "v"}
"""GaussianDiffusion's objective → the field's name of what the network predicts."""
OBJECTIVES = tuple(PREDICTS)
MAX_STEPS = 8192
"""Of a table in float64, which is then read even where only an outline is asked for."""
_TOLERANCE = 1e-4  # of a weight in the loss: a table in float32 gives it to 1e-6


def signal_of(facts: Facts, buffers: Mapping[str, Tensor]) -> tuple[np.ndarray, str | None]:
    """Reads or computes abar, the share of the data's variance that is left at each step.

    Args:
        facts: What is said of the schedule.
        buffers: Of GaussianDiffusion.

    Returns:
        (abar, falling, in float64 from float32 values; the schedule's name, None where it is none of the package's).

    Raises:
        CheckpointError: If the file's table is no such table.
        UsageError: If what was said contradicts the table, or gives none.
    """
    if "alphas_cumprod" not in buffers:
        schedule = facts.choice("beta_schedule", "sigmoid", SCHEDULES)
        steps = facts.integer("timesteps", 1000, high=MAX_STEPS)
        signal = _scheduled(schedule, steps)
        if not _falls(signal):
            raise UsageError(f"`config=timesteps={steps}`: too few for the {schedule} schedule, whose betas reach 1")
        return signal, schedule
    table = buffers["alphas_cumprod"]
    if table.dim() != 1 or len(table) > MAX_STEPS or table.is_meta or table.dtype not in (torch.float32, torch.float64):
        raise CheckpointError(
            f"{facts.path}: alphas_cumprod is {str(table.dtype).removeprefix('torch.')} {list(table.shape)}; expected "
            f"float32 and up to {MAX_STEPS} steps, as training wrote it"
        )
    signal = table.double().numpy()
    if not _falls(signal):
        raise CheckpointError(
            f"{facts.path}: alphas_cumprod runs from {signal[0]:g} to {signal[-1]:g}; expected it to fall strictly, "
            "between 1 and 0: noise levels above 0 and finite"
        )
    if "timesteps" in facts.config and facts.integer("timesteps", 1) != len(signal):
        said = facts.config["timesteps"]
        raise UsageError(f"`config=timesteps={said}`: the file's own table has {len(signal)} steps")
    alike = [name for name in SCHEDULES if np.allclose(_scheduled(name, len(signal)), signal, rtol=1e-5, atol=0)]
    if "beta_schedule" in facts.config and facts.choice("beta_schedule", "sigmoid", SCHEDULES) not in alike:
        schedule = facts.config["beta_schedule"]
        raise UsageError(f"`config=beta_schedule={schedule}`: the file's own table of noise levels is another")
    return signal, alike[0] if alike else None


def _scheduled(schedule: str, steps: int) -> np.ndarray:
    """Computes a table as GaussianDiffusion does: in float64, kept in float32; not finite where betas pass 1."""
    if schedule == "linear":
        betas = np.linspace(1e-4 * 1000 / steps, 0.02 * 1000 / steps, steps)
    else:
        u = np.arange(steps + 1) / steps
        if schedule == "cosine":
            left = np.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
        else:
            low, high = 1 / (1 + math.exp(3)), 1 / (1 + math.exp(-3))
            left = (high - 1 / (1 + np.exp(3 - 6 * u))) / (high - low)
        betas = np.clip(1 - left[1:] / left[:-1], 0, 0.999)
    return np.cumprod(1 - betas).astype(np.float32).astype(np.float64)


def _falls(signal: np.ndarray) -> bool:
    return bool(len(signal) and signal[0] < 1 and signal[-1] > 0 and (np.diff(signal) < 0).all())


def objective_of(facts: Facts, signal: np.ndarray, weights: Tensor | None) -> tuple[str, str]:
    """Finds what the network predicts, from its loss's weight at the step whose signal-to-noise ratio is nearest to ½.

    There the weight is 1 for the noise, the ratio itself for the data and ratio / (1 + ratio) for the velocity, with
    min-SNR weights too, which only clip ratios above 5.

    Args:
        facts: What is said of it.
        signal: abar of each step.
        weights: The buffer `loss_weight`; None where there is none.

    Returns:
        (objective, how it was found).

    Raises:
        CheckpointError: If neither the file nor the user says it.
        UsageError: If the user contradicts the file.
    """
    ratio = signal / (1 - signal)
    step = int(np.argmin(np.abs(np.log(2 * ratio))))
    expected = dict(zip(OBJECTIVES, (1.0, ratio[step], ratio[step] / (1 + ratio[step])), strict=True))
    found = []
    if weights is not None and weights.shape == signal.shape and not weights.is_meta:
        weight = float(weights[step])
        found = [name for name, value in expected.items() if math.isclose(weight, value, rel_tol=_TOLERANCE)]
    if len(found) == 1:
        if "objective" in facts.config and facts.choice("objective", found[0], OBJECTIVES) != found[0]:
            said = facts.config["objective"]
            raise UsageError(f"`config=objective={said}`: the file's own loss_weight is that of {found[0]}")
        return found[0], f"{found[0]} from loss_weight"
    if not facts.says("objective"):
        raise CheckpointError(
            f"{facts.path}: its loss_weight does not tell what the network predicts; say it with "
            f"`config=objective={'|'.join(OBJECTIVES)}`"
        )
    objective = facts.choice("objective", "pred_v", OBJECTIVES)
    return objective, f"{objective} as {'given' if 'objective' in facts.config else 'the file says'}"
