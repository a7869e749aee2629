"""ICR against the vectors, under linear maps, by sample size, and against a known truth."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from vectors import case_moments, expected, features, moments_of

from diffscope.errors import EstimationError, IllConditioned, TooFewImages
from diffscope.metrics import icr
from diffscope.metrics.base import Context
from diffscope.metrics.icr import _CrossFit, _notes, estimate, measure
from diffscope.moments import BlockAccumulator, Moments, size_problem
from diffscope.numerics import FloatArray

VECTOR_NAMES = {
    "trace_ratio": "T",
    "inflation": "c",
    "cross_fitted": "R1",
    "half_split": "R2",
    "extrapolated": "X",
    "kappa_ratio": "kappa_ratio",
    "log_left_out": "L",
    "se_log": "se_logT",
    "se_log_gauss": "se_logT_gauss",
    "theta": "theta",
    "icr_raw": "icr_raw",
    "icr_gauss": "icr_gauss",
    "icr_cf": "icr_cf",
    "icr": "icr",
    "low": "icr_low",
    "high": "icr_high",
    "se": "icr_se",
    "replicates": "log_icr_blocks",
}


def drawn(n: int, d: int, ratio: float, seed: int, views: int = 2) -> FloatArray:
    """Gaussian features [n, views, d] with λ = `ratio` in every direction: ICR = 1/(1 + ratio)."""
    rng = np.random.default_rng(seed)
    return ratio**0.5 * rng.standard_normal((n, 1, d)) + rng.standard_normal((n, views, d))


def codes(notes: tuple[str, ...]) -> set[str]:
    return {note.split(":")[0] for note in notes}


@pytest.mark.parametrize("case", ["A", "B", "C", "D"])
@pytest.mark.parametrize(("field", "name"), VECTOR_NAMES.items())
def test_vectors(case: str, field: str, name: str) -> None:
    found = estimate(case_moments(case))
    np.testing.assert_allclose(getattr(found, field), expected(case)[name], rtol=1e-6)


def test_the_recommended_measurement_holds_the_estimate() -> None:
    found: Any = estimate(case_moments("B"))
    values = measure(case_moments("B"), Context()).values
    assert values["icr"] == found.icr
    assert (values["icr_low"], values["icr_high"], values["icr_se"]) == (found.low, found.high, found.se)
    assert values["replicates"] == found.replicates.tolist()
    assert (values["n"], values["d"]) == (256, 16)
    assert values["nc1_fisher"] == pytest.approx(found.icr / (1 - found.icr))
    assert values["se_ratio"] == pytest.approx(0.073790517844 / 0.0517191152448)


def test_an_invertible_linear_map_changes_nothing() -> None:
    z = features("B")
    before = estimate(moments_of(z, 16))
    after = estimate(moments_of(z @ np.random.default_rng(3).standard_normal((16, 16)) + 7, 16))
    for field in VECTOR_NAMES:
        np.testing.assert_allclose(getattr(after, field), getattr(before, field), rtol=1e-9, err_msg=field)


def test_channel_scales_of_six_decades_change_nothing() -> None:
    z = features("B")
    after = estimate(moments_of(z * np.logspace(-3, 3, 16), 16))
    assert after.icr == pytest.approx(estimate(moments_of(z, 16)).icr, rel=1e-9)


def test_normalising_each_feature_changes_icr() -> None:
    # The converse of invariance: a nonlinear map must be seen.
    z = features("B")
    found = estimate(moments_of(z / np.linalg.norm(z, axis=2, keepdims=True), 16))
    assert found.icr == pytest.approx(expected("I")["icr_l2"], rel=1e-6)
    assert found.icr_raw == pytest.approx(expected("I")["icr_raw_l2"], rel=1e-6)
    assert abs(found.icr / expected("B")["icr"] - 1) > 0.02


@pytest.mark.parametrize(
    ("per_channel", "code"),
    [(5, None), (3, "few_images"), (2, "few_images_no_extrapolation"), (1.1, "gaussian_only")],
)
def test_sample_size_chooses_the_estimate(per_channel: float, code: str | None) -> None:
    found = estimate(moments_of(drawn(int(per_channel * 40), 40, 1.0, seed=0), 16))
    if code is None:
        assert found.notes == ()
    else:
        assert code in codes(found.notes)
    chosen = {"few_images_no_extrapolation": found.icr_cf, "gaussian_only": found.icr_gauss}
    if code in chosen:
        assert found.icr == chosen[code]
        assert found.half_split is None
    else:
        assert found.extrapolated is not None
        assert found.icr == pytest.approx(2 / (1 + found.extrapolated))
    missing = code == "gaussian_only"
    assert [value is None for value in (found.low, found.high, found.se, found.replicates)] == [missing] * 4


@pytest.mark.parametrize(
    ("n", "found"),
    [
        # At d = 40 and two views ν = n; all blocks but the largest must have 1.05d + 2 = 44.
        (46, {"gaussian_only"}),
        (47, {"few_images_no_extrapolation"}),
        # 2.5d = 100, 4d = 160.
        (99, {"few_images_no_extrapolation"}),
        (100, {"few_images"}),
        (159, {"few_images"}),
        (160, set()),
    ],
)
def test_the_limits_of_sample_size(n: int, found: set[str]) -> None:
    notes = estimate(moments_of(drawn(n, 40, 1.0, seed=1), 16)).notes
    assert codes(notes) - {"non_gaussian_noise"} == found
    few = [note for note in notes if "few_images" in note or "gaussian_only" in note]
    assert all("for 4 per channel take 160 images, or more `views=`" in note for note in few)
    assert "take 54 images" in estimate(moments_of(drawn(20, 40, 1.0, seed=1, views=4), 4)).notes[0]


def in_blocks(sizes: list[int], d: int) -> Moments:
    blocks = []
    for seed, size in enumerate(sizes):
        accumulator = BlockAccumulator(2, d)
        accumulator.update(torch.from_numpy(drawn(size, d, 1.0, seed)))
        blocks.append(accumulator.finish())
    return Moments.from_blocks(blocks)


def test_the_smallest_sides_decide_where_blocks_differ_in_size() -> None:
    """d = 4: a half of d + 1 = 5 images has no inverse covariance with a mean; without a block there must be 6.2."""
    assert estimate(in_blocks([9, 2, 5, 3], 4)).extrapolated is None
    assert estimate(in_blocks([9, 3, 5, 3], 4)).extrapolated is not None
    assert estimate(in_blocks([30, 2, 2, 2], 4)).cross_fitted is None
    assert estimate(in_blocks([30, 2, 2, 3], 4)).cross_fitted is not None


@pytest.mark.parametrize(
    ("d", "blocks", "splits"), [(1024, 16, 8), (1025, 16, 4), (64, 8, 7), (64, 4, 3), (1025, 4, 3)]
)
def test_wide_features_are_split_less_often(d: int, blocks: int, splits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight times, four above 1024 channels, and never more often than G − 1 balanced splits exist."""
    n = 3 * d
    asked: list[int] = []
    monkeypatch.setattr(icr, "_cross_fit", lambda _: None)
    monkeypatch.setattr(icr, "_half_splits", lambda _, splits: asked.append(splits))
    monkeypatch.setattr(icr, "_assembled", lambda *_: None)
    sizes: Any = SimpleNamespace(
        total=SimpleNamespace(n=n, nu=n), views=2, d=d, blocks=blocks, n=np.full(blocks, n / blocks)
    )
    estimate(sizes)
    assert [min(count, blocks - 1) for count in asked] == [splits]


