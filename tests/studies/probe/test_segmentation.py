"""A probe of pixels from end to end: networks whose mIoU is known, its resumption, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import EDM, LAYER, SIT_PIXELS, Ran, diffscope, left_behind, refused, without_timing
from PIL import Image
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import jaccard_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import diffscope as package
from diffscope.measure.progress import Listener
from diffscope.options.settings import Loading, Settings
from diffscope.results import Result
from diffscope.sources.base import Target, open_source
from diffscope.studies.probe import segmentation as study
from diffscope.studies.probe.mask_options import PixelProbing
from diffscope.studies.probe.masks import VOID, open_masks
from diffscope.studies.probe.options import Probing
from diffscope.studies.probe.segmentation_study import SegmentationStudy, open_segmentation

TOY = "toy:d=4,side=8"
WIENER = "wiener"
"""The toy's posterior mean, a map of one channel: of little noise, the image itself."""
IMAGES = 24


def write(folder: Path, images: np.ndarray, masks: np.ndarray) -> tuple[str, str]:
    """Images in one array and a PNG of each mask."""
    (folder / "masks").mkdir(parents=True)
    np.savez(folder / "images.npz", images=images)
    for number, mask in enumerate(masks):
        Image.fromarray(mask).save(folder / "masks" / f"{number:08d}.png")
    return str(folder / "images.npz"), str(folder / "masks")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Images whose pixels are dark, of class 0, or light, of class 1; the first row is void."""
    masks = np.random.default_rng(0).integers(0, 2, (IMAGES, 8, 8)).astype(np.uint8)
    images = np.where(masks, 200, 50).astype(np.uint8)
    masks[:, 0] = VOID
    return write(tmp_path_factory.mktemp("told"), images, masks)


@pytest.fixture(scope="module")
def untold(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, np.ndarray]:
    """Images that say nothing of their masks, in which a quarter of all pixels is of class 1."""
    masks = (np.random.default_rng(1).random((IMAGES, 8, 8)) < 0.25).astype(np.uint8)
    images = np.full((IMAGES, 8, 8), 128, np.uint8)
    return *write(tmp_path_factory.mktemp("untold"), images, masks), masks


def probed(data: tuple[str, str], **options: Any) -> Result:
    chosen = {"layer": WIENER, "sigma": 0.01, "input": "clean", **options}
    return package.probe(TOY, data[0], masks=data[1], progress=False, **chosen)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_where_features_are_the_classes_miou_is_one(told: tuple[str, str], head: str) -> None:
    result = probed(told, pixel_head=head, train_pixels=400)
    row = result.rows[0]
    assert (row["miou"], row["pixel_accuracy"], row["iou_0"], row["iou_1"]) == (1, 1, 1, 1)
    assert (row["miou_low"], row["miou_high"], row["miou_se"]) == (1, 1, 0)
    assert (row["n"], row["d"], row["layer"]) == (IMAGES, 1, WIENER)
    assert (result.data["train"], result.data["test"], result.data["classes"]) == (18, 6, 2)
    assert result.segmentation[0].miou == 1
    again = Result.from_json(json.loads(json.dumps(result.to_json())))
    assert again == result


def test_where_features_say_nothing_miou_is_that_of_the_larger_class(untold: tuple[str, str, np.ndarray]) -> None:
    row = probed(untold[:2]).rows[0]
    test = np.random.default_rng(0).permutation(IMAGES)[:6]
    share = float((untold[2][test] == 0).mean())
    assert (row["iou_0"], row["iou_1"]) == (pytest.approx(share), 0)
    assert row["miou"] == pytest.approx(share / 2)
    assert row["pixel_accuracy"] == pytest.approx(share)


def test_noise_hides_the_classes_from_noisy_input_alone(told: tuple[str, str]) -> None:
    result = probed(told, sigma=(0.01, 0.3, 20.0), input="both")
    noisy, clean = ([row[f"{prefix}miou"] for row in result.rows] for prefix in ("", "clean_"))
    assert noisy[0] == clean[0] == 1
    assert noisy[0] > noisy[1] > noisy[2]
    assert noisy[2] < 0.45 < 0.6 < clean[2]
    first, second = result.segmentation
    assert [(of.input, of.sigma, of.miou) for of in (first, second)] == [("noisy", 0.01, 1), ("clean", 0.01, 1)]
    assert (first.gain, second.gain, second.gain_low, second.gain_high) == (None, 0, 0, 0)
    assert first.low == first.high == 0.01
    for row in result.rows:
        assert row["clean_gain"] == row["clean_miou"] - row["miou"]
        assert row["clean_gain_low"] <= row["clean_gain"] <= row["clean_gain_high"]
    assert result.rows[2]["clean_gain_low"] > 0
    only = probed(told, sigma=(0.01, 0.3, 20.0), input="noisy")
    assert [row["miou"] for row in only.rows] == noisy
    assert "clean_miou" not in only.rows[0]


def test_a_void_pixel_counts_nowhere(told: tuple[str, str], tmp_path: Path) -> None:
    """Masks whose void rows were of the wrong class: no longer one."""
    wrong = tmp_path / "masks"
    wrong.mkdir()
    for path in Path(told[1]).glob("*.png"):
        with Image.open(path) as stored:
            mask = np.array(stored)
        mask[mask == VOID] = 1
        Image.fromarray(mask).save(wrong / path.name)
    row = probed((told[0], str(wrong))).rows[0]
    assert row["pixel_accuracy"] < 0.97


# --- reproducible


def opened(told: tuple[str, str], **settings: Any) -> SegmentationStudy:
    chosen = {"layer": (WIENER,), "sigma": (0.3, 2.0), "workers": 0, **settings}
    return open_segmentation(
        TOY, told[0], Settings(**chosen), Loading(), probing=Probing(), pixels=PixelProbing(masks=told[1])
    )


class Stopped(Exception):
    pass


@pytest.mark.parametrize("after", [3, 14, 30, 47])
def test_a_run_that_was_stopped_gives_the_same(
    told: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr(study, "PIECE", 4)
    whole, _ = study.run(opened(told).of, Listener(), tmp_path / "whole")
    seen = [0.0]

    def stop(passes: float) -> None:
        seen[0] += passes
        if seen[0] >= after:
            raise Stopped

    with pytest.raises(Stopped):
        study.run(opened(told).of, Listener(stop), tmp_path / "parts")
    advanced, skipped = [0.0], [0.0]

    def advance(passes: float) -> None:
        advanced[0] += passes

    def skip(passes: float) -> None:
        skipped[0] += passes

    again, forget = study.run(opened(told).of, Listener(advance, skip=skip), tmp_path / "parts")
    assert without_timing(again.to_json()) == without_timing(whole.to_json())
    assert all((a == b).all() for a, b in zip(*(r.pictures["predicted"][0] for r in (again, whole)), strict=True))
    assert skipped[0] >= after - 4  # but for the piece in work
    forget()
    assert not list((tmp_path / "parts").rglob("part-*"))


def test_numbers_do_not_move_with_batches_and_threads(told: tuple[str, str], tmp_path: Path) -> None:
    expected, _ = study.run(opened(told, batch_size=7).of, Listener(), tmp_path / "7")
    for batch in (1, 24):
        found, _ = study.run(opened(told, batch_size=batch, workers=2).of, Listener(), tmp_path / str(batch))
        assert [row.metrics for row in found.rows] == [row.metrics for row in expected.rows]
    other, _ = study.run(opened(told, seed=1).of, Listener(), tmp_path / "seed")
    assert [row["miou"] for row in other.rows] != [row["miou"] for row in expected.rows]


def test_the_protocol_knows_masks_and_head(told: tuple[str, str], untold: tuple[str, str, np.ndarray]) -> None:
    def protocol(masks: str, **pixels: Any) -> dict[str, Any]:
        chosen = PixelProbing(masks=masks, **pixels)
        settings = Settings(layer=(WIENER,), sigma=(0.3,))
        return open_segmentation(TOY, told[0], settings, Loading(), probing=Probing(), pixels=chosen).of.protocol()

    known = protocol(told[1])
    assert protocol(told[1]) == known
    for other in (protocol(untold[1]), protocol(told[1], pixel_head="mlp"), protocol(told[1], train_pixels=7)):
        assert other["hash"] != known["hash"]


# --- networks of maps and of tokens, from the command line


@pytest.fixture(scope="module")
def labelled(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masks of the shared pictures: where they are light, and where they are red; names of the classes."""
    folder = tmp_path_factory.mktemp("labelled")
    for path in pictures.rglob("*.png"):
        with Image.open(path) as stored:
            pixels = np.array(stored).astype(int)
        mask = (pixels.mean(2) > 128).astype(np.uint8)
        mask[pixels[..., 0] > pixels[..., 1:].max(2) + 40] = 2
        target = folder / path.relative_to(pictures)
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(mask).save(target)
    (folder / "classes.txt").write_text("dark\nlight\nred\n")
    return folder


