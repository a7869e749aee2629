"""The few pieces of linear algebra and statistics that all numbers of this program share.

Everything is float64. A symmetric matrix is inverted from its Cholesky factor, and the inverse is kept as one triangle:
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
    """Runs linear algebra of d × d matrices inside on as many threads as pay: one up to ONE_THREAD_UP_TO channels.

    Args:
        d: Channels.
    """
    if d > ONE_THREAD_UP_TO:
        yield
        return
    with _pools().limit(limits=1, user_api="blas"):
        yield


@cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()


def symmetrise(a: FloatArray) -> FloatArray:
    """Averages matrices with their transposes.

    Args:
        a: [..., d, d].

    Returns:
        (a + aᵀ)/2 [..., d, d], exactly symmetric.
    """
    return np.asarray((a + np.swapaxes(a, -1, -2)) / 2)


def pack_lower(a: FloatArray) -> FloatArray:
    """Packs a symmetric matrix for storage.

    Args:
        a: Symmetric [d, d].

    Returns:
        Its lower triangle row by row, [d(d + 1)/2].
    """
    return np.asarray(a[np.tril_indices(len(a))])


def unpack_lower(packed: FloatArray) -> FloatArray:
    """Undoes `pack_lower`, bit for bit.

    Args:
        packed: Lower triangle row by row, [d(d + 1)/2].

    Returns:
        Symmetric [d, d].
    """
    d = int((np.sqrt(8 * len(packed) + 1) - 1) / 2)
    full = np.zeros((d, d))
    full[np.tril_indices(d)] = packed
    return mirrored(full)


def spd_inverse(a: FloatArray) -> FloatArray:
    """Inverts a symmetric positive definite matrix.

    Cholesky's error does not depend on the scale of single channels, so that no equilibration comes before it.

    Args:
        a: Symmetric [d, d]; unchanged.

    Returns:
        The lower triangle of a⁻¹ with zeros above, [d, d].

    Raises:
        IllConditioned: `a` is not positive definite.
    """
    # The transpose of a symmetric C-ordered array is the Fortran-ordered array that LAPACK reads without a copy.
    factor, info = lapack.dpotrf(a.T, lower=1, clean=1)
    if info == 0:
        inverse, info = lapack.dpotri(factor, lower=1, overwrite_c=1)
    if info != 0:
        raise IllConditioned(
            f"the residual covariance of {len(a)} channels is not positive definite (channel {abs(info) - 1} depends "
            "on those before it); expected independent channels; take more images or views, or `reduce=`"
        )
    return np.asarray(inverse)


def mirrored(lower: FloatArray) -> FloatArray:
    """Completes a symmetric matrix of which one triangle is known.

    Args:
        lower: Lower triangle with zeros above, [d, d].

    Returns:
        Symmetric [d, d].
    """
    return np.asarray(lower + np.tril(lower, -1).T)


def trace_of_product(lower: FloatArray, symmetric: FloatArray) -> float:
    """Computes tr(P S) in O(d²).

    Args:
        lower: P as its lower triangle with zeros above, [d, d].
        symmetric: S, both triangles, [d, d].
    """
    # Order "K" walks each array as it lies in memory: transposing S changes nothing, as S is symmetric.
    half = np.dot(lower.ravel(order="K"), symmetric.ravel(order="K"))
    return float(2 * half - np.dot(np.diagonal(lower), np.diagonal(symmetric)))


def symmetric_product(lower: FloatArray, columns: FloatArray) -> FloatArray:
    """Computes P X.

    Args:
        lower: P as its lower triangle, [d, d].
        columns: X [d, k].

    Returns:
        [d, k].
    """
    return np.asarray(blas.dsymm(1.0, lower, columns, lower=1))


def reciprocal_condition(a: FloatArray) -> float:
    """Estimates the reciprocal condition number of a matrix in the 1-norm.

    Args:
        a: Symmetric [d, d].

    Returns:
        From 0, for a matrix that is not positive definite, to 1.
    """
    factor, info = lapack.dpotrf(a.T, lower=1, clean=1)
    if info != 0:
        return 0.0
    value, _ = lapack.dpocon(factor, np.abs(a).sum(0).max(), uplo="L")
    return float(value)


def eigenvalues(a: FloatArray) -> FloatArray:
    """Computes the eigenvalues of a symmetric matrix.

    Args:
        a: Symmetric [d, d].

    Returns:
        [d], decreasing.
    """
    return np.asarray(eigvalsh(a, check_finite=False)[::-1])


def generalised_eigenvalues(a: FloatArray, b: FloatArray) -> FloatArray:
    """Computes the eigenvalues of b⁻¹a.

    Args:
        a: Symmetric [d, d].
        b: Symmetric positive definite [d, d].

    Returns:
        [d], decreasing.

    Raises:
        IllConditioned: `b` is not positive definite.
    """
    try:
        return np.asarray(eigh(a, b, eigvals_only=True, check_finite=False)[::-1])
    except np.linalg.LinAlgError as error:
        raise IllConditioned(f"generalised eigenvalues of {len(a)} channels do not exist: {error}") from error


def student_quantile(probability: float, dof: float) -> float:
    """Computes a quantile of Student's t.

    Args:
        probability: From 0 to 1.
        dof: Degrees of freedom, above 0.

    Returns:
        The t with P(T ≤ t) = probability.
    """
    return float(stdtrit(dof, probability))


def student_two_sided(t: float, dof: float) -> float:
    """Computes a two-sided p-value of Student's t.

    Args:
        t: The statistic.
        dof: Degrees of freedom, above 0.

    Returns:
        P(|T| ≥ |t|).
    """
    return float(2 * stdtr(dof, -abs(t)))


def f_tail(f: float, dof1: float, dof2: float) -> float:
    """Computes a p-value of Snedecor's F.

    Args:
        f: The statistic, at least 0.
        dof1: Degrees of freedom of the numerator, above 0.
        dof2: Degrees of freedom of the denominator, above 0.

    Returns:
        P(F ≥ f).
    """
    return float(fdtrc(dof1, dof2, f))


def jackknife_se(replicates: ArrayLike) -> FloatArray:
    """Computes delete-a-block standard errors, sqrt((G − 1)/G Σ_g (x_g − x̄)²).

    Args:
        replicates: [G, ...], one estimate without each block.

    Returns:
        [...], in the unit of the replicates.
    """
    x = np.asarray(replicates, dtype=np.float64)
    return np.asarray(np.sqrt((len(x) - 1) / len(x) * ((x - x.mean(0)) ** 2).sum(0)))


def entropy_rank(weights: FloatArray, floor: float = 0.0) -> float:
    """Computes exp(−Σ p log p) with p = w/Σw + floor: the number of equal weights with the same entropy.

    Args:
        weights: w [d], at least 0, with a positive sum.
        floor: Keeps the logarithm finite, as RankMe's definition does; at 0, 0 log 0 is 0.

    Returns:
        From 1 (one weight holds all) to d (all are equal).
    """
    p = weights / weights.sum() + floor
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def power_law(d: int, exponent: float) -> FloatArray:
    """Lists variances that fall as a power law, the known spectrum of the toy network and of the synthetic images.

    Args:
        d: Channels.
        exponent: Above 0 the variances fall, at 0 they are equal.

    Returns:
        j^−exponent for j = 1…d, [d].
    """
    return np.asarray(np.arange(1, d + 1, dtype=np.float64) ** -exponent)


def orthogonal_bases(count: int, rank: int, d: int, aligned: bool = False) -> FloatArray:
    """Makes subspaces that are orthogonal to one another, the same ones at every call.

    They are what the mixture's network and the mixture's images have in common.

    Args:
        count: Number of subspaces.
        rank: Directions of each; count · rank ≤ d.
        d: Dimensions of the space.
        aligned: With the axes, the first count · rank of them in turn, rather than at random.

    Returns:
        Orthonormal columns, [count, d, rank].
    """
    if aligned:
        return np.asarray(np.eye(count * rank, d).reshape(count, rank, d).transpose(0, 2, 1))
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
