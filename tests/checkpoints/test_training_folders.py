"""What training frameworks leave: Lightning's files, accelerate's folders, shards of processes, diffusers' runs."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import torch
from commands import diffscope, refused
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffscope.checkpoints import is_checkpoint_folder, read
from diffscope.errors import CheckpointError, UnsafePickle
from diffscope.measure.snapshots import find_snapshots

DATA = Path(__file__).parents[1] / "data"
FSDP = DATA / "containers" / "fsdp"
"""Written by two processes with torch 2.13: "rows" divided by rows, "columns" by columns, "whole" by the first."""
ONE = {"a.w": torch.ones(2), "b": torch.arange(3)}
TWO = {"a.w": torch.full((2,), 2.0), "b": torch.arange(3) * 2}


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def lightning(path: Path, **more: Any) -> str:
    torch.save({"epoch": 1, "global_step": 40, "pytorch-lightning_version": "2.6.0", "loops": {}, **more}, path)
    return str(path)


def both(path: str, prefix: str = "net.") -> tuple[float, float]:
    """The first number of the average and of the model."""
    found = [read(path, weights) for weights in ("ema", "model")]
    assert [checkpoint.weights for checkpoint in found] == ["ema", "model"]
    values = [c.tensors.get("a.w", c.tensors.get(f"{prefix}a.w")) for c in found]
    return tuple(float(value[0]) for value in values if value is not None)  # type: ignore[return-value]


LIT_EMA = {
    "model_ema.aw": TWO["a.w"], "model_ema.decay": torch.tensor(0.9), "model_ema.num_updates": torch.tensor(3),
}  # fmt: skip
PLACES: dict[str, dict[str, Any]] = {
    "an attribute": {"state_dict": {**below("net.", ONE), **below("net_ema.", TWO)}},
    "torch's AveragedModel": {
        "state_dict": {**below("net.", ONE), **below("ema.module.", TWO), "ema.n_averaged": torch.tensor(3)}
    },
    "ema-pytorch": {
        "state_dict": {**below("net.", ONE), **below("ema.online_model.", ONE), **below("ema.ema_model.", TWO)}
    },
    "compiled": {"state_dict": {**below("net._orig_mod.", ONE), **below("net_ema.", TWO)}},
    "latent diffusion, without dots and buffers": {"state_dict": {**below("net.", ONE), **LIT_EMA}},
    "WeightAveraging": {
        "state_dict": below("net.", TWO), "current_model_state": below("net.", ONE),
        "averaging_state": {"n_averaged": torch.tensor(3)},
    },
    "a callback": {"state_dict": below("net.", ONE), "callbacks": {"EMACallback": {"shadow": below("net.", TWO)}}},
    "a callback, of the network": {"state_dict": below("net.", ONE), "callbacks": {"EMA": {"ema_weights": TWO}}},
    "a key": {"state_dict": ONE, "ema_state_dict": TWO},
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_where_lightning_s_users_keep_the_average(place: str, tmp_path: Path) -> None:
    path = lightning(tmp_path / "last.ckpt", **PLACES[place])
    assert both(path) == (2, 1)
    checkpoint = read(path)
    assert (checkpoint.container, checkpoint.step) == ("lightning", 40)
    assert "the EMA is the default" in checkpoint.weights_reason


def test_buffers_that_the_average_lacks_are_the_model_s(tmp_path: Path) -> None:
    place = PLACES["latent diffusion, without dots and buffers"]
    checkpoint = read(lightning(tmp_path / "last.ckpt", **place))
    assert checkpoint.tensors["b"].tolist() == [0, 1, 2]
    assert "the average lacks b, which are the model's own" in checkpoint.weights_reason
    keyed = read(lightning(tmp_path / "keyed.ckpt", state_dict=ONE, ema={"a.w": TWO["a.w"]}))
    assert (keyed.tensors["a.w"].tolist(), keyed.tensors["b"].tolist()) == ([2, 2], [0, 1, 2])


def test_a_file_without_an_average_has_none(tmp_path: Path) -> None:
    """A layer that is called like one, and a callback that is not."""
    state = {**below("net.", ONE), "ema_head.w": torch.ones(1)}
    path = lightning(tmp_path / "a.ckpt", state_dict=state, callbacks={"ModelCheckpoint": {"best": below("net.", TWO)}})
    checkpoint = read(path)
    assert (checkpoint.weights, checkpoint.tensors["net.a.w"].tolist()) == ("model", [1, 1])
    assert checkpoint.weights_reason == "the file has no EMA; 'state_dict' was taken"


@pytest.mark.parametrize(
    "more", [{"ema": {"decay": 0.9, "shadow_params": [TWO["a.w"]]}}, {"optimizer_states": [{"ema": [TWO["a.w"]]}]}]
)
def test_an_average_without_names_is_not_passed_over(more: dict[str, Any], tmp_path: Path) -> None:
    path = lightning(tmp_path / "a.ckpt", state_dict=ONE, **more)
    with pytest.raises(CheckpointError, match=r"a list without names.*`weights=model`"):
        read(path)
    assert read(path, "model").tensors["a.w"].tolist() == [1, 1]


def test_what_lightning_says_beside_weights(tmp_path: Path) -> None:
    said = {"data": PurePosixPath("/images/train"), "width": 3}
    assert read(lightning(tmp_path / "a.ckpt", state_dict=ONE, hyper_parameters=said)).step == 40


def test_several_averages_are_named(tmp_path: Path) -> None:
    torch.save({"model": ONE, "model_ema1": TWO, "model_ema2": ONE}, tmp_path / "a.pth")
    checkpoint = read(str(tmp_path / "a.pth"))
    assert checkpoint.tensors["a.w"].tolist() == [2, 2]
    assert "of its 2 averages (model_ema1, model_ema2) the first was taken" in checkpoint.weights_reason


@pytest.mark.parametrize("prefix", ["ema_model.", "ema_model.model.", "ema_model.module."])
def test_an_average_alone(prefix: str, tmp_path: Path) -> None:
    save_file(below(prefix, TWO), tmp_path / "a.safetensors")
    checkpoint = read(str(tmp_path / "a.safetensors"))
    assert checkpoint.weights == "ema"
    assert sorted(name.removeprefix("model.") for name in checkpoint.tensors) == ["a.w", "b"]
    with pytest.raises(CheckpointError, match="holds EMA weights alone"):
        read(str(tmp_path / "a.safetensors"), "model")


# accelerate


def accelerate(folder: Path, tensors: dict[str, Tensor] = ONE, **files: dict[str, Tensor]) -> Path:
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors")
    for name in ("optimizer.bin", "random_states_0.pkl"):  # which are never opened
        (folder / name).write_bytes(b"\x80\x02cos\nsystem\n.")
    for name, values in files.items():
        save_file(values, folder / f"{name}.safetensors")
    return folder


def test_a_folder_of_accelerate(tmp_path: Path) -> None:
    folder = accelerate(tmp_path / "checkpoint-500")
    checkpoint = read(str(folder))
    assert (checkpoint.container, checkpoint.step, checkpoint.weights) == ("accelerate", 500, "model")
    assert checkpoint.tensors["a.w"].tolist() == [1, 1]
    (folder / "custom_checkpoint_0.pkl").write_bytes(b"anything")
    assert "custom_checkpoint_0.pkl, which was not read" in read(str(folder)).weights_reason
    assert read(str(accelerate(tmp_path / "a", {**below("m.", ONE), **below("ema_m.", TWO)}))).weights == "ema"


def test_shards_of_accelerate(tmp_path: Path) -> None:
    folder = accelerate(tmp_path / "checkpoint_3")
    (folder / "model.safetensors").unlink()
    names = {name: f"model-0000{k}-of-00002.safetensors" for k, name in enumerate(ONE, start=1)}
    for name, file in names.items():
        save_file({name: ONE[name]}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    checkpoint = read(str(folder))
    assert {name: tensor.tolist() for name, tensor in checkpoint.tensors.items()} == {"a.w": [1, 1], "b": [0, 1, 2]}
    assert checkpoint.step is None
    (folder / names["b"]).unlink()
    with pytest.raises(CheckpointError, match=r"'model-00002-of-00002\.safetensors', which .* names, is missing"):
        read(str(folder))


def test_a_folder_of_accelerate_as_bin(tmp_path: Path) -> None:
    folder = accelerate(tmp_path / "a")
    (folder / "model.safetensors").unlink()
    torch.save(TWO, folder / "pytorch_model.bin")
    assert read(str(folder)).tensors["a.w"].tolist() == [2, 2]


def test_several_networks_of_accelerate(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"several networks \(model\.safetensors, model_1\.safetensors\)"):
        read(str(accelerate(tmp_path / "a", model_1=TWO)))


def test_snapshots_beside_each_other_are_no_folder_of_accelerate(tmp_path: Path) -> None:
    for name in ("model", "model_1000", "model_2000"):
        save_file(ONE, tmp_path / f"{name}.safetensors")
    assert not is_checkpoint_folder(str(tmp_path))
    with pytest.raises(CheckpointError, match="a folder of 3 checkpoints"):
        read(str(tmp_path))


# Shards of several processes


def test_shards_of_two_processes(tmp_path: Path) -> None:
    checkpoint = read(str(FSDP))
    assert checkpoint.container == "distributed"
    assert {name.removeprefix("model."): tensor.tolist() for name, tensor in checkpoint.tensors.items()} == {
        "rows": torch.arange(15.0).view(5, 3).tolist(), "columns": torch.arange(8.0).view(2, 4).tolist(), "whole": 7,
    }  # fmt: skip
    assert checkpoint.tensors["model.columns"].dtype == torch.bfloat16
    shutil.copytree(FSDP, tmp_path / "checkpoint-7" / "pytorch_model_fsdp_0")
    nested = read(str(tmp_path / "checkpoint-7"))
    assert (list(nested.tensors), nested.step) == (list(checkpoint.tensors), 7)
    assert nested.sha256() == checkpoint.sha256()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return shutil.copytree(FSDP, tmp_path / "fsdp")


def test_damaged_shards(shards: Path) -> None:
    file = shards / "__1_0.distcp"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match=r"__1_0\.distcp is shorter than \.metadata says"):
        read(str(shards))
    file.write_bytes(b"\0" * len(whole))
    with pytest.raises(CheckpointError, match="accelerate merge-weights"):
        dict(read(str(shards)).tensors)
    file.unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        read(str(shards))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"__1_0.distcp", b"../../secret", "a shard of the name '../../secret'"),
        (b"TensorStorageMetadata", b"TensorStorageMetabata", "asks for .*TensorStorageMetabata"),
        (b"float32", b"float99", "asks for 'torch.float99'"),
        (b"MetadataIndex", b"StorageMeta\n\n", "asks for"),
        (b"relative_path", b"relative_pith", "a shard of the name 'None'"),
    ],
)
def test_metadata_that_is_not_understood(old: bytes, new: bytes, message: str, shards: Path) -> None:
    raw = (shards / ".metadata").read_bytes()
    assert old in raw
    (shards / ".metadata").write_bytes(raw.replace(old, new))
    with pytest.raises(CheckpointError, match=message) as caught:
        read(str(shards))
    assert "\n" not in str(caught.value)


def test_metadata_is_never_run(shards: Path) -> None:
    (shards / ".metadata").write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    with pytest.raises(CheckpointError):
        read(str(shards))
    (shards / ".metadata").write_bytes(b"\x80\x02cposix\nsystem\n.")
    with pytest.raises(UnsafePickle, match=r"posix\.system"):
        read(str(shards))
    (shards / ".metadata").write_bytes(pickle.dumps({"state_dict_metadata": {}}))
    with pytest.raises(CheckpointError, match=r"no Metadata where one was expected.*accelerate merge-weights"):
        read(str(shards))


def test_a_network_in_shards_from_the_command_line(tmp_path: Path, pictures: Path) -> None:
    """As accelerate writes it under FSDP, here by one process: the same number as from the file that it came from."""
    from torch.distributed.checkpoint import save

    tensors = read(str(DATA / "lucidrains" / "model-1.pt")).tensors
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is one process
        save({"model": dict(tensors)}, checkpoint_id=tmp_path / "step_5" / "pytorch_model_fsdp_0", no_dist=True)
    options = ("--config", "image_size=8", "--sigma", 0.5, "--data", pictures, "--num-images", 64, "--workers", 0)
    rows = [
        diffscope("icr", path, *options, "--json").json["rows"][0]["icr"]
        for path in (tmp_path / "step_5", DATA / "lucidrains" / "model-1.pt")
    ]
    assert rows[0] == rows[1]


# Runs of diffusers' training scripts


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RUN/checkpoint-STEP with unet and unet_ema, and RUN itself as the finished pipeline."""
    folder = tmp_path_factory.mktemp("run")
    source = DATA / "sit" / "diffusers-unet"
    for step, factor in ((100, 1.0), (1000, 1.2)):
        for name, more in (("unet", 1.5), ("unet_ema", 1.0)):
            place = shutil.copytree(source, folder / f"checkpoint-{step}" / name)
            file = place / "diffusion_pytorch_model.safetensors"
            tensors = load_file(file)
            tensors["conv_in.weight"] = tensors["conv_in.weight"] * factor * more
            save_file(tensors, file)
            (place / "scheduler_config.json").unlink(missing_ok=True)
        (folder / f"checkpoint-{step}" / "optimizer.bin").write_bytes(b"never opened")
    shutil.copytree(folder / "checkpoint-1000" / "unet_ema", folder / "unet")
    (folder / "scheduler").mkdir()
    said = {"_class_name": "DDPMScheduler", "num_train_timesteps": 500, "beta_schedule": "linear"}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(said))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline"}))
    return folder


