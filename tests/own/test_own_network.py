"""A network of one's own through the commands, from its code and a checkpoint's weights."""

# mypy: disable-error-code="attr-defined,arg-type"

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import pytest
import torch
from commands import diffscope, refused, without_timing
from owned import CASES, EPS, EPS_FILE, FLOW, FLOW_FILE, NETWORKS, SIDE, SIGMA, SIGMA_FILE, SIGMA_FILES

import diffscope as package
from diffscope.checkpoints import read
from diffscope.families import OwnNetwork
from diffscope.options.settings import Loading

FEW = ("--augment", "none", "--num-images", 64)


@pytest.mark.parametrize("case", CASES)
def test_inspect_says_what_it_is(case: str) -> None:
    path, said, predicts = CASES[case]
    ran = diffscope("inspect", path, *said, "--predicts", predicts, "--json")
    assert (ran.code, ran.err) == (0, "")
    found = ran.json
    assert found["family"] == "own"
    assert found["constructor"]["predicts"] == predicts
    assert all(len(digest) == 64 for digest in found["constructor"]["sources"].values())
    default = {"eps": "down2", "flow": "blocks.1", "sigma": "net.body1"}[case]
    assert found["default_layer"] == default
    assert default in [layer["name"] for layer in found["layers"]]


@pytest.mark.parametrize("case", CASES)
def test_a_sweep_measures_it(case: str, pictures: Path) -> None:
    path, said, _ = CASES[case]
    ran = diffscope("sweep", path, *said, "--data", pictures, *FEW, "--num-levels", 2, "--json")
    assert ran.code == 0, ran.err
    rows = ran.json["rows"]
    assert [row["sigma"] for row in rows] == pytest.approx([0.01 if case == "eps" else 0.002, 20], rel=0.005)
    assert all(0 < row["icr_raw"] < 2 for row in rows)
    assert ran.json["protocol"]["constructor"]["noise"].startswith(("ddpm:linear,steps=1000", "flow:data=1", "edm:"))


def test_weights_and_outputs_are_its_owner_s() -> None:
    """The file holds them in 16 bits, under a prefix: the output is that of the code with the same weights."""
    own = OwnNetwork(f"{NETWORKS / 'eps_unet.py'}:UNet", 16, 3, "ddpm:linear", "eps")
    checkpoint, denoiser = own.load(read(EPS_FILE))
    assert checkpoint.step == 600
    sys.path.insert(0, str(NETWORKS))
    network = importlib.import_module("eps_unet").UNet()
    stored = torch.load(EPS_FILE, weights_only=True)["state_dict"]
    network.load_state_dict({name.removeprefix("net."): value.float() for name, value in stored.items()})
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    sigma, step = denoiser.noise.nearest(0.5), int(denoiser.noise.to_native(0.5))
    with torch.no_grad():
        eps = network(x * denoiser.noise.input_scale(sigma), torch.tensor([step, step]))
        torch.testing.assert_close(denoiser.denoise(x, torch.tensor([sigma]), None), x - sigma * eps)
        bottom = dict(denoiser.walk(x, sigma, None, ["middle"]))["middle"]
    assert bottom.shape == (2, 32, 8, 8)


def test_the_library_measures_what_the_command_line_measures(pictures: Path) -> None:
    sys.path.insert(0, str(NETWORKS))
    network = importlib.import_module("sigma_denoiser").make()
    network.load_state_dict(torch.load(SIGMA_FILE, weights_only=True)["ema"])
    wrapped = package.wrap(network, side=16, channels=3, noise="edm", predicts="denoised")
    mine = package.icr(wrapped, pictures, sigma=0.5, augment="none", num_images=64)
    said = {"network": f"{NETWORKS / 'sigma_denoiser.py'}:make", "noise": "edm", "image_size": 16, "channels": 3}
    theirs = package.icr(SIGMA_FILE, pictures, sigma=0.5, augment="none", num_images=64, **said)
    assert mine.rows[0]["icr"] == theirs.rows[0]["icr"]
    assert wrapped.layer("mid").name == theirs.rows[0].layer
    with pytest.raises(package.errors.UsageError, match="a network in memory needs none"):
        package.icr(wrapped, pictures, sigma=0.5, **said)


