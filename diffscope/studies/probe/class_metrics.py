"""What labels say of features without training anything: CSNR, class separation, silhouette, NC1.

All take features z [n, d] of one layer at one noise level, one view an image, and labels [n] that count 0…K−1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from diffscope.errors import EstimationError
from diffscope.numerics import FloatArray, jackknife_se

Labels = NDArray[np.int64]


"""Directions of a class's basis; from memory of the second paper's experiments on real images, not verified."""
SILHOUETTE_IMAGES = 2000
"""Every pair of images is compared: 2,000 take a tenth of a second, and more hardly change the mean."""
BLOCKS = 16
"""Of the jackknife over test images, or over training images."""


class ClassSubspaces:
    """The subspace U_k in which the features of each class lie: their top right singular vectors.

    Wang et al., "Understanding representation dynamics of diffusion models via low-dimensional modeling", 2025,
    https://arxiv.org/abs/2502.05743, Definition 1. The mean of all training features is subtracted first: network
    features share a large mean, which otherwise is the first direction of every class and hides all others. (Whether
    the authors do this on real features is not known to us; under their Assumption 1 the mean is zero.)
    """

    def __init__(self, z: NDArray[np.floating], labels: Labels, rank: int) -> None:
        """Every label has at least one image; a class of fewer images than `rank` gets as many directions."""
        self.mean = z.mean(0, dtype=np.float64)
        self.bases = [_top_directions(z[labels == k] - self.mean, rank) for k in range(int(labels.max()) + 1)]

    def energies(self, z: NDArray[np.floating]) -> FloatArray:
        """‖U_kᵀ(z − mean)‖² [n, K]; the same as ‖U_k U_kᵀ(z − mean)‖²."""
        centred = z - self.mean
        return np.stack([((centred @ basis) ** 2).sum(1) for basis in self.bases], 1)


def _top_directions(rows: FloatArray, rank: int) -> FloatArray:
    """Orthonormal [d, r] that hold most of the sum of squares of rows [n, d], r ≤ rank."""
    rank = min(rank, *rows.shape)
    # The smaller of the two Gram matrices: a class has few images, or few features.
    if rows.shape[0] < rows.shape[1]:
        left = np.linalg.eigh(rows @ rows.T)[1][:, -rank:]
        return np.linalg.qr(rows.T @ left)[0]
    return np.asarray(np.linalg.eigh(rows.T @ rows)[1][:, -rank:])


def csnr(energies: FloatArray, labels: Labels) -> float:
    """Class-wise signal-to-noise ratio: the mean over k of E[‖U_kᵀf‖² | k] / mean_{l≠k} E[‖U_lᵀf‖² | k].

    Wang et al. 2025 (as above), Definition 1, from energies [n, K] of images that the bases were not made of: of their
    own images bases catch more than of others, so that pure noise would have a CSNR above 1. 1 where classes do not
    differ. The mean over l stands for the definition's E_{l≠k}; the paper's closed form has a factor 1/(K − 1), that is
    a sum in its place. The place of the maximum over σ is the same.
    """
    ratios = []
    for k in range(energies.shape[1]):
        own = energies[labels == k].mean(0) if (labels == k).any() else None
        if own is None:
            raise EstimationError(f"csnr needs test images of every class; class {k} has none")
        others = np.delete(own, k).mean()
        if not others > 0:
            raise EstimationError(f"class {k} has no energy in the subspaces of the others")
        ratios.append(own[k] / others)
    return float(np.mean(ratios))


def csnr_se(energies: FloatArray, labels: Labels) -> float:
    """Standard error over test images (the bases held fixed), by leaving out every sixteenth of each class in turn."""
    blocks = np.empty(len(labels), dtype=np.int64)
    for k in range(energies.shape[1]):
        blocks[labels == k] = np.arange((labels == k).sum()) % BLOCKS
    kept = [blocks != g for g in range(BLOCKS)]
    return float(jackknife_se([csnr(energies[keep], labels[keep]) for keep in kept]))


def class_separation(z: NDArray[np.floating], labels: Labels) -> float:
    """1 − d_within/d_total of mean cosine distances: 1 where each class is one direction, 0 where none differ.

    Kornblith, Chen, Lee & Norouzi, "Why do better loss functions lead to less transferable features?", 2021,
    https://arxiv.org/abs/2010.16402, the index R² of class separation: pairs include an image with itself, and classes
    count alike. A mean over pairs of unit vectors is the product of their means. It falls as images are added, as the
    pairs of an image with itself do: compare at equal numbers of images.
    """
    lengths = np.linalg.norm(z, axis=1, keepdims=True)
    if not lengths.all():
        raise EstimationError("separation: a feature vector is zero and has no direction")
    means = _class_means(z / lengths, labels)
    similarity = means @ means.T
    total = 1 - similarity.mean()
    if not total > 1e-12:
        raise EstimationError("separation: all features have the same direction")
    return float(1 - (1 - np.trace(similarity) / len(means)) / total)


def silhouette(z: NDArray[np.floating], labels: Labels) -> float:
    """Mean of (b − a)/max(a, b), a the mean distance to the own class, b to the nearest other one; cosine distance.

    Rousseeuw, "Silhouettes: a graphical aid to the interpretation and validation of cluster analysis", 1987,
    https://doi.org/10.1016/0377-0427(87)90125-7, equation 2, as scikit-learn's `silhouette_score` has it.
    """
    from sklearn.metrics import silhouette_score

    found = len(np.unique(labels))
    if not 2 <= found < len(labels):
        raise EstimationError(f"silhouette: {found} classes among {len(labels)} images; expected several images each")
    return float(silhouette_score(z, labels, metric="cosine"))


def nc1(z: NDArray[np.floating], labels: Labels) -> float:
    """tr(Σ_W Σ_B⁺)/K, the variability collapse NC1: 0 where every class is one point.

    Papyan, Han & Donoho, "Prevalence of neural collapse during the terminal phase of deep learning training", 2020,
    https://arxiv.org/abs/2008.08186, equation 3 and figure 6: Σ_B the covariance of the class means around their own
    mean, Σ_W that of images around the mean of their class, both with divisor of the number and classes counted alike.
    It needs K ≤ d + 1 and means in general position; Σ_W is only looked at in the K − 1 directions of Σ_B. It grows as
    images are added, for the noise of the means is part of Σ_B: compare at equal numbers of images.
    """
    means = _class_means(z, labels)
    count = len(means)
    _, scale, directions = np.linalg.svd(means - means.mean(0), full_matrices=False)
    rank = min(count - 1, means.shape[1])
    if not scale[rank - 1] > 1e-9 * scale[0]:
        raise EstimationError(f"nc1: the means of {count} classes do not span {rank} directions")
    within = np.zeros(rank)
    for k in range(count):
        within += ((z[labels == k] - means[k]) @ directions[:rank].T).var(0) / count
    return float((within / (scale[:rank] ** 2 / count)).sum() / count)


def blocks_se(
    measure: Callable[[NDArray[np.floating], Labels], float], z: NDArray[np.floating], labels: Labels
) -> float:
    """Standard error of `measure` over images, by leaving out every sixteenth in turn, in the order of the classes.

    It is that of the number at as many images: what images by the hundred would add to it is not in it.
    """
    fewest = np.bincount(labels)
    if fewest.min() < 2:
        raise EstimationError(f"class {fewest.argmin()} has 1 image; expected at least 2, to leave one out; take more")
    count = min(BLOCKS, len(labels))
    blocks = np.empty(len(labels), dtype=np.int64)
    # Neighbours in this order are in other blocks, so that every class keeps an image.
    blocks[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % count
    kept = [blocks != g for g in range(count)]
    return float(jackknife_se([measure(z[keep], labels[keep]) for keep in kept]))


def _class_means(z: NDArray[np.floating], labels: Labels) -> FloatArray:
    found: Sequence[FloatArray] = [z[labels == k].mean(0, dtype=np.float64) for k in range(int(labels.max()) + 1)]
    return np.stack(found)