def test_the_gaussian_error_exists_from_where_its_variance_does() -> None:
    """ν > d + 3."""
    assert estimate(moments_of(drawn(11, 8, 1.0, seed=0), 4)).se_log_gauss is None
    assert estimate(moments_of(drawn(12, 8, 1.0, seed=0), 4)).se_log_gauss is not None


def test_what_each_limit_is_noted_with() -> None:
    """Of a fit alone: R1 of 2 and an extrapolated T at, below and above zero."""

    def notes(nu: int, extrapolated: float | None, kappa_ratio: float = 1.0, fitted: bool = True) -> tuple[str, ...]:
        fit = _CrossFit(2.0, kappa_ratio, np.zeros(4)) if fitted else None
        return _notes(nu, 2, 10, fit, extrapolated)

    assert notes(40, 2.0) == ()
    assert codes(notes(39, 2.0)) == {"few_images"}
    assert codes(notes(39, 0.0)) == codes(notes(40, -1.0)) == {"extrapolation_failed"}
    assert "extrapolation_failed" not in codes(notes(40, 0.5))
    assert codes(notes(39, None)) == {"few_images_no_extrapolation"}
    assert codes(notes(13, None, fitted=False)) == {"gaussian_only"}
    assert codes(notes(40, 2.0, 1.0499)) == set()
    assert notes(40, 2.0, 1.05) == (
        "non_gaussian_noise: kappa_ratio is 1.05 (limit 1.05), as where images differ in noise: icr_gauss is too small "
        "by about 5% in T; use icr",
    )
    assert "39 residual degrees of freedom are 3.9 per channel" in notes(39, 2.0)[0]


