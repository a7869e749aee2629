"""JiT, LightningDiT and REPA-E from the command line, on files as their training scripts write them."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import DATA, diffscope, refused, write_pictures
from safetensors.numpy import load_file, save_file

JIT = (DATA / "jit" / "checkpoint-last.pt", "--config", "in_context_start=2")
PIXELS = (DATA / "lightningdit" / "0000100.pt",)
LATENTS = (DATA / "lightningdit" / "latents.pt",)
REPAE = (DATA / "repae" / "0000400.pt", "--config", "num_heads=2")
SHARD = "latents_rank00_shard000.safetensors"
FEW = ("--augment", "none", "--num-images", "48", "--sigma", "0.5", "--json")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), 48)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of 24 latents each and their statistics."""
    folder = tmp_path_factory.mktemp("latents")
    rng = np.random.default_rng(0)
    for number in range(2):
        latents = rng.standard_normal((24, 8, 4, 4)).astype(np.float32)
        tensors = {"latents": latents, "latents_flip": latents[..., ::-1].copy(), "labels": np.arange(24) % 4}
        save_file(tensors, folder / f"latents_rank00_shard{number:03d}.safetensors")
    shutil.copy(DATA / "lightningdit" / "latents_stats.pt", folder)
    return folder


@pytest.mark.parametrize("file", [JIT, PIXELS], ids=["jit", "lightningdit"])
def test_images_of_a_network_on_pixels(file: tuple[Any, ...], pictures: Path, tmp_path: Path) -> None:
    ran = diffscope("icr", *file, "--data", pictures, *FEW)
    assert ran.code == 0, ran.err
    assert 0 < ran.json["rows"][0]["icr"] < 1
    swept = diffscope("sweep", *file, "--data", pictures, *FEW[:4], "--num-levels", "3", "--json")
    assert swept.code == 0, swept.err
    assert len({row["sigma"] for row in swept.json["rows"]}) == 3
    converted = tmp_path / "model.safetensors"
    assert diffscope("convert", *file, converted).code == 0
    again = diffscope("icr", converted, "--data", pictures, *FEW)
    assert again.code == 0, again.err
    assert again.json["rows"] == ran.json["rows"]


def test_a_run_of_jit_by_epochs(pictures: Path, tmp_path: Path) -> None:
    """Its files count nothing finer."""
    for epoch in (40, 80):
        changed(partial(dict.update, epoch=epoch), tmp_path / f"checkpoint-{epoch}.pth", JIT[0])
    ran = diffscope("track", tmp_path, *JIT[1:], "--data", pictures, *FEW)
    assert ran.code == 0, ran.err
    assert [(c["step"], c["step_unit"]) for c in ran.json["checkpoints"]] == [(40, "epochs"), (80, "epochs")]


@pytest.mark.parametrize("file", [PIXELS, LATENTS], ids=["pixels", "latents"])
def test_a_run_of_lightningdit_by_steps(file: tuple[Any, ...], pictures: Path, shards: Path, tmp_path: Path) -> None:
    for step in (100, 200):
        shutil.copy(file[0], tmp_path / f"{step:07d}.pt")
    ran = diffscope("track", tmp_path, "--data", pictures if file is PIXELS else shards, *FEW)
    assert ran.code == 0, ran.err
    assert [(c["step"], c["step_unit"]) for c in ran.json["checkpoints"]] == [(100, "steps"), (200, "steps")]


def test_latents_in_shards_are_normalised_by_what_lies_beside_them(shards: Path, tmp_path: Path) -> None:
    beside = diffscope("icr", *LATENTS, "--data", shards, *FEW)
    assert beside.code == 0, beside.err
    raw = np.concatenate([load_file(path)["latents"] for path in sorted(shards.glob("*.safetensors"))])
    statistics = torch.load(shards / "latents_stats.pt", weights_only=True)
    z = (raw - statistics["mean"].numpy()) / statistics["std"].numpy()
    np.savez(tmp_path / "raw.npz", mean=raw)
    np.savez(tmp_path / "normalised.npz", mean=z)
    same = diffscope(
        "icr", *LATENTS, "--data", tmp_path / "raw.npz", "--latent-stats", shards / "latents_stats.pt", *FEW
    )
    done = diffscope("icr", *LATENTS, "--data", tmp_path / "normalised.npz", "--latent-stats", "none", *FEW)
    bare = diffscope("icr", *LATENTS, "--data", tmp_path / "raw.npz", "--latent-stats", "none", *FEW)
    values = [ran.json["rows"][0]["icr"] for ran in (beside, same, done, bare)]
    assert values[1] == values[0]
    assert values[2] == pytest.approx(values[0], rel=1e-4)  # float32, where the network magnifies the last digits
    assert abs(values[3] - values[0]) > 1e-3 * values[0], "statistics that were left out would show"
    assert beside.json["protocol"]["latent_scale"] == same.json["protocol"]["latent_scale"]
    assert beside.json["protocol"]["latent_scale"] != bare.json["protocol"]["latent_scale"]


