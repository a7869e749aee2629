"""The classifiers that a probe trains on features, their label noise, and the errors of an accuracy.

The linear probe is scikit-learn's, by hand on features z [n, d] and labels [n]:

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(z, labels)
    accuracy = probe.score(z_test, labels_test)

that is, the minimum of ½‖W‖² + Σ_i −log softmax(W z_i + b)_{y_i} over standardised features (of two classes one
logit). k-NN is `make_pipeline(StandardScaler(), KNeighborsClassifier(k, metric="cosine"))`, a majority vote.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import bdtr

from diffscope.numerics import FloatArray, threads_for
from diffscope.studies.probe.class_metrics import Labels

MAX_STEPS = 2000
"""Of the solver; it then stops where it is, and a note says so."""
CONVERGED = 1e-4
"""Largest slope of the mean loss at the end; scikit-learn's `tol`."""
NORMAL_95 = 1.959963984540054

Features = NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of the test images."""

    labels: Labels
    """[m], the most probable class of each test image."""
    scores: FloatArray
    """[m, K], of which an ensemble takes the mean: probabilities, of `batchnorm_linear` logits."""
    converged: bool


def linear_probe(
    z: Features, labels: Labels, test: Features, solver: str = "sklearn", device: str = "cpu"
) -> Prediction:
    """Train on z [n, d] with labels 0…K−1, all of them present, and classify test [m, d].

    solver: sklearn, or torch: the same minimum by full-batch L-BFGS on `device`, faster where images are many.
    """
    if solver == "torch":
        return _with_torch(z, labels, test, device)
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_STEPS))
    with threads_for(z.shape[1]), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ConvergenceWarning)
        probe.fit(z, labels)
        converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in told)
        return Prediction(probe.predict(test), probe.predict_proba(test).astype(np.float64), converged)


def _with_torch(z: Features, labels: Labels, test: Features, device: str) -> Prediction:
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(z)
    dtype = torch.float32 if device == "mps" else torch.float64  # which that device lacks
    x = torch.from_numpy(scaler.transform(z)).to(device, dtype)
    y = torch.from_numpy(labels).to(device)
    classes = int(labels.max()) + 1
    # scikit-learn's penalty of two classes is that of one logit, half of what two symmetric ones would pay.
    outputs = 1 if classes == 2 else classes
    weight = torch.zeros(x.shape[1], outputs, device=device, dtype=dtype, requires_grad=True)
    bias = torch.zeros(outputs, device=device, dtype=dtype, requires_grad=True)
    # The sum over images is divided by their number: the tolerance on the gradient then means what scikit-learn's does.
    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=MAX_STEPS, tolerance_grad=1e-6, tolerance_change=1e-13, line_search_fn="strong_wolfe"
    )

    def logits(rows: torch.Tensor) -> torch.Tensor:
        found = rows @ weight + bias
        return torch.cat([torch.zeros_like(found), found], 1) if outputs == 1 else found

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(logits(x), y) + (weight**2).sum() / (2 * len(x))
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    loss()
    steepest = max(float(part.grad.abs().max()) for part in (weight, bias) if part.grad is not None)
    with torch.no_grad():
        found = logits(torch.from_numpy(scaler.transform(test)).to(device, dtype)).softmax(1).cpu().double().numpy()
    return Prediction(found.argmax(1), found, steepest < CONVERGED)


def nearest_neighbours(z: Features, labels: Labels, test: Features, k: int) -> Labels:
    """The majority of the k nearest of z [n, d] by cosine of standardised features, for each of test [m, d]."""
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with threads_for(z.shape[1]):
        voters = make_pipeline(StandardScaler(), KNeighborsClassifier(k, metric="cosine"))
        found: Labels = np.asarray(voters.fit(z, labels).predict(test), dtype=np.int64)
        return found


def with_noise(labels: Labels, share: float, classes: int, seed: int) -> Labels:
    """Labels of which round(share · n) are replaced by another class, uniformly.

    Those replaced at a smaller share are among those of a larger one.
    """
    draws = np.random.default_rng([seed, 1])  # apart from the split, which has the seed alone
    order = draws.permutation(len(labels))
    shift = draws.integers(1, classes, len(labels))
    chosen = order[: round(share * len(labels))]
    noisy: Labels = labels.copy()
    noisy[chosen] = (labels[chosen] + shift[chosen]) % classes
    return noisy


def split(count: int, test_share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of training and test images: the first int(test_share · count) of a seeded order are the test."""
    order = np.random.default_rng(seed).permutation(count)
    tested = int(test_share * count)
    return order[tested:], order[:tested]


def binomial_se(accuracy: float, count: int) -> float:
    """Of a share of `count` test images, the training images held fixed."""
    return math.sqrt(accuracy * (1 - accuracy) / count)


def wilson_interval(accuracy: float, count: int) -> tuple[float, float]:
    """The 95 % interval of Wilson, "Probable inference, the law of succession, and statistical inference", 1927."""
    z = NORMAL_95**2 / count
    centre = (accuracy + z / 2) / (1 + z)
    reach = NORMAL_95 / (1 + z) * math.sqrt(accuracy * (1 - accuracy) / count + z / (4 * count))
    # At 0 and 1 the interval ends there; rounding would let it begin a hair beyond.
    return min(accuracy, max(0.0, centre - reach)), max(accuracy, min(1.0, centre + reach))


def same_accuracy_p(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Two-sided p of equal accuracy, from which of the same test images two classifiers got right.

    McNemar, "Note on the sampling error of the difference between correlated proportions or percentages", 1947,
    https://doi.org/10.1007/BF02295996; exact: the images on which they differ are heads or tails.
    """
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def difference_se(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Of the difference of two accuracies on the same test images."""
    return float((a.astype(float) - b).std() / math.sqrt(len(a)))
