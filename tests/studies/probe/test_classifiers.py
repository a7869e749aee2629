"""The probe's classifiers against scikit-learn by hand, and the errors of an accuracy on paper."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from diffscope.studies.probe import classifiers
from diffscope.studies.probe.classifiers import (
    difference_se,
    linear_probe,
    nearest_neighbours,
    same_accuracy_p,
    split,
    wilson_interval,
    with_noise,
)


def problem(classes: int, d: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, 600)
    labels[:classes] = np.arange(classes)
    z = (rng.standard_normal((classes, d))[labels] + rng.standard_normal((600, d)) * rng.uniform(0.5, 5, d)).astype(
        "f4"
    )
    return z[:450], labels[:450], z[450:], labels[450:]


@pytest.mark.parametrize("classes", [2, 5])
def test_the_probe_is_scikit_learns(classes: int) -> None:
    z, labels, test, truth = problem(classes)
    by_hand = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(z, labels)
    found = linear_probe(z, labels, test)
    assert (found.labels == truth).mean() == by_hand.score(test, truth)
    assert 1 / classes + 0.1 < by_hand.score(test, truth) < 1
    np.testing.assert_array_equal(found.scores, by_hand.predict_proba(test))
    voters = make_pipeline(StandardScaler(), KNeighborsClassifier(7, metric="cosine")).fit(z, labels)
    np.testing.assert_array_equal(nearest_neighbours(z, labels, test, 7), voters.predict(test))


@pytest.mark.parametrize("classes", [2, 5])
def test_torch_finds_the_same_minimum(classes: int) -> None:
    """Against scikit-learn run to the end in float64: probabilities to 1e-5, of torch's tolerance on the gradient.

    scikit-learn's own tolerance of 1e-4 leaves its probabilities 1e-3 away, by which single images may change sides.
    """
    z, labels, test, truth = problem(classes)
    exact = make_pipeline(StandardScaler(), LogisticRegression(max_iter=10_000, tol=1e-10))
    probabilities = exact.fit(z.astype(np.float64), labels).predict_proba(test)
    found = linear_probe(z, labels, test, "torch")
    assert found.converged
    np.testing.assert_allclose(found.scores, probabilities, atol=1e-5)
    np.testing.assert_array_equal(found.labels, probabilities.argmax(1))
    default = linear_probe(z, labels, test)
    assert abs(int((found.labels == truth).sum()) - int((default.labels == truth).sum())) <= 1


def test_a_solver_that_is_stopped_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifiers, "MAX_STEPS", 2)
    z, labels, test, _ = problem(5)
    assert not linear_probe(z, labels, test).converged
    assert not linear_probe(z, labels, test, "torch").converged


def test_noise_replaces_by_other_classes_and_is_nested() -> None:
    labels = np.arange(1000) % 4
    few, many = (with_noise(labels, share, 4, seed=3) for share in (0.2, 0.6))
    assert ((few != labels).sum(), (many != labels).sum()) == (200, 600)
    np.testing.assert_array_equal(few[few != labels], many[few != labels])
    # Each of the three others gets a third: 200 ± 12 of 600; 4 standard errors.
    shift = (many - labels)[many != labels] % 4
    assert np.all(np.abs(np.bincount(shift, minlength=4)[1:] - 200) < 4 * 12)
    assert not np.array_equal(few, with_noise(labels, 0.2, 4, seed=4))


def test_the_split_is_that_of_the_script() -> None:
    train, test = split(41, 0.25, seed=2)
    order = np.random.default_rng(2).permutation(41)
    np.testing.assert_array_equal(test, order[:10])
    np.testing.assert_array_equal(train, order[10:])


def test_wilson_on_paper() -> None:
    # 8 of 10: the textbook's [0.490, 0.943].
    assert wilson_interval(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(0.0, 10)[0] == 0
    assert wilson_interval(1.0, 10)[1] == 1


def test_mcnemar_on_paper() -> None:
    a, b = np.ones(10, dtype=bool), np.ones(10, dtype=bool)
    assert same_accuracy_p(a, b) == 1
    b[:5] = False  # five heads of five: 2 / 2^5
    assert same_accuracy_p(a, b) == pytest.approx(1 / 16)
    a[5] = False  # one of six against: 2 (1 + 6) / 2^6
    assert same_accuracy_p(a, b) == pytest.approx(14 / 64)


def test_the_error_of_a_difference_is_paired() -> None:
    right = np.arange(100) % 2 == 0
    assert difference_se(right, right) == 0
    assert difference_se(right, ~right) == pytest.approx(0.1)
