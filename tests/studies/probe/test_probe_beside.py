"""`probe --beside`: the same classifiers on another encoder's features of the same images and split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import EDM, FEW, LAYER, diffscope, left_behind, refused
from safetensors.torch import save_file

import diffscope as package
from diffscope.distributions import FrechetReference
from diffscope.encoders.pixels import Pixels
from diffscope.extraction import Inputs
from diffscope.measure.opening import open_job
from diffscope.measure.progress import Listener
from diffscope.options.beside import Beside
from diffscope.options.settings import Loading, Settings
from diffscope.report.figures.probe import figures
from diffscope.results import Result
from diffscope.sources.base import Target, open_source
from diffscope.studies.probe import classifiers
from diffscope.studies.probe.options import Probing
from diffscope.studies.probe.study import open_probe

OPTIONS: dict[str, Any] = {"layer": (LAYER,), "augment": "none", "num_images": 144, "sigma": (0.3, 3.0)}


@pytest.fixture(scope="module")
def told(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features that know the class of each picture, and much that they do not."""
    z = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    source = open_source(str(pictures))
    assert source.labels is not None
    z[:, 2] += 9 * torch.from_numpy(source.labels)
    path = tmp_path_factory.mktemp("told") / "told.safetensors"
    save_file({"z": z}, path)
    return path