def test_snapshots_of_a_run(run: Path) -> None:
    found, left_out = find_snapshots([str(run)])
    assert ([Path(s.path).name for s in found], left_out) == (["checkpoint-100", "checkpoint-1000"], [])
    assert [s.step for s in found] == [100, 1000]


def test_the_average_is_preferred_and_said(run: Path) -> None:
    ema, model = (read(str(run / "checkpoint-100"), weights) for weights in ("ema", "model"))
    assert torch.equal(ema.tensors["conv_in.weight"] * 1.5, model.tensors["conv_in.weight"])
    assert ema.weights_reason.startswith("unet_ema beside unet, the EMA being the default")
    assert model.weights_reason.startswith("unet beside unet_ema, as asked for")
    assert (ema.weights, model.weights) == ("ema", "model")


def test_track_over_a_run(run: Path, pictures: Path) -> None:
    options = ("--data", pictures, "--num-images", 32, "--views", 4, "--workers", 0, "--sigma", 0.5, "--json")
    results = [diffscope("track", run, *options, "--weights", weights) for weights in ("ema", "model")]
    assert [ran.code for ran in results] == [0, 0], results[0].err
    assert "assumed" not in results[0].err  # the scheduler is the run's
    rows = [ran.json["rows"] for ran in results]
    assert [row["step"] for row in rows[0]] == [100, 1000]
    assert rows[0][0]["icr"] != rows[1][0]["icr"]


def test_a_run_without_its_averages(run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "checkpoint-5"
    shutil.copytree(run / "checkpoint-100" / "unet_ema", alone / "unet_ema")
    assert read(str(alone)).weights == "ema"
    refused(diffscope("inspect", alone, "--weights", "model"), 1, "a folder without a network")
