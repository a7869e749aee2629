"""Schedulers of the diffusers library: which noise a network was trained on, and what it predicts.

Two kinds: chains of betas, where abar[t] = Π(1 - beta[i]) over i ≤ t in the library's own float32 and
sigma[t] = √((1 - abar[t]) / abar[t]); and the straight line between data and noise, x = (1 - s)·data + s·noise. What
else a scheduler says shapes the grid of a sampler alone, `shift` and its relatives too: it does not enter here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch

from diffscope.errors import CheckpointError
from diffscope.families._conventions import DiscreteSteps, FlowToNoise
from diffscope.families._facts import Facts, shown
from diffscope.families._latents import LatentScale
from diffscope.families.base import NoiseConvention

SETTINGS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
MAX_STEPS = 100_000
STRAIGHT: Mapping[str, Any] = {"path": "straight", "prediction_type": "velocity"}
"""The schedule of a flow matching network: it has no settings."""
PREDICTS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v", "velocity": "velocity"}
"""The library's `prediction_type` → the field's name."""
LATENT_SCALE = 0.18215
"""Default scaling_factor of diffusers' AutoencoderKL."""
_OTHER_NOISE = re.compile(r"FlowMatch|ScoreSde|EDM|KarrasVe|CMStochastic|VQDiffusion|LCM|TCD")
"""Schedulers whose noise is not a chain of betas, or whose networks are told of more than a step."""


def noise_of(schedule: Mapping[str, Any], path: str) -> NoiseConvention:
    """Makes the noise convention of a schedule.

    Args:
        schedule: From `schedule_of`, or STRAIGHT.
        path: Of the checkpoint, for messages.

    Returns:
        The convention.

    Raises:
        CheckpointError: If a level is zero or infinite.
    """
    if schedule["prediction_type"] == STRAIGHT["prediction_type"]:
        return FlowToNoise()
    levels = sigmas(schedule)
    if not 0 < levels[0] <= levels[-1] < math.inf:
        raise CheckpointError(
            f"{path}: the scheduler's betas give noise levels from {levels[0]:g} to {levels[-1]:g}; expected them "
            "above 0 and finite; say what differs with `config=beta_start=B, beta_end=B` or num_train_timesteps=N"
        )
    return DiscreteSteps(levels)


def is_straight(scheduler: Mapping[str, Any], path: str) -> bool:
    """Tells whether a scheduler's file means the straight line.

    Args:
        scheduler: Its settings.
        path: Of the checkpoint, for messages.

    Returns:
        True for flow matching, False for betas.

    Raises:
        CheckpointError: If the line runs the other way.
    """
    if scheduler.get("invert_sigmas"):
        raise CheckpointError(f"{path}: the scheduler's invert_sigmas is set; expected a line from data to noise")
    solver = bool(scheduler.get("use_flow_sigmas")) and scheduler.get("prediction_type") == "flow_prediction"
    return solver or str(scheduler.get("_class_name")).startswith("FlowMatch")


