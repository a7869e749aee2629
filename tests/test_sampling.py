"""Samples against the closed form of a Gaussian's flow; the same whatever the batch; images from the demo models."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import diffscope
from diffscope import families, sampling, seeding
from diffscope.checkpoints import read
from diffscope.errors import NoiseLevelError, UsageError
from diffscope.families._conventions import DiscreteSteps, PlainSigma
from diffscope.families._interpolants import VP
from diffscope.families._preconditioners import VEPrecond, iDDPMPrecond
from diffscope.families.base import Denoiser
from diffscope.families.dit import DDPMSteps
from diffscope.families.toy import GaussianNetwork
from diffscope.sampling import levels, sample
from diffscope.seeding import Stream

DEMO = Path(diffscope.__file__).parent / "demo"


def toy() -> Denoiser:
    return families.load(read("toy:d=4,side=4"))


def variances(denoiser: Denoiser) -> Tensor:
    assert isinstance(denoiser.network, GaussianNetwork)
    return denoiser.network.variances


def drawn(denoiser: Denoiser, count: int, **options: object) -> Tensor:
    return torch.cat(list(sample(denoiser, range(count), **options)))  # type: ignore[arg-type]


def exact(denoiser: Denoiser, count: int, sigma_max: float = 80.0) -> Tensor:
    """Where the flow takes the same noise: x(σ) ∝ √(v + σ²) for data of variance v, from dx/dσ = x·σ/(v + σ²)."""
    noise = np.stack([seeding.noise(0, Stream.SAMPLE, i, 0, (1, 4, 4)) for i in range(count)])
    v = variances(denoiser).view(1, 1, 4, 4)
    return torch.from_numpy(noise) * sigma_max * (v / (v + sigma_max**2)).sqrt()


def error(steps: int) -> float:
    denoiser = toy()
    # Down to 1e-4, so that Euler's last step, whose error is σ_min²/2v whatever the steps, counts for nothing.
    ours = drawn(denoiser, 16, steps=steps, sigma_min=1e-4)
    return float((ours - exact(denoiser, 16)).abs().max())


def test_samples_are_where_the_flow_of_a_gaussian_ends() -> None:
    assert error(64) < 0.01 * math.sqrt(float(variances(toy()).max()))


def test_error_falls_as_the_square_of_steps() -> None:
    errors = [error(steps) for steps in (32, 64, 128)]
    for coarse, fine in pairwise(errors):
        # 4 in the limit; the next order is still seen at 32 steps, and Euler's method would give 2.
        assert 3.4 < coarse / fine < 4.6


def test_samples_have_the_mean_and_covariance_of_the_data() -> None:
    count = 4000
    denoiser = toy()
    # Whitened: identity, but for 1 % of the steps' error.
    x = (drawn(denoiser, count, steps=64, batch_size=1000).flatten(1) / variances(denoiser).sqrt()).double()
    # 5 standard errors: 1/√N for a mean, and for an entry of the covariance 1/√N, on the diagonal √(2/N).
    assert float(x.mean(0).abs().max()) < 5 / math.sqrt(count)
    departure = (x.T @ x / count - torch.eye(16)).abs()
    assert float(departure.max()) < 5 * math.sqrt(2 / count) + 0.02


@pytest.mark.parametrize("name", ["toy", "unet", "sit"])
def test_a_sample_does_not_depend_on_its_company(name: str) -> None:
    denoiser = toy() if name == "toy" else demo(name)
    whole = drawn(denoiser, 7, steps=4)
    # Rounding, 1e-7 at each of 7 passes, grows where the network's slopes are steep.
    for batch_size in (1, 3):
        assert torch.allclose(drawn(denoiser, 7, steps=4, batch_size=batch_size), whole, atol=1e-4)
    late = torch.cat(list(sample(denoiser, range(4, 7), steps=4)))
    assert torch.allclose(late, whole[4:], atol=1e-4)
    assert not torch.allclose(drawn(denoiser, 7, steps=4, seed=1), whole, atol=1e-2)


def test_batches_are_float32_in_the_networks_input_space() -> None:
    batches = list(sample(toy(), range(5), batch_size=2))
    assert [tuple(batch.shape) for batch in batches] == [(2, 1, 4, 4), (2, 1, 4, 4), (1, 1, 4, 4)]
    assert all(batch.dtype == torch.float32 for batch in batches)
    assert list(sample(toy(), [])) == []


def demo(name: str) -> Denoiser:
    return families.load(read(str(DEMO / f"{name}.safetensors")))


@pytest.mark.parametrize("name", ["unet", "sit"])
def test_the_demo_models_draw_images(name: str) -> None:
    x = drawn(demo(name), 8)
    # Fashion-MNIST's pixels lie in [-1, 1] and reach both ends; networks overshoot a little.
    assert -1.4 < float(x.min()) < -0.9
    assert 0.3 < float(x.max()) < 1.4
    # Each picture's variation between neighbours, beside that of the same pixels in disorder: well below 1 for images.
    pixels = x.clamp(-1, 1)
    disorder = pixels.flatten(1)[:, torch.randperm(256, generator=torch.Generator().manual_seed(0))].view_as(pixels)
    assert variation(pixels) < 0.6 * variation(disorder)
    # They differ from each other: no mean image.
    assert float(torch.pdist(pixels.flatten(1)).min()) > 1


def variation(x: Tensor) -> float:
    """Mean absolute difference of neighbouring pixels."""
    return float((x.diff(dim=2).abs().mean() + x.diff(dim=3).abs().mean()) / 2)


def test_a_class_is_drawn_when_asked_for() -> None:
    denoiser = demo("sit")
    coats, sandals = (drawn(denoiser, 4, label=label, steps=8) for label in (4, 5))
    mixed = drawn(denoiser, 4, label=[4, 5, 4, 5], steps=8)
    assert torch.allclose(mixed[::2], coats[::2], atol=1e-3)
    assert torch.allclose(mixed[1::2], sandals[1::2], atol=1e-3)
    # A coat covers more of its picture than a sandal does.
    assert float(coats.mean()) > float(sandals.mean()) + 0.2


def test_levels_are_those_of_the_paper() -> None:
    ours = levels(PlainSigma(), 5)
    a, b = 80 ** (1 / 7), 0.002 ** (1 / 7)
    assert ours == pytest.approx([(a + i / 4 * (b - a)) ** 7 for i in range(5)])
    assert (ours[0], ours[-1]) == (80.0, 0.002)


@pytest.mark.parametrize(
    "noise",
    [PlainSigma(0.01, 5.0), VEPrecond(), iDDPMPrecond(), DDPMSteps(), DiscreteSteps([0.1, 1.0, 10.0]), VP()],
    ids=lambda noise: type(noise).__name__,
)
def test_levels_fall_within_the_models_range_and_never_twice(noise: object) -> None:
    ours = levels(noise, 40, sigma_max=1e6)  # type: ignore[arg-type]
    assert all(a > b for a, b in pairwise(ours))
    assert ours == [noise.nearest(sigma) for sigma in ours]  # type: ignore[attr-defined]
    assert noise.sigma_min <= ours[-1]  # type: ignore[attr-defined]
    assert ours[0] <= noise.sigma_max  # type: ignore[attr-defined]


def test_discrete_levels_are_visited_once_each() -> None:
    assert levels(DiscreteSteps([0.1, 1.0, 10.0]), 100) == [10.0, 1.0, 0.1]


def test_the_whole_range_of_a_path_can_be_sampled() -> None:
    """At its very end the VP path's time is 0 to rounding, and must not fall below."""
    denoiser = demo("sit")
    denoiser.noise = VP()
    assert drawn(denoiser, 1, steps=3, sigma_max=1e6).isfinite().all()


