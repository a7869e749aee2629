"""Files in EDM's and EDM2's layout, written by the fixture in every protocol that such files come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edm_fixture import EasyDict, original_modules, write_edm_pickle, write_training_state

from diffscope.checkpoints import read
from diffscope.errors import CheckpointError

KWARGS = {"img_resolution": 8, "label_dim": 0, "channel_mult": [1, 2], "use_fp16": False, "resample_filter": (1, 1)}


class UNetBlock(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.skip_scale = np.sqrt(0.5)  # EDM's blocks carry NumPy scalars
        self.skip = None
        self.conv0 = torch.nn.Conv2d(3, width, 3)
        self.affine = torch.nn.Linear(4, width, bias=False)
        self.register_buffer("resample_filter", None)


class SongUNet(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map_label = None
        self.register_buffer("freqs", torch.randn(4).half())
        self.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.enc = torch.nn.ModuleDict({"8x8_block0": UNetBlock(2), "4x4_down": UNetBlock(40)})


class EDMPrecond(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sigma_min, self.sigma_max, self.sigma_data = 0, float("inf"), 0.5
        self.scale = np.arange(4, dtype=np.float32)  # EDM2's latent models carry arrays
        self.register_buffer("u", torch.tensor(1.5))
        self.model = SongUNet()


@pytest.fixture
def network() -> EDMPrecond:
    torch.manual_seed(0)
    return EDMPrecond().eval()


def assert_equal(found: Any, expected: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("easy_dict", [False, True], ids=["dict", "EasyDict"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_snapshot_in_every_protocol(tmp_path: Path, network: EDMPrecond, protocol: int, easy_dict: bool) -> None:
    path = tmp_path / "network-snapshot-000050.pkl"
    proof = tmp_path / "executed"
    source = f"open({str(proof)!r}, 'w').close()"
    write_edm_pickle(path, network, None, KWARGS, protocol, easy_dict=easy_dict, module_src=source)
    checkpoint = read(str(path))
    assert_equal(checkpoint.tensors, network.state_dict())
    assert (checkpoint.class_name, checkpoint.network_class) == ("EDMPrecond", "SongUNet")
    assert checkpoint.arguments == KWARGS
    assert checkpoint.attributes == {
        "sigma_min": 0, "sigma_max": float("inf"), "sigma_data": 0.5, "scale": [0.0, 1.0, 2.0, 3.0],
    }  # fmt: skip
    assert (checkpoint.step, checkpoint.step_unit) == (50_000, "images")
    assert not proof.exists()


def test_class_name_of_a_fork_is_kept(tmp_path: Path, network: EDMPrecond) -> None:
    write_edm_pickle(tmp_path / "a.pkl", network, "ConsistencyPrecond", KWARGS)
    assert read(str(tmp_path / "a.pkl")).class_name == "ConsistencyPrecond"


def test_network_without_tensors(tmp_path: Path) -> None:
    write_edm_pickle(tmp_path / "a.pkl", torch.nn.Module())
    with pytest.raises(CheckpointError, match=r"holds no weights.*found the keys ema, loss_fn"):
        read(str(tmp_path / "a.pkl"))


def test_views_and_shared_storages(tmp_path: Path) -> None:
    class Net(torch.nn.Module):
        pass

    base = torch.arange(24.0)
    net = Net()
    for name, view in {"cut": base[5:9], "turned": base.view(4, 6).t()[1:, ::2], "scalar": base[7]}.items():
        net.register_buffer(name, view)
    net.register_buffer("flags", torch.tensor([True, False]))
    net.register_buffer("nothing", torch.zeros(0, 3))
    write_edm_pickle(tmp_path / "a.pkl", net)
    assert_equal(read(str(tmp_path / "a.pkl")).tensors, net.state_dict())


def test_edm2_file_name_gives_images(tmp_path: Path, network: EDMPrecond) -> None:
    for name in ("edm2-img64-s-1073741-0.075.pkl", "network-snapshot-1073741-0.100.pkl"):
        write_edm_pickle(tmp_path / name, network, easy_dict=True)
        assert read(str(tmp_path / name)).step == 1_073_741_000


def test_training_state_has_no_ema_and_says_so(tmp_path: Path, network: EDMPrecond) -> None:
    path = tmp_path / "training-state-000002.pt"
    write_training_state(path, network, "EDMPrecond", KWARGS)
    for weights in ("ema", "model"):
        checkpoint = read(str(path), weights)
        assert_equal(checkpoint.tensors, network.state_dict())
        assert (checkpoint.container, checkpoint.class_name) == ("training-state", "EDMPrecond")
        assert (checkpoint.weights, checkpoint.step) == ("model", 2000)
        assert checkpoint.weights_reason == "the file has no EMA; 'net' was taken"


def test_edm2_training_state(tmp_path: Path, network: EDMPrecond) -> None:
    state = network.state_dict()
    emas = [{name: tensor * factor for name, tensor in state.items()} for factor in (2, 3)]
    path = tmp_path / "training-state-0000003.pt"
    for ema, factor in (({"stds": [0.05, 0.1], "emas": emas}, 2), (None, 1)):
        with original_modules():
            top = {"state": EasyDict(cur_nimg=7000, total_elapsed_time=1.5), "net": state, "ema": ema}
            torch.save(top, path)
        checkpoint = read(str(path))
        assert_equal(checkpoint.tensors, {name: tensor * factor for name, tensor in state.items()})
        assert (checkpoint.container, checkpoint.step, checkpoint.step_unit) == ("training-state", 7000, "images")
        assert checkpoint.weights == ("ema" if ema else "model")
        assert ("of its 2 averages (0.05, 0.1) the first was taken" in checkpoint.weights_reason) == bool(ema)
    assert "'net' was taken" in checkpoint.weights_reason


def test_snapshot_without_model_weights(tmp_path: Path, network: EDMPrecond) -> None:
    path = tmp_path / "a.pkl"
    write_edm_pickle(path, network)
    with pytest.raises(CheckpointError, match=r"EMA weights alone.*use `weights=ema`"):
        read(str(path), "model")
    write_edm_pickle(path, network, key="net")
    assert read(str(path), "ema").weights == "model"