def test_either_set_of_weights_is_taken(pictures: Path) -> None:
    command = ("icr", SIGMA_FILE, *SIGMA, "--data", pictures, *FEW, "--sigma", 0.5, "--json")
    averaged, plain = diffscope(*command).json, diffscope(*command, "--weights", "model").json
    assert (averaged["protocol"]["weights"], plain["protocol"]["weights"]) == ("ema", "model")
    assert averaged["rows"][0]["icr"] != plain["rows"][0]["icr"]


def test_track_follows_a_run_and_its_loss(pictures: Path, tmp_path: Path) -> None:
    command = ("track", *SIGMA_FILES, *SIGMA, "--data", pictures, "--num-images", 32, "--batch-size", 32)
    ran = diffscope(*command, "--predicts", "denoised", "--json", "--out", tmp_path)
    assert ran.code == 0, ran.err
    assert {row["step"] for row in ran.json["rows"]} == {60, 240, 600}
    losses = [row["loss"] for row in ran.json["rows"] if row["sigma"] == ran.json["rows"][0]["sigma"]]
    assert losses[-1] < losses[0]


def test_memorization_samples_it(pictures: Path) -> None:
    command = ("memorization", SIGMA_FILE, *SIGMA, "--data", pictures, "--samples", 8, "--steps", 4, "--json")
    refused(diffscope(*command), 2, "what the network predicts is not known; say it with --predicts")
    ran = diffscope(*command, "--predicts", "denoised")
    assert ran.code == 0, ran.err
    assert ran.json["rows"][0]["samples"] == 8


def test_neighbors_probe_and_features_take_it(pictures: Path, tmp_path: Path) -> None:
    near = diffscope("neighbors", FLOW_FILE, *FLOW, "--data", pictures, *FEW, "--sigma", 0.5, "--views", 2, "--json")
    assert near.code == 0, near.err
    assert [row["component"] for row in near.json["rows"]] == ["s", "xi"]
    probed = diffscope("probe", EPS_FILE, *EPS, "--data", pictures, "--num-images", 64, "--sigma", 0.5, "--json")
    assert probed.code == 0, probed.err
    assert 0 <= probed.json["rows"][0]["accuracy"] <= 1
    file = tmp_path / "f.safetensors"
    kept = diffscope("features", SIGMA_FILE, *SIGMA, "--data", pictures, *FEW, "--sigma", 0.5, "-o", file)
    assert kept.code == 0, kept.err
    assert file.is_file()


def test_classes_reach_it(pictures: Path) -> None:
    command = ("icr", FLOW_FILE, *FLOW, "--data", pictures, *FEW, "--sigma", 0.5, "--json", "--class")
    values = {name: diffscope(*command, name).json["rows"][0]["icr"] for name in ("null", "label", "1")}
    assert len(set(values.values())) == 3
    refused(diffscope(*command, 2), 1, "classes run from 0 to 1")


def test_half_precision_leaves_the_code_s_own_types_alone(pictures: Path) -> None:
    command = ("icr", FLOW_FILE, *FLOW, "--data", pictures, *FEW, "--sigma", 0.5, "--json", "--precision")
    whole, half = (diffscope(*command, precision).json["rows"][0]["icr"] for precision in ("fp32", "bf16"))
    assert half != whole
    assert half == pytest.approx(whole, rel=0.05)


