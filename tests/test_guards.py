"""What is refused, dropped or noted before any number is read, and that sound input passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from vectors import case_moments, expected, features, moments_of

from diffscope.errors import IllConditioned, NeedTwoViews, NonFinite, RankDeficient, TooFewImages, ZeroNoise
from diffscope.metrics.icr import estimate
from diffscope.moments import BlockAccumulator, Moments, guards
from diffscope.moments.guards import _unit_scale, exchangeability, guarded, quantisation_share, size_problem
from diffscope.numerics import FloatArray, student_quantile

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


@pytest.mark.parametrize(
    ("images", "views", "words"),
    [
        (5, 2, "5 images × 2 views cannot determine 4 channels; expected at least 6 images (recommended 16); "),
        # N(V − 1) must be above d + 1 = 5, and better be 4d = 16; 1 + ⌈16/N⌉ views would do for as few images.
        (2, 3, "2 images × 3 views cannot determine 4 channels; expected at least 3 images (recommended 8); "),
        (0, 2, "0 images × 2 views cannot determine 4 channels; expected at least 6 images (recommended 16); "),
    ],
)
def test_what_would_be_enough_is_said_in_full(images: int, views: int, words: str) -> None:
    more = {5: 5, 2: 9, 0: 17}[images]
    assert size_problem(images, views, 4) == f"{words}take more images, or `views={more}`"


def test_what_would_be_enough_is_rounded_up() -> None:
    """7/3, 20/3 and 1 + 20/2 for five channels and two images of four views."""
    found = size_problem(2, 4, 5)
    assert found is not None
    assert "expected at least 3 images (recommended 7); take more images, or `views=11`" in found


def test_the_least_size() -> None:
    assert size_problem(6, 2, 4) is None
    assert size_problem(3, 3, 4) is None
    problem = size_problem(100, 1, 4)
    assert problem is not None
    assert problem.startswith("1 view per image; expected at least 2")


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
    zero, codes = checked(with_channel(np.zeros((64, 2))))
    assert (zero.d, codes) == (4, {"dead_channels"})  # as a ReLU leaves it: not below, but at a limit of 0
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


@pytest.mark.parametrize(("count", "listed"), [(5, "0, 1, 2, 3, 4 differs"), (6, "0, 1, 2, 3, 4 and 1 more differs")])
def test_five_channels_are_listed_and_more_are_counted(count: int, listed: str) -> None:
    z = np.random.default_rng(0).standard_normal((64, 2, 8))
    z[:, 1, :count] = z[:, 0, :count]
    with pytest.raises(ZeroNoise, match=f"channel {listed}"):
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
    wide = np.concatenate([z, z[:, :, :2], z @ rng.standard_normal((12, 2)) / 4], axis=2)
    wide = wide.astype(dtype).astype(np.float64)
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


def two_channels(apart: float, signal: float, signal_apart: float) -> FloatArray:
    """Of 64 images: residuals h1 and h1 + apart·h2, and between them h3 and h3 + signal_apart·h4 times `signal`.

    The h are ± 1 and orthogonal, so that with k = signal²·64/63 and to first order in ε² = apart², at unit residual
    variance, S_W = [[1, 1 − ε²/2], …] with a reciprocal condition of ε²/4, and the eigenvalues of S_B + S_W are as
    (ε² + k·signal_apart²)/(4(1 + k)) to 1.
    """
    h1, h2, h3, h4 = hadamard(64)[[1, 2, 4, 8]]
    s = signal * np.stack([h3, h3 + signal_apart * h4], axis=1)
    r = np.stack([h1, h1 + apart * h2], axis=1)
    return np.asarray(np.stack([s + r, s - r], axis=1))


@pytest.mark.parametrize(("factor", "rank"), [(0.98, 1), (1.02, 2)])
def test_the_least_eigenvalue_that_is_kept(factor: float, rank: int) -> None:
    """1e-10 of the largest, in features that have float32's spacing at best; 4 eps² where that is coarser."""
    for eps, limit in ((FP32, 1e-10), (1e-4, 4e-8)):
        moments, codes = checked(two_channels(2 * (factor * limit) ** 0.5, 1.0, 2 * (factor * limit) ** 0.5), eps, True)
        assert moments.d == rank
        assert ("reduced" in codes) is (rank == 1)


