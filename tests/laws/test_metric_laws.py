"""What estimates obey whatever the features: their ranges, and the changes of the features that they do not see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from vectors import moments_of

from diffscope.metrics.base import Context, measure_all
from diffscope.numerics import FloatArray

ICR = ("icr", "icr_low", "icr_high", "icr_raw", "icr_gauss", "icr_cf", "kappa_ratio", "se_ratio", "replicates",
       "lambda", "pr_fisher", "nc1_fisher")  # fmt: skip
"""z → zA + t leaves them as they are, A invertible."""
SHAPE = ("effective_rank", "participation_ratio", "participation_s", "participation_xi", "trace_icr", "nc1_trace")
"""So do rotations, translations and one scale for all channels."""
TRACES = ("trace_s", "trace_xi", "alignment_raw")
"""Squares of the features' unit."""
ON_UNIT_FEATURES = ("alignment", "uniformity", "trace_s_l2", "trace_xi_l2")
DIRECTIONS = ("effective_rank", "rankme", "participation_ratio", "lidar", "lidar_signal", "pr_fisher")
"""From 1 to d."""


@st.composite
def features(draw: st.DrawFn) -> FloatArray:
    """[N, V, d]: an image's own part and its views' noise, both with correlated channels, and a mean."""
    views, d = draw(st.integers(2, 4)), draw(st.integers(1, 5))
    n = 8 * draw(st.integers(d + 2, 20))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    own, noise = draw(st.floats(0, 3)), draw(st.floats(0.1, 3))
    mixing, other = rng.standard_normal((2, d, d)) + np.eye(d)
    signal = own * rng.standard_normal((n, 1, d)) @ mixing
    return np.asarray(signal + noise * rng.standard_normal((n, views, d)) @ other + rng.integers(-2, 3, d))


@st.composite
def mixing(draw: st.DrawFn, d: int) -> FloatArray:
    """[d, d] of a condition number up to 100."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    left, right = (np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in range(2))
    return np.asarray(left * 10 ** rng.uniform(-1, 1, d) @ right)


def measured(z: FloatArray) -> dict[str, Any]:
    values = dict(measure_all(moments_of(z, 8), Context()).values)
    assume(values["d"] == z.shape[2])
    return values


def assert_same(found: dict[str, Any], expected: dict[str, Any], keys: tuple[str, ...], factor: float = 1.0) -> None:
    for key in keys:
        if expected[key] is None:
            assert found[key] is None, key
            continue
        value = factor * np.asarray(expected[key])
        # Eigenvalues near zero are differences of others: their error is that of 1 + Vλ.
        np.testing.assert_allclose(found[key], value, rtol=1e-6, atol=1e-7 * (1 + np.abs(value).max()), err_msg=key)


@settings(max_examples=25)
@given(features())
def test_ranges(z: FloatArray) -> None:
    found, (_, views, d) = measured(z), z.shape
    assert 0 < found["icr_raw"] <= views / (views - 1)
    assert 0 < found["icr_raw"] < found["icr_gauss"] <= views / (views - 1)
    assert found["icr"] is None or 0 < found["icr"] <= views / (views - 1)
    if found["icr_low"] is not None:
        assert 0 < found["icr_low"] <= found["icr"] <= found["icr_high"] <= views / (views - 1)
    for key in DIRECTIONS:
        if found[key] is not None:
            assert 1 - 1e-5 <= found[key] <= d + 1e-5, key  # RankMe and LiDAR add 1e-7 to every share
    assert 0 <= found["alignment"] <= 4
    assert -8 <= found["uniformity"] <= 1e-12
    assert found["trace_xi"] > 0
    assert found["lambda"] == sorted(found["lambda"], reverse=True)
    errors = [value for key, value in found.items() if key.endswith("_se") and value is not None]
    assert errors
    assert min(errors) >= 0


@settings(max_examples=20)
@given(features())
def test_icr_of_the_population_is_a_share(z: FloatArray) -> None:
    """Where the invariant part is none the plug-in lies about 1; with ever more of it, it falls towards 0."""
    centred = z - z.mean(1, keepdims=True)
    own = np.random.default_rng(0).standard_normal((len(z), 1, z.shape[2]))
    found = [measured(centred + scale * own)["icr_raw"] for scale in (1.0, 10.0, 100.0, 1000.0)]
    assert found == sorted(found, reverse=True)
    assert 0 < found[-1] < 0.01 + 1e-3 * found[0] / found[-2]


@settings(max_examples=20)
@given(st.data(), features())
def test_icr_sees_no_change_of_coordinates(data: st.DataObject, z: FloatArray) -> None:
    d = z.shape[2]
    moved = z @ data.draw(mixing(d)) + np.arange(d, dtype=np.float64)
    assert_same(measured(moved), measured(z), ICR)


@settings(max_examples=20)
@given(st.data(), features(), st.floats(0.01, 100))
def test_spectra_see_no_rotation_and_traces_scale(data: st.DataObject, z: FloatArray, scale: float) -> None:
    d = z.shape[2]
    rotation = np.linalg.qr(np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))).standard_normal((d, d)))[0]
    before, after = measured(z), measured(scale * z @ rotation + 3 * scale)
    assert_same(after, before, SHAPE)
    assert_same(after, before, TRACES, scale**2)
    # Unit features see where zero is.
    assert_same(measured(scale * z @ rotation), before, (*ON_UNIT_FEATURES, "rankme"))


@settings(max_examples=15)
@given(st.data(), features())
def test_views_and_images_of_a_block_have_no_order(data: st.DataObject, z: FloatArray) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    shuffled = z[:, rng.permutation(z.shape[1])]
    within = np.arange(len(z)).reshape(-1, 8)
    shuffled = shuffled[rng.permuted(within, axis=0).reshape(-1)]
    found, expected = measured(shuffled), measured(z)
    numbers = tuple(key for key, value in expected.items() if not key.endswith("_se") and key != "replicates")
    assert_same(found, expected, numbers)


@settings(max_examples=10)
@given(features())
def test_the_order_of_blocks_shows_in_no_plug_in(z: FloatArray) -> None:
    turned = z.reshape(-1, 8, *z.shape[1:])[:, ::-1].reshape(z.shape)
    found, expected = measured(turned), measured(z)
    assert_same(found, expected, (*SHAPE, *TRACES, *ON_UNIT_FEATURES, "icr_raw", "icr_gauss", "icr_cf", "rankme"))
    assert found["icr_raw_se"] == pytest.approx(expected["icr_raw_se"], rel=1e-6)