def test_the_protocol_holds_what_numbers_depend_on(pictures: Path, tmp_path: Path) -> None:
    code = tmp_path / "elsewhere" / "sigma_denoiser.py"
    code.parent.mkdir()
    shutil.copy(NETWORKS / "sigma_denoiser.py", code)

    def protocol(network: str, *more: object) -> dict[str, object]:
        said = ("--network", network, "--noise", "edm", *SIDE, "--data", pictures, *FEW, "--sigma", 0.5)
        ran = diffscope("icr", SIGMA_FILE, *said, *more, "--json")
        assert ran.code == 0, ran.err
        return dict(ran.json["protocol"])

    first = protocol(f"{NETWORKS / 'sigma_denoiser.py'}:make")
    assert protocol(f"{code}:make") == first  # the same file in another folder
    code = code.with_name("changed") / code.name
    code.parent.mkdir()
    code.write_text((NETWORKS / "sigma_denoiser.py").read_text() + "\n# a change\n")
    hashes = {
        str(found["hash"])
        for found in (
            first,
            protocol(f"{code}:make"),
            protocol(f"{NETWORKS / 'sigma_denoiser.py'}:make", "--arguments", '{"width": 24}'),
            protocol(f"{NETWORKS / 'sigma_denoiser.py'}:make", "--predicts", "denoised"),
            protocol(f"{NETWORKS / 'sigma_denoiser.py'}:make", "--call", "x,sigma=t"),
        )
    }
    assert len(hashes) == 5
    ran = diffscope("icr", SIGMA_FILE, *SIGMA, "--data", pictures, *FEW, "--sigma", 0.5, "--json")
    again = diffscope("icr", SIGMA_FILE, *SIGMA, "--data", pictures, *FEW, "--sigma", 0.5, "--json")
    assert without_timing(ran.json) == without_timing(again.json)


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        (("--predicts", "eps"), 2, ("--predicts is of a network of your own", "--network FILE.py:NAME")),
        (("--network", "m.py:N"), 2, ("--noise ddpm:linear", "--image-size 32", "--channels 3")),
        ((*SIGMA, "--family", "edm"), 2, ("--family", "--network", "drop one")),
        ((*SIGMA, "--config", "num_heads=4"), 2, ("--config", "drop one")),
        ((*SIGMA, "--predicts", "velocity"), 2, ("--predicts velocity", "of flow, not for edm")),
        ((*SIGMA, "--call", "x"), 1, ("--call", "t = 1", "missing 1 required positional argument: 'sigma'")),
        ((*SIGMA, "--arguments", '{"width": 8}'), 1, ("other shape", "--arguments")),
        ((*SIGMA, "--arguments", '{"wdith": 8}'), 1, ("unexpected keyword argument 'wdith'", "make takes width=24")),
        ((*SIGMA, "--arguments", "none.toml"), 1, ("--arguments none.toml", "No such file")),
        ((*SIGMA, "--channels", "1"), 1, ("the network cannot be run on x = zeros [2, 1, 16, 16]", "--call")),
        ((*SIGMA, "--latent-scale", "0.5", "--image-size", "12"), 2, ("--image-size 12", "factor, 8")),
    ],
)
def test_what_is_refused_in_a_line(said: tuple[str, ...], code: int, words: tuple[str, ...], pictures: Path) -> None:
    refused(diffscope("icr", SIGMA_FILE, *said, "--data", pictures, "--sigma", 0.5), code, *words)


def test_missing_and_surplus_weights_are_named(tmp_path: Path) -> None:
    stored = torch.load(SIGMA_FILE, weights_only=True)["model"]
    stored["net.more.weight"] = stored.pop("net.last.bias")
    torch.save(stored, tmp_path / "w.pt")
    refused(diffscope("inspect", tmp_path / "w.pt", *SIGMA), 1, "missing: net.last.bias", "expected: net.more.weight")


def test_averages_beside_the_weights_are_told_apart(tmp_path: Path) -> None:
    """As a LightningModule saves both: one flat dict, whose names begin with the attributes' names."""
    stored = torch.load(SIGMA_FILE, weights_only=True)
    places = {"net.": "model", "net_ema.": "ema"}
    flat = {prefix + name: value for prefix, key in places.items() for name, value in stored[key].items()}
    torch.save({"state_dict": {**flat, "loss.scale": torch.ones(1)}}, tmp_path / "w.ckpt")
    for weights, wanted in (("ema", "the EMA is the default"), ("model", "the model's own weights were asked for")):
        ran = diffscope("inspect", tmp_path / "w.ckpt", *SIGMA, "--weights", weights, "--json")
        assert ran.code == 0, ran.err
        assert ran.json["weights"] == weights
        for part in ("'state_dict.net_ema.*' and 'state_dict.net.*'", wanted, "its sets it holds loss.scale"):
            assert part in ran.json["weights_reason"]
    twice = {f"{prefix}.{name}": value for prefix in ("a", "b") for name, value in stored["model"].items()}
    torch.save(twice, tmp_path / "two.pt")
    refused(diffscope("inspect", tmp_path / "two.pt", *SIGMA), 1, "under a., b.", "expected one set")


def test_loading_asks_before_it_reads() -> None:
    with pytest.raises(package.errors.UsageError, match="`noise=ddpm:linear`, `image_size=32`"):
        Loading(network="models.py:UNet", channels=3)
