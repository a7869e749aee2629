"""Small good files of every kind that diffscope reads, each with a command that reads it."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fuzzing.cases import Case, Files
from fuzzing.pixels import npy

TESTS = Path(__file__).parents[1]
DATA = TESTS / "data"
TOY = ("toy:d=4,side=4", "--sigma", "0.5", "--augment", "none")
SERIES = ("snapshot-0025600.safetensors", "snapshot-0051200.safetensors", "snapshot-0076800.safetensors")
MANY = 24
"""Images: all commands but `features` need more than a few."""


def seeds() -> list[Case]:
    with tempfile.TemporaryDirectory() as folder:
        return [*checkpoints(Path(folder)), *pictures(), *arrays(), *own_files(Path(folder))]


# Checkpoints


def checkpoints(folder: Path) -> Iterator[Case]:
    containers = DATA / "containers"
    made = {
        "edm-pickle": [("network-snapshot-000050.pkl", (containers / "edm_ncsnpp_cond.pkl").read_bytes()),
                       ("iddpm.pkl", iddpm(folder))],
        "edm2-pickle": [("edm2.pkl", edm2(folder))],
        "training-state": [("training-state-000050.pt", training_state(folder))],
        "torch-zip": [("0000100.pt", (DATA / "sit" / "train_dump.pt").read_bytes()),
                      ("repa.pt", (DATA / "sit" / "repa_dump.pt").read_bytes()),
                      ("last.ckpt", lightning(folder))],
        "torch-stream": [("old.pt", stream(folder)), ("old.tar", b"a" * 257 + b"ustar" + bytes(1000))],
        "safetensors": [("snapshot-0025600.safetensors", (DATA / "series" / SERIES[0]).read_bytes()),
                        ("bare.safetensors", bare(folder)), ("iddpm.safetensors", iddpm_header(folder))],
        "packed": [("a.pkl.gz", gzip.compress(bytes(1000))), ("a.gguf", b"GGUF" + bytes(500)),
                   ("a.txt", b"words " * 99)],
    }  # fmt: skip
    heads = {"0000100.pt": ("3",), "repa.pt": ("2",)} | dict.fromkeys(("last.ckpt", "old.pt"), ("3", "--family", "sit"))
    for kind, files in made.items():
        for name, content in files:
            asked = ("--config", "num_heads=" + heads[name][0], *heads[name][1:]) if name in heads else ()
            yield Case(kind, {name: content}, ("inspect", name, *asked), (name,))
            if kind != "packed":
                yield Case(kind, {name: content}, ("convert", name, "out.safetensors", *asked), (name,))
    for name in ("diffusers-unet", "diffusers-dit"):
        yield from diffusers(DATA / "sit" / name)
    yield pipeline()


def module_of(state: Mapping[str, torch.Tensor], parameters: bool = True) -> torch.nn.Module:
    """A tree of plain modules with these tensors."""
    top = torch.nn.Module()
    for name, tensor in state.items():
        *path, last = name.split(".")
        module = top
        for part in path:
            if part not in module._modules:
                module.add_module(part, torch.nn.Module())
            module = module._modules[part]  # type: ignore[assignment]
        if parameters and tensor.is_floating_point() and last in ("weight", "bias"):
            module.register_parameter(last, torch.nn.Parameter(tensor, requires_grad=False))
        else:
            module.register_buffer(last, tensor)
    return top


def named(module: torch.nn.Module, name: str) -> None:
    """Its class called `name` in the pickle."""
    module.__class__ = type(name, (torch.nn.Module,), {})


def golden(name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    record = json.loads((DATA / "edm" / f"{name}.json").read_text())
    tensors = load_file(DATA / "edm" / f"{name}.safetensors")
    return record, {key[3:]: value for key, value in tensors.items() if key.startswith("sd/")}


def iddpm(folder: Path) -> bytes:
    record, state = golden("adm_cond_iddpm")
    module = module_of(state)
    named(module.model, "DhariwalUNet")  # type: ignore[arg-type]
    with fixtures() as edm:
        edm.write_edm_pickle(folder / "a.pkl", module, "iDDPMPrecond", record["init_kwargs"])
    return (folder / "a.pkl").read_bytes()


def edm2(folder: Path) -> bytes:
    record, state = golden("edm2_cond")
    module = module_of(state)
    named(module.unet, "UNet")  # type: ignore[arg-type]
    with fixtures() as edm:
        edm.write_edm_pickle(folder / "a.pkl", module, "Precond", record["init_kwargs"], easy_dict=True)
    return (folder / "a.pkl").read_bytes()


def training_state(folder: Path) -> bytes:
    record, state = golden("ddpmpp_cond_vp")
    module = module_of(state)
    named(module.model, "SongUNet")  # type: ignore[arg-type]
    with fixtures() as edm:
        edm.write_training_state(folder / "a.pt", module, "VPPrecond", record["init_kwargs"])
    return (folder / "a.pt").read_bytes()


@contextmanager
def fixtures() -> Iterator[Any]:
    """The writer of EDM's layout, which stands beside the tests of checkpoints."""
    sys.path.insert(0, str(TESTS / "checkpoints"))
    try:
        import edm_fixture

        yield edm_fixture
    finally:
        sys.path.pop(0)