def test_latents_without_statistics_are_refused(tmp_path: Path, shards: Path) -> None:
    np.savez(tmp_path / "raw.npz", mean=np.zeros((48, 8, 4, 4), np.float32))
    ran = diffscope("icr", *LATENTS, "--data", tmp_path / "raw.npz", *FEW)
    refused(ran, 1, "--latent-stats FILE", "--latent-stats none", "does not hold")


def test_a_batch_norm_in_the_file_normalises_latents(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "raw.npz", mean=rng.standard_normal((48, 8, 4, 4)).astype(np.float32))
    ran = diffscope("icr", *REPAE, "--data", tmp_path / "raw.npz", *FEW)
    assert ran.code == 0, ran.err
    assert "REPA-E's own VAE" in ran.err
    converted = tmp_path / "model.safetensors"
    assert diffscope("convert", *REPAE, converted).code == 0
    again = diffscope("icr", converted, "--data", tmp_path / "raw.npz", *FEW)
    assert again.json["rows"] == ran.json["rows"]


@pytest.mark.parametrize(
    ("statistics", "words"),
    [
        ({"mean": torch.zeros(1, 4, 1, 1), "std": torch.ones(1, 4, 1, 1)}, "the model takes 8 channels"),
        ({"mean": torch.zeros(1, 8, 1, 1), "std": torch.zeros(1, 8, 1, 1)}, "not above 0"),
        ({"mean": torch.full((1, 8, 1, 1), torch.nan), "std": torch.ones(1, 8, 1, 1)}, "not finite"),
        ({"mean": torch.zeros(8, dtype=torch.int64), "std": torch.ones(8)}, "mean is int64 [8]"),
        ({"average": torch.zeros(8)}, "expected the statistics of latents"),
    ],
)
def test_statistics_that_do_not_fit(statistics: dict[str, Any], words: str, shards: Path, tmp_path: Path) -> None:
    torch.save(statistics, tmp_path / "stats.pt")
    refused(diffscope("icr", *LATENTS, "--data", shards, "--latent-stats", tmp_path / "stats.pt", *FEW), 1, words)


def test_statistics_of_repa_e_s_vae(shards: Path, tmp_path: Path) -> None:
    """`latents_scale` is one over the deviation."""
    given = torch.load(shards / "latents_stats.pt", weights_only=True)
    torch.save({"latents_scale": 1 / given["std"], "latents_bias": given["mean"]}, tmp_path / "e2e-latents-stats.pt")
    found = [
        diffscope("icr", *LATENTS, "--data", shards, *extra, *FEW).json["rows"][0]["icr"]
        for extra in ((), ("--latent-stats", tmp_path / "e2e-latents-stats.pt"))
    ]
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_a_network_on_pixels_takes_no_statistics(pictures: Path) -> None:
    ran = diffscope("icr", *JIT, "--data", pictures, "--latent-stats", "none", *FEW)
    refused(ran, 1, "works on pixels")


@pytest.mark.parametrize(
    ("config", "code", "words"),
    [
        ((), 1, "in_context_start=N"),
        (("in_context_start=3", "noise_scale=2"), 2, "from 0 to 2"),
        (("in_context_start=1",), 1, "noise_scale=S"),
        (("in_context_start=1", "noise_scale=0"), 2, "above 0"),
        (("start=1",), 2, "this family knows in_context_start, noise_scale"),
    ],
)
def test_facts_that_no_file_holds_are_asked_for(config: tuple[str, ...], code: int, words: str) -> None:
    options = [part for fact in config for part in ("--config", fact)]
    refused(diffscope("inspect", DATA / "jit" / "noise2.pt", *options), code, words)


def changed(change: Callable[[dict[str, Any]], object], path: Path, of: Path = DATA / "repae" / "0000400.pt") -> Path:
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(of, weights_only=True)
    change(content)
    torch.save(content, path)
    return path


def test_reg_is_refused_by_name(tmp_path: Path) -> None:
    """Its sequence is led by a class token of another network, which nothing here makes."""

    def entangled(content: dict[str, Any]) -> None:
        ema = content["ema"]
        ema["pos_embed"] = torch.cat([torch.zeros(1, 1, 16), ema["pos_embed"]], dim=1)
        ema |= {"cls_projectors2.weight": torch.ones(16, 768), "cls_projectors2.bias": torch.ones(16)}

    path = changed(entangled, tmp_path / "0000400.pt")
    refused(diffscope("inspect", path, "--config", "num_heads=2"), 1, "a REG network", "class token of a DINOv2")


