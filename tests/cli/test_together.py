"""Several processes, as torchrun starts them, come to the bytes of one; what befalls one of them ends all, clearly."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import DATA, EDM, FEW, SIT_LATENTS, Ran, command_line, write_pictures
from processes import alone, begin, together

TOY = ("toy:d=8,side=8", "--data", "synthetic:count=203", "--augment", "none", "--layer", "all", "--workers", 0)
"""16 blocks, of 12 and 13 images: dealt to two, three or four processes, neither blocks nor images come out even."""
LEVELS = ("--sigma", 0.2, "--sigma", 0.5, "--sigma", 1, "--sigma", 4)
TWO_LAYERS = ("--layer", "enc.8x8_block1", "--layer", "dec.8x8_in0")


def untimed(text: str) -> str:
    """result.json but for the timing, which stands last."""
    before, timing = text.split('"timing"')
    assert '"seconds"' in timing
    return before


def silent(others: list[Ran], code: int = 0) -> bool:
    return all((ran.code, ran.out, ran.err) == (code, "", "") for ran in others)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of which two cannot be read."""
    folder = write_pictures(tmp_path_factory.mktemp("damaged"), 100)
    for number in (10, 61):
        next(folder.rglob(f"{number:04d}.png")).write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def swept() -> str:
    ran = alone("sweep", *TOY, *LEVELS, "--self-check", "--json")
    assert ran.code == 0, ran.err
    return untimed(ran.out)


@pytest.mark.parametrize(("size", "more"), [(2, ()), (3, ("--max-memory", "70kB")), (4, ())])
def test_a_sweep_gives_the_bytes_of_one_process(size: int, more: tuple[object, ...], swept: str) -> None:
    first, *others = together(size, "sweep", *TOY, *LEVELS, "--self-check", *more, "--json")
    assert first.code == 0, first.err
    assert silent(others)
    assert untimed(first.out) == swept
    timing = first.json["timing"]
    portions = 4 if more else 1
    assert (timing["processes"], timing["blocks_measured"], timing["blocks_resumed"]) == (size, 16 * portions, 0)
    assert timing.get("portions", 1) == portions


def test_files_are_written_once_and_the_same(damaged: Path, tmp_path: Path) -> None:
    command = ("icr", EDM, "--data", damaged, *TWO_LAYERS, "--augment", "none", "--views", 3, "--sigma", 0.5)
    one = alone(*command, "--json")
    first, *others = together(4, *command, "--out", tmp_path, "--quiet")
    assert (one.code, first.code) == (0, 0), one.err + first.err
    assert silent(others)
    text = (tmp_path / "result.json").read_text("utf-8")
    assert untimed(text) == untimed(one.out)
    assert len(first.out.splitlines()) == 2
    data = json.loads(text)["data"]
    assert (data["count"], data["used"], len(data["skipped"])) == (100, 98, 2)
    assert first.err.count("2 unreadable images") == 1
    assert not list(tmp_path.glob("parts-*"))


def test_features_are_the_same_file(damaged: Path, tmp_path: Path) -> None:
    command = ("features", EDM, "--data", damaged, *TWO_LAYERS, "--sigma", 0.5, "--sigma", 2)
    assert alone(*command, "-o", tmp_path / "one.safetensors").code == 0
    first, *others = together(3, *command, "-o", tmp_path / "three.safetensors")
    assert first.code == 0, first.err
    assert silent(others)
    assert (tmp_path / "three.safetensors").read_bytes() == (tmp_path / "one.safetensors").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"one.safetensors", "three.safetensors"}
    assert "2 unreadable images" in first.err


