"""The classifiers of pixels, trained on features z [n, d] and labels [n], of which some classes may be absent.

`linear` is scikit-learn's logistic regression of standardised features, as the probe of images has it. `mlp` is the
protocol of Baranchuk et al., "Label-efficient semantic segmentation with diffusion models", 2022,
https://arxiv.org/abs/2112.03126, appendix: ten networks of two hidden layers with ReLU and batch normalisation, 128 and
32 wide for fewer than 30 classes and else 256 and 128, trained for 4 epochs by Adam at 0.001 with batches of 64; the
class that most of them say. (These settings are from memory of the appendix, not verified against it; the starting
weights are torch's defaults.)
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffscope.cache.store import Arrays
from diffscope.numerics import threads_for
from diffscope.studies.probe.classifiers import MAX_STEPS

NETWORKS, EPOCHS, BATCH, LEARNING_RATE = 10, 4, 64, 1e-3
MANY_CLASSES = 30
HIDDEN, HIDDEN_OF_MANY = (128, 32), (256, 128)


class Head(ABC):
    """A trained classifier of pixels, which is kept on disk as arrays."""

    converged: bool = True
    """Whether the solver of a head that was just trained came to its end."""

    @abstractmethod
    def predict(self, z: Tensor) -> Tensor:
        """Classes (P,) int64 of features (P, d) float32, on their device."""

    @abstractmethod
    def arrays(self) -> Arrays:
        """All that `restored` needs."""


@dataclass
class Linear(Head):
    """argmax_k of W_k (z − mean)/scale + b_k."""

    weight: Tensor
    """(K, d), the scale divided out."""
    bias: Tensor
    """(K,), −∞ of a class without a training pixel."""
    converged: bool = True

    def predict(self, z: Tensor) -> Tensor:
        """The most probable class."""
        return (z @ self.weight.to(z.device).T + self.bias.to(z.device)).argmax(1)

    def arrays(self) -> Arrays:
        """Weight and bias."""
        return {"weight": self.weight.numpy(), "bias": self.bias.numpy()}


@dataclass
class Vote(Head):
    """What most of several networks say, of equally many the smaller class."""

    networks: Sequence[nn.Module]
    classes: int

    def predict(self, z: Tensor) -> Tensor:
        """The class that most networks say."""
        said = torch.zeros(len(z), self.classes, device=z.device)
        for network in self.networks:
            found = network.to(z.device)(z).argmax(1)
            said += nn.functional.one_hot(found, self.classes)
        return said.argmax(1)

    def arrays(self) -> Arrays:
        """Parameters and statistics of all networks."""
        states = enumerate(network.state_dict() for network in self.networks)
        return {f"{number}.{name}": value.cpu().numpy() for number, state in states for name, value in state.items()}


def trained(kind: str, z: NDArray[np.float32], labels: NDArray[np.uint8], classes: int, seed: int, device: str) -> Head:
    """Trains a head.

    Args:
        kind: linear or mlp.
        z: [n, d].
        labels: [n], from 0 to `classes` − 1.
        classes: K.
        seed: Of the networks' first weights and the order of pixels.
        device: Where networks are trained.
    """
    if kind == "linear":
        return _linear(z, labels, classes)
    networks = [_network(z, labels, classes, seed, number, device) for number in range(NETWORKS)]
    return Vote(networks, classes)


def restored(kind: str, arrays: Arrays, classes: int) -> Head:
    """A head from what `Head.arrays` gave."""
    if kind == "linear":
        return Linear(torch.from_numpy(arrays["weight"]), torch.from_numpy(arrays["bias"]))
    networks = []
    for number in range(NETWORKS):
        prefix = f"{number}."
        state = {
            name.removeprefix(prefix): torch.from_numpy(array)
            for name, array in arrays.items()
            if name.startswith(prefix)
        }
        network = _layers(state["0.weight"].shape[1], classes).eval()
        network.load_state_dict(state)
        networks.append(network)
    return Vote(networks, classes)


def copies(kind: str) -> int:
    """How many times the training pixels' features are in memory at once, at most."""
    return {"linear": 4, "mlp": 2}[kind]


def _linear(z: NDArray[np.float32], labels: NDArray[np.uint8], classes: int) -> Linear:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    probe = LogisticRegression(max_iter=MAX_STEPS)
    with threads_for(z.shape[1]), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ConvergenceWarning)
        probe.fit(scaler.fit_transform(z), labels)
    converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in told)
    there, scaled = probe.coef_ / scaler.scale_, np.asarray(probe.intercept_)
    scaled = scaled - there @ scaler.mean_
    if len(probe.classes_) == 2:  # one logit, for the second of them
        there, scaled = np.vstack([np.zeros_like(there), there]), np.append(0.0, scaled)
    weight, bias = np.zeros((classes, z.shape[1])), np.full(classes, -np.inf)
    weight[probe.classes_], bias[probe.classes_] = there, scaled
    return Linear(torch.from_numpy(weight).float(), torch.from_numpy(bias).float(), converged)


def _layers(features: int, classes: int) -> nn.Sequential:
    first, second = HIDDEN if classes < MANY_CLASSES else HIDDEN_OF_MANY
    return nn.Sequential(
        nn.Linear(features, first),
        nn.ReLU(),
        nn.BatchNorm1d(first),
        nn.Linear(first, second),
        nn.ReLU(),
        nn.BatchNorm1d(second),
        nn.Linear(second, classes),
    )


def _network(
    z: NDArray[np.float32], labels: NDArray[np.uint8], classes: int, seed: int, number: int, device: str
) -> nn.Module:
    draws = np.random.default_rng([seed, number])
    with torch.random.fork_rng(devices=[]):  # torch's first weights come from the generator that all share
        torch.manual_seed(int(draws.integers(2**63)))
        network = _layers(z.shape[1], classes).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    features, truth = torch.from_numpy(z), torch.from_numpy(labels.astype(np.int64))
    for _ in range(EPOCHS):
        order = torch.from_numpy(draws.permutation(len(z)))
        # What is left of a whole batch waits for the next epoch: batch normalisation of one pixel has no deviation.
        whole = len(z) // BATCH
        for batch in torch.chunk(order[: whole * BATCH], whole) if whole else [order]:
            loss = nn.functional.cross_entropy(network(features[batch].to(device)), truth[batch].to(device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return network.eval().requires_grad_(False)
