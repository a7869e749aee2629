"""Copies that are known beforehand: the ideal denoiser of a few images draws nothing else, a Gaussian none of them."""

# mypy: disable-error-code="arg-type, assignment"

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import DATA, SIT_LATENTS
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch import Tensor, nn

import diffscope
from diffscope import families
from diffscope.checkpoints import Checkpoint
from diffscope.errors import CheckpointError, DataError, NonFinite, UsageError
from diffscope.families import WrappedDenoiser
from diffscope.families.base import Denoiser
from diffscope.measure.progress import Listener
from diffscope.measure.snapshots import Snapshot
from diffscope.options.settings import Loading
from diffscope.results import Result
from diffscope.sources.base import open_source
from diffscope.studies.memorization import training_images
from diffscope.studies.memorization.copies import (
    HALF,
    THIRD,
    CosineSearch,
    Criterion,
    Distances,
    DistanceSearch,
    SeenImages,
    clopper_pearson,
    measures,
    pieces,
)
from diffscope.studies.memorization.memorization import Memorization
from diffscope.studies.memorization.options import Choices
from diffscope.studies.memorization.study import open_memorization

SIDE = 8
HEADS = {"num_heads": "3"}
VAE = str(DATA / "sit" / "diffusers-vae")


def random_images(count: int, seed: int = 0, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 1, side, side), dtype=np.uint8)


def saved(path: Path, images: np.ndarray, **more: np.ndarray) -> Path:
    np.savez(path, images=np.moveaxis(images, 1, -1), **more)
    return path


def ideal(images: np.ndarray) -> Denoiser:
    """The posterior mean where the data are these images and no others: it memorizes them."""
    data = torch.from_numpy(images).float().flatten(1) / 127.5 - 1

    def posterior_mean(x: Tensor, sigma: Tensor) -> Tensor:
        squares = torch.cdist(x.flatten(1), data).square() / (2 * sigma[:, None] ** 2)
        return (torch.softmax(-squares, 1) @ data).view_as(x)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 12, 3, padding=1).requires_grad_(False)

        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            kept: Tensor = self.conv(x).relu()
            return kept

    torch.manual_seed(0)
    return diffscope.wrap(Network(), side=SIDE, channels=1, posterior_mean=posterior_mean)


def found(denoiser: Denoiser, data: Path, count: int = 12, **options: Any) -> Result:
    result: Result = diffscope.memorization(denoiser, data, samples=count, batch_size=5, **options)
    return result


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return random_images(10)


@pytest.fixture(scope="module")
def data(images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("data") / "images.npz", images)


SERIES = str(DATA / "series")


# --- the search


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize(("ours", "theirs"), [(1, 1), (3, 2), (100, 100)])
def test_nearest_is_what_all_distances_say(ours: int, theirs: int, mirror: bool, dtype: Any) -> None:
    training, samples = random_images(7), random_images(6, seed=1)
    samples[0], samples[1] = training[3], training[5, ..., ::-1]
    if dtype == np.float32:
        training, samples = ((images / 127.5 - 1).astype(dtype) for images in (training, samples))
    search = DistanceSearch(len(samples), mirror)
    for rows in pieces(len(training), 1, theirs, theirs):
        for part in pieces(len(samples), 1, ours, ours):
            search.update(part.start, samples[part], np.arange(len(training))[rows], training[rows])
    nearest = search.found()
    scale = 1 / 127.5 if dtype == np.uint8 else 1.0
    for n, sample in enumerate(samples.astype(np.float64)):
        plain, flipped = (
            scale * np.sqrt(((sample - images.astype(np.float64)) ** 2).sum((1, 2, 3)))
            for images in (training, training[..., ::-1])
        )
        both = np.minimum(plain, flipped) if mirror else plain
        assert nearest.image[n] == both.argmin()
        assert nearest.mirrored[n] == (mirror and (flipped < plain)[both.argmin()])
        # Whole numbers are exact; of floats, 64 · 1e-16 is lost to cancellation, and the root of that is left of zero.
        assert (nearest.d1[n], nearest.d2[n]) == pytest.approx(np.sort(both)[:2], abs=1e-15 if scale < 1 else 2e-7)
    assert nearest.image[0] == 3
    assert (nearest.ratio[:2] < THIRD).tolist() == [True, mirror]


