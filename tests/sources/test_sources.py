"""The contract that every member of `sources/` keeps, and what is refused before any member opens it."""

import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from picture_files import GREY, RGB, pixels, tree, zipped
from safetensors.numpy import save_file

from diffscope import registry
from diffscope.errors import DataError
from diffscope.sources.base import Target, open_source


def latent_file(folder: Path) -> str:
    normal = np.random.default_rng(0).standard_normal((3, 4, 2, 2))
    np.savez(folder / "latents.npz", mean=normal, std=np.abs(normal), y=np.arange(3))
    return str(folder / "latents.npz")


def array_file(folder: Path) -> str:
    np.savez(folder / "arrays.npz", x=pixels(0, 5, 20, 24, 3), y=np.arange(5))
    return str(folder / "arrays.npz")


def parquet_file(folder: Path) -> str:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pictures = [path.read_bytes() for path in sorted(tree(folder / "plain").rglob("*.png"))]
    parquet.write_table(arrow.table({"image": pictures}), folder / "images.parquet")
    return str(folder / "images.parquet")


def arrow_file(folder: Path) -> str:
    arrow = pytest.importorskip("pyarrow")
    pictures = [path.read_bytes() for path in sorted(tree(folder / "plain").rglob("*.png"))]
    table = arrow.table({"image": pictures, "label": [0, 0, 1, 2]})
    with arrow.ipc.new_file(str(folder / "images.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    return str(folder / "images.arrow")


def cached_data_set(folder: Path) -> str:
    """A commit in the client's cache, which is all that offline mode asks for."""
    commit = "0123456789" * 4
    storage = Path(constants.HF_HUB_CACHE) / f"datasets--owner--{folder.name}"
    shutil.rmtree(storage, ignore_errors=True)
    root = tree(storage / "snapshots" / commit)
    names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    (storage / "diffscope").mkdir()
    (storage / "diffscope" / f"{commit}.json").write_text(json.dumps(names))
    return f"hf://datasets/owner/{folder.name}@{commit}"


def shard_folder(folder: Path) -> str:
    rng = np.random.default_rng(0)
    (folder / "latents").mkdir()
    for number, count in enumerate((2, 3)):
        latents = rng.standard_normal((count, 4, 2, 2)).astype(np.float32)
        tensors = {"latents": latents, "latents_flip": latents[..., ::-1].copy(), "labels": np.arange(count)}
        save_file(tensors, folder / "latents" / f"latents_rank00_shard{number:03d}.safetensors")
    return str(folder / "latents")


def tar_shards(folder: Path) -> str:
    root = tree(folder / "plain")
    (folder / "shards").mkdir()
    for shard in ("cat", "dog"):
        with tarfile.open(folder / "shards" / f"{shard}.tar", "w") as archive:
            for path in sorted((root / shard).iterdir()):
                archive.add(path, path.name)
    return str(folder / "shards")


EXAMPLES: dict[str, Callable[[Path], str]] = {
    "archive": lambda folder: str(zipped(tree(folder / "plain"), folder / "plain.zip")),
    "arrays": array_file,
    "arrow": arrow_file,
    "folder": lambda folder: str(tree(folder / "plain")),
    "hub": cached_data_set,
    "latents": latent_file,
    "parquet": parquet_file,
    "shards": shard_folder,
    "mixture": lambda folder: "mixture:count=7,classes=2,rank=2,seed=3",
    "webdataset": tar_shards,
    "synthetic": lambda folder: "synthetic:count=7,seed=3",
}


@pytest.fixture(params=registry.members("diffscope.sources"))
def example(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """(member, path of an example of it)"""
    if request.param not in EXAMPLES:
        pytest.fail(f"sources/{request.param}.py has no example here: add one to EXAMPLES.")
    return request.param, EXAMPLES[request.param](tmp_path)


def test_exactly_its_own_member_accepts_a_path(example: tuple[str, str]) -> None:
    member, path = example
    accepting = [name for name, module in registry.load("diffscope.sources").items() if module.accepts(path)]
    assert accepting == [member]


@pytest.mark.parametrize("path", ["", "nowhere", "nowhere.zip", "nowhere.npy", "nowhere.npz", "hf://datasets"])
def test_accepting_never_raises(path: str) -> None:
    for module in registry.load("diffscope.sources").values():
        assert module.accepts(path) in (True, False)


def test_names_are_sorted_and_labels_fit(example: tuple[str, str]) -> None:
    source = open_source(example[1])
    names = [source.name(index) for index in range(len(source))]
    assert source.path == example[1]
    assert names == sorted(set(names))
    assert names
    if source.labels is not None:
        assert source.labels.dtype == np.int64
        assert source.labels.shape == (len(source),)


@pytest.mark.parametrize("target", [RGB, GREY, Target(8, 3, "adm")])
def test_reading_gives_the_kind_promised(example: tuple[str, str], target: Target) -> None:
    source = open_source(example[1])
    image = source.read(len(source) - 1, target)
    if source.kind == "latents":
        assert image.shape[:2] == (2, 4)
        assert image.dtype == np.float32
    else:
        assert image.shape == (target.channels, target.side, target.side)
        assert image.dtype == (np.uint8 if source.kind == "images" else np.float32)
    assert image.flags.c_contiguous


def test_reading_is_thread_safe_and_repeatable(example: tuple[str, str]) -> None:
    source = open_source(example[1])
    indices = list(range(len(source))) * 20
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(lambda index: source.read(index, RGB), indices))
    alone = [source.read(index, RGB) for index in indices]
    assert all(np.array_equal(one, other) for one, other in zip(threaded, alone, strict=True))


def test_fingerprint_knows_the_images_and_not_the_place(example: tuple[str, str], tmp_path: Path) -> None:
    path = example[1]
    source = open_source(path)
    fingerprint = source.fingerprint([0, 2])
    assert len(fingerprint) == 64
    assert source.fingerprint(np.array([2, 0, 0])) == fingerprint
    assert source.fingerprint([0, 1]) != fingerprint
    if Path(path).exists():
        moved = shutil.move(path, tmp_path / f"moved{Path(path).suffix}")
        assert open_source(str(moved)).fingerprint([0, 2]) == fingerprint


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "Nothing at .*Expected a folder of images"),
        (lambda path: path.mkdir(), "No images in .*nothing at all"),
        (lambda path: path.write_text("hello"), r"Cannot take images from .*no extension"),
    ],
)
def test_what_is_no_source_is_refused(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path / "thing")
    with pytest.raises(DataError, match=message) as caught:
        open_source(str(tmp_path / "thing"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["broken.zip", "broken.npy", "broken.npz"])
@pytest.mark.parametrize("data", [b"", b"not what it says", b"PK\x03\x04 cut short"])
def test_broken_files_are_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=f"{name}"):
        open_source(str(tmp_path / name))


def test_an_empty_zip_is_refused(tmp_path: Path) -> None:
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    with pytest.raises(DataError, match=r"No images in .*empty\.zip: nothing at all"):
        open_source(str(tmp_path / "empty.zip"))
