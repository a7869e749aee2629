"""The room of encoders: its contract, floors, features of a file, TorchScript, and timm by a stand-in."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from commands import EDM, diffscope
from safetensors.torch import save_file
from torch import Tensor, nn

from diffscope import registry
from diffscope.encoders import Encoder, Network, Setting, open_encoder
from diffscope.errors import DataError, DiffscopeError, UsageError
from diffscope.measure.job import Job
from diffscope.measure.opening import open_job
from diffscope.options.settings import Loading, Settings
from diffscope.sources.base import open_source


@pytest.fixture(scope="module")
def job(pictures: Path) -> Job:
    settings = Settings(sigma=(0.3, 1.0), num_images=40)
    return open_job(EDM, open_source(str(pictures)), settings, Loading())


@pytest.fixture
def beside(job: Job) -> Setting:
    return Setting(network=Network(job.denoiser, job.plan, job.source), batch_size=3, allow_torchscript=True)


def first(job: Job, count: int) -> np.ndarray:
    from diffscope.extraction import target_of

    return np.stack([job.source.read(index, target_of(job.denoiser)) for index in range(count)])


def spellings(job: Job, folder: Path) -> dict[str, str]:
    """One of each kind that is open without a library, by the kind's name."""
    save_file({"z": torch.randn(len(job.source), 6)}, folder / "z.safetensors")
    torch.jit.script(Mean()).save(str(folder / "mean.pt"))
    return {
        "pixels": "pixels",
        "random": "random",
        "features": str(folder / "z.safetensors"),
        "torchscript": f"{folder / 'mean.pt'}:side=8",
    }


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_the_contract_holds_for_every_kind(job: Job, beside: Setting, tmp_path: Path) -> None:
    assert set(registry.members("diffscope.encoders")) == {*spellings(job, tmp_path), "timm", "transformers"}
    images = first(job, 7)
    for kind, spec in spellings(job, tmp_path).items():
        encoder = open_encoder(spec, beside)
        assert isinstance(encoder, Encoder)
        assert (encoder.name, encoder.kind) == (spec, kind)
        found = encoder.features(images, range(7))
        assert found.shape == (7, encoder.dims)
        assert found.dtype == torch.float32
        parts = [encoder.features(images[n : n + 1], [n]) for n in range(7)]
        torch.testing.assert_close(torch.cat(parts), found, atol=1e-5, rtol=1e-5)
        again = open_encoder(spec, beside).protocol()
        assert again == encoder.protocol()
        assert len(again["sha256"]) == 64


def test_what_is_no_encoder() -> None:
    with pytest.raises(UsageError, match="`beside=resnet`: no encoder is spelled like that; expected pixels, random"):
        open_encoder("resnet")
    for spec in ("pixels", "random", "z.safetensors"):
        with pytest.raises(UsageError, match=f"`beside={spec}`"):
            open_encoder(spec)


def test_pixels_are_the_images(job: Job, beside: Setting) -> None:
    images = first(job, 2)
    found = open_encoder("pixels", beside).features(images)
    assert np.array_equal(found.numpy(), images.reshape(2, -1).astype(np.float32) / 127.5 - 1)