def test_accuracies_are_those_of_the_features_by_hand(pictures: Path, told: Path, tmp_path: Path) -> None:
    asked = ("--beside", "pixels", "--beside", told, "--label-noise", 0.2, "--ensemble", 3)
    ran = diffscope("probe", EDM, "--data", pictures, *FEW, "--sigma", "0.3,3", *asked, "--out", tmp_path)
    assert ran.code == 0, ran.err
    record = json.loads((tmp_path / "result.json").read_text())
    pixels, file = record["beside"]
    assert (file["encoder"], file["kind"], file["d"]) == (str(told), "features", 6)
    assert (file["accuracy"], file["train_images"]) == (1, 108)
    source = open_source(str(pictures))
    assert source.labels is not None
    images = np.stack([source.read(index, Target(16, 3)) for index in range(200)])
    used = np.sort(np.array(record_indices(pictures)))
    train, test = classifiers.split(144, 0.25, 0)
    z = (images[used].reshape(144, -1).astype(np.float32) / 127.5 - 1).astype(np.float32)
    labels = source.labels[used]
    right = classifiers.linear_probe(z[train], labels[train], z[test]).labels == labels[test]
    assert pixels["accuracy"] == right.mean()
    best = max(row["accuracy"] for row in record["rows"])
    assert file["difference"] == pytest.approx(1 - best)
    assert file["difference_se"] == pytest.approx(np.sqrt(best * (1 - best) / 36))  # paired with one that is all right
    assert 0 < file["accuracy_noise20"] <= 1
    assert "ensemble_accuracy" not in file
    assert [one["encoder"] for one in record["protocol"]["beside"]] == ["pixels", "features"]
    assert "over the network's best" in ran.out
    lines = (tmp_path / "result.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 + 2
    assert left_behind(tmp_path) == []


def record_indices(pictures: Path) -> list[int]:
    settings = Settings(**OPTIONS)
    return open_job(EDM, open_source(str(pictures)), settings, Loading()).indices.tolist()


def test_without_encoders_nothing_changes(pictures: Path, told: Path) -> None:
    plain = package.probe(EDM, pictures, **OPTIONS)
    both = package.probe(EDM, pictures, beside=told, **OPTIONS)
    assert "beside" not in plain.protocol
    assert plain.rows == both.rows
    assert plain.protocol["hash"] != both.protocol["hash"]
    assert both.sections["beside"][0]["knn"] > 0.9


def test_images_of_the_test_are_encoded_too(pictures: Path, tmp_path: Path) -> None:
    result = package.probe(EDM, pictures, test=pictures, beside="random", **{**OPTIONS, "num_images": 200})
    (row,) = result.sections["beside"]
    assert (row["encoder"], row["kind"], row["d"], row["train_images"]) == ("random", "random", 32, 200)


def test_denoised_images_are_held_against_the_images(pictures: Path, told: Path) -> None:
    """By hand from both exports; a file of features knows nothing of denoised images."""
    options = {**OPTIONS, "posterior": True}
    result = package.probe(EDM, pictures, beside=("pixels", told), **options)
    assert [(row["encoder"], row["sigma"]) for row in result.sections["denoised"]] == [("pixels", 0.3), ("pixels", 3.0)]
    source = open_source(str(pictures))
    job = open_job(EDM, source, Settings(**{**OPTIONS, "views": 1}), Loading())
    indices = sorted(job.indices.tolist())
    images = np.stack([source.read(i, Target(16, 3)) for i in indices]).reshape(144, -1) / 127.5 - 1
    for row in result.sections["denoised"]:
        with torch.inference_mode():
            sigma = torch.tensor([row["sigma"]])
            batches = Inputs(source, job.plan).batches(job.denoiser, indices)
            z = torch.cat([job.denoiser.denoise(batch.at(row["sigma"]), sigma, None) for batch in batches])
        denoised = z.flatten(1).double().clamp(-1, 1).numpy()
        expected = FrechetReference(images).distance(denoised).distance.value
        assert row["fd"] == pytest.approx(expected, rel=1e-4)
        assert 0 < row["fd_se"] < row["fd"]
    assert "tradeoff" in figures(result)
    heard: list[float] = []
    probing, beside = Probing(posterior=True), Beside(beside=("pixels",))
    study = open_probe(EDM, str(pictures), Settings(**OPTIONS), Loading(), probing=probing, beside=beside)
    study.run(None, Listener(heard.append))
    assert sum(heard) == study.total


def test_a_run_that_is_stopped_goes_on(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The features of the network and of the first pieces are there, and all passes are counted."""
    options = {**OPTIONS, "out": tmp_path, "beside": ("pixels",)}
    whole = package.probe(EDM, pictures, **options)
    (tmp_path / "result.json").unlink()
    monkeypatch.setattr("diffscope.measure.encoding.PIECE", 48)
    encode, encoded = Pixels.features, []

    def fails(self: Pixels, images: np.ndarray, indices: Any = None) -> Any:
        encoded.append(len(images))
        if sum(encoded) > 100:
            raise KeyboardInterrupt
        return encode(self, images, indices)

    monkeypatch.setattr(Pixels, "features", fails)
    with pytest.raises(KeyboardInterrupt):
        package.probe(EDM, pictures, **options)
    monkeypatch.setattr(Pixels, "features", lambda *a: encoded.append(len(a[1])) or encode(*a))
    monkeypatch.setattr("diffscope.studies.features.kept.export", lambda *_: pytest.fail("the features were there"))
    encoded.clear()
    heard: list[float] = []
    settings = Settings(**OPTIONS)
    study = open_probe(EDM, str(pictures), settings, Loading(), probing=Probing(), beside=Beside(beside=("pixels",)))
    finished = study.run(tmp_path, Listener(heard.append))
    assert sum(encoded) == 48  # of three pieces two were done
    assert sum(heard) == study.total
    assert isinstance(finished.result, Result)
    assert finished.result.rows == whole.rows
    assert finished.result.sections["beside"] == whole.sections["beside"]


def test_what_is_refused_before_anything_is_measured(
    pictures: Path, told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffscope.studies.probe.study.run", lambda *_: pytest.fail("too late"))
    command = ("probe", EDM, "--data", pictures, *FEW, "--sigma", 1, "--beside")
    refused(diffscope(*command, "dinov2"), 2, "--beside dinov2: no encoder is spelled like that")
    refused(diffscope(*command, "x.pt"), 2, "--beside x.pt: a TorchScript file is a program", "--allow-torchscript")
    refused(diffscope(*command, tmp_path), 1, "no config.json in it")
    refused(diffscope(*command, "timm:resnet18"), 1, "timm is not installed")
    refused(diffscope(*command, f"{told}:b"), 1, "no tensor 'b'; it holds z [200, 6]")
    refused(diffscope(*command, "pixels", "--max-memory", "1MB"), 1, "768 features", "--max-memory")
    np.savez(tmp_path / "floats.npz", x=np.zeros((40, 3, 16, 16), np.float32), y=np.arange(40) % 2)
