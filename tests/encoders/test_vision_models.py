"""Vision models of the transformers library: features as the library itself computes them, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from vision_folders import KINDS, change, write_folder

from diffscope.encoders import Setting, open_encoder
from diffscope.errors import CheckpointError, DataError, DiffscopeError


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: write_folder(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 3, 12, 12), dtype=np.uint8)


def by_the_library(folder: Path, kind: str, images: np.ndarray) -> torch.Tensor:
    """from_pretrained, the image processor, and what the tower's documentation calls its output."""
    import transformers

    names = {"vit": "ViTModel", "vit_mae": "ViTMAEModel", "clip": "CLIPModel"}
    model: Any = getattr(transformers, names.get(kind, KINDS[kind]))
    more = {"mask_ratio": 0.0} if kind == "vit_mae" else {}
    network = model.from_pretrained(folder, local_files_only=True, **more).eval()
    pictures = [Image.fromarray(image.transpose(1, 2, 0)) for image in images]
    x = transformers.AutoImageProcessor.from_pretrained(folder)(images=pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        if kind.startswith("clip"):
            return (network.vision_model if kind == "clip" else network)(x).pooler_output
        found = network(x).last_hidden_state
        return found.mean(1) if kind == "ijepa" else found[:, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_the_library_s(kind: str, folders: dict[str, Path], images: np.ndarray) -> None:
    """Rounding of float32 over two layers; MAE's library shuffles patches, whose sums then round otherwise."""
    encoder = open_encoder(str(folders[kind]), Setting(batch_size=2))
    found = encoder.features(images)
    assert found.shape == (5, encoder.dims) == (5, 16)
    torch.testing.assert_close(found, by_the_library(folders[kind], kind, images), atol=2e-5, rtol=2e-5)
    assert torch.equal(encoder.features(images), found)  # nothing is masked at random
    facts = encoder.protocol()
    assert facts["pooled"] == ("mean of patch tokens" if kind == "ijepa" else "class token")
    assert facts["encoder"] == "transformers"
    assert len(facts["sha256"]) == 64


def test_floats_and_grey_pictures(folders: dict[str, Path], images: np.ndarray) -> None:
    encoder = open_encoder(str(folders["vit"]))
    floats = images.astype(np.float32) / 127.5 - 1
    assert torch.equal(encoder.features(floats), encoder.features(images))
    grey = images[:, :1]
    assert torch.equal(encoder.features(grey), encoder.features(np.repeat(grey, 3, 1)))
    with pytest.raises(DataError, match="images of 4 channels"):
        encoder.features(np.zeros((1, 4, 8, 8), np.uint8))


def test_names_of_older_releases_fit_too(folders: dict[str, Path], images: np.ndarray, tmp_path: Path) -> None:
    """Version 5 of the library writes the spelling of version 4, and calls them otherwise in memory: both are read."""
    copied = shutil.copytree(folders["vit"], tmp_path / "vit")
    tensors = load_file(copied / "model.safetensors")
    spelled = {
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        ".output.dense": ".mlp.fc2",
        "encoder.layer.": "layers.",
    }
    for old, new in spelled.items():
        tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    save_file(tensors, copied / "model.safetensors")
    before = open_encoder(str(folders["vit"])).features(images)
    assert torch.equal(open_encoder(str(copied)).features(images), before)


def _refused(folder: Path) -> str:
    with pytest.raises(DiffscopeError) as error:
        open_encoder(str(folder))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_weights_that_do_not_fit(folders: dict[str, Path], tmp_path: Path) -> None:
    copied = shutil.copytree(folders["dinov2"], tmp_path / "dino")
    tensors = load_file(copied / "model.safetensors")
    gone = dict(tensors)
    del gone["layernorm.weight"]
    for wrong, words in (
        (gone, "missing: layernorm.weight"),
        (tensors | {"surprise": torch.zeros(3)}, "not expected: surprise"),
        (tensors | {"layernorm.weight": torch.zeros(3)}, "[3] instead of [16]"),
        (tensors | {"layernorm.weight": torch.zeros(16, dtype=torch.int32)}, "not floating-point numbers"),
        (tensors | {"layernorm.weight": torch.full((16,), torch.nan)}, "not finite"),
    ):
        save_file(wrong, copied / "model.safetensors")
        assert words in _refused(copied)


def test_folders_that_are_no_vision_model(folders: dict[str, Path], tmp_path: Path) -> None:
    def copied(name: str) -> Path:
        return shutil.copytree(folders["clip"], tmp_path / name)

    bare = copied("bare")
    (bare / "preprocessor_config.json").unlink()
    assert "no preprocessor_config.json" in _refused(bare)
    (bare / "config.json").unlink()
    assert "no config.json" in _refused(bare)
    pickled = copied("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert "expected model.safetensors" in _refused(pickled)
    bert = copied("bert")
    change(bert, "config.json", model_type="bert", auto_map={"AutoModel": "evil.Model"})
    assert "type 'bert'; expected clip, vit, vit_mae" in _refused(bert)
    deep = copied("deep")
    said = json.loads((deep / "config.json").read_text())["vision_config"]
    change(deep, "config.json", vision_config=said | {"num_hidden_layers": 10**6})
    assert "num_hidden_layers is 1000000" in _refused(deep)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"size": {"longest_edge": 20}}, "size is {'longest_edge': 20}; expected one side of a square"),
        ({"size": {"height": 16, "width": 20}}, "expected one side of a square"),
        ({"crop_size": 20}, "resizes to 18 and cuts 20"),
        ({"do_resize": False, "do_center_crop": False}, "expected one fixed side"),
        ({"image_mean": None}, "image_mean is None; expected three numbers"),
        ({"image_std": [0, 1, 1]}, "image_std"),
        ({"resample": None}, "no `resample`"),
        ({"resample": 9}, "resample is 9"),
        ({"crop_size": 12}, "fails on images [1, 3, 12, 12]"),
    ],
)
def test_preparations_that_are_refused(
    said: dict[str, Any], words: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    copied = shutil.copytree(folders["clip"], tmp_path / "clip")
    change(copied, "preprocessor_config.json", **said)
    assert words in _refused(copied)


def test_the_library_is_not_installed(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(CheckpointError, match=r"not installed: pip install .* or give its features"):
        open_encoder(str(folders["vit"]))