@pytest.mark.parametrize(
    ("condition", "outcome"), [(1.02e-8, None), (0.98e-8, "note"), (1.02e-12, "note"), (0.98e-12, "error")]
)
def test_the_limits_of_conditioning(condition: float, outcome: str | None) -> None:
    z = two_channels(2 * condition**0.5, 1.0, 1.0)
    if outcome == "error":
        with pytest.raises(IllConditioned, match="expected at least 1e-12; take more images"):
            checked(z)
    else:
        assert checked(z)[1] == (set() if outcome is None else {"ill_conditioned"})


@pytest.mark.parametrize(("factor", "error"), [(0.98, RankDeficient), (1.02, IllConditioned)])
def test_dependent_channels_are_told_from_dependent_residuals(factor: float, error: type[Exception]) -> None:
    """By what the images add to a singular S_W: 1e-10 of the largest eigenvalue."""
    k = 64 / 63
    apart = (factor * 1e-10 * 4 * (1 + k) / k) ** 0.5
    with pytest.raises(error):
        checked(two_channels(1e-8, 1.0, apart))
    # Once combinations were projected away, what is left is no longer called one.
    with pytest.raises(IllConditioned):
        guards._conditioning(moments_of(two_channels(1e-8, 1.0, apart), 8), reduced=True)


def test_dependent_channels_that_can_still_be_told_apart_are_noted() -> None:
    """Residual condition 1.5e-10, and of all variation .74e-10 in the other direction: half of the digits are left."""
    assert checked(two_channels(2 * 1.5e-10**0.5, 1.0, 0.0))[1] == {"ill_conditioned"}


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


@pytest.mark.parametrize(("p", "noted"), [(1.01e-6, False), (0.99e-6, True)])
def test_a_difference_between_views_with_a_p_of_a_millionth(p: float, noted: bool) -> None:
    """One channel whose views differ by m ± 1 in turn: the paired t is m·√(N − 1), on N − 1 degrees of freedom."""
    m = student_quantile(1 - p / 2, 63) / 63**0.5
    difference = m + np.where(np.arange(64) % 2, 1.0, -1.0)
    image = np.random.default_rng(0).standard_normal(64)
    z = np.stack([image + difference, image], axis=1)[:, :, None]
    assert exchangeability(moments_of(z, 8))[1] == pytest.approx(p, rel=1e-6)
    assert checked(z)[1] == ({"views_not_exchangeable"} if noted else set())


def test_several_views_share_the_millionth(monkeypatch: pytest.MonkeyPatch) -> None:
    for p, words in (([0.5, 0.6e-6], None), ([0.5, 0.4e-6], "views 1 and 3 has p = 8.0e-07 (limit 1e-06)")):
        monkeypatch.setattr(guards, "exchangeability", lambda _, p=p: (np.zeros(2), np.array(p)))
        notes = guards._exchangeability(case_moments("A"))
        assert len(notes) == (words is not None)
        assert words is None or words in notes[0]


@pytest.mark.parametrize("view", [1, 2, 3])
def test_any_view_that_differs_is_noted(view: int) -> None:
    z = features("C")
    z[:, view] += 5
    assert checked(z)[1] == {"views_not_exchangeable"}


@pytest.mark.parametrize("views", [2, 4])
def test_exchangeability_rejects_sound_views_as_often_as_it_says(views: int) -> None:
    p: list[float] = []
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


@pytest.mark.parametrize(("factor", "noted"), [(0.99, False), (1.01, True)])
def test_rounding_is_noted_from_a_hundredth_of_the_residual_variance(factor: float, noted: bool) -> None:
    """ρ_q grows with the square of the spacing."""
    z = features("B")
    eps = (factor * 0.01 / quantisation_share(moments_of(z, 8), 1.0, 1)) ** 0.5
    assert ("quantised_features" in checked(z, eps)[1]) is noted


def test_the_share_of_rounding_on_paper() -> None:
    """Residuals ± 1 have S_W = 2; values of 3 ± 1 a mean square of 10: (0.2·eps)²·10/2, and less by positions."""
    z = (3 + np.where(np.arange(64) % 2, 1.0, -1.0)[:, None] * np.array([1.0, -1.0]))[:, :, None]
    assert quantisation_share(moments_of(z, 8), 0.5, 1) == pytest.approx(0.01 * 5)
    assert quantisation_share(moments_of(z, 8), 0.5, 4) == pytest.approx(0.01 * 5 / 4)