def schedule_of(
    scheduler: Mapping[str, Any], config: Mapping[str, str], path: str, known: Collection[str] = SETTINGS
) -> dict[str, Any]:
    """Reads the settings that decide noise levels and what the network predicts, of the present spelling or the first.

    Args:
        scheduler: Its file; empty where there is none.
        config: The user's `--config`.
        path: Of the checkpoint, for messages.
        known: Keys that `config` may have.

    Returns:
        SETTINGS, and trained_betas where the file has them.

    Raises:
        CheckpointError: If that is no chain of betas.
        UsageError: If `config` is wrong.
    """
    said = {key: value for key, value in scheduler.items() if value is not None}
    name = str(said["_class_name"]) if isinstance(said.get("_class_name"), str) else ""
    odd = [key for key in ("rescale_betas_zero_snr", "use_flow_sigmas") if said.get(key)]
    if odd or _OTHER_NOISE.search(name):
        raise CheckpointError(f"{path}: the scheduler ({name}{', ' if odd else ''}{', '.join(odd)}) is not supported")
    if "timesteps" in said:  # the spelling before diffusers 0.3
        said.setdefault("num_train_timesteps", said["timesteps"])
    if said.get("predict_epsilon") is False:  # until diffusers 0.10
        said.setdefault("prediction_type", "sample")
    facts, betas = Facts(path, said, config, known), said.get("trained_betas")
    found: dict[str, Any] = {  # defaults of diffusers' DDPMScheduler
        "num_train_timesteps": facts.integer("num_train_timesteps", 1000, 1, MAX_STEPS),
        "beta_start": facts.number("beta_start", 1e-4, 0, 0.9999),
        "beta_end": facts.number("beta_end", 0.02, 0, 0.9999),
        "beta_schedule": facts.choice("beta_schedule", "linear", ("linear", "scaled_linear", "squaredcos_cap_v2")),
        "prediction_type": facts.choice("prediction_type", "epsilon", ("epsilon", "v_prediction", "sample")),
    }
    if betas is not None and not config.keys() & {"beta_schedule", "beta_start", "beta_end", "num_train_timesteps"}:
        if not isinstance(betas, list) or not 1 <= len(betas) <= MAX_STEPS or not all(map(_is_beta, betas)):
            raise CheckpointError(
                f"{path}: trained_betas is {shown(betas)}; expected a list of 1 to {MAX_STEPS} numbers between 0 and 1"
            )
        return {**found, "trained_betas": betas, "num_train_timesteps": len(betas)}
    if found["beta_start"] > found["beta_end"]:
        raise CheckpointError(
            f"{path}: beta_start {found['beta_start']:g} is above beta_end {found['beta_end']:g}; expected it below"
        )
    return found


def _is_beta(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 < value < 1


def latents_of(vae: Mapping[str, Any], path: str) -> LatentScale:
    """Reads what a pipeline makes of its image encoder's latents.

    Args:
        vae: The encoder's config.
        path: Of the checkpoint, for messages.

    Returns:
        Its scaling_factor and shift_factor.

    Raises:
        CheckpointError: If they are made into something else.
    """
    if odd := [key for key in ("latents_mean", "latents_std") if vae.get(key)]:
        raise CheckpointError(
            f"{path}: an image encoder with {', '.join(odd)} is not supported, only scaling_factor and shift_factor"
        )
    facts = Facts(path, vae)
    factor, shift = facts.number("scaling_factor", LATENT_SCALE, 0, 1e6), facts.number("shift_factor", 0.0, -1e6, 1e6)
    return LatentScale((factor,), (shift,))


def sigmas(schedule: Mapping[str, Any]) -> list[float]:
    """Computes the noise level of every step, from the float32 table `alphas_cumprod` of the library's schedulers.

    Args:
        schedule: num_train_timesteps, beta_start, beta_end, beta_schedule, and trained_betas where there are some.

    Returns:
        Noise-to-signal ratios, rising; infinite where no signal is left.
    """
    count, start, end = schedule["num_train_timesteps"], schedule["beta_start"], schedule["beta_end"]
    if "trained_betas" in schedule:
        betas = torch.tensor(schedule["trained_betas"], dtype=torch.float32)
    elif schedule["beta_schedule"] == "linear":
        betas = torch.linspace(start, end, count, dtype=torch.float32)
    elif schedule["beta_schedule"] == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, count, dtype=torch.float32) ** 2
    else:
        # Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021: no step takes all of the signal
        left = [math.cos((i / count + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(count + 1)]
        betas = torch.tensor([min(1 - left[i + 1] / left[i], 0.999) for i in range(count)], dtype=torch.float32)
    # The product runs in float64 and each entry is rounded, as torch's cumprod does it on a CPU.
    signal = np.cumprod((1 - betas).double().numpy()).astype(np.float32).astype(np.float64)
    with np.errstate(divide="ignore"):
        return [float(s) for s in np.sqrt((1 - signal) / signal)]
