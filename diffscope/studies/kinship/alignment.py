"""Linear CKA and CKNNA of two representations of the same images, with their errors over images.

CKA: Kornblith, Norouzi, Lee & Hinton, "Similarity of neural network representations revisited", 2019,
https://arxiv.org/abs/1905.00414, with HSIC estimated without bias (Song, Smola, Gretton, Bedo & Borgwardt, "Feature
selection via dependence maximization", JMLR 13, 2012, equation 5, as Nguyen, Raghu & Kornblith, 2020,
https://arxiv.org/abs/2010.15327, have it). With K = XXᵀ and L = YYᵀ, their diagonals set to zero,

    HSIC = [ΣK∘L + ΣK ΣL/((n−1)(n−2)) − 2 1ᵀKL1/(n−2)] / (n(n−3)),    CKA = HSIC(K,L)/√(HSIC(K,K) HSIC(L,L)).

Nothing of size n² is made: ΣK∘L = ‖XᵀY‖² − Σ|x|²|y|², and so on; what all terms lose with one image follows in the same
pass, so that the jackknife leaves out every single image, exactly.

CKNNA: Huh, Cheung, Wang & Isola, "The platonic representation hypothesis", 2024, https://arxiv.org/abs/2405.07987: the
same with K and L of features of length 1, kept only where j is among the k nearest of i by both. It is the number that
their code gives (and that of REPA, https://arxiv.org/abs/2410.06940), of which one term counts only pairs that are
each other's neighbours. Its error comes from leaving out every sixteenth of the images in turn. It depends on n and k.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from diffscope.errors import EstimationError, TooFewImages
from diffscope.numerics import FloatArray, jackknife_se

BLOCKS = 16
"""Of the images, for the error of CKNNA."""
CHUNK = 1 << 22
"""Similarities in memory at a time: 32 MB."""
SPARE = 14
"""Further neighbours that are kept, so that k are left when a block is left out; more are looked for where not."""


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error over images."""

    value: float
    se: float


# --- CKA


@dataclass(frozen=True)
class Hsic:
    """HSIC of two representations."""

    whole: float
    without: FloatArray
    """[n], without one image each."""


class Centred:
    """Features less their mean, on which HSIC does not depend, and the row sums of K without its diagonal.

    Args:
        z: Features [n, d] of at least 5 images.

    Raises:
        TooFewImages: If there are fewer.
    """

    def __init__(self, z: NDArray[np.floating]) -> None:
        if len(z) < 5:
            raise TooFewImages(f"{len(z)} images; CKA with an error takes 5")
        self.z: FloatArray = z - z.mean(0, dtype=np.float64)
        scale = np.sqrt((self.z**2).mean())
        self.z /= scale if scale > 0 else 1.0  # on which CKA does not depend either
        self.norm = (self.z**2).sum(1)
        self.rows = self.z @ self.z.sum(0) - self.norm

    @cached_property
    def own(self) -> Hsic:
        """HSIC with itself."""
        return hsic(self, self)


def hsic(a: Centred, b: Centred) -> Hsic:
    """HSIC of two representations of the same images."""
    n = len(a.z)
    both = _row_products(a.z, b.z) - a.norm * b.norm
    # Of row i: Σ_j K_ij l_j with l the row sums of L, and the other way round.
    a_of_b = a.z @ (a.z.T @ b.rows) - a.norm * b.rows
    b_of_a = b.z @ (b.z.T @ a.rows) - b.norm * a.rows
    products, dot = both.sum(), a.rows @ b.rows
    whole = _unbiased(n, products, a.rows.sum(), b.rows.sum(), dot)
    dots = dot - a.rows * b.rows - a_of_b - b_of_a + both
    without = _unbiased(n - 1, products - 2 * both, a.rows.sum() - 2 * a.rows, b.rows.sum() - 2 * b.rows, dots)
    return Hsic(float(whole), without)


