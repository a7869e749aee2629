"""A shard's table of the model's noise variable says what the model says, for every convention there is."""

# mypy: disable-error-code="call-overload, return-value"

from __future__ import annotations

import json

import numpy as np
import pytest

from diffscope import registry
from diffscope.families import repa
from diffscope.families._conventions import DiscreteSteps, FlowToData, FlowToNoise, PlainSigma
from diffscope.families._interpolants import GVP, VP, Linear
from diffscope.families._named_noise import Diffusion, Scaled
from diffscope.families._preconditioners import EDMPrecond, VEPrecond, VPPrecond, iDDPMPrecond
from diffscope.families.base import NoiseConvention
from diffscope.families.dit import DDPMSteps
from diffscope.families.jit import ScaledLinear
from diffscope.studies.sweep.shards import from_table, noise_table

COARSE = DiscreteSteps([0.01, 0.02, 0.5, 3.0, 80.0])
SPACED = DiscreteSteps(np.geomspace(0.003, 300, 3000).tolist(), 1000 / 3000)
CONVENTIONS: list[NoiseConvention] = [
    PlainSigma(), EDMPrecond(), VPPrecond(), VEPrecond(), iDDPMPrecond(), Linear(), GVP(), VP(),
    repa.linear(), repa.cosine(), ScaledLinear(2.0), FlowToData(), FlowToNoise(), Scaled(FlowToNoise(), 1000),
    Diffusion(0.1, 20, 1000), DDPMSteps(), COARSE, SPACED,
]  # fmt: skip


def every_convention() -> set[type]:
    found, queue = set(), [NoiseConvention]
    for name in registry.members("diffscope.families"):
        __import__(f"diffscope.families.{name}")
    while queue:
        one = queue.pop()
        queue += one.__subclasses__()
        if not one.__abstractmethods__ and one.__module__.startswith("diffscope."):
            found.add(one)
    return found


def test_all_are_here() -> None:
    assert every_convention() <= {type(one) for one in CONVENTIONS}


@pytest.mark.parametrize("noise", CONVENTIONS, ids=lambda noise: type(noise).__name__)
def test_a_table_is_the_convention(noise: NoiseConvention) -> None:
    low, high = max(0.002, noise.sigma_min), min(20.0, noise.sigma_max)
    levels = [noise.check(float(sigma)) for sigma in (low, 0.3, high)]
    told = from_table(json.loads(json.dumps(noise_table(noise, levels))))
    random = np.exp(np.random.default_rng(0).uniform(*np.log([min(levels), max(levels)]), 100))
    for sigma in map(float, [*levels, *random]):
        if noise.discrete:
            assert json.dumps(told(sigma)) == json.dumps(noise.to_native(sigma))
        else:
            # Between levels; GVP's t and others pass through zero, hence the absolute part.
            assert told(sigma) == pytest.approx(noise.to_native(sigma), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("noise", CONVENTIONS, ids=lambda noise: type(noise).__name__)
def test_of_one_level(noise: NoiseConvention) -> None:
    sigma = noise.check(0.4)
    assert from_table(json.loads(json.dumps(noise_table(noise, [sigma]))))(sigma) == noise.to_native(sigma)
