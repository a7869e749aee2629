"""Standard errors against brute force: every number again from the features themselves, without each block in turn.

Nothing of the program's sums is used: covariances come from the features, products of blocks from a double loop, and
derivatives of ICR from finite differences.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from vectors import BLOCKS, case_moments, features

from diffscope.metrics.base import Context, measure_all
from diffscope.numerics import FloatArray

Blocks = list[FloatArray]
"""Features [n_g, V, d] of each block."""


def blocks_of(case: str) -> Blocks:
    return [features(case)[g :: BLOCKS[case]] for g in range(BLOCKS[case])]


def jackknife(values: list[float]) -> float:
    count = len(values)
    return float(np.sqrt((count - 1) / count * sum((value - np.mean(values)) ** 2 for value in values)))


def without_each(statistic: Callable[[Blocks], float], blocks: Blocks) -> list[float]:
    return [statistic(blocks[:g] + blocks[g + 1 :]) for g in range(len(blocks))]


def between(z: FloatArray) -> FloatArray:
    """S_B of features [N, V, d]: V times the covariance of the images' means."""
    return z.shape[1] * np.cov(z.mean(1).T)


def within(z: FloatArray) -> FloatArray:
    """S_W: the mean over images of the covariance of their views."""
    return np.asarray(np.mean([np.cov(views.T) for views in z], axis=0))


def invariant(z: FloatArray) -> FloatArray:
    return (between(z) - within(z)) / z.shape[1]


# --- participation ratios


def ratio(cov: FloatArray) -> float:
    return float(np.trace(cov) ** 2 / np.trace(cov @ cov))


def participation_ratio(blocks: Blocks) -> float:
    """Of one view: Σ̂s + S_W."""
    z = np.concatenate(blocks)
    return ratio(invariant(z) + within(z))


def cross_block(covariance: Callable[[FloatArray], FloatArray]) -> Callable[[Blocks], float]:
    def statistic(blocks: Blocks) -> float:
        cov = [covariance(block) for block in blocks]
        pairs = [(a, b) for i, a in enumerate(cov) for j, b in enumerate(cov) if i != j]
        return float(sum(np.trace(a) * np.trace(b) for a, b in pairs) / sum(np.trace(a @ b) for a, b in pairs))

    return statistic


def pr_fisher(blocks: Blocks) -> float:
    z = np.concatenate(blocks)
    spectrum = np.maximum(np.linalg.eigvals(np.linalg.solve(within(z), invariant(z))).real, 0)
    return float(spectrum.sum() ** 2 / (spectrum**2).sum())


STATISTICS: dict[str, Callable[[Blocks], float]] = {
    "participation_ratio": participation_ratio,
    "participation_s": cross_block(invariant),
    "participation_xi": cross_block(within),
    "pr_fisher": pr_fisher,
    "trace_s": lambda blocks: float(np.trace(invariant(np.concatenate(blocks)))),
    "trace_xi": lambda blocks: float(np.trace(within(np.concatenate(blocks)))),
}


@pytest.fixture(scope="module", params=["B", "C"])
def case(request: pytest.FixtureRequest) -> tuple[Blocks, dict[str, Any]]:
    """Two views in sixteen blocks, four in eight."""
    return blocks_of(request.param), dict(measure_all(case_moments(request.param), Context()).values)


@pytest.mark.parametrize("key", STATISTICS)
def test_errors_of_spectra_and_traces(key: str, case: tuple[Blocks, dict[str, Any]]) -> None:
    """All of them positive, hence jackknifed on the logarithm: SE = value · SE(log)."""
    blocks, row = case
    value, replicates = STATISTICS[key](blocks), without_each(STATISTICS[key], blocks)
    assert row[key] == pytest.approx(value, rel=1e-9)
    assert row[f"{key}_se"] == pytest.approx(value * jackknife(np.log(replicates).tolist()), rel=1e-7)


# --- ICR


def log_debiased(blocks: Blocks) -> float:
    """log(T/c), c = ν/(ν − d − 1)."""
    z = np.concatenate(blocks)
    n, views, d = z.shape
    nu = n * (views - 1)
    return float(np.log(np.trace(np.linalg.solve(within(z), between(z))) / d * (nu - d - 1) / nu))


def cross_fitted(blocks: Blocks) -> float:
    """R1: Σ (b − b̄)ᵀP(b − b̄)/(N − 1) over Σ rᵀPr/ν, P = S_W⁻¹ of all blocks but the image's own."""
    z = np.concatenate(blocks)
    n, views, _ = z.shape
    signal = residual = 0.0
    for g, block in enumerate(blocks):
        inverse = np.linalg.inv(within(np.concatenate(blocks[:g] + blocks[g + 1 :])))
        for image in block:
            b = np.sqrt(views) * (image.mean(0) - z.mean((0, 1)))
            signal += b @ inverse @ b / (n - 1)
            residual += sum(r @ inverse @ r for r in image - image.mean(0)) / (n * (views - 1))
    return float(signal / residual)


def test_errors_of_icr(case: tuple[Blocks, dict[str, Any]]) -> None:
    """V/(V − 1 + t) at each estimate of t, moved by the one jackknife error of log(T/c)."""
    blocks, row = case
    n, views, d = np.concatenate(blocks).shape
    nu = n * (views - 1)
    log_t, error = log_debiased(blocks), jackknife(without_each(log_debiased, blocks))
    step = 1e-5

    def icr(log_t: float) -> float:
        return views / (views - 1 + float(np.exp(log_t)))

    at = {
        "icr_gauss": log_t,
        "icr_raw": log_t + np.log(nu / (nu - d - 1)),
        "icr_cf": np.log(cross_fitted(blocks)),
        "icr": np.log(views / row["icr"] - (views - 1)),
    }
    for key, point in at.items():
        slope = (icr(point - step) - icr(point + step)) / (2 * step)
        assert row[key] == pytest.approx(icr(point), rel=1e-9), key
        # A finite difference: step² of a curvature about one.
        assert row[f"{key}_se"] == pytest.approx(slope * error, rel=1e-8), key
    odds = [icr(at["icr"] + side * step) for side in (-1, 1)]
    slope = (odds[0] / (1 - odds[0]) - odds[1] / (1 - odds[1])) / (2 * step)
    assert row["nc1_fisher"] == pytest.approx(row["icr"] / (1 - row["icr"]))
    assert row["nc1_fisher_se"] == pytest.approx(slope * error, rel=1e-8)


def test_the_error_of_icr_is_about_that_of_leaving_blocks_out(case: tuple[Blocks, dict[str, Any]]) -> None:
    """The same without the detour over log t: equal to first order in an error of a few per cent."""
    blocks, row = case
    views = blocks[0].shape[1]
    replicates = [views / (views - 1 + np.exp(log_t)) for log_t in without_each(log_debiased, blocks)]
    assert row["icr_gauss_se"] == pytest.approx(jackknife(replicates), rel=0.02)
