"""Every script runs, on as little as it takes."""

from __future__ import annotations

import csv
import gzip
import io
import runpy
import shutil
import sys
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import diffscope
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from diffscope.extraction import Extractor

ROOT = Path(__file__).parents[1]
SERIES = ROOT / "tests" / "data" / "series"
FASHION = Path("/usr/share/datasets/fashion-mnist")

needs_fashion = pytest.mark.skipif(not FASHION.exists(), reason="the data set's package is not installed")


def run(script: str, *arguments: str, cwd: Path) -> str:
    """A script in this process, which has loaded torch already; returns what it prints."""
    code: object = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        patch.chdir(cwd)
        patch.syspath_prepend(ROOT / "scripts")
        patch.setattr(sys, "argv", [script, *arguments])
        try:
            runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
        except SystemExit as end:
            code = end.code
    assert not code
    return out.getvalue()


@needs_fashion
@pytest.mark.parametrize("model", ["unet", "sit"])
def test_training_saves_resumes_and_samples(model: str, tmp_path: Path) -> None:
    runs = str(tmp_path / "runs")
    for _ in range(2):
        run("train_demo.py", model, "--minutes", "0.01", "--runs", runs, cwd=tmp_path)
    run("train_demo.py", model, "--runs", runs, "--samples", "samples.png", cwd=tmp_path)
    assert (tmp_path / "samples.png").stat().st_size > 1000
    run("train_demo.py", model, "--runs", runs, "--export", "--to", str(tmp_path), cwd=tmp_path)
    with safe_open(tmp_path / f"{model}.safetensors", "numpy") as file:
        assert int(file.metadata()["step"]) >= 128  # both runs trained, the second on top of the first


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture's series as far as its first snapshot, which is due after 1,600 images."""
    runs = tmp_path_factory.mktemp("runs")
    seen = [0]
    # The second process gets there, but on a busy machine.
    for minutes in ("0.01", *["0.04"] * 25):
        run("train_series.py", "fixture", "--minutes", minutes, "--runs", str(runs), cwd=runs)
        seen.append(torch.load(runs / "fixture" / "state.pt", weights_only=True)["seen"])
        assert seen[-1] > seen[-2]
        if len(seen) > 2 and seen[-1] > 1600:
            break
    return runs / "fixture"


@needs_fashion
def test_a_series_goes_on_to_its_snapshots(series: Path) -> None:
    first = series / "snapshot-0001600.safetensors"
    with safe_open(first, "numpy") as file:
        assert file.metadata()["step"] == "1600"
        assert file.metadata()["weights"] == "ema"
    assert np.load(series / "images.npz")["images"].shape == (64, 16, 16, 1)
    assert np.load(series.parent / "held-out.npz")["images"].shape == (10_000, 16, 16, 1)


