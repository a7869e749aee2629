"""The stream of features: the same whatever the batch, the workers and the company of other layers and levels."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from diffscope import families
from diffscope.checkpoints import Checkpoint, read
from diffscope.errors import DataError, UsageError
from diffscope.extraction import (
    Extractor,
    Inputs,
    Plan,
    Skipped,
    arithmetic,
    devices,
    resolve_device,
    resolve_precision,
    target_of,
)
from diffscope.families._latents import LatentScale
from diffscope.families.base import Denoiser
from diffscope.families.networks.autoencoder import Autoencoder
from diffscope.sources.base import Source, Target, open_source
from diffscope.views import Augmentation, view_noise

DATA = Path(__file__).parent / "data"
COUNT = 20
SIGMAS = (0.1, 0.5, 2.0)


def toy() -> Denoiser:
    return families.load(read("toy:d=6,side=4"))


def unet() -> Denoiser:
    """DDPM++ on 8×8 RGB with three classes, of the goldens."""
    tensors = load_file(DATA / "edm" / "ddpmpp_cond_vp.safetensors")
    state = {key.removeprefix("sd/"): value for key, value in tensors.items() if key.startswith("sd/")}
    return families.load(Checkpoint("x.pt", "state-dict", state, "model", ""))


def pictures(folder: Path) -> Source:
    """PNGs in three classes, each a picture of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
    for index, picture in enumerate(pixels):
        path = folder / f"class{index % 3}"
        path.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path / f"{index:02d}.png")
    return open_source(str(folder))


