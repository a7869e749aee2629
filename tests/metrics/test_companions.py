"""The companion metrics against the vectors, identities and closed forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from vectors import case_moments, expected, features, moments_of

from diffscope.errors import EstimationError
from diffscope.metrics import alpha_req, participation, uniformity
from diffscope.metrics.base import Context, measure_all
from diffscope.numerics import power_law


@pytest.fixture(scope="module")
def row() -> dict[str, Any]:
    return dict(measure_all(case_moments("B"), Context()).values)


@pytest.mark.parametrize(
    "key",
    [
        *("trace_s", "trace_xi", "trace_icr", "nc1_trace", "trace_s_l2", "trace_xi_l2", "alignment", "effective_rank"),
        *("rankme", "participation_ratio", "participation_s", "participation_xi", "pr_fisher", "lidar", "lidar_signal"),
    ],
)
def test_vectors(row: dict[str, Any], key: str) -> None:
    assert row[key] == pytest.approx(expected("H")[key], rel=1e-6)
    assert row[f"{key}_se"] > 0


def test_eigenvalues_of_the_vectors(row: dict[str, Any]) -> None:
    np.testing.assert_allclose(row["lambda"], expected("B")["eigs"], rtol=1e-6)


def test_alignment_of_features_as_they_are(row: dict[str, Any]) -> None:
    """Two views of an image differ by two residuals."""
    assert row["alignment_raw"] == pytest.approx(2 * row["trace_xi"], rel=1e-12)


def test_a_small_signal_has_its_ratio() -> None:
    values = measure_all(moments_of(features("B") / 100, 16), Context()).values
    assert values["nc1_trace"] == pytest.approx(expected("H")["nc1_trace"], rel=1e-6)


@pytest.mark.parametrize(("d", "ranks"), [(17, (None, None)), (18, (5, 9))])
def test_five_ranks_are_the_fewest_of_a_fit(d: int, ranks: tuple[int | None, int | None]) -> None:
    z = np.random.default_rng(0).standard_normal((200, 2, d))
    values = measure_all(moments_of(z, 4), Context()).values
    assert (values["alpha_req_first"], values["alpha_req_last"]) == ranks
    assert (values["alpha_req"] is None) is (d == 17)


def test_alpha_req_of_the_vectors() -> None:
    found = alpha_req.alpha_req(case_moments("B").total, 5, 8)
    assert found == pytest.approx(expected("H")["alpha_req_ranks_5_8"], rel=1e-6)


def test_uniformity_of_the_vectors() -> None:
    # The vector takes all pairs, as one block does; blocks take fewer of them, within their error.
    whole = uniformity.uniformity(moments_of(features("B"), 1).total)
    assert whole == pytest.approx(expected("H")["uniformity"], rel=1e-6)
    # Jensen's inequality: the mean squared distance is twice the two traces.
    assert whole >= -4 * (expected("H")["trace_s_l2"] + expected("H")["trace_xi_l2"])
    blocks: Mapping[str, Any] = uniformity.measure(case_moments("B"), Context()).values
    assert abs(blocks["uniformity"] - whole) < 3 * blocks["uniformity_se"]


@pytest.mark.parametrize("case", ["B", "C"])
def test_unit_features_have_length_one(case: str) -> None:
    moments = case_moments(case)
    row: Mapping[str, Any] = measure_all(moments, Context()).values
    total, views = moments.total, moments.views
    mean_square = np.sum(total.sum("l2_sum") ** 2) / (views * total.n**2)
    trace_between = (total.sum("l2_between") - np.sum(total.sum("l2_sum") ** 2) / total.n) / (total.n - 1)
    whole = row["trace_s_l2"] + row["trace_xi_l2"] + mean_square - trace_between / (total.n * views)
    assert whole == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("case", ["B", "C"])
def test_alignment_is_the_mean_over_pairs_of_views(case: str) -> None:
    z = features(case)
    f = z / np.linalg.norm(z, axis=2, keepdims=True)
    pairs = [np.sum((f[:, v] - f[:, w]) ** 2, 1).mean() for v in range(f.shape[1]) for w in range(v)]
    row = measure_all(case_moments(case), Context()).values
    assert row["alignment"] == pytest.approx(np.mean(pairs), rel=1e-10)


def test_spectra_of_a_known_covariance() -> None:
    # 20 000 images of a power law with noise of the same shape: sampling moves the numbers by about 1 %.
    d, spectrum = 24, power_law(24, 1.0)
    rng = np.random.default_rng(0)
    z = (rng.standard_normal((20_000, 1, d)) + rng.standard_normal((20_000, 2, d))) * np.sqrt(spectrum)
    row = measure_all(moments_of(z, 16), Context()).values
    p = spectrum / spectrum.sum()
    assert row["effective_rank"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=0.02)
    assert row["alpha_req"] == pytest.approx(1.0, abs=0.05)
    assert (row["alpha_req_first"], row["alpha_req_last"]) == (5, 12)
    for key in ("participation_ratio", "participation_s", "participation_xi"):
        assert row[key] == pytest.approx(spectrum.sum() ** 2 / np.sum(spectrum**2), rel=0.03)
    for key in ("lidar", "lidar_signal", "pr_fisher"):
        assert row[key] == pytest.approx(d, rel=0.02)
    assert row["icr"] == pytest.approx(0.5, abs=0.01)


def test_collapsed_features_are_not_uniform() -> None:
    rng = np.random.default_rng(0)
    spread, collapsed = rng.standard_normal((400, 2, 32)), rng.standard_normal((400, 2, 32)) + 100
    values = [uniformity.uniformity(moments_of(z, 8).total) for z in (spread, collapsed)]
    # Independent directions in 32 dimensions are √2 apart, give or take: log E exp(−4 + 4cos) ≈ −4 + 8/32.
    assert values[0] == pytest.approx(-3.75, abs=0.02)
    assert values[1] == pytest.approx(0, abs=0.01)


def test_what_the_data_do_not_determine_is_null_with_a_reason() -> None:
    rng = np.random.default_rng(1)
    found = measure_all(moments_of(rng.standard_normal((16, 2, 3)), 16), Context())
    for key in ("alpha_req", "alpha_req_first", "participation_s", "uniformity"):
        assert found.values[key] is None
    for key in ("alpha_req", "participation_s", "uniformity"):
        assert any(note.startswith(f"undefined: {key}:") for note in found.notes)


def test_ratios_without_a_common_covariance_are_refused() -> None:
    z = np.random.default_rng(2).standard_normal((64, 2, 6))
    with pytest.raises(EstimationError, match="cross-block"):
        participation._ratios(moments_of(z, 4), participation._cov_invariant)


def test_many_channels_skip_spectral_errors_alone() -> None:
    z = np.random.default_rng(0).standard_normal((600, 2, 520)) + 3
    z[:, :, :] += np.random.default_rng(1).standard_normal((600, 1, 520))
    found = measure_all(moments_of(z, 4), Context())
    assert found.values["rankme"] is not None
    assert found.values["rankme_se"] is None
    assert found.values["effective_rank"] is not None
    assert found.values["effective_rank_se"] is None
    assert found.values["trace_s_se"] is not None
    assert sum(note.startswith("no_spectral_se") for note in found.notes) == 1
