"""Shards measured one by one and merged are the one run, byte for byte; what does not belong together is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import DATA, EDM, EDM_CLASSES, LAYER, SIT_LATENTS, Ran, diffscope, write_pictures
from processes import begin

from diffscope.families.base import Denoiser
from diffscope.sources.synthetic import SyntheticSource

TOY = ("toy:d=8,side=8", "--data", "synthetic:count=203", "--augment", "none", "--layer", "all", "--workers", 0)
LEVELS = ("--sigma", 0.2, "--sigma", 0.5, "--sigma", 1, "--sigma", 2, "--sigma", 4)


def untimed(text: str) -> str:
    """result.json but for the timing, which stands last."""
    return text.split('"timing"')[0]


def shards(count: int, folder: Path, *command: object) -> list[Path]:
    folders = [folder / f"shard-{index}" for index in range(1, count + 1)]
    for index, out in enumerate(folders, start=1):
        ran = diffscope(*command, "--shard", f"{index}/{count}", "--out", out)
        assert ran.code == 0, ran.err
        assert "blocks" in ran.out
    return folders


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of which three cannot be read, 4 % of the 80 that are asked for at most."""
    folder = write_pictures(tmp_path_factory.mktemp("damaged"), 100)
    for number in (10, 61, 75):
        next(folder.rglob(f"{number:04d}.png")).write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("latents") / "latents.npz"
    np.savez(path, mean=rng.standard_normal((99, 4, 8, 8)).astype(np.float32), std=np.full((99, 4, 8, 8), 0.1, "f4"))
    return path


def commands(damaged: Path, latents: Path) -> dict[str, tuple[object, ...]]:
    edm = ("--data", damaged, "--num-images", 97)
    discrete = ("--config", "precond=iDDPMPrecond", "--class", 1, "--views", 3)
    folder = DATA / "sit" / "diffusers-dit"
    return {
        "toy": ("sweep", *TOY, *LEVELS),
        "edm": ("sweep", EDM, *edm, "--layer", LAYER, "--layer", "dec.16x16_aux_conv", "--views", 3, *LEVELS),
        "refused": ("sweep", "toy:d=8,side=8", *TOY[1:3], *TOY[3:5], "--num-images", 48, "--layer", "all", "--pool",
                    "flatten", *LEVELS),
        "sit": ("sweep", SIT_LATENTS, "--config", "num_heads=4", "--data", latents, "--augment", "none", *LEVELS),
        "iddpm": ("sweep", EDM_CLASSES, *edm, *discrete, "--num-levels", 5),
        "dit": ("sweep", folder, "--data", latents, "--augment", "none", "--num-levels", 5),
        "icr": ("icr", EDM, *edm, "--views", 3, "--sigma", 0.5),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["toy", "edm", "refused", "sit", "iddpm", "dit", "icr"])
def test_merged_is_the_one_run(name: str, damaged: Path, latents: Path, tmp_path: Path) -> None:
    command = commands(damaged, latents)[name]
    whole = diffscope(*command, "--json")
    assert whole.code == 0, whole.err
    folders = shards(3, tmp_path, *command)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    # Neither the order nor the spelling matters.
    merged = diffscope("merge", folders[2], folders[0] / "shard.json", folders[1], "--json")
    assert merged.code == 0, merged.err
    assert merged.json["timing"] == {"shards": 3}
    assert same(merged, whole)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    skipped = merged.json["data"]["skipped"]
    assert merged.err.count("unreadable images were left out") == (1 if skipped else 0)
    assert len(skipped) == (3 if "--num-images" in command and name != "refused" else 0)
    if name == "refused":
        assert {row["icr"] is None for row in merged.json["rows"]} == {False, True}
        assert "too_few_images" in merged.out


