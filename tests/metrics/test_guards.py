"""What is refused, dropped or noted before any number is read, and that sound input passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from vectors import case_moments, expected, features, moments_of

from diffscope.errors import IllConditioned, NeedTwoViews, NonFinite, RankDeficient, TooFewImages, ZeroNoise
from diffscope.metrics._guards import _unit_scale, exchangeability, guarded, quantisation_share
from diffscope.metrics.icr import estimate
from diffscope.moments import BlockAccumulator, Moments
from diffscope.numerics import FloatArray

FP32 = 2.0**-23


def checked(z: FloatArray, eps: float = FP32, reduce: bool = False, blocks: int = 8) -> tuple[Moments, set[str]]:
    moments, notes = guarded(moments_of(z, blocks), eps, 1, reduce)
    return moments, {note.split(":")[0] for note in notes}


def with_channel(channel: FloatArray) -> FloatArray:
    """Case A and a fifth channel [64, 2]."""
    return np.concatenate([features("A"), channel[:, :, None]], axis=2)


@pytest.mark.parametrize("case", ["A", "B", "C", "D"])
def test_sound_input_passes_without_a_note(case: str) -> None:
    moments = case_moments(case)
    assert guarded(moments, FP32, 1, False) == (moments, ())
    assert guarded(moments, FP32, 1, True) == (moments, ())


def test_one_view() -> None:
    with pytest.raises(NeedTwoViews):
        moments_of(features("A")[:, :1], 8)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(value: float) -> None:
    z = features("A")
    z[7, 1, 2] = value
    with pytest.raises(NonFinite):
        BlockAccumulator(2, 4).update(torch.from_numpy(z))


def test_too_few_images() -> None:
    with pytest.raises(TooFewImages, match="at least 6 images"):
        checked(features("A")[:5], blocks=4)
    checked(features("A")[:6], blocks=4)


def test_identical_views() -> None:
    z = features("A")
    with pytest.raises(ZeroNoise, match="same features"):
        checked(np.stack([z[:, 0], z[:, 0]], axis=1))
    # Differences of less than float32 spacings are no noise either.
    with pytest.raises(ZeroNoise, match="same features"):
        checked(np.stack([z[:, 0], z[:, 0] * (1 + 2.0**-24)], axis=1))


def test_a_dead_channel_is_dropped_with_a_note() -> None:
    moments, codes = checked(with_channel(np.full((64, 2), 3.0)))
    assert codes == {"dead_channels"}
    assert moments.d == 4
    assert estimate(moments).icr == pytest.approx(expected("A")["icr"], rel=1e-6)
    assert moments.total.variance_residual.sum() == pytest.approx(expected("A")["trace_xi"], rel=1e-6)


@pytest.mark.parametrize(("spread", "dead"), [(0.99e-6, True), (1.01e-6, False)])
def test_dead_is_a_standard_deviation_of_a_millionth_of_the_mean(spread: float, dead: bool) -> None:
    """Views 3(1 ± δ): S_W = 2·(3δ)², and nothing between images. At √2·δ of 1e-6 the channel comes to life."""
    channel = 3 * (1 + spread / 2**0.5 * np.array([1.0, -1.0]))
    signs = np.where(np.arange(64) % 2, 1, -1)[:, None]  # of views in turn, so that they stay exchangeable
    moments, codes = checked(with_channel(3 + signs * (channel - 3)))
    assert (moments.d, codes) == ((4, {"dead_channels"}) if dead else (5, set()))


def test_no_channel_is_left() -> None:
    """Views differ by more than float32 spacings (4.8e-7 of the mean), and all by less than the limit of the dead."""
    z = 3 * (1 + 0.7e-6 * np.random.default_rng(0).standard_normal((64, 2, 4)))
    with pytest.raises(ZeroNoise, match="all channels are constant"):
        checked(z)


@pytest.mark.parametrize(("factor", "silent"), [(0.99, True), (1.01, False)])
def test_noiseless_is_a_residual_of_four_float32_spacings(factor: float, silent: bool) -> None:
    """Channel 4 is ± 1 by image, its views 4·2⁻²³ of that apart in the sense of √S_W = |r|·√2."""
    image = np.where(np.arange(64) % 2, 1.0, -1.0)
    apart = factor * 4 * 2.0**-23 / 2**0.5
    signs = np.where(np.arange(64) % 4 < 2, 1, -1)
    z = with_channel(image[:, None] + signs[:, None] * apart * np.array([1.0, -1.0]))
    if silent:
        with pytest.raises(ZeroNoise, match="channel 4 differs between images but not between views"):
            checked(z)
    else:
        assert checked(z)[0].d == 5


@pytest.mark.parametrize("views", [2, 3])
def test_a_noiseless_channel_is_refused_by_name(views: int) -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((64, 1, 5)) + rng.standard_normal((64, views, 5))
    z[:, :, 4] = z[:, :1, 4]
    with pytest.raises(ZeroNoise, match="channel 4 "):
        checked(z)


def test_a_copied_channel_is_refused_or_reduced() -> None:
    z = with_channel(features("A")[:, :, 0])
    with pytest.raises(RankDeficient, match="5 channels have rank 4"):
        checked(z)
    moments, codes = checked(z, reduce=True)
    assert (moments.d, codes) == (4, {"reduced"})
    assert estimate(moments).icr == pytest.approx(expected("A")["icr"], rel=1e-6)


@pytest.mark.parametrize(("dtype", "eps"), [(np.float64, FP32), (np.float32, FP32), (np.float16, 2.0**-10)])
def test_combinations_of_channels_are_reduced_with_all_lengths_kept(dtype: type, eps: float) -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((1000, 1, 12)) + rng.standard_normal((1000, 2, 12))
    z *= np.logspace(-1, 1, 12)
    wide = np.concatenate([z, z[:, :, :2], z @ rng.standard_normal((12, 2)) / 4], axis=2).astype(dtype)
    wide = wide.astype(np.float64)
    moments, _ = checked(wide, eps, reduce=True)
    assert moments.d == 12
    # Rounding of the combinations is what is projected away.
    rtol = max(1e-6, 4 * eps)
    assert estimate(moments).icr == pytest.approx(estimate(moments_of(z, 8)).icr, rel=rtol)
    everything = moments_of(wide, 8).total
    assert moments.total.variance_residual.sum() == pytest.approx(everything.variance_residual.sum(), rel=rtol)
    np.testing.assert_allclose(moments.total.view_eigenvalues, everything.view_eigenvalues[:12], rtol=rtol)


def test_channels_of_any_scale_are_as_well_conditioned() -> None:
    """At unit residual variance: as they are, six decades would be a reciprocal condition of 1e-12 and less."""
    z = features("B") * np.logspace(-3, 3, 16)
    moments = moments_of(z, 16)
    assert guarded(moments, FP32, 1, False) == (moments, ())
    assert guarded(moments, FP32, 1, True) == (moments, ())
    unit = 1 / np.sqrt(np.diagonal(moments.total.cov_residual))
    np.testing.assert_allclose(_unit_scale(moments), unit, rtol=1e-12)


def test_residuals_that_depend_on_each_other_are_ill_conditioned() -> None:
    rng = np.random.default_rng(0)
    xi = rng.standard_normal((64, 2, 1))
    for difference, outcome in ((1e-4, None), (1e-8, IllConditioned)):
        noise = np.concatenate([xi, xi + difference * rng.standard_normal((64, 2, 1))], axis=2)
        z = rng.standard_normal((64, 1, 2)) + noise
        if outcome:
            with pytest.raises(outcome):
                checked(z)
        else:
            assert "ill_conditioned" in checked(z)[1]


def test_exchangeability_of_the_vectors() -> None:
    f, p = exchangeability(case_moments("A"))
    assert f[0] == pytest.approx(expected("K")["A"]["F"], rel=1e-6)
    assert p[0] == pytest.approx(expected("K")["A"]["p"], rel=1e-6)
    z = features("A")
    z[:, 1] += 10
    f, p = exchangeability(moments_of(z, 8))
    assert f[0] == pytest.approx(expected("K")["A_shifted"]["F"], rel=1e-6)
    # A tail of 1e-89 magnifies the rounding of F.
    assert np.log(p[0]) == pytest.approx(np.log(expected("K")["A_shifted"]["p"]), rel=1e-6)
    assert checked(z)[1] == {"views_not_exchangeable"}


@pytest.mark.parametrize("view", [1, 2, 3])
def test_any_view_that_differs_is_noted(view: int) -> None:
    z = features("C")
    z[:, view] += 5
    assert checked(z)[1] == {"views_not_exchangeable"}


@pytest.mark.parametrize("views", [2, 4])
def test_exchangeability_rejects_sound_views_as_often_as_it_says(views: int) -> None:
    p = []
    for seed in range(200):
        z = np.random.default_rng(seed).standard_normal((40, views, 5))
        p.extend(exchangeability(moments_of(z, 4))[1])
    # Nominal 10 %; four binomial standard deviations of 200 runs.
    assert abs(np.mean(np.array(p) < 0.1) - 0.1) < 0.085


def test_quantised_features_are_noted() -> None:
    rng = np.random.default_rng(0)
    z = 30 + rng.standard_normal((512, 1, 8)) + 0.1 * rng.standard_normal((512, 2, 8))
    moments = moments_of(z, 8)
    # Mean/sd 30, noise/signal 0.01, bfloat16: (0.2·2⁻⁷)²·901/0.01; a 64th if 64 positions are averaged afterwards.
    assert quantisation_share(moments, 2.0**-7, 1) == pytest.approx(0.22, rel=0.1)
    assert quantisation_share(moments, 2.0**-7, 64) == pytest.approx(quantisation_share(moments, 2.0**-7, 1) / 64)
    assert checked(z, 2.0**-7)[1] == {"quantised_features"}
    assert checked(z, FP32)[1] == set()