@pytest.fixture(scope="module")
def of_mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks of one epoch; those of the subspaces went on from their first."""
    folder = tmp_path_factory.mktemp("mixture")
    for name, epochs in (("subspaces", "1"), ("subspaces", "2"), ("lines", "1")):
        run("train_mixture.py", name, "--epochs", epochs, "--runs", "runs", cwd=folder)
    return folder


def test_the_network_of_a_mixture_is_measured_as_anybodys_own(of_mixture: Path) -> None:
    file = of_mixture / "runs" / "subspaces.safetensors"
    with safe_open(file, "numpy") as opened:
        assert opened.metadata()["step"] == "2"
    code = ROOT / "scripts" / "train_mixture.py"
    noise = "ddpm:linear,steps=500,beta_start=0.0001,beta_end=0.02"
    own = ("--network", f"{code}:MixtureMlp", "--noise", noise, "--predicts", "x0", "--image-size", 5, "--channels", 2)
    images = ("--data", "mixture:count=300,rank=5,delta=0.5,noise=others", "--augment", "none", "--views", 1)
    asked = ("--layer", "second.1", "--sigma", 0.6, "--posterior", "--absolute", "--json")
    (row,) = diffscope("probe", file, *own, *images, *asked).json["rows"]
    assert row["d"] == 1024
    assert 0.4 < row["posterior_absolute_accuracy"] < 0.9  # of 75 images; chance is 1/3


def test_the_figures_of_the_mixture_are_drawn(of_mixture: Path) -> None:
    run("mixture_figures.py", "--runs", "runs", "--to", "to", "--images", "300", "--steps", "1", "120", cwd=of_mixture)
    names = {path.name for path in (of_mixture / "to").iterdir()}
    tables = {"figure-4.csv", "figures-5-12.csv", "figure-14.csv", "figure-15.csv"}
    assert names == {*tables, *(f"figure-{number}.png" for number in (4, 5, 12, 14, 15))}
    rows = list(csv.DictReader((of_mixture / "to" / "figure-14.csv").read_text().splitlines()))
    kept = list(csv.DictReader((ROOT / "scripts" / "results" / "mixture" / "figure-14.csv").read_text().splitlines()))
    assert len(rows) == len(kept) == 4 * 3 * 19
    for row, one in zip(rows, kept, strict=True):
        assert float(row["approximation"]) == pytest.approx(float(one["approximation"]), rel=1e-3)
        assert float(row["csnr"]) == pytest.approx(float(one["csnr"]), rel=1e-2)  # float32 images


@needs_fashion
def test_a_classic_ddpm_is_read_as_other_pipelines_are(tmp_path: Path) -> None:
    run("train_ddpm.py", "--images", "64", "--runs", ".", cwd=tmp_path)
    record = diffscope("inspect", tmp_path / "ddpm", "--json").json
    assert (record["family"], record["class"]) == ("diffusers", "UNet2DModel(linear, epsilon)")


@needs_fashion
def test_autoencoders_train_go_on_and_are_measured(tmp_path: Path) -> None:
    for name, images in (("sigma-0.296", "64"), ("sigma-0.296", "128"), ("edm-0.023", "64"), ("levels-0.023", "64")):
        run("train_daes.py", name, "--images", images, "--runs", "runs", cwd=tmp_path)
    folder = tmp_path / "runs" / "sigma-0.296"
    assert torch.load(folder / "state.pt", weights_only=True)["seen"] == 128
    pixels = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 1), np.uint8)
    np.savez(tmp_path / "test.npz", images=pixels, y=np.arange(60) % 2)
    code = f"{ROOT / 'scripts' / 'train_daes.py'}:Autoencoder"
    own = ("--network", code, "--noise", "edm", "--predicts", "x0", "--image-size", 16, "--channels", 1)
    files = [folder / "snapshot-0000128.safetensors", tmp_path / "runs" / "edm-0.023" / "snapshot-0000064.safetensors"]
    for file, how in zip(files, ((*own, "--layer", "unet.enc.8x8_block1"), ()), strict=True):
        asked = ("--data", tmp_path / "test.npz", "--sigma", 0.296, "--views", 1, "--augment", "none", "--json")
        assert diffscope("probe", file, *how, *asked).json["rows"][0]["d"] == 24


def test_the_figure_of_autoencoders_is_drawn_from_its_table(tmp_path: Path) -> None:
    for name in ("daes.csv", "daes-paired.csv"):
        shutil.copy(ROOT / "scripts" / "results" / "papers" / name, tmp_path)
    told = run("paper_daes.py", "--to", ".", cwd=tmp_path)
    assert "+ EDM preconditioning" in told
    with Image.open(tmp_path / "daes.png") as picture:
        assert picture.size == (1000, 1080)


@needs_fashion
def test_demo_images_are_those_that_ship(tmp_path: Path) -> None:
    run("make_demo_images.py", "--to", str(tmp_path), cwd=tmp_path)
    assert (tmp_path / "images.zip").read_bytes() == (ROOT / "diffscope" / "demo" / "images.zip").read_bytes()


def test_probe_finds_separable_classes_and_no_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    separable = labels[:, None] * 4.0 + rng.standard_normal((400, 3))
    noise = rng.standard_normal((400, 3))
    layer = np.stack([separable, noise])[:, None].astype(np.float32)
    save_file({"a": layer, "sigma": np.array([0.1, 1.0]), "label": labels}, tmp_path / "f.safetensors")
    lines = run("probe_features.py", "f.safetensors", cwd=tmp_path).splitlines()
    scores = [float(line.split(",")[2]) for line in lines[1:]]
    assert scores[0] > 0.95
    assert 0.35 < scores[1] < 0.65


@needs_fashion
def test_the_suite_trains_and_goes_on(tmp_path: Path) -> None:
    arguments = ("fashion-64", "--minutes", "0.05", "--runs", "runs")
    seen = [0]
    for _ in range(2):
        run("train_suite.py", *arguments, cwd=tmp_path)
        seen.append(torch.load(tmp_path / "runs" / "fashion-64" / "state.pt", weights_only=True)["seen"])
        assert seen[-1] > seen[-2]
    assert np.load(tmp_path / "runs" / "fashion-64" / "images.npz")["images"].shape == (64, 16, 16, 1)
    listed = run("train_suite.py", "--list", "--runs", "runs", cwd=tmp_path).splitlines()
    assert len({line.split()[0] for line in listed}) == len(listed) == 26


def test_the_suite_is_measured_as_tables_that_the_study_reads(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "fashion-64"
    folder.mkdir(parents=True)
    for name in ("snapshot-0051200.safetensors", "snapshot-0307200.safetensors"):
        shutil.copy(SERIES / name, folder)
    pixels = np.load(SERIES / "images.npz")
    np.savez(folder / "images.npz", images=pixels["images"], y=np.zeros(64, np.uint8))
    np.savez(folder / "held-out.npz", images=pixels["images"][:, ::-1], y=np.zeros(64, np.uint8))
    for _ in range(2):
        assert run("measure_suite.py", "fashion-64", "--runs", "runs", "--to", "to", cwd=tmp_path) == "fashion-64\n"
    text = gzip.decompress((tmp_path / "to" / "fashion-64.csv.gz").read_bytes()).decode()
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == 2 * 4 * 5
    assert float(rows[20]["loss_views"]) > 2 * float(rows[20]["loss"])  # by then it knows these images by heart
    copies = list(csv.DictReader((tmp_path / "to" / "fashion-64-copies.csv").read_text().splitlines()))
    assert [row["step"] for row in copies] == ["51200", "307200"]
    assert float(copies[1]["share"]) > 0.2
    assert float(copies[0]["share"]) < 0.02


def test_the_study_of_the_alarm_is_that_of_the_stored_tables(tmp_path: Path) -> None:
    lines = [line.strip("| ").split(" | ") for line in run("study_onset.py", "--runs", cwd=tmp_path).splitlines()]
    by_run = {line[0]: line for line in lines}
    assert by_run["fashion-64"][6:9] == ["96 k", "0.4 %", "48 k"]
    assert by_run["fashion-60000"][6] == "–"
    by_rule = run("study_onset.py", cwd=tmp_path)
    page = (ROOT / "scripts" / "results" / "tracking.md").read_text("utf-8")
    assert [line for line in by_rule.splitlines() if line.startswith("|") and line not in page] == []
    assert [" | ".join(cells) for cells in by_run.values() if " | ".join(cells) not in page] == []


def test_the_window_is_simulated(tmp_path: Path) -> None:
    heading, _, *lines = run("simulate_window.py", "--draws", "2", cwd=tmp_path).splitlines()
    assert heading.startswith("| K | curve | n |")
    assert {line.split(" | ")[0] for line in lines} == {"| 12", "| 8", "| 7", "| 6", "| 5"}
    assert all(0 <= float(line.split(" | ")[5]) <= 1 for line in lines)


def test_the_fuzzer_counts_its_cases(tmp_path: Path) -> None:
    said = run("fuzz.py", "--minutes", "0.02", "--kind", "latents", "--keep", "kept", cwd=tmp_path).splitlines()
    kind, cases, refused, accepted, failed = (cell.strip() for cell in said[2].strip("|").split("|"))
    assert (kind, failed) == ("latents", "0")
    assert int(cases) == int(refused) + int(accepted) > 0


def test_the_benchmark_runs_its_sides_in_processes(tmp_path: Path) -> None:
    lines = run("bench.py", "--quick", "demo-fp32", "width", cwd=tmp_path).splitlines()
    name, naive, ours, ratio = lines[1].split()[:4]
    assert name == "demo-fp32"
    assert float(ratio) == pytest.approx(float(naive) / float(ours), rel=0.1)
    assert [line[:9] for line in lines[2:]] == ["d =    16", "d =    32"]


def test_every_part_of_the_benchmark_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """But for cases that differ from another one in size or precision alone; here without the processes."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    bench = import_module("bench")

    def here(side: str, name: str, folder: Path, quick: bool, cache: str = "") -> Any:
        monkeypatch.setenv("DIFFSCOPE_CACHE_DIR", cache or f"{folder}/cache")
        return bench.SIDES[side](name, folder, quick)

    monkeypatch.setattr(bench, "in_a_process", here)
    monkeypatch.setattr(Extractor, "_walk", Extractor._walk)  # which a part replaces for good
    parts = ("sit-fp32", "latent", "share-unet-bf16", "outside", "memory", "images", "track-overhead")
    monkeypatch.setattr(sys, "argv", ["bench.py", "--quick", *parts])
    bench.main()
    heads = (
        "part ",
        "sit-fp32",
        "latent",
        "part ",
        "share-unet-bf16",
        "outside the network",
        "memory beyond",
        "   100 images",
        "   200 images",
        "track, 2",
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line[: len(head)] for line, head in zip(lines, heads, strict=True)] == list(heads)