def test_an_untrained_network(job: Job, beside: Setting) -> None:
    """Other weights than the trained ones, which stay as they are, and of the variance that is said."""
    before = {name: tensor.clone() for name, tensor in job.denoiser.network.named_parameters()}
    encoder: Any = open_encoder("random", beside)
    drawn = dict(encoder._denoiser.network.named_parameters())
    for name, tensor in job.denoiser.network.named_parameters():
        assert torch.equal(tensor, before[name])
        if tensor.dim() < 2:
            assert set(drawn[name].unique().tolist()) <= {0.0, 1.0}
        elif tensor.numel() > 2000:
            expected = 1 / np.prod(tensor.shape[1:])
            assert float(drawn[name].var()) == pytest.approx(expected, rel=5 * np.sqrt(2 / tensor.numel()))
    assert encoder.layer == job.plan.layers[0].name
    assert encoder.facts()["sigma"] == 0.3
    assert not torch.equal(encoder.features(first(job, 2)), torch.zeros(2, encoder.dims))
    other = next(layer.name for layer in job.denoiser.layers if layer.name != encoder.layer)
    assert open_encoder(f"random:{other}", beside).facts()["layer"] == other
    with pytest.raises(DiffscopeError, match="nowhere"):
        open_encoder("random:nowhere", beside)
    toy = open_job("toy:d=4,side=4", open_source("synthetic:count=9,seed=0"), Settings(sigma=(1.0,)), Loading())
    with pytest.raises(UsageError, match="has no weights"):
        open_encoder("random", Setting(network=Network(toy.denoiser, toy.plan, toy.source)))


def test_features_that_diffscope_wrote(job: Job, beside: Setting, pictures: Path, tmp_path: Path) -> None:
    file = tmp_path / "f.safetensors"
    options = ("--augment", "none", "--views", 1, "--num-images", 40)
    assert diffscope("features", EDM, "--data", pictures, *options, "--sigma", 1, "-o", file).code == 0
    encoder = open_encoder(str(file), beside)
    rows = sorted(job.indices.tolist())
    found = encoder.features(np.zeros((3, 1)), [rows[5], rows[0], rows[39]])
    from safetensors.torch import load_file

    z = load_file(file)[job.plan.layers[0].name][0, 0]
    assert torch.equal(found, z[[5, 0, 39]])
    missing = next(index for index in range(200) if index not in rows)
    with pytest.raises(DataError, match=f"no features of 1 of 2 images, such as number {missing};"):
        encoder.features(np.zeros((2, 1)), [rows[0], missing])
    shifted = open_source("synthetic:count=200,seed=3")
    with pytest.raises(DataError, match="features of other images"):
        open_encoder(str(file), Setting(network=Network(job.denoiser, job.plan, shifted)))
    two = tmp_path / "two.safetensors"
    assert diffscope("features", EDM, "--data", pictures, *options, "--sigma", "1,2", "-o", two).code == 0
    with pytest.raises(DataError, match=r"is \[2, 1, 40, \d+\]; expected \[images, d\], .* one `sigma=`"):
        open_encoder(str(two), beside)


@pytest.mark.parametrize(
    ("tensors", "spelled", "words"),
    [
        ({"z": torch.zeros(7, 3)}, "", "7 rows and no `index`; .* has 200 images"),
        ({"z": torch.zeros(7, 3), "index": torch.arange(6)}, "", "an `index` of 6 for 7 rows"),
        ({"z": torch.zeros(2, 3), "index": torch.tensor([4, 4])}, "", "names images twice"),
        ({"a": torch.zeros(200, 3), "b": torch.zeros(200, 3)}, "", r"holds a \[200, 3\], b .* expected one tensor"),
        ({"a": torch.zeros(200, 3)}, ":b", "no tensor 'b'"),
        ({"a": torch.zeros(200)}, "", r"a is \[200\]"),
    ],
)
def test_files_that_do_not_fit(
    tensors: dict[str, Tensor], spelled: str, words: str, beside: Setting, tmp_path: Path
) -> None:
    save_file(tensors, tmp_path / "z.safetensors")
    with pytest.raises(DataError, match=words):
        open_encoder(f"{tmp_path / 'z.safetensors'}{spelled}", beside)


