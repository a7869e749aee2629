"""The few pieces of linear algebra and statistics that all numbers of this program share.

Everything is float64. A symmetric matrix is inverted from its Cholesky factor and kept as one triangle:
tr(S_W⁻¹ S_B) then costs one inverse and one elementwise sum, 2–10 times less than eigenvalues.
SciPy's special functions stand in for scipy.stats, whose import alone takes longer than most commands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import blas, eigh, eigvalsh, lapack
from scipy.special import fdtrc, stdtr, stdtrit
from threadpoolctl import ThreadpoolController

from diffscope.errors import IllConditioned

FloatArray = NDArray[np.float64]

ONE_THREAD_UP_TO = 256
"""Channels. Threads gain little on smaller matrices and lose everything on busy cores, where they wait for each other:
all metrics at d = 64 took 0.02 s on one thread and 1.6 s on two, beside a training run."""


@contextmanager
def threads_for(d: int) -> Iterator[None]:
    """Linear algebra of d × d matrices inside, on as many threads as pay."""
    if d > ONE_THREAD_UP_TO:
        yield
        return
    with _pools().limit(limits=1, user_api="blas"):
        yield


@cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()


def symmetrise(a: FloatArray) -> FloatArray:
    """(a + aᵀ)/2, exactly symmetric; a is (..., d, d)."""
    return np.asarray((a + np.swapaxes(a, -1, -2)) / 2)


def pack_lower(a: FloatArray) -> FloatArray:
    """The lower triangle of a symmetric [d, d] matrix, row by row, [d(d+1)/2]."""
    return np.asarray(a[np.tril_indices(len(a))])


def unpack_lower(packed: FloatArray) -> FloatArray:
    """The symmetric [d, d] matrix of a packed lower triangle."""
    d = int((np.sqrt(8 * len(packed) + 1) - 1) / 2)
    full = np.zeros((d, d))
    full[np.tril_indices(d)] = packed
    return mirrored(full)


def spd_inverse(a: FloatArray) -> FloatArray:
    """Inverse of a symmetric positive definite matrix [d, d]: its lower triangle, zeros above.

    Cholesky's error does not depend on the scale of single channels, so no equilibration comes before it.
    Raises IllConditioned if the matrix is not positive definite.
    """
    # The transpose of a symmetric C-ordered array is the Fortran-ordered array that LAPACK reads without a copy.
    factor, info = lapack.dpotrf(a.T, lower=1, clean=1)
    if info == 0:
        inverse, info = lapack.dpotri(factor, lower=1, overwrite_c=1)
    if info != 0:
        raise IllConditioned(
            f"the residual covariance of {len(a)} channels is not positive definite (channel {abs(info) - 1} depends "
            "on those before it); expected independent channels; take more images or views, or --reduce"
        )
    return np.asarray(inverse)


def mirrored(lower: FloatArray) -> FloatArray:
    """The full symmetric matrix of a lower triangle with zeros above."""
    return np.asarray(lower + np.tril(lower, -1).T)


def trace_of_product(lower: FloatArray, symmetric: FloatArray) -> float:
    """tr(P S) for P given as its lower triangle with zeros above, and S symmetric in full, both [d, d]."""
    # Order "K" walks each array as it lies in memory: transposing S changes nothing, as S is symmetric.
    half = np.dot(lower.ravel(order="K"), symmetric.ravel(order="K"))
    return float(2 * half - np.dot(np.diagonal(lower), np.diagonal(symmetric)))


def symmetric_product(lower: FloatArray, columns: FloatArray) -> FloatArray:
    """P X for P given as its lower triangle [d, d], and X [d, k]."""
    return np.asarray(blas.dsymm(1.0, lower, columns, lower=1))


def reciprocal_condition(a: FloatArray) -> float:
    """Estimated reciprocal condition number (1-norm) of a symmetric [d, d]; 0 if it is not positive definite."""
    factor, info = lapack.dpotrf(a.T, lower=1, clean=1)
    if info != 0:
        return 0.0
    value, _ = lapack.dpocon(factor, np.abs(a).sum(0).max(), uplo="L")
    return float(value)


def eigenvalues(a: FloatArray) -> FloatArray:
    """Eigenvalues [d] of a symmetric matrix, in decreasing order."""
    return np.asarray(eigvalsh(a, check_finite=False)[::-1])


def generalised_eigenvalues(a: FloatArray, b: FloatArray) -> FloatArray:
    """Eigenvalues [d] of b⁻¹a for symmetric a and positive definite b, in decreasing order."""
    try:
        return np.asarray(eigh(a, b, eigvals_only=True, check_finite=False)[::-1])
    except np.linalg.LinAlgError as error:
        raise IllConditioned(f"generalised eigenvalues of {len(a)} channels do not exist: {error}") from error


def student_quantile(probability: float, dof: float) -> float:
    """Quantile of Student's t: the t with P(T ≤ t) = probability."""
    return float(stdtrit(dof, probability))


def student_two_sided(t: float, dof: float) -> float:
    """P(|T| ≥ |t|) for Student's t."""
    return float(2 * stdtr(dof, -abs(t)))


def f_tail(f: float, dof1: float, dof2: float) -> float:
    """P(F ≥ f) for Snedecor's F."""
    return float(fdtrc(dof1, dof2, f))


def jackknife_se(replicates: ArrayLike) -> FloatArray:
    """Delete-a-block standard error sqrt((G−1)/G Σ (x_g − x̄)²) over the first axis of [G, ...]."""
    x = np.asarray(replicates, dtype=np.float64)
    return np.asarray(np.sqrt((len(x) - 1) / len(x) * ((x - x.mean(0)) ** 2).sum(0)))


def entropy_rank(weights: FloatArray, floor: float = 0.0) -> float:
    """exp(−Σ p log p) with p = w/Σw + floor: the number of equal weights with the same entropy.

    `weights` [d] are ≥ 0 with a positive sum; `floor` keeps the logarithm finite as RankMe does (0 log 0 is 0).
    """
    p = weights / weights.sum() + floor
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def power_law(d: int, exponent: float) -> FloatArray:
    """Variances j^−exponent for j = 1…d: the common known spectrum of the toy network and the synthetic images."""
    return np.asarray(np.arange(1, d + 1, dtype=np.float64) ** -exponent)


def orthogonal_bases(count: int, rank: int, d: int) -> FloatArray:
    """`count` subspaces of R^d, orthogonal to one another, as [count, d, rank] with orthonormal columns: always the
    same ones, known to the mixture's network and to its images. count · rank ≤ d."""
    matrix = np.random.Generator(np.random.Philox(key=0)).standard_normal((d, count * rank))
    return np.asarray(np.linalg.qr(matrix)[0].T.reshape(count, rank, d).transpose(0, 2, 1))


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's: Pearson's correlation of ranks; None with fewer than three pairs, or where one side is constant."""
    if len(pairs) < 3:  # two always agree or disagree
        return None
    a, b = (_ranks(side) for side in zip(*pairs, strict=True))
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip((a @ b) / scale, -1, 1)) if scale > 0 else None


def _ranks(values: ArrayLike) -> FloatArray:
    """1…n; equal values share the mean of theirs."""
    _, place, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])
