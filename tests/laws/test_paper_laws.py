"""Proposition 1 of arXiv 2606.09718: ICR and the loss of the best linear decoder move together.

Of an encoder A and white data x, features are A·x plus residuals. The estimates are the package's own, the loss is that
of least squares, both on features whose second moments are exactly those drawn.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard, sqrtm
from vectors import moments_of

from diffscope.metrics.base import Context, measure_all
from diffscope.numerics import FloatArray

N = 256
COLUMNS = np.random.default_rng(0).permutation(hadamard(N)[:, 1:].astype(float))
"""Orthogonal, of mean 0 and variance 1: what is made of different columns is exactly uncorrelated."""


def icr_and_loss(encoder: FloatArray, residual: FloatArray, colour: FloatArray | None = None) -> tuple[float, float]:
    """Of two views' features A·x ± …, with x of covariance CCᵀ, or white, and residuals of covariance `residual`."""
    d = len(residual)
    x, both, single = (COLUMNS[:, d * part : d * (part + 1)] for part in range(3))
    x = x if colour is None else x @ colour.T
    half = np.real(sqrtm(residual / 2))
    views = np.stack([x @ encoder.T + both @ half + sign * single @ half for sign in (1, -1)], axis=1)
    icr = measure_all(moments_of(views, 8), Context()).values["icr_raw"]
    assert isinstance(icr, float)
    features, targets = views.reshape(-1, d), np.repeat(x, 2, axis=0)
    missed = targets - features @ np.linalg.lstsq(features, targets, rcond=None)[0]
    return icr, float(np.square(missed).sum(1).mean())


def drawn(rng: np.random.Generator, d: int, size: float = 1.0) -> FloatArray:
    """A covariance, positive definite."""
    root = rng.standard_normal((d, d))
    return size * (root @ root.T / d + 0.05 * np.eye(d))


def encoder_of(rng: np.random.Generator, covariance: FloatArray) -> FloatArray:
    """One of the encoders whose features of white data have that covariance."""
    return np.real(sqrtm(covariance)) @ np.linalg.qr(rng.standard_normal(covariance.shape))[0]


@settings(max_examples=40)
@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_more_residual_raises_both(d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    encoder, residual = rng.standard_normal((d, d)), drawn(rng, d)
    colour = rng.standard_normal((d, d)) + 2 * np.eye(d)  # true of any data
    icr, loss = icr_and_loss(encoder, residual, colour)
    higher, worse = icr_and_loss(encoder, residual + drawn(rng, d, 0.3), colour)
    assert higher > icr
    assert worse > loss


@settings(max_examples=40)
@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_more_signal_lowers_both(d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    signal, residual = drawn(rng, d), drawn(rng, d)
    icr, loss = icr_and_loss(encoder_of(rng, signal), residual)
    lower, better = icr_and_loss(encoder_of(rng, signal + drawn(rng, d, 0.3)), residual)
    assert lower < icr
    assert better < loss


def test_of_white_data_both_are_sums_over_the_same_directions() -> None:
    """With λ the eigenvalues of Σξ⁻¹Σs: ICR = 1/(1 + mean λ), and the loss is Σ 1/(1 + λ)."""
    rng = np.random.default_rng(0)
    signal, residual = drawn(rng, 4), drawn(rng, 4)
    ratios = np.linalg.eigvals(np.linalg.solve(residual, signal)).real
    icr, loss = icr_and_loss(encoder_of(rng, signal), residual)
    between = (1 + 2 * ratios.mean()) * N / (N - 1)  # of two views' means, over N - 1 images
    assert icr == pytest.approx(2 / (1 + between), rel=1e-9)
    assert loss == pytest.approx((1 / (1 + ratios)).sum(), rel=1e-9)


def test_of_correlated_data_more_signal_may_raise_the_loss() -> None:
    """The proposition's second half holds for encoders of white data: else the signal may grow where data are few."""
    residual, colour = np.eye(2), np.diag([10.0, 0.1])
    first = np.diag([0.1, 1.0])  # keeps the strong direction: signal of variances 1 and 0.01
    second = np.array([[0.0, 11.0], [0.011, 0.0]])  # keeps the weak one; signal of variances 1.21 and 0.0121
    icr, loss = icr_and_loss(first, residual, colour)
    lower, worse = icr_and_loss(second, residual, colour)
    assert lower < icr
    assert worse > loss
