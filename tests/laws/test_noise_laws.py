"""σ → t → σ, for every family that the registry finds."""

from __future__ import annotations

import math

import pytest
from family_examples import EXAMPLES, built
from hypothesis import given
from hypothesis import strategies as st

from diffscope import registry
from diffscope.errors import NoiseLevelError
from diffscope.families.base import NoiseConvention


def test_every_family_is_tried() -> None:
    assert {example.family for example in EXAMPLES.values()} == set(registry.members("diffscope.families"))


every_family = pytest.mark.parametrize("name", EXAMPLES)


def inside(noise: NoiseConvention, share: float) -> float:
    """A noise level, by its place on the logarithmic axis between 1e-3 and 1e3 cut to the model's range."""
    low, high = math.log(max(noise.sigma_min, 1e-3)), math.log(min(noise.sigma_max, 1e3))
    return min(max(math.exp(low + share * (high - low)), noise.sigma_min), noise.sigma_max)


shares = st.floats(0, 1)


@every_family
@given(share=shares)
def test_a_level_comes_back(name: str, share: float) -> None:
    noise = built(name).noise
    sigma = noise.check(inside(noise, share))
    again = noise.to_sigma(noise.to_native(sigma))
    if noise.discrete:
        assert again == sigma
        assert noise.check(sigma) == sigma
    else:
        # The bound of σ(t) and t(σ) in float64 where t is close to its own end: t = 1/(1 + σ) keeps 13 digits of σ.
        assert again == pytest.approx(sigma, rel=1e-9)
    assert noise.to_native(again) == pytest.approx(noise.to_native(sigma), rel=1e-9, abs=1e-12)
    assert 0 < noise.input_scale(sigma) < math.inf


@every_family
@given(first=shares, second=shares)
def test_more_noise_is_further_on_in_one_direction(name: str, first: float, second: float) -> None:
    noise = built(name).noise
    ends = noise.to_native(inside(noise, 0)), noise.to_native(inside(noise, 1))
    low, high = (noise.to_native(inside(noise, share)) for share in sorted((first, second)))
    assert (high - low) * (ends[1] - ends[0]) >= 0
    assert min(ends) <= low <= max(ends)


@every_family
@given(share=st.floats(1e-9, 1))
def test_levels_outside_are_refused(name: str, share: float) -> None:
    noise = built(name).noise
    below, above = noise.sigma_min * (1 - share), noise.sigma_max * (1 + share)
    for sigma in (below, above, -inside(noise, share), math.nan, math.inf, 0.0):
        if sigma in (noise.sigma_min, noise.sigma_max) and 0 < sigma < math.inf:
            continue
        with pytest.raises(NoiseLevelError):
            noise.check(sigma)