def test_most_similar_is_what_all_products_say() -> None:
    rng = np.random.default_rng(0)
    ours, plain, flipped = (
        nn.functional.normalize(torch.from_numpy(rng.standard_normal((n, 5))).float(), dim=1) for n in (4, 9, 9)
    )
    search = CosineSearch(ours)
    for rows in (slice(0, 2), slice(2, 9)):
        search.update(np.arange(9)[rows], plain[rows])
        search.update(np.arange(9)[rows], flipped[rows], mirrored=True)
    nearest = search.found()
    products = torch.cat([ours @ plain.T, ours @ flipped.T], 1)
    assert nearest.similarity == pytest.approx(products.max(1).values.numpy(), abs=1e-6)
    assert nearest.image.tolist() == (products.argmax(1) % 9).tolist()
    assert nearest.mirrored.tolist() == (products.argmax(1) >= 9).tolist()


@pytest.mark.parametrize("mirror", [True, False])
def test_equal_and_mirrored_images_count_once(mirror: bool) -> None:
    images = random_images(3)
    doubled = np.concatenate([images, images[1:2], images[2:, :, :, ::-1]])
    twins = SeenImages(mirror)
    assert [twins.is_new(image) for image in doubled] == [True, True, True, False, not mirror]


def test_intervals_of_shares_are_the_exact_ones() -> None:
    # By hand: no hit in n leaves (1 - p)^n = 0.025; and 5 of 10 as tabulated.
    assert clopper_pearson(0, 64) == pytest.approx((0, 1 - 0.025 ** (1 / 64)))
    assert clopper_pearson(64, 64) == pytest.approx((0.025 ** (1 / 64), 1))
    assert clopper_pearson(5, 10) == pytest.approx((0.1871, 0.8129), abs=1e-4)


def test_measures_of_distances_by_hand() -> None:
    zeros = np.zeros(4, np.int64)
    distances = Distances(zeros, zeros.astype(bool), np.array([1.0, 1, 2, 4]), np.array([4.0, 2.5, 4, 4]))
    row = measures(distances, Criterion("ratio", THIRD))
    # Ratios of 0.25, 0.4, 0.5 and 1: a half is not below the half.
    assert (row["copies"], row["share"], row["generalization"]) == (1, 0.25, 0.75)
    assert (row["copies_half"], row["share_half"]) == (2, 0.5)
    assert (row["median_d1"], row["median_ratio"]) == (1.5, 0.45)
    assert row["criterion"] == "ratio<1/3"
    assert measures(distances, Criterion("ratio", 0.6))["copies"] == 3
    assert [str(Criterion("ratio", HALF)), str(Criterion("cosine", 0.5))] == ["ratio<1/2", "cosine>0.5"]


# --- samples whose share is known


def test_the_ideal_denoiser_draws_copies_only(data: Path) -> None:
    result = found(ideal(random_images(10)), data)
    row = result.rows[0]
    assert (row["samples"], row["copies"], row["share"], row["share_half"]) == (12, 12, 1.0, 1.0)
    assert (row["share_low"], row["share_high"]) == pytest.approx((0.025 ** (1 / 12), 1))
    # Rounded to whole grey values they are the very images.
    assert (row["median_d1"], row["median_ratio"]) == (0, 0)
    assert (row["checkpoint"], row["step"], row["generalization"]) == ("live:Network", None, 0)
    # With the same noise for all, samples are not all of one image.
    assert len({pair["image"] for pair in result.sections["pairs"]}) > 3


def test_other_images_are_no_copies(images: np.ndarray, data: Path) -> None:
    row = found(ideal(random_images(10, seed=1)), data).rows[0]
    assert (row["share"], row["share_half"], row["generalization"]) == (0, 0, 1)
    assert row["median_ratio"] > 0.8
    # Half of them known: about half are copies, and those are told apart.
    half = np.concatenate([images[:5], random_images(5, seed=1)])
    result = found(ideal(half), data, 40)
    assert 0.25 < result.rows[0]["share"] < 0.75
    assert all(pair["index"] < 5 for pair in result.sections["pairs"] if pair["ratio"] < THIRD)


def test_mirror_images_are_copies_unless_told_otherwise(images: np.ndarray, data: Path) -> None:
    mirrored = ideal(np.ascontiguousarray(images[..., ::-1]))
    result = found(mirrored, data)
    assert result.rows[0]["share"] == 1
    assert all(pair["mirrored"] for pair in result.sections["pairs"])
    assert found(mirrored, data, mirror=False).rows[0]["share"] == 0


