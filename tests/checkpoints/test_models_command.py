"""`diffscope models`: what it says of a checkpoint is what naming the checkpoint does."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import diffscope

import diffscope as package
from diffscope.checkpoints.published import PUBLISHED


def test_every_short_name_is_listed_with_where_it_is() -> None:
    ran = diffscope("models")
    assert (ran.code, ran.err) == (0, "")
    for name, found in PUBLISHED.items():
        (line,) = [line for line in ran.out.splitlines() if line.startswith(f"{name} ")]
        assert (found.reference or found.file) in line
        assert (" yes" in line) == bool(found.needs)
    assert "VAE: works on latents, and needs --vae hf://stabilityai/sd-vae-ft-ema" in ran.out
    for where in {found.where for found in PUBLISHED.values() if found.reference is None}:
        assert where in " ".join(ran.out.split())
    fetched = sum(found.reference is not None for found in PUBLISHED.values())
    assert f"{fetched} are fetched from the Hub" in ran.out


def test_what_is_not_known_is_null() -> None:
    models = {model["name"]: model for model in diffscope("models", "--json").json["models"]}
    quiet = diffscope("models", "--quiet").out.splitlines()
    assert list(models) == list(PUBLISHED) == [line.split()[0] for line in quiet]
    assert quiet[0] == "edm:cifar10-uncond-vp parameters 55733891"
    assert models["edm:cifar10-uncond-vp"] == {
        "name": "edm:cifar10-uncond-vp",
        "file": "edm-cifar10-32x32-uncond-vp.pkl",
        "where": "NVIDIA's server, folder edm/pretrained (linked from github.com/NVlabs/edm)",
        "reference": None,
        "parameters": 55_733_891,
        "licence": "CC BY-NC-SA 4.0",
        "needs": [],
    }
    assert models["sit:b-2-256"]["licence"] is None
    assert models["sit:b-2-256"]["needs"] == ["--vae hf://stabilityai/sd-vae-ft-ema"]
    assert package.models()["models"] == list(models.values())


def test_networks_on_latents_say_that_they_need_a_vae() -> None:
    on_latents = {name for name, found in PUBLISHED.items() if found.needs}
    assert {name.partition(":")[0] for name in on_latents} == {"edm2", "sit", "dit", "repa"}
    assert not any(name.startswith("edm2:img64") for name in on_latents)


def test_it_stands_in_the_summary_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert diffscope("models").code == 0
    lines = summary.read_text("utf-8").splitlines()
    assert lines[0] == "### diffscope models"
    assert sum(line.startswith("| ") for line in lines) == len(PUBLISHED) + 2