def test_an_extrapolation_below_zero_gives_way_to_what_it_came_from() -> None:
    """One channel, four blocks of two images: block 0 has the signal and block 1 the noise, so that halves and wholes
    disagree. With S_W⁻¹ as a number p, ν = 8, N − 1 = 7, signal sums C and residual sums W of the blocks:

        R1 = (Σ p_g C_g/7)/(Σ p_g W_g/8), p_g = 6/(ΣW − W_g);   R2 the same over halves, p = 4/W_half.

    R2 is 9.0 times R1, and X = R1 + 4/2·(R1 − R2) is negative.
    """
    s, r = np.array([1.0, 0.1, 0.1, 0.1]), np.array([0.5, 5.0, 0.5, 0.5])
    z = np.array([[s + r, s - r], [r - s, -r - s]]).transpose(0, 2, 1)  # images s and −s of each block, views ± r
    signal, residual = 4 * s**2, 4 * r**2

    def ratio(sides: list[tuple[list[int], list[int]]]) -> float:
        p = [2 * len(train) / residual[train].sum() for train, _ in sides]
        above = sum(inverse * signal[test].sum() for inverse, (_, test) in zip(p, sides, strict=True)) / 7
        return float(above / sum(q * residual[test].sum() for q, (_, test) in zip(p, sides, strict=True)) * 8)

    one = ratio([([h for h in range(4) if h != g], [g]) for g in range(4)])
    pairs = [([0, 1], [2, 3]), ([0, 2], [1, 3]), ([0, 3], [1, 2])]
    half = ratio([side for a, b in pairs for side in ((a, b), (b, a))])
    assert half / one == pytest.approx(9.0, abs=0.05)
    found = estimate(moments_of(z.reshape(8, 2, 1), 4))
    assert found.cross_fitted == pytest.approx(one)
    assert found.half_split == pytest.approx(half)
    assert found.extrapolated == pytest.approx(one + 2 * (one - half))
    assert found.icr == found.icr_cf == pytest.approx(2 / (1 + one))
    assert "extrapolation_failed" in codes(found.notes)
    assert f"the extrapolated T is {found.extrapolated:.3g} (limit 0): icr is icr_cf" in found.notes[0]


def test_too_few_images_are_refused_with_the_way_out() -> None:
    with pytest.raises(TooFewImages, match="at least 6 images") as caught:
        estimate(moments_of(features("A")[:5], 4))
    assert str(caught.value) == size_problem(5, 2, 4)
    assert "`views=5`" in str(caught.value)


