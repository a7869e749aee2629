"""Checkpoints and image encoders by Hub reference: which file is taken, and what the record says of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import DATA, EDM, FEW, SIT_LATENTS, diffscope
from fake_hub import TOKEN, FakeHub
from safetensors.torch import load, save
from vision_folders import write_folder

from diffscope import families
from diffscope.checkpoints import read
from diffscope.encoders import open_encoder
from diffscope.errors import CheckpointError
from diffscope.families.networks.autoencoder import Autoencoder

MODEL = Path(EDM).read_bytes()
VAE = {path.name: path.read_bytes() for path in sorted((DATA / "sit" / "diffusers-vae").glob("*.*"))}
WEIGHTS = "diffusion_pytorch_model.safetensors"


def refusal(text: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(text)
    message = str(caught.value)
    assert message.startswith(f"{text}: ")
    assert message.count("hf://") <= 2
    assert message.isprintable()
    return message


def test_the_record(hub: FakeHub) -> None:
    commit = hub.add("o/n", {"README.md": b"#", "runs/network-snapshot-000123.pkl": MODEL})
    local = read(EDM)
    for text in ("hf://o/n", "hf://o/n/runs", "hf://o/n@main/runs/network-snapshot-000123.pkl"):
        found = read(text)
        assert (found.path, found.revision, found.name) == (text, commit, "network-snapshot-000123.pkl")
        assert found.sha256() == local.sha256() == hashlib.sha256(MODEL).hexdigest()
        assert (found.step, found.step_unit) == (123_000, "images")
        assert list(found.tensors) == list(local.tensors)
    assert (local.revision, local.name) == (None, "edm_ddpmpp.pkl")
    assert hub.downloads() == [hashlib.sha256(MODEL).hexdigest()]


def test_several_are_listed(hub: FakeHub) -> None:
    hub.add("o/n", {"a.pt": b"a", "b/c.safetensors": b"c", "b/d.pkl": MODEL, "notes.txt": b""})
    assert "3 checkpoints in it; give one as /PATH, such as hf://o/n/a.pt; all: a.pt, b/c.safetensors, b/d.pkl" in (
        refusal("hf://o/n")
    )
    assert "2 checkpoints in it; give one as /PATH, such as hf://o/n@main/b/c.safetensors" in refusal("hf://o/n@main/b")
    assert hub.downloads() == []


def test_what_is_no_checkpoint(hub: FakeHub) -> None:
    hub.add("o/none", {"README.md": b"# A model\n"})
    hub.add("o/pipeline", {"model_index.json": b"{}", "unet/diffusion_pytorch_model.bin": b""})
    assert "no checkpoint in it (pkl pt pth ckpt bin safetensors); it holds README.md" in refusal("hf://o/none")
    assert "a text file; a checkpoint was expected" in refusal("hf://o/none/README.md")
    assert "a folder without a network" in refusal("hf://o/pipeline")
    assert "no such model repository" in refusal("hf://o/gone")
    assert "close: README.md" in refusal("hf://o/none/REDME.md")
    assert "expected a model, hf://OWNER/NAME" in refusal("hf://datasets/o/n")


def test_a_diffusers_folder(hub: FakeHub, tmp_path: Path) -> None:
    files = {
        "model_index.json": b'{"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]}',
        "scheduler/scheduler_config.json": b'{"_class_name": "DDPMScheduler"}',
        "unet/config.json": b'{"_class_name": "UNet2DModel"}',
        f"unet/{WEIGHTS}": save({"conv_in.weight": torch.ones(3, 2)}),
        "unet/diffusion_pytorch_model.bin": b"never asked for",
        "unet/own.py": b"never asked for",
        "README.md": b"# never asked for",
    }
    for name, data in files.items():
        (tmp_path / "local" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "local" / name).write_bytes(data)
    commit = hub.add("o/n", files)
    hub.add("o/nested", {f"sub/{name}": data for name, data in files.items()})
    local = read(str(tmp_path / "local"))
    for text in ("hf://o/n", "hf://o/nested/sub"):
        found = read(text)
        assert (found.path, found.class_name, found.sha256()) == (text, "UNet2DModel", local.sha256())
        assert torch.equal(found.tensors["conv_in.weight"], torch.ones(3, 2))
    assert read("hf://o/n").revision == commit
    fetched = {Path(asked.path).name for asked in hub.asked if asked.method == "HEAD"}
    assert fetched - {"sub"} == {"model_index.json", "scheduler_config.json", "config.json", WEIGHTS}
    hub.add("o/code", files | {"model_index.json": b'{"unet": ["own", "OwnUNet"]}'})
    assert "names Python modules of the repository (unet/own.py)" in refusal("hf://o/code")


def test_a_text_encoder_is_fetched_when_it_is_wanted(hub: FakeHub) -> None:
    pipeline = DATA / "pipelines" / "sd"
    files = {str(file.relative_to(pipeline)): file.read_bytes() for file in pipeline.rglob("*") if file.is_file()}
    hub.add(
        "o/sd", files | {"safety_checker/model.safetensors": b"never asked for", "text_encoder/own.py": b"nor this"}
    )
    model = families.load(read("hf://o/sd"))
    encoder = hashlib.sha256(files["text_encoder/model.safetensors"]).hexdigest()
    assert encoder not in hub.downloads()
    model.use_text(None, None)
    assert encoder in hub.downloads()
    large = [name for name in hub.downloads() if len(name) == 64]
    assert len(large) == 3  # network, image encoder, text encoder
    alone = families.load(read(str(pipeline / "unet")))
    alone.use_text(None, "hf://o/sd")
    assert alone.conditions == model.conditions
    hub.add("o/closed", files, gated=True)
    for text, words in (("hf://o/closed", "a gated repository"), ("hf://o/gone", "no such model repository")):
        with pytest.raises(CheckpointError, match=words) as caught:
            alone.use_text(None, text)
        assert "\n" not in str(caught.value)


def test_offline(hub: FakeHub, offline: Callable[[], None]) -> None:
    commit = hub.add("o/n", {"a.pkl": MODEL})
    read("hf://o/n")
    offline()
    for text in ("hf://o/n", "hf://o/n/a.pkl", f"hf://o/n@{commit}/a.pkl"):
        assert read(text).revision == commit
    assert "close: a.pkl" in refusal("hf://o/n/b.pkl")
    assert "HF_HUB_OFFLINE" in refusal("hf://o/else/b.pkl")


def test_inspect_and_sweep(hub: FakeHub, pictures: Path) -> None:
    commit = hub.add("o/n", {"model.pkl": MODEL})
    inspected = diffscope("inspect", "hf://o/n", "--json")
    assert (inspected.code, inspected.err) == (0, "")
    asked = ("--data", pictures, *FEW, "--num-levels", 3, "--json")
    swept, local = (diffscope("sweep", checkpoint, *asked) for checkpoint in ("hf://o/n@main/model.pkl", EDM))
    assert (swept.code, local.code) == (0, 0)
    assert swept.json["rows"] == local.json["rows"]
    told = swept.json["checkpoint"]
    assert told["path"] == "hf://o/n@main/model.pkl"
    assert told["sha256"] == hashlib.sha256(MODEL).hexdigest()
    assert told["revision"] == inspected.json["revision"] == commit
    assert local.json["checkpoint"]["revision"] is None
    assert TOKEN not in swept.out + swept.err + inspected.out


def test_failures_on_the_command_line(hub: FakeHub, pictures: Path) -> None:
    hub.add("o/closed", {"a.pkl": MODEL}, gated=True)
    hub.add("o/two", {"a.pkl": MODEL, "b.pkl": MODEL})
    for text in ("hf://o/gone", "hf://o/closed", "hf://o/two", "hf://o/two@v9", "hf://o/two/c.pkl", "hf://o"):
        for argv in (("inspect", text), ("sweep", text, "--data", pictures), ("sweep", EDM, "--data", text)):
            ran = diffscope(*argv)
            assert (ran.code, ran.out) == (1, "")
            assert ran.err.count("\n") == 1
            assert text in ran.err
            assert TOKEN not in ran.err


@pytest.fixture
def encoder(hub: FakeHub) -> str:
    return hub.add("o/vae", {**VAE, "diffusion_pytorch_model.bin": b"never asked for", "README.md": b"#"})


@pytest.mark.usefixtures("encoder")
def test_an_encoder(hub: FakeHub) -> None:
    hub.add("o/pipeline", {f"vae/{name}": data for name, data in VAE.items()})
    fingerprint = Autoencoder(str(DATA / "sit" / "diffusers-vae")).fingerprint()
    found = Autoencoder("hf://o/vae")
    assert found.path == "hf://o/vae"
    assert found.fingerprint() == fingerprint
    assert hub.downloads() == ["config.json", hashlib.sha256(VAE[WEIGHTS]).hexdigest()]
    assert Autoencoder("hf://o/pipeline/vae").fingerprint() == fingerprint


def test_an_encoder_without_safetensors(hub: FakeHub, tmp_path: Path) -> None:
    torch.save(load(VAE[WEIGHTS]), tmp_path / "weights.bin")
    files = {"config.json": VAE["config.json"], "diffusion_pytorch_model.bin": (tmp_path / "weights.bin").read_bytes()}
    hub.add("o/vae", files)
    assert Autoencoder("hf://o/vae").fingerprint() == Autoencoder(str(DATA / "sit" / "diffusers-vae")).fingerprint()


@pytest.mark.usefixtures("encoder")
def test_an_encoder_offline(offline: Callable[[], None]) -> None:
    Autoencoder("hf://o/vae")
    offline()
    Autoencoder("hf://o/vae")
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE"):
        Autoencoder("hf://o/else")


def test_what_is_no_encoder(hub: FakeHub) -> None:
    wrong = json.dumps({"_class_name": "UNet2DModel"}).encode()
    hub.add("o/unet", {"config.json": wrong, WEIGHTS: b""})
    hub.add("o/pipeline", {f"vae/{name}": data for name, data in VAE.items()})
    for text, message in (
        ("hf://o/unet", "its config.json is that of UNet2DModel, expected AutoencoderKL"),
        ("hf://o/pipeline", "config.json beside .*; try hf://o/pipeline/vae$"),
        ("hf://o/pipeline/va", "no 'va' in the repository .*close: vae"),
    ):
        with pytest.raises(CheckpointError, match=message):
            Autoencoder(text)
    assert hub.downloads() == ["config.json"]


@pytest.mark.usefixtures("encoder")
def test_a_latent_model_with_an_encoder_from_the_hub(pictures: Path) -> None:
    asked = ("icr", SIT_LATENTS, "--config", "num_heads=4", "--data", pictures, "--sigma", 1, "--num-images", 144)
    ran, local = (
        diffscope(*asked, "--augment", "none", "--json", "--vae", vae)
        for vae in ("hf://o/vae", DATA / "sit" / "diffusers-vae")
    )
    assert (ran.code, local.code) == (0, 0), ran.err + local.err
    assert ran.json["rows"] == local.json["rows"]


def test_a_vision_model_beside_a_network(hub: FakeHub, tmp_path: Path) -> None:
    """Its config, preparation and weights are fetched, and no code."""
    folder = write_folder(tmp_path / "vit", "vit")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.add("o/vit", files | {"modeling_own.py": b"never asked for", "pytorch_model.bin": b"nor this"})
    encoder = open_encoder("hf://o/vit")
    assert encoder.protocol() == open_encoder(str(folder)).protocol()
    fetched = {Path(asked.path).name for asked in hub.asked if asked.method == "HEAD"}
    assert fetched - {"vit"} == {"config.json", "preprocessor_config.json", "model.safetensors"}
    hub.add("o/none", {"config.json": b"{}", "pytorch_model.bin": b""})
    with pytest.raises(CheckpointError, match=r"expected a vision model, config\.json beside model\.safetensors"):
        open_encoder("hf://o/none")
