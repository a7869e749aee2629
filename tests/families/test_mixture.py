"""The mixture's denoiser against Bayes' rule done by brute force, and its closed forms against drawn images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffscope import families
from diffscope.checkpoints import read
from diffscope.errors import CheckpointError, DataError, UsageError
from diffscope.families.mixture import MixtureDenoiser
from diffscope.sources.base import Target, open_source

SPELLING = "classes=3,rank=4,delta=0.2"


def mixture(spelling: str = f"mixture:side=8,{SPELLING}") -> MixtureDenoiser:
    denoiser = families.load(read(spelling))
    assert isinstance(denoiser, MixtureDenoiser)
    return denoiser


def drawn(count: int, more: str = "", side: int = 8, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    source = open_source(f"mixture:count={count},{SPELLING}{more}")
    assert source.labels is not None
    return np.stack([source.read(i, Target(side, channels)).ravel() for i in range(count)]), source.labels


@pytest.mark.parametrize("more", ["", ",noise=others", ",bases=aligned"])
def test_the_posterior_mean_is_bayes_rule(more: str) -> None:
    """Densities and conditional means of whole 64 × 64 Gaussians."""
    denoiser, sigma = mixture(f"mixture:side=8,{SPELLING}{more}"), 0.4
    bases = denoiser.network.get_buffer("bases").double().numpy()
    everything = np.einsum("knr,kmr->nm", bases, bases) if "others" in more else np.eye(64)
    images, _ = drawn(6, more)
    y = images + sigma * np.random.default_rng(0).standard_normal(images.shape)
    logs, means = [], []
    for basis in bases:
        inside = basis @ basis.T
        cov = inside + 0.2**2 * (everything - inside)
        noisy = cov + sigma**2 * np.eye(64)
        solved = np.linalg.solve(noisy, y.T)
        logs.append(-0.5 * (y.T * solved).sum(0) - 0.5 * np.linalg.slogdet(noisy)[1])
        means.append((cov @ solved).T)
    weights = np.exp(np.array(logs) - np.max(logs, 0))
    expected = np.einsum("kb,kbn->bn", weights / weights.sum(0), np.array(means))
    found = denoiser.denoise(torch.from_numpy(y).float().view(-1, 1, 8, 8), torch.tensor([sigma]), None)
    np.testing.assert_allclose(found.flatten(1).numpy(), expected, atol=2e-5)  # float32


def test_images_have_the_model_s_covariances() -> None:
    images, labels = drawn(3000)
    bases = mixture().network.get_buffer("bases").double().numpy()
    for k in range(3):
        own = images[labels == k]
        # 4000 squares of N(0, 1): 1 ± 0.022, and of the rest 60,000 squares of N(0, 0.04); 4 standard errors.
        assert ((own @ bases[k]) ** 2).mean() == pytest.approx(1, abs=4 * np.sqrt(2 / 4000))
        outside = ((own**2).sum() - ((own @ bases[k]) ** 2).sum()) / (60 * len(own))
        assert outside == pytest.approx(0.04, rel=4 * np.sqrt(2 / 60_000))


def test_noise_in_the_other_subspaces_alone() -> None:
    """8 numbers a class beside its own 4, and none outside of the three subspaces; in images of two channels."""
    images, labels = drawn(1500, ",noise=others", 5, 2)
    two = mixture(f"mixture:channels=2,side=5,noise=others,{SPELLING}")
    assert (two.space.channels, two.space.side) == (2, 5)
    bases = two.network.get_buffer("bases").double().numpy()
    energies = ((images @ bases) ** 2).sum(2).T
    np.testing.assert_allclose(energies.sum(1), (images**2).sum(1), rtol=1e-5)  # float32
    own = energies[np.arange(1500), labels]
    # 6,000 squares of N(0, 1), and 12,000 of N(0, 0.04); 4 standard errors.
    assert own.sum() / 6000 == pytest.approx(1, abs=4 * np.sqrt(2 / 6000))
    assert (energies.sum() - own.sum()) / 12_000 == pytest.approx(0.04, rel=4 * np.sqrt(2 / 12_000))


def test_aligned_subspaces_are_the_axes_in_turn() -> None:
    bases = mixture(f"mixture:side=8,bases=aligned,{SPELLING}").network.get_buffer("bases").numpy()
    assert [int(column.argmax()) for basis in bases for column in basis.T] == list(range(12))
    assert bases.sum() == 12
    random = mixture().network.get_buffer("bases").numpy()
    assert np.abs(random).max() < 0.9


@pytest.mark.parametrize("input", ["noisy", "clean"])
@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0])
def test_closed_forms_are_those_of_drawn_images(input: str, sigma: float) -> None:
    """With the true subspaces; both means have an error of 3 % here at most, 4 standard errors of their ratio."""
    denoiser = mixture()
    images, labels = drawn(6000)
    noise = sigma * np.random.default_rng(1).standard_normal(images.shape) if input == "noisy" else 0.0
    y = torch.from_numpy(images + noise).float().view(-1, 1, 8, 8)
    mean = denoiser.denoise(y, torch.tensor([sigma]), None).flatten(1).double().numpy()
    energies = ((mean @ denoiser.network.get_buffer("bases").double().numpy()) ** 2).sum(2).T
    own = energies[np.arange(len(labels)), labels]
    other = (energies.sum(1) - own) / 2
    error = np.hypot(own.std() / own.mean(), other.std() / other.mean()) / np.sqrt(len(own))
    assert own.mean() / other.mean() == pytest.approx(denoiser.closed_form_csnr(sigma, input), rel=4 * error + 0.01)
    accuracy = denoiser.closed_form_accuracy(sigma, input)
    found = (energies.argmax(1) == labels).mean()
    assert found == pytest.approx(accuracy, abs=4 * np.sqrt(accuracy * (1 - accuracy) / len(labels)))


def test_the_closed_form_has_one_peak_where_the_formula_has_it() -> None:
    denoiser, levels = mixture(), np.geomspace(0.02, 20, 13)
    exact = [denoiser.closed_form_csnr(sigma, "clean") for sigma in levels]
    formula = [denoiser.approximate_csnr(sigma) for sigma in levels]
    for curve in (exact, formula):
        peak = int(np.argmax(curve))
        assert 0 < peak < 12
        # Far out on both sides the curve is flat, at 1/δ² = 25 and with a Monte-Carlo error below 0.01 of it.
        assert np.all(np.diff(curve[: peak + 1]) > -0.25)
        assert np.all(np.diff(curve[peak:]) < 0.25)
    assert abs(int(np.argmax(exact)) - int(np.argmax(formula))) <= 1
    # Where the weights are nearly certain, or all alike, their mean exponents are as good as they are.
    for sigma in (0.02, 20.0):
        assert denoiser.approximate_csnr(sigma) == pytest.approx(denoiser.closed_form_csnr(sigma, "clean"), rel=0.02)


def test_limits() -> None:
    denoiser = mixture()
    assert denoiser.closed_form_accuracy(1e3) == pytest.approx(1 / 3, abs=1e-4)
    # Of two classes the ratio of two χ²_4 is F(4, 4): P(F > δ²) = 1 − 3x² + 2x³ at x = δ²/(1 + δ²).
    x = 0.3**2 / (1 + 0.3**2)
    two = mixture("mixture:classes=2,rank=4,side=4,delta=0.3")
    assert two.closed_form_accuracy(1.0, "clean") == pytest.approx(1 - 3 * x**2 + 2 * x**3, abs=1e-5)
    assert denoiser.closed_form_csnr(1e3) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("spelling", "error", "why"),
    [
        ("mixture:classes=3.x", CheckpointError, "KEY=NUMBER or KEY=WORD"),
        ("mixture:classes=x", UsageError, "whole number"),
        ("mixture:noise=some", UsageError, "one of complement, others"),
        ("mixture:bases=1", UsageError, "one of random, aligned"),
        ("mixture:size=3", UsageError, "'size' is not one of"),
        ("mixture:rank=1.5", UsageError, "whole number"),
        ("mixture:classes=20,rank=4,side=8", UsageError, "at most channels · side"),
        ("mixture:delta=1.0", UsageError, "delta between"),
    ],
)
def test_a_wrong_spelling_of_the_model(spelling: str, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        families.load(read(spelling))


@pytest.mark.parametrize(
    "spelling",
    ["mixture:size=3", "mixture:count=0", "mixture:delta=2", "mixture:rank=1.5", "mixture:noise=x", "mixture:bases=x"],
)
def test_a_wrong_spelling_of_the_images(spelling: str) -> None:
    with pytest.raises(UsageError):
        open_source(spelling)
    with pytest.raises(DataError, match="no room"):
        open_source("mixture:classes=9,rank=2").read(0, Target(4, 1))