@needs_fashion
def test_scenes_and_their_masks_are_made_and_trained_on(tmp_path: Path) -> None:
    for part, more in (("t10k", ()), ("train", ("--array",))):
        run("make_scenes.py", "--to", part, "--part", part, "--scenes", "12", *more, cwd=tmp_path)
    names = sorted(path.name for path in (tmp_path / "t10k" / "images").iterdir())
    assert names == [f"{number:08d}.png" for number in range(12)]
    assert len((tmp_path / "t10k" / "masks" / "classes.txt").read_text().splitlines()) == 11
    scenes = [np.asarray(Image.open(tmp_path / "t10k" / kind / names[3])) for kind in ("images", "masks")]
    assert [scene.shape for scene in scenes] == [(32, 32)] * 2
    background = scenes[0][scenes[1] == 0].astype(int)
    assert 0 < len(background) < 32 * 32
    assert 15 < background.min() <= background.max() < 115  # nothing of a garment outside of its mask
    run("make_scenes.py", "--to", "few", "--scenes", "4", cwd=tmp_path)
    again, first = ((tmp_path / where / "masks" / names[3]).read_bytes() for where in ("few", "t10k"))
    assert again == first  # a longer series begins with the shorter one
    assert np.load(tmp_path / "train" / "images.npz")["images"].shape == (12, 32, 32, 1)
    seen = [0]
    for _ in range(2):
        run("train_scenes.py", "--minutes", "0.01", "--runs", "train", cwd=tmp_path)
        seen.append(torch.load(tmp_path / "train" / "state.pt", weights_only=True)["seen"])
        assert seen[-1] > seen[-2]
    with safe_open(tmp_path / "train" / "unet.safetensors", "numpy") as file:
        assert file.metadata()["step"] == str(seen[-1])
