"""diffscope cache, as a user meets it: after two sweeps of a latent model, and with nothing there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import DATA, SIT_LATENTS, Ran, diffscope, in_a_process, without_timing

from diffscope.families.networks.autoencoder import Autoencoder

VAE = DATA / "sit" / "diffusers-vae"
SWEEP = (
    "sweep",
    SIT_LATENTS,
    "--config",
    "num_heads=4",
    "--vae",
    VAE,
    "--num-images",
    144,
    "--num-levels",
    2,
    "--json",
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFSCOPE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def sweep(cache: Path, pictures: Path) -> Callable[..., Ran]:
    return lambda *more: diffscope(*SWEEP, "--data", pictures, *more)


def test_a_second_sweep_takes_its_latents_from_the_cache(
    sweep: Callable[..., Ran], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sweep()
    assert (first.code, first.err) == (0, "")
    listed = diffscope("cache", "ls")
    assert "144 images × 2 views, 4×8×8, crop+flip+jitter, seed 0, VAE" in listed.out
    assert str(cache) in listed.err
    (row,) = [row for row in diffscope("cache", "ls", "--json").json["rows"] if row["kind"] == "latents"]
    assert (row["kind"], row["images"], row["views"], row["path"]) == ("latents", 144, 2, str(VAE))
    assert row["bytes"] > 144 * 2 * 1024

    monkeypatch.setattr(Autoencoder, "posterior", lambda *_: pytest.fail("encoded again"))
    again = sweep()
    assert without_timing(again.json) == without_timing(first.json)


def test_the_folder(cache: Path) -> None:
    assert diffscope("cache", "dir") == Ran(0, f"{cache}\n", "")
    assert diffscope("cache", "dir", "--json").json["folder"] == str(cache)
    assert not cache.exists(), "asking makes nothing"


def test_nothing_is_kept(cache: Path) -> None:
    for argv in (("cache", "ls"), ("cache",)):
        assert diffscope(*argv) == Ran(0, "", f"nothing is kept in {cache}\n")
    listed = diffscope("cache", "ls", "--json").json
    assert (listed["command"], listed["bytes"], listed["rows"]) == ("cache", 0, [])
    assert diffscope("cache", "prune", "--all") == Ran(0, "nothing to remove\n", "")


def folders(cache: Path, **ages: float) -> None:
    """name → days; 1 MB each."""
    for name, days in ages.items():
        place = cache / name.replace("_", "-")
        place.mkdir(parents=True)
        (place / "file").write_bytes(bytes(10**6))
        then = time.time() - 86400 * days
        for path in (place / "file", place):
            os.utime(path, (then, then))


def test_what_is_listed(cache: Path) -> None:
    folders(cache, parts_a=1, track_b=2, memorization_c=3, others=0)
    ran = diffscope("cache", "ls")
    lines = [line.split() for line in ran.out.splitlines()[2:] if line.strip()]
    assert [line[:6] for line in lines] == [
        ["parts-a", "unfinished", "run", "1", "file", "1"],
        ["track-b", "track", "records", "1", "file", "1"],
        ["memorization-c", "memorization", "records", "1", "file", "1"],
    ]
    assert ran.err == f"3 MB in {cache}\n"


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (("--older-than", "60h"), ["parts-a", "track-b"]),
        (("--older-than", "36h"), ["parts-a"]),
        (("--older-than", "2w"), ["memorization-c", "parts-a", "track-b"]),
        (("--max-size", "2MB"), ["parts-a", "track-b"]),
        (("--max-size", "1500kB"), ["parts-a"]),
        (("--max-size", "2MB", "--older-than", "36h"), ["parts-a"]),
        (("--all",), []),
    ],
)
def test_prune(cache: Path, options: tuple[str, ...], left: list[str]) -> None:
    folders(cache, parts_a=1, track_b=2, memorization_c=3, others=9)
    ran = diffscope("cache", "prune", *options)
    assert (ran.code, ran.err) == (0, "")
    assert sorted(os.listdir(cache)) == sorted([*left, "others"])
    gone = 3 - len(left)
    assert ran.out.count("removed ") == gone
    assert ran.out.splitlines()[-1] == (f"freed {gone} MB" if gone else "nothing to remove")


def test_prune_as_json(cache: Path) -> None:
    folders(cache, parts_a=1, track_b=2)
    found = diffscope("cache", "prune", "--older-than", "36h", "--json").json
    assert (found["bytes"], found["held"]) == (10**6, [])
    assert [row["name"] for row in found["removed"]] == ["track-b"]


def test_prune_leaves_what_a_process_uses(cache: Path) -> None:
    """Pruned from another process, as by another command."""
    from diffscope.cache.store import Parts

    parts = Parts(cache, "f" * 64)
    parts.claim()
    ran = in_a_process("cache", "prune", "--all")
    assert ran == Ran(0, "nothing to remove\n", f"warning: {parts.folder.name} (unfinished run) stays: a process uses "
                      "it, or it cannot be removed\n")  # fmt: skip
    assert parts.folder.exists()
    parts.clear()
    folders(cache, parts_a=1)
    assert in_a_process("cache", "prune", "--all").out.startswith("removed parts-a (unfinished run, 1 MB)\n")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["drop"], ("cache drop", "dir, ls, prune")),
        (["prune"], ("--older-than 30d", "--max-size 5GB", "--all")),
        (["ls", "--all"], ("--all", "cache prune")),
        (["dir", "--max-size", "1GB"], ("--max-size", "cache prune")),
        (["prune", "--older-than", "30"], ("--older-than 30", "30d")),
        (["prune", "--older-than", "-3d"], ("--older-than -3d",)),
        (["prune", "--max-size", "much"], ("--max-size much", "8GB")),
    ],
)
def test_wrong_usage(cache: Path, argv: list[str], words: tuple[str, ...]) -> None:
    folders(cache, parts_a=1)
    ran = diffscope("cache", *argv)
    assert (ran.code, ran.out) == (2, "")
    assert all(word in ran.err for word in words), ran.err
    assert ran.err.count("\n") == 1
    assert (cache / "parts-a").exists()


def test_a_sweep_goes_on_where_nothing_can_be_kept(sweep: Callable[..., Ran], cache: Path) -> None:
    expected: Any = without_timing(sweep().json)
    assert diffscope("cache", "prune", "--all").code == 0
    (cache / "latents").rmdir()
    (cache / "latents").write_text("in the way")
    found = sweep()
    assert without_timing(found.json) == expected