def _row_products(x: FloatArray, y: FloatArray) -> FloatArray:
    """Σ_j (x_i·x_j)(y_i·y_j) of each row i, by whichever of XᵀY and of XXᵀ and YYᵀ (in parts) is less work."""
    n, wide, other = len(x), x.shape[1], y.shape[1]
    if wide * other <= n * (wide + other) / 2:
        return np.asarray(((x @ (x.T @ y)) * y).sum(1))
    step = max(1, CHUNK // n)
    parts = [slice(start, start + step) for start in range(0, n, step)]
    return np.concatenate([((x[part] @ x.T) * (y[part] @ y.T)).sum(1) for part in parts])


def cka(a: Centred, b: Centred) -> Estimate:
    """Linear CKA of two representations of the same images; about 0 where they are unrelated, 1 where they are alike.

    Raises:
        EstimationError: If one of them hardly differs between images.
    """
    for one, name in ((a, "first"), (b, "second")):
        if not (one.own.whole > 0 and (one.own.without > 0).all()):
            raise EstimationError(f"the {name} features hardly differ between images; CKA is not defined")
    both = hsic(a, b)
    whole = both.whole / np.sqrt(a.own.whole * b.own.whole)
    without = both.without / np.sqrt(a.own.without * b.own.without)
    return Estimate(float(whole), float(jackknife_se(without)))


def _unbiased(n: int, products: FloatArray, sum_k: FloatArray, sum_l: FloatArray, dot: FloatArray) -> FloatArray:
    """Song et al., equation 5."""
    return np.asarray((products + sum_k * sum_l / ((n - 1) * (n - 2)) - 2 * dot / (n - 2)) / (n * (n - 3)))


# --- nearest neighbours


@dataclass(frozen=True)
class Neighbours:
    """The nearest of each image by cosine, nearest first."""

    items: NDArray[np.int32]
    """[n, m]."""
    similarity: NDArray[np.float64]
    """[n, m]."""


def check_images(n: int, k: int) -> None:
    """Raises TooFewImages where k neighbours, and room for an error, take more than n images."""
    if n - -(-n // BLOCKS) <= k or n < 2 * BLOCKS:
        raise TooFewImages(f"{n} images; {k} neighbours of each, whichever sixteenth is left out, take more")


def neighbours(z: NDArray[np.floating], k: int) -> Neighbours:
    """The nearest of features z [n, d], k of them and some to spare.

    Raises:
        EstimationError: If an image's features are zero, which have no direction.
        TooFewImages: If fewer than k are left to each image in every part of them.
    """
    n = len(z)
    check_images(n, k)
    if z.shape[1] < 2:
        raise EstimationError("a single feature has two directions alone; neighbours by cosine take two features")
    length = np.linalg.norm(z.astype(np.float64), axis=1, keepdims=True)
    if not length.all():
        raise EstimationError("a feature vector is zero and has no direction")
    unit = z / length
    keep = min(n - 1, k + SPARE)
    while True:
        found = _nearest(unit, keep)
        left = [(found.items % BLOCKS != block).sum(1).min() for block in range(BLOCKS)]
        if min(left) >= k or keep == n - 1:
            return found
        keep = min(n - 1, 2 * keep)


def _nearest(unit: FloatArray, keep: int) -> Neighbours:
    n = len(unit)
    items, similarity = np.empty((n, keep), np.int32), np.empty((n, keep))
    step = max(1, CHUNK // n)
    for start in range(0, n, step):
        rows = slice(start, min(n, start + step))
        found = unit[rows] @ unit.T
        found[np.arange(rows.stop - start), np.arange(start, rows.stop)] = -np.inf
        near = np.sort(np.argpartition(-found, keep - 1, axis=1)[:, :keep], axis=1)
        order = np.argsort(-np.take_along_axis(found, near, 1), axis=1, kind="stable")
        near = np.take_along_axis(near, order, 1)
        items[rows] = near
        similarity[rows] = np.take_along_axis(found, near, 1)
    return Neighbours(items, similarity)


@dataclass(frozen=True)
class Alignment:
    """Of two representations."""

    cknna: Estimate | None
    """None where neighbours of one of them are so spread that its own number is not above 0."""
    mutual: Estimate
    """The share of the k nearest by one that are among the k nearest by the other."""


def alignment(a: Neighbours, b: Neighbours, k: int) -> Alignment:
    """CKNNA and the share of common neighbours, of image i in block i mod 16."""
    found = [_aligned(a, b, k, block) for block in (None, *range(BLOCKS))]
    (cknna, mutual), without = found[0], found[1:]
    replicates = [value for value, _ in without]
    error = jackknife_se([share for _, share in without])
    known = cknna is not None and None not in replicates
    return Alignment(
        Estimate(float(cknna), float(jackknife_se(replicates))) if known else None,  # type: ignore[arg-type]
        Estimate(mutual, float(error)),
    )


def _aligned(a: Neighbours, b: Neighbours, k: int, block: int | None) -> tuple[float | None, float]:
    """CKNNA and the common share, without a block of images."""
    n = len(a.items)
    kept = np.ones(n, bool) if block is None else np.arange(n) % BLOCKS != block
    first, second = _kernel(a, k, kept), _kernel(b, k, kept)
    count = int(kept.sum())
    common = first.astype(bool).multiply(second.astype(bool))
    own = [_masked_hsic(kernel, kernel, count) for kernel in (first, second)]
    share = common.sum() / (count * k)
    if min(own) <= 0:
        return None, float(share)
    both = _masked_hsic(first.multiply(common), second.multiply(common), count)
    return float(both / np.sqrt(own[0] * own[1])), float(share)


def _kernel(found: Neighbours, k: int, kept: NDArray[np.bool_]) -> sparse.csr_array:
    """Similarities [n, n] of each image that is kept with its k nearest that are, 0 elsewhere."""
    items, similarity = found.items, found.similarity
    if not kept.all():
        left = np.argsort(~kept[items], axis=1, kind="stable")[:, :k]  # those that are kept, nearest first
        items, similarity = np.take_along_axis(items, left, 1), np.take_along_axis(similarity, left, 1)
    rows = np.flatnonzero(kept)
    values, columns = similarity[rows, :k], items[rows, :k]
    # An exact zero would not be told from what is not there.
    values = np.where(values == 0, np.finfo(np.float64).tiny, values)
    n = len(kept)
    return sparse.csr_array((values.ravel(), (np.repeat(rows, k), columns.ravel())), shape=(n, n))


def _masked_hsic(a: sparse.csr_array, b: sparse.csr_array, n: int) -> float:
    """Of kernels that are not symmetric, as the authors' code has it."""
    products = a.multiply(b.T).sum()
    dot = a.sum(0) @ b.sum(1)
    return float(_unbiased(n, products, a.sum(), b.sum(), dot))


def pairs(count: int) -> Iterator[tuple[int, int]]:
    """Each two of several, once."""
    return ((a, b) for b in range(count) for a in range(b))