def same(merged: Ran, whole: Ran) -> bool:
    """Byte for byte; but a window's t, where it is no level and the model's steps are not discrete, to 1e-10."""
    a, b = (json.loads(ran.out) for ran in (merged, whole))
    for one, other in zip(a["window"], b["window"], strict=True):
        if isinstance(other["t"], float):
            assert one["t"] == pytest.approx(other["t"], rel=1e-10, abs=1e-12)
            one["t"] = other["t"]
    del a["timing"], b["timing"]
    return json.dumps(a) == json.dumps(b) and list(merged.json) == list(whole.json)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three shards, of 6, 5 and 5 blocks; the second within little memory, in portions."""
    folder = tmp_path_factory.mktemp("toy")
    first, second, third = (folder / name for name in "abc")
    for index, (out, more) in enumerate(((first, ()), (second, ("--max-memory", "70kB")), (third, ())), start=1):
        ran = diffscope("icr", *TOY, *LEVELS, *more, "--shard", f"{index}/3", "--out", out)
        assert ran.code == 0, ran.err
    return [first, second, third]


@pytest.fixture
def mine(toy: list[Path], tmp_path: Path) -> list[Path]:
    """The same, to be damaged."""
    return [Path(shutil.copytree(path, tmp_path / path.name)) for path in toy]


def test_memory_does_not_matter(toy: list[Path], tmp_path: Path) -> None:
    counts = [len(list(path.glob("parts-*/part-*"))) for path in toy]
    assert counts == [6, 25, 5]
    whole = diffscope("icr", *TOY, *LEVELS, "--json")
    assert untimed(diffscope("merge", *toy, "--json").out) == untimed(whole.out)


def test_merge_prints_writes_and_holds_gates(toy: list[Path], tmp_path: Path) -> None:
    ran = diffscope("merge", *toy, "--out", tmp_path, "--quiet", "--fail-if", "icr>0.9")
    assert ran.code == 3
    assert "icr>0.9" in ran.err
    numbers = [row["icr"] for row in json.loads((tmp_path / "result.json").read_text())["rows"]]
    assert [line.split()[-1] for line in ran.out.splitlines()] == [f"{number:.4g}" for number in numbers]
    assert (tmp_path / "result.csv").exists()
    assert diffscope("merge", *toy, "--quiet", "--fail-if", "icr>1.1").code == 0
    wrong = diffscope("merge", *toy, "--fail-if", "accuracy>1")
    assert (wrong.code, wrong.out) == (2, "")


def refused(ran: Ran, *words: str, code: int = 1) -> None:
    assert (ran.code, ran.out) == (code, "")
    assert len(ran.err.splitlines()) == 1, ran.err
    for word in words:
        assert word in ran.err, ran.err
    assert "this is a bug" not in ran.err


def test_what_does_not_belong_together_is_refused(mine: list[Path], tmp_path: Path) -> None:
    a, b, c = mine
    refused(diffscope("merge", a, b), "shard 3/3 is missing")
    refused(diffscope("merge", b), "shard 1/3, 3/3 is missing")
    refused(diffscope("merge", a, b, c, shutil.copytree(b, tmp_path / "again")), "shard 2/3 is", "give each once")
    refused(diffscope("merge", a, b, tmp_path), "no shard.json in it", "--shard I/N --out FOLDER")
    assert diffscope("icr", *TOY, *LEVELS, "--seed", 1, "--shard", "3/3", "--out", tmp_path / "seed").code == 0
    refused(diffscope("merge", a, b, tmp_path / "seed"), "seed")
    assert diffscope("icr", *TOY, *LEVELS, "--shard", "3/4", "--out", tmp_path / "of-four").code == 0
    refused(diffscope("merge", a, b, tmp_path / "of-four"), "shard 3/4", "one of 3")
    assert diffscope("sweep", *TOY, *LEVELS, "--shard", "3/3", "--out", tmp_path / "sweep").code == 0
    refused(diffscope("merge", a, b, tmp_path / "sweep"), "differ in command")
    (c / "shard.json").write_text("{}")
    refused(diffscope("merge", *mine), "or a damaged one")


@pytest.mark.parametrize("harm", ["gone", "truncated", "empty"])
def test_a_damaged_shard_is_refused_and_mended_by_running_it_again(
    harm: str, mine: list[Path], toy: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    part = sorted(mine[2].glob("parts-*/part-*"))[3]
    if harm == "gone":
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[: -100 if harm == "truncated" else 0])
    # Shard 3 of 3 has the blocks 2, 5, 8, 11 and 14.
    refused(diffscope("merge", *mine), "the moments of block 11 are not all there", "run this shard again")
    walked = count_walks(monkeypatch)
    again = diffscope("icr", *TOY, *LEVELS, "--shard", "3/3", "--out", mine[2])
    assert again.code == 0, again.err
    assert sum(walked) == block(11) * 2 * 5
    assert untimed(diffscope("merge", *mine, "--json").out) == untimed(diffscope("merge", *toy, "--json").out)


def count_walks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many views each walk took."""
    counts: list[int] = []
    walk = Denoiser.walk

    def counting(self: Denoiser, x: Any, *arguments: Any) -> Any:
        counts.append(len(x))
        return walk(self, x, *arguments)

    monkeypatch.setattr(Denoiser, "walk", counting)
    return counts


def block(number: int) -> int:
    """Images of a block: 203 are dealt in turn."""
    return len(range(number, 203, 16))


