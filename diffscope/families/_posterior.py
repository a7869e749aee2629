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

from torch import Tensor

from diffscope.families._noise import NoiseConvention


def posterior_mean(
    predicts: str, noise: NoiseConvention, x: Tensor, sigma: Tensor, output: Tensor, data_at: float = 0
) -> Tensor:
    """Computes the posterior mean of the data from a network's output.

    Args:
        predicts: A name of the table, defined for this noise.
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
    level = sigma.flatten().to(x)[:, None, None, None]
    if predicts == "eps":
        return x - level * output
    scale = x.new_tensor([noise.input_scale(s) for s in sigma.flatten().double().tolist()])[:, None, None, None]
    if predicts == "v":
        return scale * (scale * x - level * output)
    if predicts == "velocity":
        return scale * (x - level * output if data_at == 0 else x + level * output)
    return x + scale * level * level * output
