"""`probe --head batchnorm-linear`: the probe of tables 1 and 2, against a linear head by hand, and in a whole run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import EDM, FEW, LAYER, diffscope, refused
from safetensors.numpy import load_file
from scipy.special import log_softmax

import diffscope as package
from diffscope.studies.probe import batchnorm_linear, classifiers

OPTIONS: dict[str, Any] = {"layer": (LAYER,), "augment": "none", "num_images": 144, "views": 1}
HEAD = {**OPTIONS, "head": "batchnorm-linear"}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it does not matter how well it is trained."""
    monkeypatch.setattr(batchnorm_linear, "LEAST_STEPS", 20)
    monkeypatch.setattr(batchnorm_linear, "EPOCHS", 20)


def problem(n: int, classes: int, d: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Classes that overlap a little, in features of very different scale and centre."""
    rng = np.random.default_rng(classes)
    labels = np.arange(n) % classes
    z = 0.5 * rng.standard_normal((classes, d))[labels] + rng.standard_normal((n, d))
    return (z * 10.0 ** (np.arange(d) % 6 - 1) + 7).astype("f4"), labels


def trained(z: np.ndarray, labels: np.ndarray, test: np.ndarray, seed: int = 0) -> classifiers.Prediction:
    return batchnorm_linear.probe(z, labels, test, seed)


def test_it_comes_near_the_best_linear_classifier_of_standardised_features() -> None:
    """Mean loss of the training images within 0.1 of logistic regression's: it stops a little before the minimum.

    Units of the features differ by 10^5 and are centred at 7: without the normalisation the loss is 0.78.
    """
    z, labels = problem(600, 4)
    found = trained(z, labels, z)
    best = classifiers.linear_probe(z, labels, z)
    losses = [
        -log_softmax(found.scores, 1)[np.arange(600), labels].mean(),
        -np.log(best.scores)[np.arange(600), labels].mean(),
    ]
    assert losses[0] < losses[1] + 0.1 < 0.2
    assert (found.labels == best.labels).mean() > 0.98
    np.testing.assert_array_equal(found.labels, found.scores.argmax(1))


def test_it_has_the_steps_and_batches_that_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, float]] = []
    step = torch.optim.AdamW.step
    loss = torch.nn.functional.cross_entropy

    def counted(self: Any, *arguments: Any) -> Any:
        seen[-1] = (seen[-1][0], self.param_groups[0]["lr"])
        return step(self, *arguments)

    def measured(logits: torch.Tensor, *arguments: Any) -> torch.Tensor:
        seen.append((len(logits), 0.0))
        return loss(logits, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    monkeypatch.setattr(torch.nn.functional, "cross_entropy", measured)
    z, labels = problem(700, 2)
    trained(z, labels, z)
    assert {size for size, _ in seen} == {256}
    assert len(seen) == 1000  # 500 epochs of two whole batches
    rates = [rate for _, rate in seen]
    assert rates[0] == 3e-3
    assert rates[500] == pytest.approx(1.5e-3)
    assert rates[999] < 1e-8


@pytest.mark.usefixtures("short")
def test_the_seed_is_all_that_it_depends_on() -> None:
    z, labels = problem(100, 3)
    torch.manual_seed(1)
    first, state = trained(z, labels, z), torch.get_rng_state()
    torch.manual_seed(2)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        again = trained(z, labels, z)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(first.scores, again.scores)
    assert not np.array_equal(first.scores, trained(z, labels, z, seed=1).scores)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)  # and it leaves no trace


@pytest.mark.usefixtures("short")
def test_a_run_by_hand(pictures: Path, tmp_path: Path) -> None:
    """Features as `diffscope features` writes them, 80 % label noise, and the mean of logits of three levels."""
    result = package.probe(
        EDM, pictures, sigma=(0.3, 1.0, 3.0), label_noise=(0.8,), ensemble=3, beside=("pixels",), **HEAD
    )
    file = tmp_path / "features.safetensors"
    levels = ("--sigma", "0.3,1,3", "--views", 1)
    assert diffscope("features", EDM, "--data", pictures, *FEW, *levels, "-o", file).code == 0
    tensors = load_file(file)
    train, test = classifiers.split(144, 0.25, 0)
    labels, truth = tensors["label"][train], tensors["label"][test]
    noisy = classifiers.with_noise(labels, 0.8, 2, 0)
    assert (noisy != labels).sum() == round(0.8 * 108)
    z = tensors[LAYER][:, 0]
    for name, given in (("", labels), ("_noise80", noisy)):
        found = [trained(level[train], given, level[test]) for level in z]
        for row, one in zip(result.rows, found, strict=True):
            assert row[f"accuracy{name}"] == (one.labels == truth).mean()
        vote = np.mean([one.scores for one in found], 0).argmax(1)
        assert result.rows[1][f"ensemble_accuracy{name}"] == (vote == truth).mean()
    assert 0 <= result.sections["beside"][0]["accuracy_noise80"] < 1


@pytest.mark.usefixtures("short")
def test_it_changes_the_probe_alone_and_old_protocols_keep_their_hash(pictures: Path) -> None:
    options = {**OPTIONS, "sigma": (0.3,), "posterior": True}
    plain = package.probe(EDM, pictures, **options)
    other = package.probe(EDM, pictures, **options, head="batchnorm-linear", batch_size=7)
    assert "head" not in plain.protocol["probe"]
    assert other.protocol["probe"]["head"] == "batchnorm-linear"
    assert other.protocol["hash"] != plain.protocol["hash"]
    again = package.probe(EDM, pictures, **options, head="batchnorm-linear", batch_size=50)
    assert again.rows == other.rows
    for key in ("icr", "knn", "csnr", "subspace"):
        assert other.rows[0][key] == plain.rows[0][key]
    assert 0 < other.rows[0]["posterior_accuracy"] <= 1


def test_transfer_is_a_probe_of_other_images_with_other_classes(tmp_path: Path) -> None:
    """Four classes of grey that the network never heard of; the test is a file of its own and perfectly told."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 120), ("test", 60)):
        labels = np.arange(count) % 4
        grey = 40 + 50 * labels[:, None, None, None] + rng.integers(0, 9, (count, 16, 16, 3))
        np.savez(tmp_path / f"{name}.npz", x=grey.astype(np.uint8), y=labels)
    options = {**HEAD, "num_images": 120, "sigma": (0.05,)}
    result = package.probe(EDM, tmp_path / "train.npz", test=tmp_path / "test.npz", **options)
    assert (result.data["classes"], result.data["train"], result.data["test"]) == (4, 120, 60)
    assert result.rows[0]["accuracy"] == 1


def test_it_is_none_of_pixels(pictures: Path, tmp_path: Path) -> None:
    ran = diffscope("probe", EDM, "--data", pictures, "--masks", tmp_path, "--head", "batchnorm-linear")
    refused(ran, 2, "--head", "--masks")
