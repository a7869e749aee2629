"""What `inspect` answers from the cache is what it answers without, and no longer than the files stand as they were."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import EDM, SIT_PIXELS, diffscope

from diffscope.cache import answers, inspected
from diffscope.cache.inspected import KIND, Inspected

FILES = {
    "pickle.pkl": (EDM,),
    "zip.pt": (SIT_PIXELS, "--config", "num_heads=4"),
    "header.safetensors": (EDM,),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("DIFFSCOPE_CACHE_DIR", str(folder))
    return folder


def aged(path: Path, seconds: float = 100) -> Path:
    """As if it had been written so long ago."""
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def copied(source: object, folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    shutil.copyfile(str(source), folder / name)
    return aged(folder / name)


def records(cache: Path) -> list[Path]:
    return sorted((cache / KIND).glob("*.json"))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_cold_warm_and_without_answer_alike(
    name: str, more: tuple[str, ...], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, *options = FILES[name]
    path = tmp_path / name
    if path.suffix == ".safetensors":
        assert diffscope("convert", source, path).code == 0
        aged(path)
    else:
        copied(source, tmp_path, name)
    argv = ("inspect", path, *options, *more)
    cold = diffscope(*argv)
    assert (cold.code, cold.err, len(records(cache))) == (0, "", 1)
    with monkeypatch.context() as patch:
        patch.setattr("diffscope.measure.opening.load", None)
        assert diffscope(*argv) == cold
    monkeypatch.setenv("DIFFSCOPE_CACHE_SIZE", "0")
    assert diffscope(*argv) == cold


def test_a_known_file_is_told_of_without_torch(tmp_path: Path) -> None:
    path = copied(EDM, tmp_path, "a.pkl")
    cold = diffscope("inspect", path, "--json")
    script = (
        "import sys\nfrom diffscope.cli import run\n"
        f"assert run(['inspect', {str(path)!r}, '--json']) == 0\n"
        "print(sorted({'torch', 'numpy', 'diffusers', 'safetensors'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (cold.out, "[]\n")


@pytest.mark.parametrize("options", [("--sha256",), ("--verify",), ("--weights", "model"), ("--family", "edm")])
def test_what_was_not_asked_before_is_not_known(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copied(EDM, tmp_path, "a.pkl")
    diffscope("inspect", path)

    def read(*given: object, **named: object) -> None:
        raise OSError("read in earnest")

    monkeypatch.setattr("diffscope.measure.opening.load", read)
    assert diffscope("inspect", path).code == 0
    assert "read in earnest" in diffscope("inspect", path, *options).err


def key(path: Path, **asked: object) -> str | None:
    return Inspected.of(str(path), asked).key


def test_a_record_is_of_one_state_of_the_file(tmp_path: Path) -> None:
    path = copied(EDM, tmp_path, "a.pkl")
    first = key(path)
    assert first is not None
    assert key(path) == first
    assert key(path, weights="model") != first
    assert key(copied(EDM, tmp_path, "network-snapshot-001000.pkl")) != first, "its name tells the step"
    told = path.stat()
    with open(path, "r+b") as file:
        file.seek(told.st_size - 1)
        file.write(b"!")
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
    assert key(path) != first, "of the same length and time"


def test_of_a_large_file_both_ends_and_the_times_count(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(bytes(3 * inspected.EDGE))
    seen = {key(aged(path))}
    for place in (0, inspected.EDGE - 1, 2 * inspected.EDGE, 3 * inspected.EDGE - 1):
        told = path.stat()
        with open(path, "r+b") as file:
            file.seek(place)
            file.write(b"!")
        os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
        seen.add(key(path))
    seen.add(key(aged(path, 99)))
    assert len(seen - {None}) == 6


def test_the_program_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = copied(EDM, tmp_path, "a.pkl")
    seen = [key(path)]
    with monkeypatch.context() as patch:
        patch.setattr("diffscope.__version__", "0.0.0")
        seen.append(key(path))
    with monkeypatch.context() as patch:
        patch.setattr(answers, "version", lambda name: "9.9" if name == "torch" else "1.0")
        seen.append(key(path))
    with monkeypatch.context() as patch:
        patch.setattr(answers, "_sources", lambda folder: iter([("edm.py", 1, 2)]))
        seen.append(key(path))
    assert len(set(seen) - {None}) == 4


def test_the_code_that_counts_is_all_of_ours() -> None:
    names = {os.path.basename(path) for path, _, _ in answers._sources(str(Path(inspected.__file__).parents[1]))}
    assert {"inspect.py", "machine.py", "edm.py", "song_unet.py", "__init__.py"} <= names


@pytest.mark.parametrize("content", [b"", b"{", b'{"checksum": "00000000", "path": "x"}', b"\xff\xfe"])
def test_a_damaged_record_is_made_again(content: bytes, tmp_path: Path, cache: Path) -> None:
    path = copied(EDM, tmp_path, "a.pkl")
    cold = diffscope("inspect", path)
    (record,) = records(cache)
    whole = record.read_bytes()
    record.write_bytes(content)
    assert diffscope("inspect", path) == cold
    assert record.read_bytes() == whole


def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path: Path, cache: Path) -> None:
    cache.write_text("a file where a folder should be")
    assert diffscope("inspect", copied(EDM, tmp_path, "a.pkl")).code == 0


def test_a_file_that_is_being_written_is_not_kept(tmp_path: Path, cache: Path) -> None:
    path = copied(EDM, tmp_path, "a.pkl")
    os.utime(path)
    assert diffscope("inspect", path).code == 0
    assert records(cache) == []


def test_a_file_that_changed_meanwhile_is_not_kept(tmp_path: Path, cache: Path) -> None:
    path = copied(EDM, tmp_path, "a.pkl")
    before = Inspected.of(str(path), {})
    aged(path, 50)
    before.write({"found": 1})
    assert records(cache) == []


def test_a_refusal_is_not_kept(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(b"no checkpoint")
    assert diffscope("inspect", aged(path)).code == 1
    assert records(cache) == []


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A script's run with one snapshot and the pipeline's other parts beside it."""
    names = (
        *("unet/config.json", "unet/diffusion_pytorch_model.safetensors"),
        *("../scheduler/scheduler_config.json", "../vae/config.json", "model_index.json"),
    )
    for name in names:
        path = tmp_path / "run" / "checkpoint-5" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        aged(path)
    return tmp_path / "run"


