"""Intersection over union against scikit-learn's, and its error against leaving images out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, jaccard_score

from diffscope.numerics import student_two_sided
from diffscope.studies.probe.masks import VOID
from diffscope.studies.probe.overlap import Overlap, counted, difference

CLASSES = 5


def masks(seed: int, images: int = 12, right: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """Truth of classes 0 to 3 with some void, and predictions of all five."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, (images, 9, 9)).astype(np.uint8)
    predicted = np.where(rng.random(truth.shape) < right, truth, rng.integers(0, CLASSES, truth.shape)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = VOID
    return truth, predicted


def overlap(truth: np.ndarray, predicted: np.ndarray) -> Overlap:
    return Overlap(np.stack([counted(t, p, CLASSES) for t, p in zip(truth, predicted, strict=True)]))


def by_sklearn(truth: np.ndarray, predicted: np.ndarray) -> float:
    known = truth != VOID
    return float(jaccard_score(truth[known], predicted[known], labels=range(4), average="macro"))


def test_it_is_scikit_learns() -> None:
    truth, predicted = masks(0)
    found, known = overlap(truth, predicted), truth != VOID
    each = jaccard_score(truth[known], predicted[known], labels=range(4), average=None)
    assert found.iou[:4] == pytest.approx(each, abs=1e-12)
    assert np.isnan(found.iou[4])  # predicted, but nowhere in the truth
    assert found.of_class(4) is None
    assert found.mean().value == pytest.approx(by_sklearn(truth, predicted), abs=1e-12)
    assert found.accuracy().value == pytest.approx(accuracy_score(truth[known], predicted[known]), abs=1e-12)


def test_its_error_is_that_of_leaving_images_out() -> None:
    truth, predicted = masks(1)
    each = range(len(truth))
    left_out = np.array([by_sklearn(np.delete(truth, i, 0), np.delete(predicted, i, 0)) for i in each])
    mean = overlap(truth, predicted).mean()
    expected = np.sqrt(11 / 12 * ((left_out - left_out.mean()) ** 2).sum())
    assert mean.se == pytest.approx(expected, rel=1e-9)
    assert mean.se is not None
    assert mean.low == pytest.approx(mean.value - 2.200985 * mean.se, abs=1e-6)  # Student's t of 11 degrees
    assert mean.high == pytest.approx(mean.value + 2.200985 * mean.se, abs=1e-6)


def test_its_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Of images drawn anew: 95 %, within three standard errors of 300 draws."""
    truth, predicted = masks(2, 20_000)
    expected = overlap(truth, predicted).mean().value
    held = 0
    for draw in range(300):
        some = np.random.default_rng(draw).integers(0, len(truth), 15)
        mean = overlap(truth[some], predicted[some]).mean()
        assert mean.low is not None
        assert mean.high is not None
        held += mean.low <= expected <= mean.high
    assert 0.91 < held / 300 < 0.99


def test_a_class_of_one_image_has_no_interval_and_one_image_none_at_all() -> None:
    truth = np.zeros((3, 4, 4), np.uint8)
    truth[0, 0] = 1
    found = overlap(truth, truth)
    alone = found.of_class(1)
    assert alone is not None
    assert (alone.value, alone.se, alone.low, alone.high) == (1.0, None, None, None)
    assert found.mean().value == 1.0
    assert overlap(truth[:1], truth[:1]).mean().low is None


def test_differences_are_paired() -> None:
    truth, predicted = masks(3, 30)
    better = np.where(np.random.default_rng(4).random(truth.shape) < 0.1, truth % CLASSES, predicted).astype(np.uint8)
    a, b = overlap(truth, better), overlap(truth, predicted)
    value, se, p = difference(a, b)
    assert value == a.mean().value - b.mean().value > 0
    assert se is not None
    assert a.mean().se is not None
    assert 0 < se < a.mean().se  # type: ignore[operator]
    assert p == pytest.approx(student_two_sided(value / se, 29))
    assert p < 1e-4
    assert difference(a, a) == (0.0, 0.0, 1.0)