def test_a_batch_norm_that_is_not_whole(tmp_path: Path) -> None:
    def halved(content: dict[str, Any]) -> None:
        for weights in ("ema", "model"):  # what an average lacks would be taken from the model
            del content[weights]["bn.running_var"]

    path = changed(halved, tmp_path / "0000400.pt")
    refused(diffscope("inspect", path, "--config", "num_heads=2"), 1, "bn.running_var of 8 numbers")


def test_projectors_of_irepa_are_left_out(tmp_path: Path) -> None:
    def convolved(content: dict[str, Any]) -> None:
        for name in [name for name in content["ema"] if name.startswith("projectors.")]:
            del content["ema"][name]
        content["ema"]["projectors.0.projection_layer.weight"] = torch.ones(12, 16, 3, 3)
        content["ema"]["projectors.0.projection_layer.bias"] = torch.ones(12)

    path = changed(convolved, tmp_path / "0000400.pt")
    ran = diffscope("inspect", path, "--config", "num_heads=2", "--json")
    assert (ran.code, ran.json["family"]) == (0, "repa"), ran.err
    assert ran.json["parameters"] == diffscope("inspect", *REPAE, "--json").json["parameters"]


def test_projectors_of_irepa_s_jit_are_left_out(tmp_path: Path) -> None:
    def projected(content: dict[str, Any]) -> None:
        content["model_ema1"]["net.projectors.0.projection_layer.weight"] = torch.ones(12, 32, 3, 3)

    path = changed(projected, tmp_path / "checkpoint-last.pt", JIT[0])
    ran = diffscope("inspect", path, *JIT[1:], "--json")
    assert (ran.code, ran.json["family"], ran.json["parameters"]) == (0, "jit", 90904), ran.err


def test_a_lightningdit_that_is_a_sit_in_all_but_name(tmp_path: Path) -> None:
    """Nothing in its tensors says which of the two it is."""
    shutil.copy(DATA / "containers" / "sit_bare.pt", tmp_path / "weights.pt")
    ran = diffscope("inspect", tmp_path / "weights.pt", "--config", "num_heads=4")
    refused(ran, 1, "--family sit", "--family lightningdit")
    chosen = diffscope(
        "inspect", tmp_path / "weights.pt", "--config", "num_heads=4", "--family", "lightningdit", "--json"
    )
    assert (chosen.code, chosen.json["family"]) == (0, "lightningdit"), chosen.err


def test_the_configuration_says_what_is_made_of_latents(tmp_path: Path) -> None:
    """Without `latent_norm` latents are multiplied alone, by the training script's own default."""

    def configured(content: dict[str, Any]) -> None:
        content["config"] = {
            "data": {"num_classes": 4},
            "vae": {"downsample_ratio": 32},
            "transport": {"path_type": "Linear"},
        }

    path = changed(configured, tmp_path / "0000100.pt", DATA / "lightningdit" / "latents.pt")
    ran = diffscope("inspect", path, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["input"]["image_side"] == 4 * 32
    assert (ran.json["constructor"]["latent_norm"], ran.json["constructor"]["latent_multiplier"]) == ("false", 0.18215)
    np.savez(tmp_path / "raw.npz", mean=np.random.default_rng(0).standard_normal((48, 8, 4, 4)).astype(np.float32))
    assert diffscope("icr", path, "--data", tmp_path / "raw.npz", *FEW).code == 0


def test_shards_that_do_not_fit_together(shards: Path, tmp_path: Path) -> None:
    shutil.copy(shards / SHARD, tmp_path)
    save_file({"latents": np.zeros((2, 8, 2, 2), np.float32)}, tmp_path / "latents_rank01_shard000.safetensors")
    refused(diffscope("icr", *LATENTS, "--data", tmp_path, *FEW), 1, "Give the shards of one extraction")
    (tmp_path / "latents_rank01_shard000.safetensors").write_bytes(b"\0" * 40)
    refused(diffscope("icr", *LATENTS, "--data", tmp_path, *FEW), 1, "Fetch or copy it again")


def test_golden_records_name_their_options() -> None:
    for file, options in ((JIT, ["--config in_context_start=2"]), (REPAE, ["--config num_heads=2"])):
        assert json.loads(Path(file[0]).with_suffix(".json").read_text())["args"] == options[0]