@pytest.fixture(scope="module")
def session(pictures: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Path]:
    out = tmp_path_factory.mktemp("out")
    layers = ("--layer", f"{LAYER},dec.16x16_block1")
    more = ("--num-images", 60, "--train-pixels", 2000, "--input", "both", "--sigma", 0.1, "--sigma", 2)
    return diffscope("probe", EDM, "--data", pictures, "--masks", labelled, *layers, *more, "--out", out), out


def test_the_command_prints_and_writes(session: tuple[Ran, Path]) -> None:
    ran, out = session
    assert ran.code == 0, ran.err
    assert "noisy mIoU" in ran.out
    assert "clean mIoU" in ran.out
    assert "light" in ran.out
    assert "best mIoU" in " ".join(ran.out.split())
    names = ("segmentation", "classes", "masks")
    assert {path.name for path in out.iterdir()} == {
        "result.json", "result.csv", "report.html", *(f"{name}.{kind}" for name in names for kind in ("png", "svg")),
    }  # fmt: skip
    assert left_behind(out) == []
    record = json.loads((out / "result.json").read_text())
    first = record["rows"][0]
    assert first["layer"] == f"{LAYER}+dec.16x16_block1"
    assert first["d"] == 32 + 16
    assert record["data"]["class_names"] == ["dark", "light", "red"]
    assert first["miou"] == pytest.approx(np.mean([first[f"iou_{k}"] for k in range(3)]))
    assert first["miou"] > 0.4  # brightness and colour are no secret to the first layers
    assert [of["input"] for of in record["segmentation"]] == ["noisy", "clean"]
    assert "miou,miou_se,miou_low,miou_high" in (out / "result.csv").read_text().splitlines()[0]