def test_one_of_several_tensors_and_numbers_that_are_none(beside: Setting, tmp_path: Path) -> None:
    b = torch.randn(200, 2)
    b[7] = torch.inf
    save_file({"a": torch.zeros(200, 3), "b": b}, tmp_path / "z.safetensors")
    encoder = open_encoder(f"{tmp_path / 'z.safetensors'}:b", beside)
    assert torch.equal(encoder.features(np.zeros((2, 1)), [3, 1]), b[[3, 1]])
    with pytest.raises(DataError, match="not finite"):
        encoder.features(np.zeros((1, 1)), [7])
    with pytest.raises(DataError, match="No such file"):
        open_encoder(f"{tmp_path / 'gone.safetensors'}", beside)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_program_is_run_where_it_is_allowed(beside: Setting, tmp_path: Path) -> None:
    spec = f"{tmp_path / 'mean.pt'}:side=4"
    torch.jit.script(Mean()).save(str(tmp_path / "mean.pt"))
    with pytest.raises(UsageError, match=r"is a program, and to use it is to run it.*add `allow_torchscript=`"):
        open_encoder(spec)
    encoder = open_encoder(spec, beside)
    grey = np.full((2, 1, 6, 6), 51, np.uint8)
    expected = (0.2 - torch.tensor((0.485, 0.456, 0.406))) / torch.tensor((0.229, 0.224, 0.225))
    torch.testing.assert_close(encoder.features(grey), expected.expand(2, 3))
    torch.testing.assert_close(encoder.features(np.full((2, 1, 6, 6), -0.6, np.float32)), expected.expand(2, 3))
    assert encoder.facts()["side"] == 4
    torch.jit.script(nn.Conv2d(5, 2, 3)).save(str(tmp_path / "five.pt"))
    with pytest.raises(DataError, match=r"fails on images .* is its side, FILE:side=S, right"):
        open_encoder(str(tmp_path / "five.pt"), beside)


class Stage(nn.Module):
    """What the library's networks have in common."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 5, 4, 4), nn.Linear(5, 10)

    def reset_classifier(self, classes: int) -> None:
        assert classes == 0
        self.head = nn.Identity()  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.stem(x).mean((2, 3)))
        return found


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stand-in for the library, which cannot be installed without torchvision."""
    config = {"input_size": (3, 19, 19), "interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center",
              "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.5, 1.0)}  # fmt: skip
    library: Any = ModuleType("timm")
    library.__version__ = "1.0.99"
    library.is_model = lambda name: name == "stage.small"
    library.create_model = lambda name, pretrained: Stage()
    library.data = SimpleNamespace(resolve_model_data_config=lambda network: config)
    monkeypatch.setitem(sys.modules, "timm", library)
    return config


def test_a_network_of_timm(timm: dict[str, Any], tmp_path: Path) -> None:
    """Resized to ⌊19/0.875⌋ = 21, of which torchvision cuts 19 from 1 on."""
    from PIL import Image

    network = Stage().eval()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    encoder = open_encoder(f"timm:stage.small@{tmp_path / 'w.safetensors'}", Setting(batch_size=2))
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 24, 24), dtype=np.uint8)
    resized = [Image.fromarray(i.transpose(1, 2, 0)).resize((21, 21), Image.Resampling.BICUBIC) for i in images]
    x = torch.from_numpy(np.stack([np.asarray(picture)[1:20, 1:20] for picture in resized])).permute(0, 3, 1, 2)
    x = (x / 255 - 0.5) / torch.tensor((0.25, 0.5, 1.0))[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(encoder.features(images), network.stem(x).mean((2, 3)), atol=1e-5, rtol=1e-5)
    assert encoder.dims == 5
    assert encoder.facts()["timm"] == "1.0.99"
    save_file({**network.state_dict(), "more": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(DiffscopeError, match="not expected: more; take the file of this name's own weights"):
        open_encoder(f"timm:stage.small@{tmp_path / 'w.safetensors'}")
    with pytest.raises(DataError, match=r"timm 1\.0\.99 has no such network"):
        open_encoder("timm:stage.large")
    timm["input_size"] = (3, 19, 24)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(DataError, match="takes 3 × 19 × 24"):
        open_encoder(f"timm:stage.small@{tmp_path / 'w.safetensors'}")


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(DataError, match="timm is not installed: pip install timm, or give the features"):
        open_encoder("timm:resnet18")