def sit_state() -> dict[str, torch.Tensor]:
    from diffscope.checkpoints import read

    return dict(read(str(DATA / "sit" / "train_dump.pt")).tensors)


def lightning(folder: Path) -> bytes:
    state = sit_state()
    record = {
        "epoch": 3, "global_step": 120, "pytorch-lightning_version": "2.4.0", "state_dict": state, "loops": {},
        "callbacks": {}, "optimizer_states": [{"state": {}, "param_groups": [{"lr": 1e-4}]}], "lr_schedulers": [],
        "hyper_parameters": {"num_heads": 3, "path_type": "Linear"},
    }  # fmt: skip
    torch.save(record, folder / "a.ckpt")
    return (folder / "a.ckpt").read_bytes()


def stream(folder: Path) -> bytes:
    torch.save({"ema": sit_state(), "steps": 5}, folder / "old.pt", _use_new_zipfile_serialization=False)
    return (folder / "old.pt").read_bytes()


def bare(folder: Path) -> bytes:
    _, state = golden("ncsnpp_uncond_ve")
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, folder / "bare.safetensors")
    return (folder / "bare.safetensors").read_bytes()


def iddpm_header(folder: Path) -> bytes:
    """Our own conversion, whose header says all that the pickle said."""
    (folder / "b.pkl").write_bytes(iddpm(folder))
    command("convert", folder / "b.pkl", folder / "b.safetensors")
    return (folder / "b.safetensors").read_bytes()


def iddpm_tensors() -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Its tensors and its header."""
    with tempfile.TemporaryDirectory() as folder:
        iddpm_header(Path(folder))
        with safe_open(Path(folder) / "b.safetensors", "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def diffusers(model: Path) -> Iterator[Case]:
    """A model's folder: whole, in two shards, with a scheduler, and with weights that torch saved."""
    weights, config = "diffusion_pytorch_model.safetensors", (model / "config.json").read_bytes()
    whole = (model / weights).read_bytes()
    said = {"_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
    scheduler = json.dumps({**said, "beta_schedule": "linear", "prediction_type": "epsilon"}).encode()
    files = {"m/config.json": config, f"m/{weights}": whole, "m/scheduler_config.json": scheduler}
    yield Case("diffusers", files, ("inspect", "m"), tuple(files))
    yield Case("diffusers", files, ("inspect", "m"), ("m/config.json",))
    yield Case("diffusers", files, ("inspect", "m"), ("m/scheduler_config.json",))
    tensors = load_file(model / weights)
    names = sorted(tensors)
    halves = {"00001-of-00002": names[::2], "00002-of-00002": names[1::2]}
    with tempfile.TemporaryDirectory() as folder:
        sharded = {"m/config.json": config}
        table: dict[str, Any] = {}
        for part, inside in halves.items():
            name = f"diffusion_pytorch_model-{part}.safetensors"
            save_file({key: tensors[key] for key in inside}, Path(folder) / name)
            sharded[f"m/{name}"] = (Path(folder) / name).read_bytes()
            table |= dict.fromkeys(inside, name)
        sharded[f"m/{weights}.index.json"] = json.dumps({"metadata": {"total_size": 1}, "weight_map": table}).encode()
        torch.save(tensors, Path(folder) / "a.bin")
        binary = {"m/config.json": config, "m/diffusion_pytorch_model.bin": (Path(folder) / "a.bin").read_bytes()}
    yield Case("sharded", sharded, ("inspect", "m"), tuple(sharded))
    yield read_by_features(sharded, model)
    yield Case("diffusers", binary, ("inspect", "m"), tuple(binary))
    yield read_by_features(binary, model)


def read_by_features(files: Files, model: Path) -> Case:
    """Reads all weights, which `inspect` does not."""
    side = json.loads((model / "config.json").read_text())["sample_size"]
    rng = np.random.default_rng(0)
    latents = {"mean.npy": npy(rng.standard_normal((2, 4, side, side)).astype(np.float32))}
    images = {"images.npy": npy(pixels(3, 2, 8, 8, 3))}
    data = zipped(latents if model.name.endswith("dit") else images)
    argv = ("features", "m", "--data", "data.npz", "--sigma", "0.5", "--views", "1", "--augment", "none",
            "-o", "out.safetensors")  # fmt: skip
    kind = "sharded" if any("index" in name for name in files) else "diffusers"
    return Case(kind, {**files, "data.npz": data}, argv, tuple(files))


def pipeline() -> Case:
    index = {
        "_class_name": "DiTPipeline", "scheduler": ["diffusers", "DDIMScheduler"],
        "transformer": ["diffusers", "DiTTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"],
    }  # fmt: skip
    files = {"p/model_index.json": json.dumps(index).encode()}
    for part, name in (("transformer", "diffusers-dit"), ("vae", "diffusers-vae")):
        for path in sorted((DATA / "sit" / name).iterdir()):
            files[f"p/{part}/{path.name}"] = path.read_bytes()
    files["p/scheduler/scheduler_config.json"] = b'{"_class_name": "DDIMScheduler", "beta_schedule": "linear"}'
    return Case("diffusers", files, ("inspect", "p"), tuple(name for name in files if name.endswith(".json")))


# Images


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape or (20, 24, 3), dtype=np.uint8)


def saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def picture_files() -> dict[str, bytes]:
    colour = [Image.fromarray(pixels(seed)) for seed in range(3)]
    grey16 = Image.fromarray(pixels(7, 20, 20).astype(np.uint16) * 257)
    return {
        "a/png.png": saved(colour[0], "PNG"),
        "a/palette.png": saved(colour[1].convert("P"), "PNG", transparency=0),
        "a/sixteen.png": saved(grey16, "PNG"),
        "a/jpeg.jpg": saved(colour[1], "JPEG", exif=exif()),
        "a/webp.webp": saved(colour[2], "WEBP"),
        "b/gif.gif": saved(colour[0].convert("P"), "GIF", save_all=True, append_images=[colour[1].convert("P")]),
        "b/bmp.bmp": saved(colour[1], "BMP"),
        "b/tiff.tif": saved(colour[2], "TIFF", compression="tiff_lzw"),
        "b/jpeg.tif": saved(colour[2], "TIFF", compression="jpeg"),
        "b/deflate.tiff": saved(grey16, "TIFF", compression="tiff_adobe_deflate"),
        "b/ppm.ppm": saved(colour[0], "PPM"),
        "b/pgm.pgm": saved(colour[1].convert("L"), "PPM"),
    }


def exif() -> bytes:
    made = Image.Exif()
    made[0x0112] = 6
    made[0x010E] = "text"
    return made.tobytes()


def readers(data: str) -> Iterator[tuple[str, ...]]:
    """Grey by EDM's cut, and in colour by ADM's."""
    yield ("features", "toy:d=4,side=4", "--sigma", "0.5", "--data", data, "-o", "out.safetensors")
    sit = str(DATA / "containers" / "sit_dump.pt")
    yield ("features", sit, "--config", "num_heads=4", "--layer", "blocks.0", "--views", "1", "--augment", "none",
           "--sigma", "0.5", "--data", data, "-o", "out.safetensors")  # fmt: skip


def pictures() -> Iterator[Case]:
    files = picture_files()
    labels = {"labels": [[name, number % 2] for number, name in enumerate(files)]}
    labelled = {**files, "dataset.json": json.dumps(labels).encode()}
    tree = {f"pics/{name}": content for name, content in files.items()}
    for argv in readers("pics"):
        yield Case("pictures", tree, argv, tuple(tree), pictures=True)
    tree = {f"pics/{name}": content for name, content in labelled.items()}
    yield Case("pictures", tree, next(readers("pics")), ("pics/dataset.json",), pictures=True)
    for argv in readers("pics.zip"):
        yield Case("image-zip", {"pics.zip": zipped(labelled)}, argv, ("pics.zip",), pictures=True)
    rows = [{"image": {"bytes": content, "path": name}, "label": 0} for name, content in files.items()]
    yield Case("parquet", {"a.parquet": parquet(rows)}, next(readers("a.parquet")), ("a.parquet",), pictures=True)


def zipped(files: Files) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def parquet(rows: list[dict[str, Any]], about: Mapping[str, str] | None = None) -> bytes:
    import pyarrow
    import pyarrow.parquet

    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    about = about or {"huggingface": json.dumps({"info": {"features": features}})}
    table = pyarrow.Table.from_pylist(rows)
    out = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table.replace_schema_metadata(about), out, row_group_size=5)
    return bytes(out.getvalue())


def arrays() -> Iterator[Case]:
    images, labels = pixels(1, MANY, 8, 8, 1), np.arange(MANY) % 3
    float32 = np.random.default_rng(0).standard_normal((MANY, 4, 8, 8)).astype(np.float32)
    files = {
        "images.npy": npy(images),
        "images.npz": zipped({"images.npy": npy(images), "labels.npy": npy(labels)}),
        "guided.npz": zipped({"arr_0.npy": npy(pixels(2, MANY, 8, 8, 3)), "arr_1.npy": npy(labels)}),
    }
    for name, content in files.items():
        for argv in readers(name):
            yield Case("arrays", {name: content}, argv, (name,), pictures=True)
    latents = {"mean.npy": npy(float32), "std.npy": npy(np.abs(float32)), "y.npy": npy(labels)}
    sit = str(DATA / "sit" / "train_dump.pt")
    argv = ("features", sit, "--config", "num_heads=3", "--sigma", "0.5", "--augment", "none", "--data", "l.npz",
            "-o", "out.safetensors")  # fmt: skip
    yield Case("latents", {"l.npz": zipped(latents)}, argv, ("l.npz",), pictures=True)