def test_a_training_run_is_tracked_the_same(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    for path in sorted((DATA / "series").glob("*.safetensors"))[:2]:
        shutil.copy(path, runs)
    (runs / "snapshot-0099999.safetensors").write_bytes(b"damaged")
    images = DATA / "series" / "images.npz"
    command = ("track", runs, "--data", images, "--views", 3, "--sigma", 0.3, "--holdout", images)
    one = alone(*command, "--json")
    first, *others = together(2, *command, "--out", tmp_path / "two", "--json")
    assert (one.code, first.code) == (0, 0), one.err + first.err
    assert silent(others)
    assert untimed(first.out) == untimed(one.out)
    assert len(first.json["checkpoints"]) == 3
    assert first.err.count("left out") == 1
    # What one process measured, several find again.
    again, *others = together(2, *command, "--json")
    assert (again.json["timing"]["snapshots_resumed"], silent(others)) == (2, True)


def test_a_probe_gives_the_same_accuracies(pictures: Path) -> None:
    command = ("probe", EDM, "--data", pictures, *FEW, "--sigma", 0.5, "--sigma", 2, "--posterior", "--json")
    one = alone(*command)
    first, *others = together(3, *command)
    assert (one.code, first.code) == (0, 0), one.err + first.err
    assert silent(others)
    assert untimed(first.out) == untimed(one.out)


def test_what_one_process_cannot_read_ends_all_alike(damaged: Path, tmp_path: Path) -> None:
    """The damaged pictures are in one block each, and so in one process's hands."""
    command = ("icr", EDM, "--data", damaged, *TWO_LAYERS, "--augment", "none", "--sigma", 0.5, "--strict")
    first, *others = together(4, *command, "--out", tmp_path)
    assert (first.code, first.out) == (1, "")
    assert len(first.err.splitlines()) == 1
    assert ".png" in first.err
    assert silent(others, 1)
    first, *others = together(3, "features", *command[1:], "-o", tmp_path / "f.safetensors")
    assert (first.code, len(first.err.splitlines())) == (1, 1)
    assert ".png" in first.err
    assert silent(others, 1)


def test_numbers_that_are_not_finite_end_all_alike(tmp_path: Path) -> None:
    mean = np.random.default_rng(0).standard_normal((96, 4, 8, 8)).astype(np.float32)
    mean[77] = 1e30
    np.savez(tmp_path / "latents.npz", mean=mean, std=np.zeros_like(mean))
    command = ("icr", SIT_LATENTS, "--config", "num_heads=4", "--data", tmp_path / "latents.npz")
    first, *others = together(3, *command, "--augment", "none", "--sigma", 0.5, "--class", 1)
    assert (first.code, len(first.err.splitlines())) == (1, 1)
    assert "not finite" in first.err
    assert silent(others, 1)


def test_a_place_that_only_the_first_cannot_write_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for size, *command in (
        (2, "sweep", *TOY, *LEVELS, "--out", tmp_path / "file" / "out"),
        (2, "features", *TOY, *LEVELS, "-o", tmp_path / "file" / "f.safetensors"),
    ):
        first, *others = together(size, *command)
        assert (first.code, len(first.err.splitlines())) == (1, 1), first.err
        assert "written" in first.err or "write" in first.err
        assert silent(others, 1)


def test_what_torchrun_does_not_serve(tmp_path: Path) -> None:
    first, *others = together(2, "convert", EDM, tmp_path / "c.safetensors")
    assert first.code == 2
    assert (
        first.err
        == "error: diffscope convert runs in one process; torchrun serves features, icr, probe, sweep, track\n"
    )
    assert silent(others, 2)
    assert not list(tmp_path.iterdir())
    images = DATA / "series" / "images.npz"
    first, *others = together(2, "track", "--watch", tmp_path, "--data", images, "--sigma", 0.3)
    assert (first.code, len(first.err.splitlines())) == (2, 1)
    assert "--watch: one process waits for snapshots" in first.err
    assert silent(others, 2)


def test_a_gate_is_the_firsts_to_hold() -> None:
    first, *others = together(2, "icr", *TOY, "--sigma", 0.5, "--fail-if", "icr<2", "--json")
    assert first.code == 3
    assert first.json["command"] == "icr"
    assert silent(others)


def test_told_to_end_while_it_waits_for_the_first_to_speak() -> None:
    """Torchrun ends all as soon as one has failed."""
    few = ("toy:d=8,side=8", "--data", "synthetic:count=8", "--augment", "none", "--sigma", 0.5)
    run = begin(2, "icr", *few, GRACE="2")
    assert run.processes[0].answered(30)
    assert not run.processes[1].answered(0.5)
    run.processes[1].process.terminate()
    first, other = run.end()
    assert (first.code, len(first.err.splitlines())) == (1, 1)
    assert other == Ran(1, "", "")


def test_one_that_is_killed_ends_all_and_nothing_is_lost(tmp_path: Path) -> None:
    # Small batches make a block last: there must be time to kill.
    slow = (TOY[0], "--data", "synthetic:count=483", *TOY[3:], *LEVELS[:4], "--batch-size", 1)
    out = tmp_path / "out"

    def parts() -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in out.glob("parts-*/part-*.safetensors")}

    seen: dict[str, int] = {}
    for victim, enough in ((2, 3), (0, 9)):
        run = begin(3, "sweep", *slow, "--out", out)
        while len(parts()) < enough:
            assert run.running()
            time.sleep(0.002)
        run.kill(victim)
        ended = run.end()
        assert ended[victim].code == -signal.SIGKILL
        for ran in ended[:victim] + ended[victim + 1 :]:
            assert (ran.code, ran.out) == (1, "")
            lines = [line for line in ran.err.splitlines() if "were measured before" not in line]
            assert len(lines) == 1, ran.err
            assert lines[0].startswith("error: another process of this run has ended; what was finished is on disk")
        now = parts()
        assert enough <= len(now) < 16
        assert {name: now[name] for name in seen} == seen
        seen = now
    assert not (out / "result.json").exists()

    first, *others = together(2, "sweep", *slow, "--out", out, "--json")
    assert first.code == 0, first.err
    assert silent(others)
    timing = first.json["timing"]
    assert (timing["blocks_resumed"], timing["blocks_measured"]) == (len(seen), 16 - len(seen))
    assert untimed(first.out) == untimed(alone("sweep", *slow, "--json").out)


def test_torchrun_itself(tmp_path: Path) -> None:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    command = command_line("icr", *TOY, "--sigma", 0.5, "--quiet")[2:]
    done = subprocess.run(
        torchrun + command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == alone("icr", *TOY, "--sigma", 0.5, "--quiet").out