def test_what_cannot_be_sampled_is_refused_at_once() -> None:
    denoiser = toy()
    for options in ({"steps": 1}, {"rho": 0.0}, {"batch_size": 0}, {"label": 3}, {"label": [0, 1]}):
        with pytest.raises(UsageError):
            sample(denoiser, range(1), **options)
    with pytest.raises(UsageError, match="sample number -1"):
        sample(denoiser, [-1])
    with pytest.raises(UsageError, match="class 10: expected 0 to 9"):
        sample(demo("sit"), range(1), label=10)
    for sigmas in ({"sigma_max": math.inf}, {"sigma_min": 0.0}, {"sigma_min": 2.0, "sigma_max": 1.0}):
        with pytest.raises(NoiseLevelError, match="no noise levels"):
            sample(denoiser, range(1), **sigmas)  # type: ignore[arg-type]
    denoiser.noise = PlainSigma(100.0, 200.0)
    with pytest.raises(NoiseLevelError, match="range is 100 to 200"):
        sample(denoiser, range(1))


def test_the_network_runs_as_often_as_it_says() -> None:
    denoiser = toy()
    runs = []
    denoiser.network.register_forward_hook(lambda *_: runs.append(1))
    drawn(denoiser, 1, steps=6)
    assert len(runs) == 2 * 6 - 1
    assert sampling.STEPS == 18