def test_the_threshold_is_the_users(images: np.ndarray, data: Path, tmp_path: Path) -> None:
    # Halfway between two training images, where d1 = d2; nudged towards one, the ratio is 0.7 / 1.3.
    a, b = images[0].astype(float), images[1].astype(float)
    between = ideal(np.round(0.65 * a + 0.35 * b)[None].astype(np.uint8))
    shares = [found(between, data, 2, threshold=t).rows[0]["share"] for t in (0.5, 0.58)]
    assert shares == [0, 1]


def test_equal_training_images_hide_no_copy(images: np.ndarray, tmp_path: Path) -> None:
    """Were they two images, both would be equally near, and the ratio 1."""
    doubled = saved(tmp_path / "doubled.npz", np.concatenate([images, images, images[..., ::-1]]))
    result = found(ideal(images), doubled)
    assert result.rows[0]["share"] == 1
    assert (result.data["count"], result.data["distinct"]) == (30, 10)
    alone = saved(tmp_path / "alone.npz", np.repeat(images[:1], 3, 0))
    with pytest.raises(DataError, match="1 distinct training images; at least 2"):
        found(ideal(images), alone)


def test_numbers_do_not_depend_on_parts(data: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    other = ideal(random_images(10, seed=1))
    whole = found(other, data)
    monkeypatch.setattr(training_images, "CHUNK", 3)
    monkeypatch.setattr(training_images, "KEEP", 0)
    assert found(other, data).rows == whole.rows


def test_the_toy_model_draws_nothing_known() -> None:
    result = diffscope.memorization("toy:d=4,side=4", "synthetic:count=300", samples=32)
    row = result.rows[0]
    assert row["share"] == 0
    # 16 Gaussian numbers of total variance 3.4: no distance is far from √6.8, least of all zero.
    assert 0.2 < row["median_d1"] < 2.6


# --- other spaces


def test_the_models_own_features_know_its_copies(images: np.ndarray, data: Path) -> None:
    space: dict[str, Any] = {"space": "features", "sigma": 0.5, "threshold": 0.999}
    row = found(ideal(images), data, **space).rows[0]
    assert (row["share"], row["criterion"]) == (1, "cosine>0.999")
    assert row["median_similarity"] == pytest.approx(1, abs=1e-5)
    assert "median_ratio" not in row
    others = found(ideal(random_images(10, seed=1)), data, **space).rows[0]
    assert others["share"] == 0
    assert others["median_similarity"] < 0.99
    flipped = ideal(np.ascontiguousarray(images[..., ::-1]))
    assert found(flipped, data, **space).rows[0]["share"] == 1
    assert found(flipped, data, mirror=False, **space).rows[0]["share"] == 0


class Pooled(nn.Module):
    """Contrast of the first channel's quarters, so that the answer does not depend on brightness."""

    def forward(self, x: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(x[:, :1], 4).flatten(1)
        return pooled - pooled.mean(1, keepdim=True)


def script(module: nn.Module, path: Path, channels: int = 3) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(module, torch.zeros(2, channels, 16, 16)), str(path))
    return str(path)


def test_a_torchscript_encoder_is_run_where_it_is_allowed(images: np.ndarray, data: Path, tmp_path: Path) -> None:
    encoder = script(Pooled(), tmp_path / "encoder.pt")
    space: dict[str, Any] = {"encoder": encoder, "encoder_side": 16, "allow_torchscript": True}
    row = found(ideal(images), data, threshold=0.99, **space).rows[0]
    assert (row["share"], row["criterion"]) == (1, "cosine>0.99")
    assert found(ideal(random_images(10, seed=1)), data, threshold=0.99, **space).rows[0]["share"] == 0
    result = found(ideal(images), data, **space)
    assert result.rows[0]["criterion"] == "cosine>0.5"
    assert result.protocol["reference"]["side"] == 16
    with pytest.raises(UsageError, match=r"is a program, and to use it is to run it.*add `allow_torchscript=`"):
        found(ideal(images), data, encoder=encoder)
    with pytest.raises(UsageError, match="`allow_torchscript=` is for `encoder=FILE`"):
        found(ideal(images), data, allow_torchscript=True)


def test_an_encoder_sees_what_sscd_sees(images: np.ndarray, data: Path, tmp_path: Path) -> None:
    """Three channels of the side asked for, with ImageNet's mean and deviation taken out."""
    seen: list[Tensor] = []

    class Program:
        def __call__(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x.flatten(1)

    from diffscope.encoders.torchscript import IMAGENET_MEAN, IMAGENET_STD, ScriptEncoder
    from diffscope.studies.memorization.encoders import ReferenceFeatures

    encoder = ScriptEncoder(script(Pooled(), tmp_path / "e.pt"), 2 * SIDE, "cpu", 4)
    encoder._program = Program()
    described = ReferenceFeatures(encoder).describe(np.full((5, 1, SIDE, SIDE), 51, np.uint8), None)
    assert [tuple(x.shape) for x in seen] == [(4, 3, 16, 16), (1, 3, 16, 16)]
    for channel in range(3):
        expected = (0.2 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        assert torch.allclose(seen[0][:, channel], torch.tensor(expected))
    assert described.norm(dim=1).tolist() == pytest.approx([1] * 5)


def test_an_encoder_that_cannot_be_used_is_refused(images: np.ndarray, data: Path, tmp_path: Path) -> None:
    class Scalar(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum()

    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3)) * torch.inf

    (tmp_path / "text.pt").write_text("no program")
    cases = [
        (str(tmp_path / "text.pt"), "cannot be read as TorchScript"),
        (str(tmp_path / "gone.pt"), "No such file"),
        (script(Scalar(), tmp_path / "scalar.pt"), r"gives \[\] for 1 images; expected \[1, d\]"),
        (script(nn.Conv2d(4, 2, 3), tmp_path / "four.pt", 4), "fails on images .*`encoder_side=`"),
        (script(Nothing(), tmp_path / "nan.pt"), "not finite"),
    ]
    for encoder, message in cases:
        with pytest.raises(DataError, match=message):
            found(ideal(images), data, encoder=encoder, encoder_side=16, allow_torchscript=True)


def test_descriptors_made_elsewhere(images: np.ndarray, data: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    train = rng.standard_normal((10, 6)).astype(np.float32)
    samples = np.concatenate([3 * train[4:7], rng.standard_normal((9, 6))]).astype(np.float32)
    files = (str(tmp_path / "samples.safetensors"), str(tmp_path / "train.safetensors"))

    def share(**options: Any) -> Any:
        return found(ideal(images), data, encoder_features=files, **options)

    save_file({"a": samples}, files[0])
    save_file({"layer": train[None, None], "index": np.arange(10)}, files[1])  # as `diffscope features` writes it
    result = share(threshold=0.999)
    assert (result.rows[0]["copies"], result.rows[0]["share"]) == (3, 0.25)
    assert [pair["index"] for pair in result.sections["pairs"][:3]] == [4, 5, 6]
    assert not result.protocol["mirror"]
    save_file({"a": samples[:11]}, files[0])
    with pytest.raises(DataError, match="descriptors of 11; expected one for each of 12 samples"):
        share()
    save_file({"a": samples[:, :5].copy()}, files[0])
    with pytest.raises(DataError, match=r"5 numbers an image, .* 6; not one space"):
        share()
    save_file({"a": samples, "b": samples}, files[0])
    with pytest.raises(DataError, match="expected one tensor"):
        share()
    Path(files[0]).write_text("{}")
    with pytest.raises(DataError, match="cannot be read as safetensors"):
        share()
    images = open_source(str(data))
    with pytest.raises(UsageError, match="there are 16 checkpoints"):
        open_memorization([SERIES], images, Choices(encoder_features=files), Loading())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "`samples=0`"),
        ({"steps": 1}, "`steps=1`"),
        ({"space": "latents"}, "expected pixels, features or encoder"),
        ({"space": "features", "threshold": 0.9}, "needs a noise level"),
        ({"space": "features", "sigma": 0.5}, "needs `threshold=`"),
        ({"layer": "mid"}, "`layer=` is for `space=features`"),
        ({"sigma": 0.5}, "`sigma=` is for `space=features`"),
        ({"encoder_side": 16}, "`encoder_side=` is for `encoder=FILE`"),
        ({"encoder_side": 0, "encoder": "a", "allow_torchscript": True}, "`encoder_side=0`"),
        ({"threshold": 1.5}, "between 0 and 1"),
        ({"threshold": -1.5, "encoder_features": ("a", "b")}, "between -1 and 1"),
        ({"encoder": "a", "allow_torchscript": True, "encoder_features": ("b", "c")}, "one space at a time"),
        ({"class_label": "cat"}, "class_label=cat"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_choices_that_contradict_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Choices(**options)


# --- latent models and classes


def test_decoding_undoes_the_scale() -> None:
    _, sit = diffscope.load(SIT_LATENTS, config=HEADS)
    tensors = load_file(DATA / "edm" / "edm2_uncond_latent.safetensors")
    state = {name[3:]: tensor for name, tensor in tensors.items() if name.startswith("sd/")}
    edm2 = families.load(Checkpoint("x.pkl", "edm-pickle", state, "ema", ""), config={"channels_per_head": "8"})
    for denoiser in (sit, edm2):
        x = torch.randn(2, denoiser.space.channels, 4, 4, generator=torch.Generator().manual_seed(0))
        scaled = denoiser.scale_latents(x, torch.ones_like(x), None)
        assert not torch.allclose(scaled, x, atol=0.1)
        assert torch.allclose(denoiser.unscale_latents(scaled), x, atol=1e-5)
        assert torch.equal(denoiser.decode(x), x)  # without a VAE there is nothing to decode
        denoiser.use_encoder(VAE)
        assert denoiser.encoder is not None
        plain = denoiser.encoder.decode(x)
        decoded = denoiser.decode(scaled)
        assert decoded.shape == (2, 3, 4 * denoiser.encoder.factor, 4 * denoiser.encoder.factor)
        # EDM2's VAE has its pixels in [0, 1].
        assert torch.allclose(decoded, plain if denoiser is sit else 2 * plain - 1, atol=1e-4)


def test_samples_of_a_latent_model_are_pictures(pictures: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"vae": VAE, "config": HEADS, "steps": 2, "out": tmp_path, "save_samples": True}
    result = diffscope.memorization(SIT_LATENTS, str(pictures), samples=3, **options)
    assert result.rows[0]["samples"] == 3
    (path,) = tmp_path.glob("samples*.npz")
    with np.load(path) as found:
        side = result.protocol["side"]
        assert (found["arr_0"].shape, found["arr_0"].dtype) == ((3, side, side, 3), np.uint8)
        assert found["arr_0"].std() > 1
    with pytest.raises(CheckpointError, match="`vae="):
        diffscope.memorization(SIT_LATENTS, str(pictures), samples=3, config=HEADS)


def test_classes_are_those_of_the_training_images(tmp_path: Path) -> None:
    labels = np.array([2] * 6 + [7] * 2)
    data = saved(tmp_path / "labelled.npz", random_images(8, side=16), y=labels)
    model = str(Path(diffscope.__file__).parent / "demo" / "sit.safetensors")
    for chosen, expected in (("label", [2] * 6 + [7] * 2), ("3", [3] * 8)):
        options: dict[str, Any] = {"class_label": chosen, "out": tmp_path / chosen, "save_samples": True}
        diffscope.memorization(model, data, samples=8, steps=2, **options)
        (path,) = (tmp_path / chosen).glob("samples*.npz")
        with np.load(path) as found:
            assert sorted(found["arr_1"].tolist()) == expected
        # They can be given as images.
        assert len(open_source(str(path))) == 8


# --- on disk


class Stopped(Exception):
    pass


def series(folder: Path | None, **more: Any) -> Memorization:
    choices = Choices(samples=6, steps=3, batch_size=2, **more)
    study = open_memorization([SERIES], open_source(str(DATA / "series" / "images.npz")), choices, Loading())
    study.folder = folder
    return study


def all_of(study: Memorization, count: int = 2) -> dict[str, Any]:
    assert study.left_out == {}
    for snapshot in study.snapshots[:count]:
        study.take(snapshot)
    record = study.result().to_json()
    del record["timing"]
    return record


@pytest.mark.parametrize("stop_after", [0, 2, 4, 6, 8])
def test_a_run_goes_on_where_it_was_stopped(stop_after: int, tmp_path: Path) -> None:
    whole = all_of(series(tmp_path / "whole"))
    stopped, done = series(tmp_path / "parts"), [0.0]

    def progress(samples: float) -> None:
        done[0] += samples
        if done[0] > stop_after:
            raise Stopped

    stopped.listener = Listener(progress)
    with pytest.raises(Stopped):
        all_of(stopped)
    files = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.glob("parts/**/samples-*/*.safetensors"))}
    assert bool(files) or stop_after == 0
    resumed = series(tmp_path / "parts")
    assert all_of(resumed) == whole
    assert {path: path.stat().st_mtime_ns for path in files} == files
    drawn = list(tmp_path.glob("whole/**/samples-*/*.safetensors"))
    assert drawn
    for path in drawn:
        other = tmp_path / "parts" / path.relative_to(tmp_path / "whole")
        assert other.read_bytes() == path.read_bytes()
    # And once more, from the records alone.
    again = series(tmp_path / "parts")
    assert all_of(again) == whole
    timing = again.result().timing
    assert (timing["snapshots_measured"], timing["snapshots_resumed"]) == (0, 2)


def test_another_criterion_and_more_samples_find_those_that_are_there(tmp_path: Path) -> None:
    all_of(series(tmp_path), 1)
    files = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.glob("**/samples-*/*.safetensors"))}
    assert len(files) == 3
    looser = all_of(series(tmp_path, threshold=0.999), 1)
    assert {path: path.stat().st_mtime_ns for path in sorted(tmp_path.glob("**/samples-*/*.safetensors"))} == files
    assert looser["rows"][0]["criterion"] == "ratio<0.999"
    more = series(tmp_path)
    more.choices = Choices(samples=8, steps=3, batch_size=2)
    all_of(more, 1)
    now = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.glob("**/samples-*/*.safetensors"))}
    assert len(now) == 4
    assert files.items() <= now.items()
    # Other noise is another thing.
    all_of(series(tmp_path, seed=1), 1)
    assert len(list(tmp_path.glob("**/samples-*/*.safetensors"))) == 7