# What diffscope writes itself, and what stands beside it


def own_files(folder: Path) -> Iterator[Case]:
    yield from results(folder)
    yield from shards(folder)
    yield parts(folder)
    yield from tracked(folder)


def command(*argv: object) -> None:
    """One command line that must end well, in this process."""
    from diffscope.cli import run

    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = run([str(word) for word in argv])
    assert code == 0, said.getvalue()


def below(folder: Path, prefix: str, suffix: str = "") -> dict[str, bytes]:
    return {
        prefix + path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob(f"*{suffix}"))
        if path.is_file() and path.name != "lock"
    }


def results(folder: Path) -> Iterator[Case]:
    for name in ("old", "new"):
        command("icr", *TOY, "--data", "synthetic:count=64", "--out", folder / name)
    files = {f"{name}.json": (folder / name / "result.json").read_bytes() for name in ("old", "new")}
    for words in ((), ("--json",), ("--fail-if", "change>2%")):
        yield Case("result", files, ("compare", "old.json", "new.json", *words), tuple(files))


def shards(folder: Path) -> Iterator[Case]:
    for number in (1, 2):
        command("icr", *TOY, "--data", "synthetic:count=64", "--shard", f"{number}/2", "--out", folder / f"p{number}")
    files = {**below(folder / "p1", "p1/"), **below(folder / "p2", "p2/")}
    argv = ("merge", "p1", "p2", "--json")
    parts = tuple(name for name in files if name.endswith(".safetensors"))
    yield Case("shards", files, argv, parts, same_rows=True)
    yield Case("shards", files, argv, ("p1/shard.json", "p2/shard.json"))


def parts(folder: Path) -> Case:
    """A run that ended before its result was written."""
    from diffscope.cache.store import Parts

    argv = ("icr", *TOY, "--data", "synthetic:count=64", "--json")
    with kept_cache(folder / "cache"):
        forget = Parts.clear
        Parts.clear = lambda self: self._release()  # type: ignore[method-assign]
        try:
            command(*argv)
        finally:
            Parts.clear = forget  # type: ignore[method-assign]
    files = below(folder / "cache", "cache/", ".safetensors")
    assert files
    return Case("parts", files, argv, tuple(files), same_rows=True)


def tracked(folder: Path) -> Iterator[Case]:
    """Three snapshots whose records are there already: what is left is to read the records and the overlay."""
    for name in (*SERIES, "images.npz"):
        (folder / name).write_bytes((DATA / "series" / name).read_bytes())
    paths = [DATA / "series" / name for name in SERIES]
    measured = (
        "--data", DATA / "series" / "images.npz", "--layer", "enc.16x16_block0", "--sigma", "0.3", "--views", "2",
        "--augment", "none", "--json",
    )  # fmt: skip
    argv = tuple(str(word) for word in ("track", *paths, *measured))
    with kept_cache(folder / "tracked"):
        command(*argv)
    records = {name: held for name, held in below(folder / "tracked", "cache/", ".json").items() if "/track-" in name}
    assert len(records) == len(SERIES)
    yield Case("records", records, argv, tuple(records), same_rows=True)
    table = (
        b"step,fid,kid,share,share_low,share_high\n25600,31.5,0.1,0,0,0.1\n51200,20,0.2,0.1,0,0.2\n76800,25,,0.5,1,1\n"
    )
    files = {**records, "fid.csv": table}
    yield Case("overlay", files, (*argv, "--overlay", "fid.csv"), ("fid.csv",))
    rows = [{"step": step, "share": step / 1e6, "share_low": 0.0, "share_high": 1.0} for step in (25600, 51200, 76800)]
    files = {**records, "mem.json": json.dumps({"diffscope": "0", "schema": 1, "rows": rows}).encode()}
    yield Case("overlay", files, (*argv, "--overlay", "mem.json", "--column", "share"), ("mem.json",))


@contextmanager
def kept_cache(folder: Path) -> Iterator[None]:
    import os

    before = os.environ.get("DIFFSCOPE_CACHE_DIR")
    os.environ["DIFFSCOPE_CACHE_DIR"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("DIFFSCOPE_CACHE_DIR")
        if before is not None:
            os.environ["DIFFSCOPE_CACHE_DIR"] = before