@pytest.fixture(params=["toy", "unet"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Denoiser, Source]:
    if request.param == "toy":
        return toy(), open_source(f"synthetic:count={COUNT}")
    return unet(), pictures(tmp_path)


def plan(denoiser: Denoiser, layers: Sequence[str] = (), **changed: Any) -> Plan:
    names = layers or [denoiser.layers[0].name, denoiser.default_layer]
    pixels = denoiser.family == "toy"
    whole = Plan(
        layers=tuple(denoiser.layer(name) for name in dict.fromkeys(names)), sigmas=SIGMAS, views=2,
        augmentation=Augmentation("none" if pixels else "crop+flip+jitter"), input="noisy", pool="mean",
        normalize=False, class_label="null", seed=0, precision="fp32", device="cpu", batch_size=7, workers=0,
    )  # fmt: skip
    return dataclasses.replace(whole, **changed)


Found = dict[tuple[int, int], torch.Tensor]


def extractor(denoiser: Denoiser, source: Source, used: Plan, strict: bool = False) -> Extractor:
    return Extractor(denoiser, Inputs(source, used, strict), used)


def extracted(denoiser: Denoiser, source: Source, used: Plan, strict: bool = False) -> Found:
    """(level, layer) → (N, V, d), in the order of the images."""
    found: dict[tuple[int, int], list[torch.Tensor]] = {}
    for part in extractor(denoiser, source, used, strict).run(range(len(source))):
        assert part.z.dtype == torch.float32
        assert part.z.shape[:2] == (len(part.indices), used.views)
        found.setdefault((part.level, part.layer), []).append(part.z)
    return {key: torch.cat(zs) for key, zs in found.items()}


def assert_equal(a: Found, b: Found, rounding: float) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert value.shape == b[key].shape
        assert float((value - b[key]).abs().max()) <= rounding * float(value.abs().max()), key


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_and_workers(case: tuple[Denoiser, Source], batch_size: int, workers: int) -> None:
    """1e-6: float32 kernels sum in another order for another batch size, which shows at 2e-7 after pooling."""
    denoiser, source = case
    whole = extracted(denoiser, source, plan(denoiser, batch_size=COUNT))
    other = extracted(denoiser, source, plan(denoiser, batch_size=batch_size, workers=workers))
    assert_equal(whole, other, 1e-6)


def test_workers_change_nothing_at_all(case: tuple[Denoiser, Source]) -> None:
    denoiser, source = case
    assert_equal(extracted(denoiser, source, plan(denoiser)), extracted(denoiser, source, plan(denoiser, workers=3)), 0)


def test_indices_levels_and_layers_come_in_order(case: tuple[Denoiser, Source]) -> None:
    denoiser, source = case
    used = plan(denoiser, layers=[layer.name for layer in denoiser.layers][:2], workers=2)
    order = [11, 3, 19, 0, 7, 8, 2, 5, 4]
    parts = list(extractor(denoiser, source, used).run(order))
    batches = [order[:7], order[7:]]
    assert [(p.indices, p.level, p.layer) for p in parts] == [
        (tuple(batch), level, layer) for batch in batches for level in range(3) for layer in range(2)
    ]
    every = extracted(denoiser, source, used)
    picked = torch.cat([p.z for p in parts if (p.level, p.layer) == (1, 1)])
    torch.testing.assert_close(picked, every[1, 1][order], rtol=0, atol=4e-6 * float(every[1, 1].abs().max()))


def test_nothing_to_do(case: tuple[Denoiser, Source]) -> None:
    denoiser, source = case
    for workers in (0, 2):
        assert list(extractor(denoiser, source, plan(denoiser, workers=workers)).run([])) == []


def test_layers_together_equal_layers_alone(case: tuple[Denoiser, Source]) -> None:
    denoiser, source = case
    names = [layer.name for layer in denoiser.layers]
    together = extracted(denoiser, source, plan(denoiser, layers=names))
    for number, name in enumerate(names):
        alone = extracted(denoiser, source, plan(denoiser, layers=[name]))
        for level in range(len(SIGMAS)):
            assert torch.equal(alone[level, 0], together[level, number]), name


def test_layers_are_numbered_as_they_were_asked_for() -> None:
    """Not in the order of execution."""
    denoiser, source = toy(), open_source("synthetic:count=4")
    ahead = extracted(denoiser, source, plan(denoiser, layers=["linear", "wiener"], pool="flatten"))
    turned = extracted(denoiser, source, plan(denoiser, layers=["wiener", "linear"], pool="flatten"))
    assert torch.equal(ahead[0, 0], turned[0, 1])
    assert torch.equal(ahead[0, 1], turned[0, 0])
    assert turned[0, 0].shape[-1] == 16


def test_levels_together_equal_levels_alone(case: tuple[Denoiser, Source]) -> None:
    denoiser, source = case
    together = extracted(denoiser, source, plan(denoiser))
    for level, sigma in enumerate(SIGMAS):
        alone = extracted(denoiser, source, plan(denoiser, sigmas=(sigma,)))
        assert torch.equal(alone[0, 0], together[level, 0])


def test_the_noise_is_the_keyed_one_times_sigma() -> None:
    """By hand: A(x + σn), n of (seed, image, view); float32 sums of 16 products."""
    denoiser, source, seed = toy(), open_source("synthetic:count=5"), 3
    used = plan(denoiser, layers=["linear"], seed=seed)
    found = extracted(denoiser, source, used)
    x = torch.from_numpy(np.stack([source.read(i, target_of(denoiser)) for i in range(5)]))
    projection = denoiser.network.get_buffer("projection").double()
    for level, sigma in enumerate(SIGMAS):
        for view in range(2):
            noisy = x + sigma * view_noise(range(5), view, (1, 4, 4), seed)
            expected = noisy.flatten(1).double() @ projection.T
            torch.testing.assert_close(found[level, 0][:, view].double(), expected, rtol=1e-5, atol=1e-6)


def test_all_levels_meet_the_same_noise() -> None:
    """A linear layer takes A(x + σn): what the levels add is in proportion to σ, and the sum of rounding stays."""
    denoiser, source = toy(), open_source("synthetic:count=8")
    found = extracted(denoiser, source, plan(denoiser, layers=["linear"], pool="flatten"))
    low, middle, high = (found[level, 0] for level in range(3))
    slope = (middle - low) / (SIGMAS[1] - SIGMAS[0])
    torch.testing.assert_close((high - middle) / (SIGMAS[2] - SIGMAS[1]), slope, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(slope[:, 0], slope[:, 1]), "two views of an image share no noise"
    assert not torch.allclose(slope[0], slope[1])


def test_the_seed_decides(case: tuple[Denoiser, Source]) -> None:
    denoiser, source = case
    first, again, other = (extracted(denoiser, source, plan(denoiser, seed=seed))[0, 0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_clean_input() -> None:
    """No noise: without augmentation the views are one, and the level enters by the conditioning alone."""
    denoiser, source = toy(), open_source("synthetic:count=8")
    found = extracted(denoiser, source, plan(denoiser, layers=["linear", "wiener"], input="clean", pool="flatten"))
    for z in found.values():
        assert torch.equal(z[:, 0], z[:, 1])
    assert torch.equal(found[0, 0], found[2, 0])
    assert not torch.allclose(found[0, 1], found[2, 1])


def test_clean_input_is_scaled_as_the_network_expects(tmp_path: Path) -> None:
    denoiser, source = unet(), pictures(tmp_path)
    used = plan(denoiser, input="clean", augmentation=Augmentation("none"), batch_size=COUNT, views=1)
    found = extracted(denoiser, source, used)
    target = target_of(denoiser)
    x = torch.from_numpy(np.stack([source.read(i, target) for i in range(COUNT)])) / 127.5 - 1
    with torch.inference_mode():
        expected = dict(denoiser.walk(x, SIGMAS[1], None))[denoiser.default_layer].mean((2, 3))
    torch.testing.assert_close(found[1, 1][:, 0], expected, rtol=0, atol=4e-6 * float(expected.abs().max()))


def test_flatten_keeps_every_position(tmp_path: Path) -> None:
    denoiser, source = unet(), pictures(tmp_path)
    mean, flat = (extracted(denoiser, source, plan(denoiser, pool=pool)) for pool in ("mean", "flatten"))
    for number, layer in enumerate(plan(denoiser).layers):
        assert flat[0, number].shape[-1] == np.prod(layer.shape) == plan(denoiser, pool="flatten").width(layer)
        assert mean[0, number].shape[-1] == layer.shape[0] == plan(denoiser).width(layer)
        positions = flat[0, number].view(COUNT, 2, *layer.shape).mean((-1, -2))
        torch.testing.assert_close(positions, mean[0, number], rtol=0, atol=1e-5)


def test_tokens_are_averaged_over_positions() -> None:
    tensors = load_file(DATA / "sit" / "sit_patch4.safetensors")
    state = {key.removeprefix("sd/"): value for key, value in tensors.items() if key.startswith("sd/")}
    denoiser = families.load(Checkpoint("SiT.pt", "state-dict", state, "model", ""), config={"num_heads": "4"})
    z = extractor(denoiser, open_source("synthetic:count=1"), plan(toy()))._pooled(torch.ones(3, 16, 32).cumsum(1))
    assert z.shape == (3, 32)
    assert torch.all(z == 8.5)


def test_normalised_features_have_length_one(case: tuple[Denoiser, Source]) -> None:
    denoiser, source = case
    plain, unit = (extracted(denoiser, source, plan(denoiser, normalize=n)) for n in (False, True))
    for key, z in unit.items():
        torch.testing.assert_close(z.norm(dim=-1), torch.ones(z.shape[:2]))
        torch.testing.assert_close(z * plain[key].norm(dim=-1, keepdim=True), plain[key])


def test_nothing_behind_the_deepest_layer_is_computed(tmp_path: Path) -> None:
    denoiser, source = unet(), pictures(tmp_path)
    counts: dict[str, int] = {}
    for layer in denoiser.layers:
        module = denoiser.network.get_submodule(layer.name)
        module.register_forward_hook(lambda *_, n=layer.name: counts.__setitem__(n, counts.get(n, 0) + 1))
    extracted(denoiser, source, plan(denoiser, layers=["enc.4x4_block0", "enc.8x8_conv"], batch_size=10))
    names = [layer.name for layer in denoiser.layers]
    # Two batches at three levels, each once for both layers.
    assert counts == dict.fromkeys(names[: names.index("enc.4x4_block0") + 1], 6)


def test_each_image_is_read_once(case: tuple[Denoiser, Source], monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser, source = case
    seen: list[int] = []
    original = source.read

    def read_and_note(index: int, target: Target) -> np.ndarray:
        seen.append(index)
        return original(index, target)

    monkeypatch.setattr(source, "read", read_and_note)
    extracted(denoiser, source, plan(denoiser, workers=2))
    assert sorted(seen) == list(range(COUNT))


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_left_out_and_named(tmp_path: Path, workers: int) -> None:
    denoiser, source = unet(), pictures(tmp_path)
    whole = extracted(denoiser, source, plan(denoiser, workers=workers))
    broken = [0, 9]
    for index in broken:
        (tmp_path / source.name(index)).write_bytes(b"no picture")
    reading = extractor(denoiser, source, plan(denoiser, workers=workers))
    skipped = Skipped()
    parts = [p for p in reading.run(range(COUNT), skipped) if (p.level, p.layer) == (0, 0)]
    kept = [index for index in range(COUNT) if index not in broken]
    assert [index for p in parts for index in p.indices] == kept
    assert [entry["file"] for entry in skipped] == [source.name(index) for index in broken]
    assert all(entry["why"] for entry in skipped)
    # The images beside a broken one keep their draws, which are keyed by the index.
    z = torch.cat([p.z for p in parts])
    torch.testing.assert_close(z, whole[0, 0][kept], rtol=0, atol=4e-6 * float(z.abs().max()))


def test_a_batch_without_a_readable_image(tmp_path: Path) -> None:
    denoiser, source = unet(), pictures(tmp_path)
    for index in range(7):
        (tmp_path / source.name(index)).write_bytes(b"no picture")
    reading = extractor(denoiser, source, plan(denoiser))
    skipped = Skipped()
    assert {index for p in reading.run(range(COUNT), skipped) for index in p.indices} == set(range(7, COUNT))
    assert len(skipped) == 7


@pytest.mark.parametrize("workers", [0, 2])
def test_strict_stops_at_the_first(tmp_path: Path, workers: int) -> None:
    denoiser, source = unet(), pictures(tmp_path)
    (tmp_path / source.name(9)).write_bytes(b"no picture")
    with pytest.raises(DataError, match=Path(source.name(9)).name):
        extracted(denoiser, source, plan(denoiser, workers=workers), strict=True)


def test_labels(tmp_path: Path) -> None:
    """The image's own class, one class for all, and none: each row is what that class alone gives."""
    denoiser, source = unet(), pictures(tmp_path)
    by_class = [extracted(denoiser, source, plan(denoiser, class_label=str(c)))[0, 1] for c in range(3)]
    null = extracted(denoiser, source, plan(denoiser))[0, 1]
    own = extracted(denoiser, source, plan(denoiser, class_label="label"))[0, 1]
    assert source.labels is not None
    expected = torch.stack([by_class[label][row] for row, label in enumerate(source.labels)])
    torch.testing.assert_close(own, expected, rtol=0, atol=4e-6 * float(own.abs().max()))
    assert not torch.allclose(own, null, rtol=1e-3)


def test_half_precision_runs_the_trunk_alone(tmp_path: Path) -> None:
    denoiser, source = unet(), pictures(tmp_path)
    whole = extracted(unet(), source, plan(denoiser))
    seen: dict[str, torch.dtype] = {}
    for name in ("map_layer0", "map_layer1", "enc.8x8_block0.conv1"):
        denoiser.network.get_submodule(name).register_forward_hook(
            lambda _m, _i, o, n=name: seen.__setitem__(n, o.dtype)
        )
    halved = extracted(denoiser, source, plan(denoiser, precision="bf16"))
    assert seen == {
        "map_layer0": torch.float32, "map_layer1": torch.float32, "enc.8x8_block0.conv1": torch.bfloat16,
    }  # fmt: skip
    # bfloat16 keeps 8 bits: 0.4 % a step, a few steps deep.
    assert_equal(whole, halved, 0.05)
    assert not torch.equal(whole[0, 1], halved[0, 1])


def state_of_arithmetic() -> tuple[Any, ...]:
    return (
        torch.get_float32_matmul_precision(),
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
    )


@pytest.mark.parametrize("amx", [{"amx_bf16": False}, {"amx_bf16": True}, {}], ids=["no amx", "amx", "unknown"])
def test_arithmetic_on_a_cpu(amx: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """ "medium" only where the processor is known to have no AMX, which would round to bfloat16."""
    monkeypatch.setattr(devices, "cpu_capabilities", lambda: amx)
    before = state_of_arithmetic()
    with arithmetic("fp32", torch.device("cpu")):
        expected = "medium" if amx == {"amx_bf16": False} else before[0]
        assert torch.get_float32_matmul_precision() == expected
    assert state_of_arithmetic() == before


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_arithmetic_on_cuda(precision: str) -> None:
    """The flags exist without a GPU."""
    before = state_of_arithmetic()
    with arithmetic(precision, torch.device("cuda")):
        assert torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")
        assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
    assert state_of_arithmetic() == before


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_arithmetic_is_restored_after_an_error(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cpu_capabilities", lambda: {"amx_bf16": False})
    before = state_of_arithmetic()
    with pytest.raises(RuntimeError, match="inside"), arithmetic("fp32", torch.device(device)):
        raise RuntimeError("inside")
    assert state_of_arithmetic() == before


def test_the_stream_leaves_no_context_to_its_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator that is suspended inside a `with` would hand its mode to whoever asks next."""
    monkeypatch.setattr(devices, "cpu_capabilities", lambda: {"amx_bf16": False})
    denoiser, before = toy(), state_of_arithmetic()
    stream = extractor(denoiser, open_source("synthetic:count=4"), plan(denoiser)).run(range(4))
    next(stream)
    assert state_of_arithmetic() == before
    assert not torch.is_inference_mode_enabled()


def test_devices_and_precisions() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device(None) in ("cpu", "cuda")
    with pytest.raises(UsageError, match="`device=nowhere`"):
        resolve_device("nowhere")
    assert [resolve_precision("auto", d) for d in ("cpu", "cuda", "cuda:1", "mps")] == ["fp32", "tf32", "tf32", "fp32"]
    assert resolve_precision("bf16", "cpu") == "bf16"
    with pytest.raises(UsageError, match="expected auto, fp32, tf32, bf16, fp16"):
        resolve_precision("fp64", "cpu")
    with pytest.raises(UsageError, match="CUDA only"):
        resolve_precision("tf32", "cpu")


def test_what_was_made_for_one_checkpoint_serves_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser, source = unet(), pictures(tmp_path)
    (tmp_path / "class0" / "00.png").write_bytes(b"no picture")
    used = plan(denoiser)
    fresh = extractor(denoiser, source, used)
    skipped = [Skipped() for _ in range(3)]
    expected = [part.z for part in fresh.run(range(COUNT), skipped[0])]
    kept = Inputs(source, used, keep=10**9)
    first = [part.z for part in Extractor(denoiser, kept, used).run(range(COUNT), skipped[1])]
    monkeypatch.setattr(type(source), "read", lambda *_: pytest.fail("decoded again"))
    again = [part.z for part in Extractor(unet(), kept, used).run(range(COUNT), skipped[2])]
    for a, b, c in zip(expected, first, again, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    assert skipped[0] == skipped[1] == skipped[2] != []


@pytest.mark.parametrize("keep", [0, 20_000])
def test_what_has_no_room_is_made_again(keep: int, tmp_path: Path) -> None:
    denoiser, source = unet(), pictures(tmp_path)
    used = plan(denoiser)
    inputs = Inputs(source, used, keep=keep)
    runs = [[part.z for part in Extractor(denoiser, inputs, used).run(range(COUNT))] for _ in range(3)]
    batches = [batch for made, _ in inputs._kept.values() for batch in made]
    tensors = [tensor for batch in batches for tensor in (batch.signal, batch.noise) if tensor is not None]
    assert sum(tensor.nbytes for tensor in tensors) <= keep
    for zs in zip(*runs, strict=True):
        assert torch.equal(zs[0], zs[1])
        assert torch.equal(zs[0], zs[2])


VAE = DATA / "sit" / "diffusers-vae"


def latent_sit(vae: Path = VAE) -> Denoiser:
    """SiT on 4×8×8 latents of 64×64 images."""
    denoiser = families.load(read(str(DATA / "sit" / "train_dump.pt")), config={"num_heads": "4"})
    denoiser.use_encoder(str(vae))
    return denoiser


@pytest.fixture
def encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many views the VAE is given, call by call, with an empty cache."""
    monkeypatch.setenv("DIFFSCOPE_CACHE_DIR", str(tmp_path / "cache"))
    counts: list[int] = []
    original = Autoencoder.posterior

    def counted(self: Autoencoder, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        counts.append(len(images))
        return original(self, images)

    monkeypatch.setattr(Autoencoder, "posterior", counted)
    return counts


def signals(denoiser: Denoiser, source: Source, used: Plan, count: int = COUNT) -> torch.Tensor:
    """Of inputs made anew, as those of another command are."""
    batches = Inputs(source, used, strict=True).batches(denoiser, range(count))
    return torch.cat([batch.signal for batch in batches])


def test_a_second_run_encodes_nothing(tmp_path: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """VAE encodes = V·N for any number of runs, checkpoints, layers and levels; figures are those without a cache."""
    denoiser, source = latent_sit(), pictures(tmp_path / "images")
    used = plan(denoiser)
    monkeypatch.setenv("DIFFSCOPE_CACHE_SIZE", "0")
    without = extracted(denoiser, source, used)
    assert not (tmp_path / "cache").exists()
    monkeypatch.delenv("DIFFSCOPE_CACHE_SIZE")
    encoded.clear()
    first = extracted(denoiser, source, used)
    assert sum(encoded) == 2 * COUNT
    names = [layer.name for layer in denoiser.layers]
    again = extracted(latent_sit(), open_source(source.path), used)
    extracted(latent_sit(), source, plan(denoiser, layers=names, sigmas=(0.3,), batch_size=5, precision="bf16"))
    assert sum(encoded) == 2 * COUNT
    assert_equal(without, first, 0)
    assert_equal(without, again, 0)


@pytest.mark.parametrize(
    "changed",
    [
        {"augmentation": Augmentation("crop")},
        {"augmentation": Augmentation("crop+flip+jitter", 0.5)},
        {"seed": 1},
        {"input": "clean"},
    ],
    ids=["augmentation", "strength", "seed", "clean"],
)
def test_views_of_another_kind_are_encoded_anew(tmp_path: Path, encoded: list[int], changed: dict[str, Any]) -> None:
    denoiser, source = latent_sit(), pictures(tmp_path / "images")
    signals(denoiser, source, plan(denoiser))
    found = signals(denoiser, source, plan(denoiser, **changed))
    assert sum(encoded) == 4 * COUNT
    assert torch.equal(found, signals(denoiser, source, plan(denoiser, **changed)))
    assert sum(encoded) == 4 * COUNT


def other_weights(folder: Path) -> Path:
    shutil.copytree(VAE, folder)
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    weights["quant_conv.bias"].add_(1)
    save_file(weights, folder / "diffusion_pytorch_model.safetensors")
    return folder


def other_config(folder: Path) -> Path:
    """Which the weights do not show."""
    shutil.copytree(VAE, folder)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"norm_num_groups": 4', '"norm_num_groups": 2'))
    return folder


@pytest.mark.parametrize("change", [other_weights, other_config])
def test_another_vae_encodes_anew(tmp_path: Path, encoded: list[int], change: Any) -> None:
    source, other = pictures(tmp_path / "images"), latent_sit(change(tmp_path / "vae"))
    mine = signals(latent_sit(), source, plan(latent_sit()))
    assert not torch.allclose(mine, signals(other, source, plan(other)))
    assert sum(encoded) == 4 * COUNT


def test_a_family_that_scales_otherwise_encodes_anew(tmp_path: Path, encoded: list[int]) -> None:
    source, mine = pictures(tmp_path / "images"), latent_sit()

    class Shifted(type(mine)):  # type: ignore[misc]
        def scale_latents(self, mean: torch.Tensor, std: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
            return mean + 1

    class Brighter(type(mine)):  # type: ignore[misc]
        def encode(self, images: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
            encoded: torch.Tensor = super().encode((images + 1) / 2, noise)
            return encoded

    parts = {field.name: getattr(mine, field.name) for field in dataclasses.fields(mine)}
    kinds: list[Any] = [
        mine,
        dataclasses.replace(mine, latent_scale=LatentScale((1.0,))),
        Shifted(**parts),
        Brighter(**parts),
    ]
    found = [signals(kind, source, plan(mine)) for kind in kinds]
    assert sum(encoded) == 8 * COUNT
    assert not any(torch.allclose(found[0], other) for other in found[1:])


def test_only_what_is_new_is_encoded(tmp_path: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser, source = latent_sit(), pictures(tmp_path / "images")
    few = signals(denoiser, source, plan(denoiser), count=10)
    encoded.clear()
    most = signals(denoiser, source, plan(denoiser), count=16)
    assert encoded == [2 * 4, 2 * 2], "of the second and third batch of seven"
    assert torch.equal(most[:20], few)
    encoded.clear()
    three = signals(denoiser, source, plan(denoiser, views=3), count=16)
    assert encoded == [7, 7, 2]
    assert torch.equal(three.view(16, 3, -1)[:, :2], most.view(16, 2, -1))
    monkeypatch.setenv("DIFFSCOPE_CACHE_SIZE", "0")
    whole = signals(denoiser, source, plan(denoiser, views=3), count=16)
    # Encoded alone or in company, what differs is float32's rounding in convolutions.
    torch.testing.assert_close(three, whole, rtol=0, atol=1e-5 * float(whole.abs().max()))


def test_an_image_that_changed_is_encoded_anew(tmp_path: Path, encoded: list[int]) -> None:
    """By one byte; its name and its time stay."""
    denoiser, source = latent_sit(), pictures(tmp_path / "images")
    before = signals(denoiser, source, plan(denoiser))
    path = tmp_path / "images" / source.name(9)
    stat = path.stat()
    with Image.open(path) as picture:
        pixels = np.asarray(picture).copy()
    pixels[0, 0, 0] ^= 255
    Image.fromarray(pixels).save(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    encoded.clear()
    after = signals(denoiser, open_source(source.path), plan(denoiser))
    assert encoded == [2]
    differ = (before != after).flatten(1).any(1).nonzero().flatten().tolist()
    assert differ == [18, 19]


def test_images_that_change_places_meet_other_draws(tmp_path: Path, encoded: list[int]) -> None:
    """Draws are keyed by the index in the source: the same picture elsewhere has other views."""
    denoiser, source = latent_sit(), pictures(tmp_path / "images")
    signals(denoiser, source, plan(denoiser))
    (tmp_path / "images" / source.name(0)).unlink()
    encoded.clear()
    signals(denoiser, open_source(source.path), plan(denoiser), COUNT - 1)
    assert sum(encoded) == 2 * (COUNT - 1)


def test_pixels_and_ready_made_latents_are_not_kept(tmp_path: Path, encoded: list[int]) -> None:
    signals(unet(), pictures(tmp_path / "images"), plan(unet()))
    path, mean = tmp_path / "latents.npz", np.random.default_rng(0).standard_normal((COUNT, 4, 8, 8), np.float32)
    np.savez(path, mean=mean)
    denoiser = latent_sit()
    signals(denoiser, open_source(str(path)), plan(denoiser, augmentation=Augmentation("none")))
    assert not (tmp_path / "cache").exists()
    assert encoded == []


def test_a_cache_that_cannot_be_written_is_said_once(tmp_path: Path, encoded: list[int]) -> None:
    denoiser, source, said = latent_sit(), pictures(tmp_path / "images"), list[str]()
    (tmp_path / "cache").write_text("in the way")
    inputs = Inputs(source, plan(denoiser), say=said.append)
    for _ in range(2):
        assert sum(len(batch.indices) for batch in inputs.batches(denoiser, range(COUNT))) == COUNT
    assert sum(encoded) == 4 * COUNT
    assert len(said) == 1
    assert "the run goes on without" in said[0]


def test_the_bound_of_the_cache_is_checked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSCOPE_CACHE_SIZE", "much")
    with pytest.raises(UsageError, match="DIFFSCOPE_CACHE_SIZE"):
        Inputs(open_source("synthetic:count=4"), plan(toy()))