def test_a_killed_shard_goes_on(toy: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = SyntheticSource.read
    calls: list[int] = []

    def failing(self: SyntheticSource, index: int, target: Any) -> np.ndarray:
        calls.append(index)
        if len(calls) > block(0) + block(3) + 3:
            raise OSError("the disk has gone")
        return read(self, index, target)

    command = ("icr", *TOY, *LEVELS, "--shard", "1/3", "--out", tmp_path / "a")
    monkeypatch.setattr(SyntheticSource, "read", failing)
    assert diffscope(*command).code == 1
    refused(diffscope("merge", tmp_path / "a", *toy[1:]), "no shard.json in it")
    monkeypatch.setattr(SyntheticSource, "read", read)
    walked = count_walks(monkeypatch)
    again = diffscope(*command)
    assert again.code == 0
    assert "2 of 6 blocks were measured before" in again.err
    assert sum(walked) == sum(map(block, (6, 9, 12, 15))) * 2 * 5
    merged = diffscope("merge", tmp_path / "a", *toy[1:], "--json")
    assert untimed(merged.out) == untimed(diffscope("merge", *toy, "--json").out)


def test_a_shard_of_several_processes(toy: list[Path], tmp_path: Path) -> None:
    first, other = begin(2, "icr", *TOY, *LEVELS, "--shard", "1/3", "--out", tmp_path / "a").end()
    assert (first.code, other) == (0, Ran(0, "", "")), first.err
    names = [{path.relative_to(folder) for path in folder.rglob("*")} for folder in (tmp_path / "a", toy[0])]
    assert names[0] == names[1]
    for path in toy[0].rglob("part-*"):
        assert path.read_bytes() == (tmp_path / "a" / path.relative_to(toy[0])).read_bytes()


def test_unreadable_images_are_counted_over_all_shards(tmp_path: Path) -> None:
    """Six of 100 are too many, though no shard has more than three of them."""
    folder = write_pictures(tmp_path / "pictures", 100)
    command = ("icr", EDM, "--data", folder, "--sigma", 0.5, "--layer", "enc.16x16_conv", "--views", 3)
    for picture in sorted(folder.rglob("*.png"))[:6]:
        picture.write_bytes(b"no picture")
    whole = diffscope(*command, "--json")
    refused(whole, "6 images so far cannot be decoded, more than 5 % of 100")
    folders = shards(3, tmp_path, *command)
    refused(diffscope("merge", *folders), "6 images so far cannot be decoded, more than 5 % of 100")


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "3", "a/b", "-1/3", "1/3/3"])
def test_wrong_shards(text: str, tmp_path: Path) -> None:
    refused(diffscope("icr", *TOY, *LEVELS, f"--shard={text}", "--out", tmp_path), "--shard", text, code=2)


def test_what_a_shard_does_not_take(tmp_path: Path) -> None:
    shard = ("sweep", *TOY, *LEVELS, "--shard", "1/3")
    refused(diffscope(*shard), "--out DIR", code=2)
    for option in (("--json",), ("--self-check",), ("--fail-if", "icr>1")):
        refused(diffscope(*shard, "--out", tmp_path, *option), option[0], "diffscope merge", code=2)
    refused(diffscope(*shard, "--out", tmp_path, "--num-images", "100,200"), "--num-images one value", code=2)
    refused(diffscope(*shard, "--out", tmp_path, "--augment", "all"), "--augment one value", code=2)
    too_many = ("icr", *TOY, *LEVELS, "--shard", "1/17", "--out", tmp_path / "out")
    refused(diffscope(*too_many), "203 images make 16 blocks", code=2)


def test_a_folder_holds_one_shard(tmp_path: Path) -> None:
    command = ("icr", "toy:d=4,side=4", "--data", "synthetic:count=64", "--augment", "none", "--sigma", 1)
    assert diffscope(*command, "--shard", "1/2", "--out", tmp_path / "a").code == 0
    assert diffscope(*command, "--shard", "1/2", "--out", tmp_path / "a").code == 0
    refused = diffscope(*command, "--shard", "2/2", "--out", tmp_path / "a")
    assert refused.code == 1
    assert refused.err.strip().endswith("holds shard 1/2; give each a folder of its own")


def test_a_part_that_the_disk_has_damaged_is_measured_again(tmp_path: Path) -> None:
    command = ("icr", *TOY, *LEVELS, "--shard", "1/3", "--out", tmp_path)
    assert diffscope(*command).code == 0
    path = sorted(tmp_path.rglob("part-*"))[1]
    whole = path.read_bytes()
    path.write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
    ran = diffscope(*command)
    assert ran.code == 0
    assert [line for line in ran.err.splitlines() if "damaged" in line] == [
        f"{path.parent}: {path.name} damaged on disk; what was in there is measured again"
    ]
    assert path.read_bytes() == whole