def test_two_of_them_are_not_compared_by_icr(session: tuple[Ran, Path]) -> None:
    refused(diffscope("compare", session[1], session[1]), 1, "probe with --masks has no ICR", "icr or sweep")


def test_it_is_what_scikit_learn_and_torch_make_of_the_output_of_features(
    pictures: Path, labelled: Path, tmp_path: Path
) -> None:
    """Every pixel of 40 images trains; maps interpolated whole, and side by side, by torch."""
    layers = (LAYER, "dec.16x16_block1")
    more = ("--data", pictures, "--num-images", 40, "--layer", ",".join(layers), "--sigma", 0.5, "--seed", 2)
    file = tmp_path / "features.safetensors"
    flat = ("--pool", "flatten", "--augment", "none", "--views", 1)
    assert diffscope("features", EDM, *more, *flat, "-o", file).code == 0
    found = diffscope("probe", EDM, *more, "--masks", labelled, "--train-pixels", 30 * 256, "--json").json["rows"][0]
    tensors = load_file(file)
    maps = [torch.from_numpy(tensors[name][0, 0]).view(40, channels, side, side)
            for name, channels, side in zip(layers, (32, 16), (8, 16), strict=True)]  # fmt: skip
    whole = torch.cat([torch.nn.functional.interpolate(m, (16, 16), mode="bilinear") for m in maps], 1)
    z = whole.permute(0, 2, 3, 1).reshape(40, 256, 48).numpy()
    source, target = open_source(str(pictures)), Target(16, 3)
    masks = open_masks(str(labelled), source, tensors["index"].tolist(), target)
    truth = np.stack([masks.read(int(index)).ravel() for index in tensors["index"]])
    order = np.random.default_rng(2).permutation(40)
    test, train = order[:10], np.sort(order[10:])
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    head.fit(z[train].reshape(-1, 48), truth[train].ravel())
    said = head.predict(z[test].reshape(-1, 48))
    expected = jaccard_score(truth[test].ravel(), said, average="macro")
    assert found["miou"] == pytest.approx(expected, abs=2e-3)  # a pixel or two may lie on the border of two classes
    assert found["pixel_accuracy"] == pytest.approx((said == truth[test].ravel()).mean(), abs=1e-3)
    assert found["miou"] < 0.95