@pytest.mark.parametrize("given", ["checkpoint-5", "checkpoint-5/unet"])
@pytest.mark.parametrize(
    "changed",
    [
        *("checkpoint-5/unet/config.json", "checkpoint-5/unet/diffusion_pytorch_model.safetensors"),
        *("checkpoint-5/model_index.json", "scheduler/scheduler_config.json", "vae/config.json"),
    ],
)
def test_of_a_folder_every_file_counts_and_those_of_its_run(given: str, changed: str, run_folder: Path) -> None:
    path = run_folder / given
    first = key(path)
    assert first is not None
    (run_folder / changed).write_text("else")
    aged(run_folder / changed)
    second = key(path)
    assert second not in (None, first)
    (run_folder / changed).unlink()
    assert key(path) not in (None, first, second)


def test_of_a_whole_run_nothing_is_kept(run_folder: Path) -> None:
    for number in range(inspected.MOST_FILES):
        (run_folder / f"{number}.pt").touch()
        aged(run_folder / f"{number}.pt")
    assert key(run_folder) is None


@pytest.mark.parametrize("path", ["toy:d=8,side=4", "hf://owner/name", "edm:cifar10-uncond-vp", "nowhere.pt"])
def test_of_what_is_no_file_here_nothing_is_kept(path: str) -> None:
    assert Inspected.of(path, {}).key is None


def test_records_used_longest_ago_make_room(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MOST", 2)
    path = copied(EDM, tmp_path, "a.pkl")
    places = [Inspected.of(str(path), {"number": number}) for number in range(3)]
    for age, place in zip((300, 200), places, strict=False):
        place.write({"found": 1})
        aged(cache / KIND / f"{place.key}.json", age)
    assert places[0].read() == {"found": 1}  # which is used now
    places[2].write({"found": 1})
    assert {record.stem for record in records(cache)} == {places[0].key, places[2].key}


def test_the_cache_command_knows_them(tmp_path: Path) -> None:
    diffscope("inspect", copied(EDM, tmp_path, "a.pkl"))
    (row,) = diffscope("cache", "ls", "--json").json["rows"]
    assert (row["kind"], row["files"]) == ("what inspect found", 1)
    assert diffscope("cache", "prune", "--all").code == 0
    assert diffscope("cache", "ls", "--json").json["rows"] == []