def test_all_snapshots_start_from_the_same_noise(tmp_path: Path) -> None:
    record = all_of(series(tmp_path))
    assert [row["step"] for row in record["rows"]] == [25_600, 51_200]
    first, second = (
        np.concatenate([load_file(path)["samples"].numpy() for path in sorted(folder.iterdir())]).astype(float)
        for folder in sorted(tmp_path.glob("cache/samples-*"))
    )
    # Closer to its fellow than to the next sample of its own network.
    apart = np.sqrt(((first[:, None] - second[None]) ** 2).sum((2, 3, 4)))
    assert (apart.argmin(1) == np.arange(6)).mean() > 0.6


def test_without_a_folder_samples_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSCOPE_CACHE_DIR", str(tmp_path))
    assert all_of(series(None), 1)["rows"]
    assert list(tmp_path.glob("**/samples-*/*.safetensors")) == []
    assert len(list(tmp_path.glob("memorization-*/*.json"))) == 1


def test_what_is_damaged_is_left_out(tmp_path: Path, data: Path) -> None:
    study = series(tmp_path)
    study.take(study.snapshots[0])
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    assert study.take(Snapshot(str(tmp_path / "broken.safetensors"), 9)) is None
    result = study.result()
    assert len(result.rows) == 1
    assert "broken.safetensors" in result.sections["checkpoints"][-1]["why"]
    images = open_source(str(data))
    with pytest.raises(UsageError, match="`save_samples=`"):
        open_memorization([SERIES], images, Choices(), Loading(), save_samples=True).run(None, Listener())


def test_a_diverged_network_is_said_to_be_one(data: Path) -> None:
    broken = ideal(random_images(3))
    assert isinstance(broken, WrappedDenoiser)
    broken.interface = replace(broken.interface, mean=lambda denoiser, x, sigma, label: x * torch.nan)
    with pytest.raises(NonFinite, match="samples are not finite"):
        found(broken, data)


def test_unreadable_images_are_counted(pictures: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "pictures"
    shutil.copytree(pictures, folder)
    (folder / "cat" / "bad.png").write_text("no picture")
    from commands import EDM

    result = diffscope.memorization(EDM, folder, samples=2, steps=2)
    assert (result.data["count"], result.data["used"]) == (201, 200)
    assert result.data["skipped"][0]["file"] == "cat/bad.png"
    with pytest.raises(DataError, match=r"bad\.png"):
        diffscope.memorization(EDM, folder, samples=2, steps=2, strict=True)