def test_tokens_are_maps_too(pictures: Path, labelled: Path) -> None:
    ran = diffscope(
        "probe", SIT_PIXELS, "--data", pictures, "--masks", labelled, "--num-images", 40, "--num-levels", 1, "--quiet",
        "--config", "num_heads=4",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.out.split()[-2] == "miou"
    assert 0.2 < float(ran.out.split()[-1]) <= 1


def test_gates_look_at_the_best_level(pictures: Path, labelled: Path) -> None:
    command = ("probe", EDM, "--data", pictures, "--masks", labelled, "--num-images", 24, "--sigma", 0.1, "--quiet")
    assert diffscope(*command, "--fail-if", "miou<0.01", "--fail-if", "iou_2<0").code == 0
    assert diffscope(*command, "--fail-if", "miou<=1").code == 3
    assert diffscope(*command, "--fail-if", "accuracy<1").code == 2
    assert diffscope(*command, "--fail-if", "clean_miou<1").code == 2


def test_a_dry_run_states_the_bound(pictures: Path, labelled: Path) -> None:
    command = ("probe", EDM, "--data", pictures, "--masks", labelled, "--num-images", 40, "--input", "both")
    more = ("--num-levels", 3, "--train-pixels", 3000, "--dry-run")
    ran = diffscope(*command, *more)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0] == "40 images × 3 levels × 2 inputs: 240 passes"
    assert "memory is bounded by 3,000 training pixels × 32 features; all 7,680 pixels would take" in ran.out
    told = diffscope(*command, *more, "--json").json
    assert told["memory"] >= 4 * 32 * 3000 * 4
    refused(diffscope(*command, "--max-memory", "1MB"), 1, "20000 pixels of 32 features", "--train-pixels")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (("--label-noise", "0.2"), ("--label-noise 0.2", "is of a probe of images", "--masks")),
        (("--posterior",), ("--posterior is of a probe of images", "--masks")),
        (("--posterior",), ("--posterior",)),
        (("--knn", 5), ("--knn 5",)),
        (("--pool", "flatten"), ("--pool flatten",)),
        (("--augment", "crop"), ("--augment crop",)),
        (("--views", 4), ("--views 4",)),
        (("--test", "other"), ("--test other",)),
        (("--train-pixels", 0), ("--train-pixels 0", "at least 1")),
        (("--pixel-head", "forest"), ("--pixel-head forest", "linear or mlp")),
    ],
)
def test_wrong_usage(wrong: tuple[object, ...], words: tuple[str, ...], pictures: Path, labelled: Path) -> None:
    refused(diffscope("probe", EDM, "--data", pictures, "--masks", labelled, *wrong), 2, *words)


def test_what_is_of_pixels_needs_masks(pictures: Path) -> None:
    refused(diffscope("probe", EDM, "--data", pictures, "--pixel-head", "mlp"), 2, "--pixel-head mlp", "--masks DIR")


def test_images_and_layers_that_do_not_do(pictures: Path, labelled: Path, tmp_path: Path) -> None:
    command = ("probe", EDM, "--data", pictures, "--masks")
    refused(diffscope(*command, tmp_path), 1, "200 of 200 images have no mask")
    refused(diffscope(*command, labelled, "--num-images", 1), 1, "give 1 to train on and 0 to test")
    refused(diffscope("probe", TOY, "--data", "synthetic:count=40", "--masks", labelled), 1, "holds no pictures")
    plain = ("probe", TOY, "--data", pictures, "--masks", labelled)
    refused(diffscope(*plain, "--layer", "linear"), 2, "--layer linear: one vector for the whole image")


def test_one_class_among_the_training_pixels_is_an_error(told: tuple[str, str]) -> None:
    chosen = ("--layer", WIENER, "--sigma", 1, "--train-pixels", 1)
    refused(
        diffscope("probe", TOY, "--data", told[0], "--masks", told[1], *chosen), 1, "of one class", "--train-pixels"
    )
