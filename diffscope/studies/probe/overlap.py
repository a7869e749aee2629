"""Intersection over union of predicted and true masks, per class and its mean, with errors over images.

    IoU_k = Σ_i TP_ik / Σ_i (truth_ik + predicted_ik − TP_ik),    mIoU = mean of IoU_k over the classes in the truth

summed over test images i, their void pixels left out, as Everingham et al., "The Pascal Visual Object Classes
challenge", 2010, https://doi.org/10.1007/s11263-009-0275-4 count it. Which classes the mean is over depends on the
truth alone, so that it is the same for all noise levels. Errors come from leaving out each image in turn: neighbouring
pixels say the same, images are independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffscope.numerics import FloatArray, jackknife_se, student_quantile, student_two_sided
from diffscope.studies.probe.masks import VOID, Mask

Counts = NDArray[np.int64]
"""[..., 3, K]: pixels of each class that are rightly predicted, in the truth, and predicted."""


def counted(truth: Mask, predicted: Mask, classes: int) -> Counts:
    """Counts the pixels of one image that are not void.

    Args:
        truth: [H, W], 0 … K − 1 or VOID.
        predicted: [H, W], 0 … K − 1.
        classes: K.

    Returns:
        [3, K].
    """
    known = truth != VOID
    true, said = truth[known], predicted[known]
    return np.stack([np.bincount(part, minlength=classes) for part in (true[true == said], true, said)])


@dataclass(frozen=True)
class Interval:
    """A number with its error over images; None where one image alone decides it."""

    value: float
    se: float | None
    low: float | None
    high: float | None


class Overlap:
    """What a classifier got right of M test images.

    Args:
        counts: [M, 3, K] of `counted`; images that are all void are left out.
    """

    def __init__(self, counts: Counts) -> None:
        counts = counts[counts[:, 1].any(1)]
        whole = counts.sum(0)
        self.images = len(counts)
        self.present: NDArray[np.bool_] = whole[1] > 0
        """[K], the classes in the truth."""
        self.iou = self._iou(whole)
        """[K], NaN for the classes that are not in the truth."""
        without = whole - counts
        self._ious = self._iou(without)
        self._accuracies = without[:, 0].sum(1) / np.maximum(without[:, 1].sum(1), 1)
        self._accuracy = float(whole[0].sum() / whole[1].sum())

    def _iou(self, counts: Counts) -> FloatArray:
        right, true, said = (counts[..., part, :].astype(np.float64) for part in range(3))
        union = true + said - right
        found = np.divide(right, union, out=np.full_like(union, np.nan), where=union > 0)
        return np.where(self.present, found, np.nan)

    @property
    def replicates(self) -> FloatArray:
        """Gives mIoU without each image, [M]; of at least two images."""
        return np.asarray(np.nanmean(self._ious[:, self.present], 1))

    def mean(self) -> Interval:
        """mIoU, over the classes in the truth."""
        value = float(np.nanmean(self.iou))
        return self._interval(value, self.replicates) if self.images > 1 else Interval(value, None, None, None)

    def of_class(self, k: int) -> Interval | None:
        """IoU of one class; None where no test image has it."""
        if not self.present[k]:
            return None
        replicates = self._ious[:, k]
        alone = np.isnan(replicates).any()  # without its one image there is none of it
        return Interval(float(self.iou[k]), None, None, None) if alone else self._interval(self.iou[k], replicates)

    def accuracy(self) -> Interval:
        """Share of the pixels that are rightly predicted."""
        return self._interval(self._accuracy, self._accuracies)

    def _interval(self, value: float, replicates: FloatArray) -> Interval:
        if self.images < 2:
            return Interval(float(value), None, None, None)
        se = float(jackknife_se(replicates))
        reach = student_quantile(0.975, self.images - 1) * se
        return Interval(float(value), se, max(0.0, value - reach), min(1.0, value + reach))


def difference(a: Overlap, b: Overlap) -> tuple[float, float | None, float]:
    """Compares mIoU of `a` with that of `b` on the same test images.

    Returns:
        The difference, its paired standard error (None of one image), and the two-sided p of no difference.
    """
    value = a.mean().value - b.mean().value
    if a.images < 2:
        return value, None, 1.0
    se = float(jackknife_se(a.replicates - b.replicates))
    if se == 0:
        return value, se, 1.0 if value == 0 else 0.0
    return value, se, student_two_sided(value / se, a.images - 1)
