"""Whatever a user gets wrong ends in one line that says what to do, nothing on stdout, and the promised exit code."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import (
    EDM,
    EDM_CLASSES,
    FEW,
    LAYER,
    SIT_LATENTS,
    SIT_PIXELS,
    Ran,
    command_line,
    diffscope,
    in_a_process,
    refused,
    write_pictures,
)
from edm_fixture import write_edm_pickle
from safetensors.numpy import load_file

AT = (*FEW, "--sigma", "0.5")


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing.pkl": (lambda path: None, "no such file"),
    "text.pt": (lambda path: path.write_text("hello\n"), "a text file"),
    "cut.pkl": (lambda path: path.write_bytes(Path(EDM).read_bytes()[:200_000]), "cut.pkl"),
    "cut.pt": (lambda path: path.write_bytes(Path(SIT_PIXELS).read_bytes()[:200_000]), "cut.pt"),
    "pointer.pt": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "page.pkl": (lambda path: path.write_text("<!DOCTYPE html><html></html>"), "web page"),
    "empty.safetensors": (lambda path: path.touch(), "empty file"),
    "folder": (lambda path: path.mkdir(), "a folder"),
    "table.npz": (lambda path: np.savez(path, x=np.ones(3)), "table.npz"),
}


@pytest.mark.parametrize("command", ["inspect", "icr"])
@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_checkpoints(name: str, command: str, tmp_path: Path, pictures: Path) -> None:
    write, word = FILES[name]
    write(tmp_path / name)
    options = [] if command == "inspect" else ["--data", pictures, *AT]
    refused(diffscope(command, tmp_path / name, *options), 1, word, str(tmp_path / name))


def test_code_in_a_pickle_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = "open('executed', 'w').close()"
    write_edm_pickle("plain.pkl", torch.nn.Linear(2, 2), "SongUNet", module_src=source)
    refused(diffscope("inspect", "plain.pkl"), 1, "plain.pkl")
    Path("evil.pkl").write_bytes(b"\x80\x04cposix\nsystem\n(X\x0e\x00\x00\x00touch executedtR.")
    refused(diffscope("inspect", "evil.pkl"), 1, "posix.system")
    assert not Path("executed").exists()


def test_images_that_are_not_there(tmp_path: Path, pictures: Path) -> None:
    refused(diffscope("icr", EDM, "--data", tmp_path, *AT), 1, "No images", str(tmp_path))
    refused(diffscope("icr", EDM, "--data", tmp_path / "gone", *AT), 1, "Nothing at", "gone")
    text = tmp_path / "images.txt"
    text.write_text("images\n")
    refused(diffscope("icr", EDM, "--data", text, *AT), 1, "images.txt", "Expected a folder")


def test_images_of_another_kind(tmp_path: Path) -> None:
    np.savez(tmp_path / "latents.npz", mean=np.zeros((200, 4, 16, 16), np.float32))
    np.save(tmp_path / "floats.npy", np.zeros((200, 16, 16, 3), np.float32))
    refused(diffscope("icr", EDM, "--data", tmp_path / "latents.npz", *AT), 1, "latents", "pixels")
    refused(diffscope("icr", EDM, "--data", tmp_path / "floats.npy", *AT), 1, "floats.npy", "uint8")


def test_layers_that_do_not_exist(pictures: Path) -> None:
    def asked(layer: str) -> Ran:
        return diffscope("icr", EDM, "--data", pictures, "--sigma", "0.5", "--layer", layer)

    refused(asked("enc.8x8_blok1"), 1, "enc.8x8_blok1", f"close: {LAYER}", "diffscope inspect")
    refused(asked("8x8_block1"), 1, "ambiguous", "enc.8x8_block1", "dec.8x8_block1")
    refused(asked("nothing like it at all"), 1, "nothing like it at all", "diffscope inspect")


def test_noise_levels_outside_the_range(pictures: Path) -> None:
    def asked(checkpoint: str, *level: object) -> Ran:
        return diffscope("icr", checkpoint, "--data", pictures, *level)

    for sigma in (0, -1, "nan", "inf"):
        refused(asked(EDM, "--sigma", sigma), 2, "--sigma", "above 0")
    refused(asked(EDM, "--sigma", "much"), 2, "--sigma")
    refused(asked(EDM, "--t", "nan"), 2, "--t")
    refused(asked(EDM, "--t", "1000"), 1, "t 1000", "range")
    vp = (EDM_CLASSES, "--config", "precond=VPPrecond")
    refused(asked(*vp, "--class", 1, "--sigma", 1e6), 1, "sigma 1e+06", "range", "up to")


def test_too_few_images_name_what_would_do(pictures: Path) -> None:
    ran = diffscope("icr", EDM, "--data", pictures, *AT, "--num-images", 20)
    refused(ran, 1, "20 images", "32 channels", "at least 34", "128", "--views 8")
    assert diffscope("icr", EDM, "--data", pictures, *AT, "--num-images", 20, "--views", 8).code == 0
    assert diffscope("icr", EDM, "--data", pictures, *AT, "--num-images", 34).code == 0
    refused(diffscope("icr", EDM, "--data", pictures, *AT, "--num-images", 5), 1, "5 images", "at least 8")
    assert diffscope("icr", EDM, "--data", pictures, *AT, "--num-images", 8, "--views", 17).code == 0
    refused(diffscope("icr", EDM, "--data", pictures, *AT, "--views", 1), 2, "--views 1", "at least 2")


def test_wrong_usage(pictures: Path, tmp_path: Path) -> None:
    data = ("--data", pictures)
    refused(diffscope("icr", EDM, *data), 2, "--sigma", "diffscope sweep")
    refused(diffscope("icr", EDM, "--sigma", 1), 2, "--data")
    refused(diffscope("sweep", *data), 2, "CKPT")
    refused(diffscope("icr"), 2, "CKPT")
    refused(diffscope("features", EDM, *data, "--sigma", 1), 2, "-o")
    refused(diffscope("nosuch"), 2, "nosuch")
    refused(diffscope("swep"), 2, "Did you mean 'sweep'")
    refused(diffscope("icr", EDM, *data, "--sigm", 1), 2, "--sigm", "--sigma")
    refused(diffscope("icr", EDM, *data, *AT, "--config", "num_heads"), 2, "KEY=VALUE")
    refused(diffscope("icr", EDM, *data, *AT, "--config", "hats=4"), 2, "hats", "num_blocks")
    refused(diffscope("inspect", EDM, "--config", "num_blocks=two"), 2, "num_blocks=two", "a whole number")
    refused(diffscope("inspect", EDM, "--family", "eda"), 2, "eda", "edm", "sit")
    refused(diffscope("demo", "--family", "eda"), 2, "edm", "sit")
    refused(diffscope("inspect", EDM, "--weights", "best"), 2, "best", "ema", "model")
    for option, value in [("--num-images", 0), ("--seed", -1), ("--seed", 2**64), ("--batch-size", 0), ("--views", 0)]:
        refused(diffscope("icr", EDM, *data, *AT, option, value), 2, option, str(value))
    refused(diffscope("icr", EDM, *data, *AT, "--workers", -1), 2, "--workers")
    refused(diffscope("sweep", EDM, *data, "--num-levels", 0), 2, "--num-levels")
    for option in ("--augment", "--pool", "--input", "--precision", "--class", "--max-memory", "--device"):
        refused(diffscope("icr", EDM, *data, *AT, option, "purple"), 2, option, "purple")
    refused(diffscope("icr", EDM, "--data", "synthetic:number=9", *AT), 2, "number=9", "count=1000")


def test_gates_are_read_before_any_work(tmp_path: Path) -> None:
    # The files do not exist, and nobody looks for them.
    command = ("icr", tmp_path / "gone.pkl", "--data", tmp_path / "gone", "--sigma", 1)
    refused(diffscope(*command, "--fail-if", "icr"), 2, "KEY OP NUMBER")
    refused(diffscope(*command, "--fail-if", "icr>much"), 2, "icr>much")
    refused(diffscope(*command, "--fail-if", "icr>5%"), 2, "icr>5%")
    refused(diffscope(*command, "--fail-if", "icy>0.5"), 2, "icy", "icr")
    # Not every number has an error.
    refused(diffscope(*command, "--fail-if", "kappa_ratio_se>1"), 2, "kappa_ratio_se")
    refused(diffscope("sweep", *command[1:], "--fail-if", "window==u"), 2, "window==u")
    refused(diffscope("sweep", *command[1:], "--fail-if", "rankme>5"), 2, "rankme", "icr")
    results = ("compare", tmp_path / "a.json", tmp_path / "b.json")
    refused(diffscope(*results, "--fail-if", "icr>5"), 2, "icr", "change")
    refused(diffscope(*results, "--fail-if", "window==none"), 2, "window")
    refused(diffscope(*results), 1, "a.json", "No such file")


def test_image_encoders(pictures: Path, tmp_path: Path) -> None:
    def asked(checkpoint: str, *options: str) -> Ran:
        return diffscope("icr", checkpoint, "--data", pictures, "--sigma", 1, *options)

    refused(asked(EDM, "--vae", "vae"), 1, "pixels")
    latents = (SIT_LATENTS, "--config", "num_heads=4")
    refused(asked(*latents), 1, "--vae PATH", ".npz")
    refused(asked(*latents, "--vae", "hf://stabilityai/sd-vae-ft-ema"), 1, "hf://")
    refused(asked(*latents, "--vae", str(tmp_path / "vae")), 1, "vae")
    refused(asked("hf://nvidia/edm"), 1, "hf://nvidia/edm")


def test_classes(pictures: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    shutil.copytree(pictures / "cat", flat)

    def asked(checkpoint: str, data: Path, chosen: object) -> Ran:
        return diffscope("icr", checkpoint, "--data", data, "--sigma", 1, "--class", chosen)

    refused(asked(EDM, pictures, 3), 1, "not class-conditional")
    refused(asked(EDM, pictures, "label"), 1, "not class-conditional")
    refused(asked(EDM_CLASSES, flat, "label"), 1, "needs labels", "has none")
    refused(asked(EDM_CLASSES, pictures, 1000), 1, "1000", "from 0 to")


def test_a_machine_that_cannot(pictures: Path) -> None:
    refused(diffscope("icr", EDM, "--data", pictures, *AT, "--precision", "tf32"), 2, "tf32", "CUDA", "fp32")
    ran = diffscope("icr", EDM, "--data", pictures, *AT, "--max-memory", "500kB")
    refused(ran, 1, "0.69 MB", "0.5 MB", "narrower layer", "--pool mean")
    assert diffscope("icr", EDM, "--data", pictures, *AT, "--max-memory", "1MB").code == 0


def test_a_result_of_another_protocol_is_not_replaced(pictures: Path, tmp_path: Path) -> None:
    command = ("icr", EDM, "--data", pictures, *AT, "--out", tmp_path, "--quiet")
    assert diffscope(*command).code == 0
    before = (tmp_path / "result.json").read_bytes()
    refused(diffscope(*command, "--seed", 1), 1, "seed: 0 and 1", "result.json", "--overwrite")
    refused(diffscope(*command, "--pool", "mean", "--sigma", 2), 1, "sigmas")
    assert (tmp_path / "result.json").read_bytes() == before
    assert diffscope(*command, "--seed", 1, "--overwrite").code == 0
    assert (tmp_path / "result.json").read_bytes() != before
    (tmp_path / "result.json").write_text("notes of mine")
    refused(diffscope(*command), 1, "result.json", "not JSON", "--overwrite")


def test_layers_without_rows_do_not_make_another_protocol(tmp_path: Path) -> None:
    # 40 images determine the 8 features of `linear` and not the 16 of `wiener`, which spreads over all pixels.
    layers = ("--layer", "all", "--pool", "flatten", "--augment", "none", "--sigma", 1)
    command = ("icr", "toy:d=8,side=8", "--data", "synthetic:count=40", *layers, "--out", tmp_path, "--quiet")
    assert [diffscope(*command).code, diffscope(*command).code] == [0, 0]


def test_results_that_cannot_be_written(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for command in (
        ("icr", "--out", tmp_path / "file" / "out"),
        ("features", "-o", tmp_path / "file" / "f.safetensors"),
    ):
        refused(diffscope(command[0], EDM, "--data", pictures, *AT, *command[1:]), 1, str(tmp_path / "file"))


def test_unreadable_images(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "images", 144)
    command = ("icr", EDM, "--data", folder, *AT, "--json")
    for number in range(0, 14, 2):
        (folder / "cat" / f"{number:04d}.png").write_bytes(b"torn")
    ran = diffscope(*command)
    assert ran.code == 0
    assert ran.err.startswith("warning: 7 unreadable images were left out")
    assert ran.err.count("\n") == 1
    data = ran.json["data"]
    assert (data["count"], data["used"], len(data["skipped"])) == (144, 137, 7)
    assert {entry["file"] for entry in data["skipped"]} == {f"cat/{number:04d}.png" for number in range(0, 14, 2)}
    assert all("not a picture" in entry["why"] for entry in data["skipped"])
    assert ran.json["rows"][0]["n"] == 137

    refused(diffscope(*command, "--strict"), 1, "cat/00", "not a picture")
    features = ("features", *command[1:-1], "-o", tmp_path / "f.safetensors")
    ran = diffscope(*features)
    assert (ran.code, "7 unreadable images" in ran.err) == (0, True)
    kept = load_file(tmp_path / "f.safetensors")
    assert (kept[LAYER].shape, kept["index"].shape, kept["label"].shape) == ((1, 2, 137, 32), (137,), (137,))
    # cat/ comes first: 0, 2, 4 … are the torn ones.
    assert not set(kept["index"].tolist()) & set(range(7))
    assert np.abs(kept[LAYER]).max(axis=(0, 1, 3)).min() > 0
    refused(diffscope(*features, "--strict"), 1, "cat/00", "not a picture")
    # The eighth is more than 5 %.
    (folder / "dog" / "0001.png").write_bytes(b"torn")
    refused(diffscope(*command), 1, "8 images", "5 %", "not a picture")


def test_what_exits_with_zero() -> None:
    for argv in ([], ["-h"], ["--help"]):
        ran = diffscope(*argv)
        assert (ran.code, ran.err) == (0, "")
        assert all(command in ran.out for command in ("demo", "inspect", "icr", "sweep", "features", "compare"))
    ran = diffscope("--version")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"diffscope 0.1.0 (torch {torch.__version__})\n"


def test_debugging_adds_the_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSCOPE_DEBUG", "1")
    for code, argv in ((1, ("inspect", tmp_path / "gone.pkl")), (2, ("icr", EDM, "--data", tmp_path)), (2, ("swep",))):
        ran = diffscope(*argv)
        assert (ran.code, ran.out) == (code, "")
        assert ran.err.startswith("Traceback")
        assert ran.err.splitlines()[-1].startswith("error: ")
    assert diffscope("inspect", "toy:d=2,side=2").err == ""


def test_a_mistake_of_ours_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise KeyError("layer")

    monkeypatch.setattr("diffscope.studies.inspect.inspect", broken)
    ran = diffscope("inspect", EDM)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "KeyError" in ran.err
    assert "DIFFSCOPE_DEBUG=1" in ran.err


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2 GiB",
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried",
        "can't start new thread",
    ],
)
def test_running_out_of_memory_names_a_way_out(text: str, monkeypatch: pytest.MonkeyPatch, pictures: Path) -> None:
    def full(*arguments: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr("diffscope.families.base.Denoiser.walk", full)
    refused(diffscope("icr", EDM, "--data", pictures, *AT), 1, "out of memory", "--batch-size")


def test_as_a_process(tmp_path: Path) -> None:
    refused(in_a_process("compare", tmp_path / "a.json", tmp_path / "b.json"), 1, "a.json")
    refused(in_a_process("nosuch"), 2, "nosuch")
    assert in_a_process("--version").code == 0


def test_a_reader_that_has_enough() -> None:
    # The pipe is closed long before the first line is written. The gate is held nonetheless.
    toy = ("toy:d=4,side=4", "--data", "synthetic:count=64", "--augment", "none", "--sigma", 1)
    command = command_line("icr", *toy, "--fail-if", "icr>0")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        err = process.stderr.read()
    assert (process.wait(60), err.count("\n")) == (3, 1)
    assert err.startswith("--fail-if icr>0")


def test_an_interrupted_run_says_so(tmp_path: Path) -> None:
    # Long enough to be interrupted after its first block.
    options = ("--data", "synthetic:count=4000", "--augment", "none", "--batch-size", 8, "--out", tmp_path)
    command = command_line("sweep", "toy:d=32,side=16", *options)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("parts-*/part-*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.count("\n")) == (130, "", 1)
    assert "interrupted" in err
    assert list(tmp_path.glob("parts-*/part-*.safetensors"))


def test_a_run_without_a_home(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "DIFFSCOPE_CACHE_DIR")}
    options = ("--data", "synthetic:count=64", "--augment", "none", "--sigma", "1", "--quiet")
    command = [sys.executable, "-c", "import os; os.path.expanduser = lambda path: path\n"]
    command[2] += "from diffscope.cli import main; main()"
    ran = subprocess.run(
        [*command, "icr", "toy:d=4,side=4", *options],
        env=environment | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert 0 < float(ran.stdout.split()[-1]) < 1.5
