"""Noise and predictions by the field's names: closed forms, and what follows from them exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from diffscope.errors import NoiseLevelError, UsageError
from diffscope.families._named_noise import NamedNoise, named_noise
from diffscope.families._posterior import posterior_mean
from diffscope.families._predictions import PREDICTIONS, check_prediction, possible

NAMES = (
    "edm", "edm:sigma_min=0.1,sigma_max=80", "ve", "vp", "vp:beta_max=10,time_scale=1", "ddpm:linear", "ddpm:cosine",
    "ddpm:scaled_linear", "ddpm:sigmoid", "ddpm:linear,steps=50,beta_start=0.001,beta_end=0.2",
    "ddpm:linear,time_scale=0.25", "flow:data=0", "flow:data=1", "flow:data=1,time_scale=1000",
)  # fmt: skip


def paths(noise: NamedNoise, sigma: float) -> tuple[float, float]:
    """The factors of data and of noise in x_t, from what each name means."""
    fed = noise.convention.to_native(sigma)
    if noise.kind in ("edm", "ve"):
        return 1.0, fed
    if noise.kind == "flow":
        t = fed / float(noise.text.rpartition("time_scale=")[2])
        return (1 - t, t) if noise.data_at == 0 else (t, 1 - t)
    return 1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sigma", [0.15, 0.7, 4.0])
def test_levels_come_back_and_inputs_are_scaled(name: str, sigma: float) -> None:
    noise = named_noise(name)
    sigma = noise.convention.check(sigma)
    assert noise.convention.to_sigma(noise.convention.to_native(sigma)) == pytest.approx(sigma, rel=1e-9)
    data, added = paths(noise, sigma)
    assert noise.convention.input_scale(sigma) == pytest.approx(data, rel=1e-9)
    assert sigma * data == pytest.approx(added, rel=1e-9)
    assert named_noise(noise.text) == noise or named_noise(noise.text).text == noise.text


def targets(noise: NamedNoise, sigma: float, x0: Tensor, eps: Tensor) -> dict[str, Tensor]:
    """What a perfect network of one image would return, by the definition of each prediction."""
    data, added = paths(noise, sigma)
    velocity = eps - x0 if noise.data_at == 0 else x0 - eps
    return {
        "eps": eps, "x0": x0, "denoised": x0, "v": data * eps - added * x0, "velocity": velocity,
        "score": -eps / added,
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_posterior_mean_follows_from_every_prediction(name: str) -> None:
    noise = named_noise(name)
    draws = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(2, 3, 4, 4, generator=draws, dtype=torch.float64) for _ in range(2))
    sigma = noise.convention.check(0.7)
    made = targets(noise, sigma, x0, eps)
    level, x = torch.tensor([sigma], dtype=torch.float64), x0 + sigma * eps

    def mean(kind: str, output: Tensor) -> Tensor:
        return posterior_mean(kind, noise.convention, x, level, output, noise.data_at)

    for kind in possible(noise):
        torch.testing.assert_close(mean(kind, made[kind]), x0, rtol=1e-9, atol=1e-9)
        for other in set(possible(noise)) - {kind, "x0", "denoised"}:
            if {kind, other} != {"x0", "denoised"}:
                assert not torch.allclose(mean(other, made[kind]), x0, atol=1e-2)
    assert [p for p in PREDICTIONS if p not in possible(noise)] == {
        "flow": ["v"], "ddpm": ["velocity"], "vp": ["velocity"]
    }.get(noise.kind, ["v", "velocity"])  # fmt: skip


def test_schedules_are_those_of_the_papers() -> None:
    def sigmas(name: str) -> list[float]:
        return named_noise(name).convention.sigmas  # type: ignore[attr-defined,no-any-return]

    linear = sigmas("ddpm:linear")
    assert linear[0] == pytest.approx(math.sqrt(1e-4 / (1 - 1e-4)))
    assert linear[-1] == pytest.approx(157.4, rel=1e-3)  # abar = 4.04e-5 after DDPM's thousand steps
    scaled = sigmas("ddpm:scaled_linear")
    assert scaled[-1] == pytest.approx(14.6146, rel=1e-5)  # Stable Diffusion's largest level
    sigmoid = sigmas("ddpm:sigmoid,steps=200")
    assert (sigmoid[0], sigmoid[-1]) == (pytest.approx(0.0390, abs=5e-5), pytest.approx(811.7, rel=1e-4))
    cosine = sigmas("ddpm:cosine")
    half = math.cos((0.5 + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert cosine[499] == pytest.approx(math.sqrt((1 - half) / half), rel=1e-9)
    assert all((np.diff(levels) > 0).all() for levels in (linear, scaled, sigmoid, cosine))


def test_what_a_network_is_fed() -> None:
    assert named_noise("vp").convention.to_native(named_noise("vp").convention.sigma_max) == pytest.approx(999)
    steps = named_noise("ddpm:linear")
    assert (steps.whole, steps.convention.discrete, steps.convention.to_native(1.0)) == (True, True, 258)
    quarter = named_noise("ddpm:linear,time_scale=0.25")
    assert (quarter.whole, quarter.convention.to_native(1.0)) == (False, 64.5)
    assert quarter.convention.to_sigma(64.5) == steps.convention.to_sigma(258)
    with pytest.raises(NoiseLevelError, match=r"multiple of 0\.25"):
        quarter.convention.to_sigma(64.3)
    for name, end in (("flow:data=0", 1), ("flow:data=1", 0)):
        with pytest.raises(NoiseLevelError, match="noise alone"):
            named_noise(name).convention.to_sigma(end)
    turned = named_noise("flow:data=1,time_scale=1000").reversed()
    assert turned is not None
    assert (turned.data_at, turned.convention.to_native(1 / 3)) == (0, pytest.approx(250))
    assert named_noise("edm").reversed() is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("emd", "did you mean edm?"),
        ("cosine", "expected edm, ve, vp, ddpm:linear|cosine"),
        ("ddpm", "which betas?"),
        ("ddpm:quadratic", "expected edm"),
        ("ddpm:linaer", "did you mean ddpm:linear?"),
        ("flow", "at which end"),
        ("flow:data=0.5", "at which end"),
        ("ddpm:linear,steps=4000", "some codes keep these"),
        ("ddpm:linear,steps=10.5,beta_start=0.1,beta_end=0.2", "steps=10.5; expected a whole number"),
        ("ddpm:linear,beta_start=0.5", "beta_end=0.02; expected more than beta_start, 0.5"),
        ("ddpm:linear,beta_end=2", "a number between 0 and 1"),
        ("ddpm:linear,beta_stop=0.5", "did you mean beta_start?"),
        ("edm:sigma_max", "is no fact of edm"),
        ("edm:sigma_max=high", "expected a number"),
        ("edm:time_scale=-1", "finite number above 0"),
        ("ve:sigma_min=-1", "0 or more"),
        ("ddpm:sigmoid,start=-2000,tau=0.1", "expected them to rise"),
    ],
)
def test_what_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        named_noise(text)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"`noise={text}`: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("predicts", "noise", "words"),
    [
        ("epsilon", "edm", "did you mean eps?"),
        ("v", "edm", "defined for the noise of ddpm and vp, not for edm"),
        ("velocity", "ddpm:linear", "of flow, not for ddpm; expected eps, x0, v, denoised, score"),
    ],
)
def test_predictions_that_do_not_go_with_the_noise_are_refused(predicts: str, noise: str, words: str) -> None:
    with pytest.raises(UsageError, match="`predicts=") as caught:
        check_prediction(predicts, named_noise(noise))
    assert words in str(caught.value)