@pytest.mark.parametrize(
    ("images", "views", "d", "enough"), [(5, 2, 4, False), (6, 2, 4, True), (32, 8, 64, True), (9, 1, 4, False)]
)
def test_size_problem(images: int, views: int, d: int, enough: bool) -> None:
    assert (size_problem(images, views, d) is None) is enough


def test_the_recommended_views_are_enough() -> None:
    # V = 1 + ceil(4d/N) for 100 images of 1152 channels, refused with two views.
    assert "`views=48`" in str(size_problem(100, 2, 1152))
    assert 100 * 47 >= 4 * 1152
    assert size_problem(100, 48, 1152) is None


def test_blocks_must_halve_again_and_again() -> None:
    with pytest.raises(EstimationError, match="6 blocks"):
        estimate(moments_of(features("A"), 6))


def test_dependent_channels_are_refused() -> None:
    z = features("A")
    with pytest.raises(IllConditioned):
        estimate(moments_of(np.concatenate([z, z[:, :, :1] * 0], axis=2), 8))


def test_no_signal_may_come_out_above_one_and_says_so() -> None:
    found: list[Any] = [measure(moments_of(drawn(200, 8, 0.0, seed), 8), Context()) for seed in range(20)]
    above = [m for m in found if m.values["icr"] > 1]
    assert 0 < len(above) < 20
    for measurement in above:
        assert "icr_above_one" in codes(measurement.notes)
        assert measurement.values["nc1_fisher"] is None
    below = next(m for m in found if m.values["icr"] < 1)
    assert "icr_above_one" not in codes(below.notes)


def test_noise_of_other_size_per_image_is_noted_and_does_not_bias() -> None:
    rng = np.random.default_rng(0)
    tau = np.sqrt(rng.chisquare(4, (2000, 1, 1)) / 4)
    s, xi = rng.standard_normal((2000, 1, 100)), rng.standard_normal((2000, 2, 100))
    found: Any = estimate(moments_of(s + tau * xi, 16))
    # E τ⁴ = 1.5: kappa_ratio − 1 ≈ (d/ν)·0.5 = 0.025, doubled at ν = 1000.
    assert found.kappa_ratio == pytest.approx(1.025, abs=0.01)
    assert abs(found.icr - 0.5) < 4 * found.se
    fewer = estimate(moments_of((s + tau * xi)[:800], 16))
    assert "non_gaussian_noise" in codes(fewer.notes)
    assert "non_gaussian_noise" not in codes(estimate(moments_of(drawn(2000, 100, 1.0, 0), 16)).notes)


@pytest.mark.parametrize("views", [2, 4])
def test_debiased_estimates_are_unbiased_and_the_plug_in_is_not(views: int) -> None:
    # m = mean λ = 1 at ν = 4d; expectations of the plug-in as in the exact law, E m_raw = m + (c − 1)(1 + Vm)/V.
    d, n = 16, 64 // (views - 1)
    means: dict[str, list[float]] = {"raw": [], "gauss": [], "cross": []}
    for seed in range(300):
        found: Any = estimate(moments_of(drawn(n, d, 1.0, seed, views), 4))
        means["raw"].append((found.trace_ratio - 1) / views)
        means["gauss"].append((found.trace_ratio / found.inflation - 1) / views)
        means["cross"].append((found.extrapolated - 1) / views)
    truth = {"raw": 1 + (found.inflation - 1) * (1 + views) / views, "gauss": 1.0, "cross": 1.0}
    for name, values in means.items():
        error = np.mean(values) - truth[name]
        # Four standard errors of the mean of 300 draws.
        assert abs(error) < 4 * np.std(values) / 300**0.5, name
    assert np.mean(means["raw"]) - 1 > 10 * np.std(means["raw"]) / 300**0.5


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    covered = 0
    for seed in range(150):
        found: Any = estimate(moments_of(drawn(128, 12, 1.0, seed), 16))
        covered += found.low < 0.5 < found.high
    # 95 % of 150 with a binomial standard deviation of 1.8 %, and jackknife intervals of 0.90–0.97.
    assert 0.88 < covered / 150 < 1.0
