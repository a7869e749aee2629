"""What a network predicts, by the field's names, and the posterior mean of the data that follows from it.

The noisy input is x_t = α·(data + σ·noise). With x = x_t/α:

| name | the network's output | posterior mean |
| --- | --- | --- |
| `eps` | noise | x - σ·output |
| `x0`, `denoised` | data | output |
| `v` | α·noise - α·σ·data, where α² + (α·σ)² = 1 | α·(α·x - σ·output) |
| `velocity` | dx_t/dt of a flow | α·(x - σ·output), with + where the data lie at t = 1 |
| `score` | the gradient of the log density of x_t | x + α·σ²·output |

Ho et al. 2020, https://arxiv.org/abs/2006.11239 (eps); Salimans & Ho 2022, https://arxiv.org/abs/2202.00512 (v); Lipman
et al. 2023, https://arxiv.org/abs/2210.02747 (velocity); Song et al. 2021, https://arxiv.org/abs/2011.13456 (score).
"""

from __future__ import annotations

import difflib

from torch import Tensor

from diffscope.errors import UsageError
from diffscope.families._named_noise import NamedNoise
from diffscope.families._noise import NoiseConvention

PREDICTIONS = ("eps", "x0", "v", "velocity", "denoised", "score")


def check_prediction(predicts: str, noise: NamedNoise) -> None:
    """Refuses what a network of this noise convention cannot predict.

    Args:
        predicts: One of PREDICTIONS.
        noise: The convention.

    Raises:
        UsageError: If there is no such name, or it is not defined for this noise.
    """
    if predicts not in PREDICTIONS:
        close = difflib.get_close_matches(predicts, PREDICTIONS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UsageError(f"`predicts={predicts}`: {hint}expected {', '.join(PREDICTIONS[:-1])} or {PREDICTIONS[-1]}")
    if predicts not in possible(noise):
        fits = "ddpm and vp" if predicts == "v" else "flow"
        raise UsageError(
            f"`predicts={predicts}`: defined for the noise of {fits}, not for {noise.kind}; expected "
            f"{', '.join(possible(noise))}"
        )


def possible(noise: NamedNoise) -> tuple[str, ...]:
    """Lists what a network of this noise convention can predict."""
    own = {"flow": ("velocity",), "ddpm": ("v",), "vp": ("v",)}.get(noise.kind, ())
    return tuple(name for name in PREDICTIONS if name in own or name not in ("v", "velocity"))


def posterior_mean(
    predicts: str, noise: NoiseConvention, x: Tensor, sigma: Tensor, output: Tensor, data_at: float = 0
) -> Tensor:
    """Computes the posterior mean of the data from a network's output.

    Args:
        predicts: One of PREDICTIONS, defined for this noise.
        noise: The convention.
        x: data + σ·noise, (B, C, H, W).
        sigma: σ, (B,) or (1,).
        output: Of the network, (B, C, H, W).
        data_at: Of a velocity: the time at which the data lie, 0 or 1.

    Returns:
        (B, C, H, W).
    """
    if predicts in ("x0", "denoised"):
        return output
    levels = sigma.flatten().double().tolist()
    scale = x.new_tensor([noise.input_scale(level) for level in levels])[:, None, None, None]
    level = x.new_tensor(levels)[:, None, None, None]
    if predicts == "eps":
        return x - level * output
    if predicts == "v":
        return scale * (scale * x - level * output)
    if predicts == "velocity":
        return scale * (x - level * output if data_at == 0 else x + level * output)
    return x + scale * level * level * output
