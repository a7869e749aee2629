"""What files and users say of networks: taken where it is allowed, else refused in one line that names it, at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from diffscope import families
from diffscope.checkpoints import Checkpoint, read
from diffscope.errors import CheckpointError, UsageError, WeightsMismatch
from diffscope.families._building import build_on_meta
from diffscope.families._facts import Facts, file_arguments
from diffscope.families.base import Denoiser

DATA = Path(__file__).parents[1] / "data"
NAN, INF = float("nan"), float("inf")


def weights(path: str) -> dict[str, Tensor]:
    tensors = load_file(DATA / f"{path}.safetensors")
    return {key.removeprefix("sd/"): value for key, value in tensors.items() if key.startswith("sd/")}


def stored(path: str, tensors: Mapping[str, Tensor], **said: Any) -> Checkpoint:
    return Checkpoint(path, "state-dict", tensors, "model", "the file holds one set", **said)


def edm(tensors: str = "edm/ddpmpp_cond_vp", precond: str = "EDMPrecond", **said: Any) -> Denoiser:
    return families.load(stored("x.pkl", weights(tensors), class_name=precond, arguments=said))


def made(tensors: str, **said: Any) -> Denoiser:
    """As `convert` would have written it."""
    return families.load(stored("x.safetensors", weights(tensors), arguments=said, metadata={"family": "edm"}))


def edm2(**said: Any) -> Denoiser:
    return families.load(stored("x.pt", weights("edm/edm2_cond"), arguments={"channels_per_head": 8, **said}))


def sit(**said: Any) -> Denoiser:
    arguments = {"path_type": "Linear", "num_heads": 4, **said}
    return families.load(stored("SiT.pt", weights("sit/sit_patch4"), training_args=arguments))


def unet(
    config: Mapping[str, Any] | None = None, scheduler: Mapping[str, Any] | None = None, vae: Any = None
) -> Denoiser:
    found = read(str(DATA / "sit" / "diffusers-unet"))
    attributes = {**found.attributes, "scheduler": scheduler, "vae_config": vae}
    return families.load(replace(found, arguments={**found.arguments, **(config or {})}, attributes=attributes))


def test_the_user_comes_before_the_file_and_the_file_before_the_tensors() -> None:
    facts = Facts("x.pt", {"b": 2, "c": 3.0, "d": None}, {"c": "4"}, ("a", "b", "c", "d"))
    assert [facts.integer(key, 1) for key in "abcd"] == [1, 2, 4, 1]
    assert [facts.says(key) for key in "abcd"] == [False, True, True, False]


@pytest.mark.parametrize(
    ("value", "found"),
    [(0.5, 0.5), (1, 1.0), ("inf", INF), (INF, INF)],
)
def test_numbers_that_are_taken(value: object, found: float) -> None:
    assert Facts("x", {"k": value}).number("k", 0.1, 0, INF) == found


@pytest.mark.parametrize("value", [0, -1, NAN, -INF, True, "1", "", [], [1], {}, 10**400, 1j])
def test_numbers_that_are_not(value: object) -> None:
    with pytest.raises(CheckpointError, match=r"^x\.pt: k is .*; expected a number above 0; or inf$"):
        Facts("x.pt", {"k": value}).number("k", 0.1, 0, INF)


@pytest.mark.parametrize("value", [0.5, 0, 9, True, "3", [3], INF, NAN, 10**400, pytest.param(1 << 70_000, id="huge")])
def test_whole_numbers_that_are_not(value: object) -> None:
    with pytest.raises(CheckpointError, match=r"k is .*; expected a whole number from 1 to 8$"):
        Facts("x.pt", {"k": value}).integer("k", 1, high=8)


@pytest.mark.parametrize("value", [3, "3", [], [0], [1, NAN], [1, True], [1, "2"], [1] * 65, {"a": 1}])
def test_lists_that_are_not(value: object) -> None:
    with pytest.raises(CheckpointError, match=r"k is .*; expected a list of 1 to 64 numbers from 1 to 8$"):
        Facts("x.pt", {"k": value}).numbers("k", [1], 1, 8)


def test_an_error_names_what_the_user_may_say() -> None:
    with pytest.raises(CheckpointError, match=r"; say it with `config=k=VALUE`$"):
        Facts("x.pt", {"k": "?"}, known=("k",)).integer("k", 1)
    with pytest.raises(UsageError, match=r"^`config=k=\?`: expected a whole number from 1 to 2$"):
        Facts("x.pt", {}, {"k": "?"}, ("k",)).integer("k", 1, high=2)


def test_what_is_shown_of_a_file_is_short_and_printable() -> None:
    for value in ("\x1b[31m\u202e" * 100, ["x" * 1000] * 1000, {"a": [[[[[1]]]]]}, 1 << 70_000):
        with pytest.raises(CheckpointError) as caught:
            Facts("x.pt", {"k": value}).choice("k", "a", ("a", "b"))
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 200


def test_metadata_that_nest_deeply_are_refused() -> None:
    deep = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"
    with pytest.raises(CheckpointError, match="is not a JSON object"):
        file_arguments(stored("x.safetensors", {}, metadata={"arguments": deep}))


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: edm(sigma_data=0), "sigma_data is 0; expected a number above 0"),
    (lambda: edm(sigma_data=-0.5), "sigma_data is -0.5; expected a number above 0"),
    (lambda: edm(sigma_data=NAN), "sigma_data is nan; expected a number above 0"),
    (lambda: edm(sigma_max=10**400), "sigma_max is 1000.*; expected a number above 0; or inf"),
    (lambda: edm(sigma_min=5, sigma_max=2), "noise levels from 5 to 2 .*expected sigma_min below sigma_max"),
    (lambda: edm(sigma_max=NAN), "sigma_max is nan"),
    (lambda: edm(label_dropout="often"), "label_dropout is 'often'; expected a number from 0 to 1"),
    (lambda: edm(label_dropout=2), "label_dropout is 2; expected a number from 0 to 1"),
    (lambda: edm(label_dim=10**30), "label_dim is 1000.*; expected a whole number from 0"),
    (lambda: edm(img_resolution=10**9), "img_resolution is 1000000000; expected a whole number from 1 to 16384"),
    (lambda: edm(img_resolution=-8), "img_resolution is -8; expected a whole number"),
    (lambda: edm(num_blocks=True), "num_blocks is True; expected a whole number"),
    (lambda: edm(channel_mult=[1, INF]), "channel_mult is .*; expected a list of"),
    (lambda: edm(attn_resolutions=8), "attn_resolutions is 8; expected a list of"),
    (lambda: edm(embedding_type=["a"]), "embedding_type is .*; expected one of positional, fourier"),
    (lambda: edm(model_type=["a"]), "is not one of SongUNet, DhariwalUNet"),
    (lambda: made("edm/ddpmpp_cond_vp", precond={"a": 1}), "is not one of EDMPrecond"),
    (lambda: edm(precond="VPPrecond", M=1), "M is 1; expected a whole number from 2 to"),
    (lambda: edm(precond="VPPrecond", beta_d=1e9), "beta_d is 1000000000.0; expected a number above 0 up to 1000"),
    (lambda: edm(precond="VPPrecond", epsilon_t=0), "epsilon_t is 0; expected a number above 0"),
    (lambda: edm(precond="VEPrecond", sigma_min=0), "sigma_min is 0; expected a number above 0"),
    (lambda: edm("edm/adm_cond_iddpm", "iDDPMPrecond", M=7), "u, of shape .* is no table of noise levels"),
    (lambda: edm("edm/ddpmpp_cond_vp", "iDDPMPrecond", M=10**7), "M is 10000000; expected a whole number from 2"),
    (lambda: edm("edm/ddpmpp_cond_vp", "iDDPMPrecond", C_1="x"), "C_1 is 'x'; expected a number"),
    (lambda: edm2(sigma_data="x"), "sigma_data is 'x'; expected a number above 0"),
    (lambda: edm2(res_balance=2), "res_balance is 2; expected a number from 0 to 1"),
    (lambda: edm2(channels_per_head=0), "channels_per_head is 0; expected a whole number from 1"),
    (lambda: sit(num_heads=10**30), "num_heads is 1000.*; expected a whole number from 1 to 32"),
    (lambda: sit(num_heads="four"), "num_heads is 'four'; expected a whole number"),
    (lambda: sit(num_classes=[9]), r"num_classes is \[9\]; expected a whole number"),
    (lambda: sit(prediction=3), "prediction is 3; expected one of velocity"),
    (lambda: sit(path_type=["Linear"]), "no family knows|are not those|does not say"),
    (lambda: unet(scheduler={"beta_end": "much"}), "beta_end is 'much'; expected a number above 0"),
    (lambda: unet(scheduler={"beta_end": 10**400}), "beta_end is 1000.*; expected a number above 0"),
    (lambda: unet(scheduler={"beta_start": 0.5, "beta_end": 0.2}), "beta_start 0.5 is above beta_end 0.2"),
    (lambda: unet(scheduler={"beta_start": 1e-9}), "noise levels from 0 to .*; expected them above 0"),
    (lambda: unet(scheduler={"beta_end": 0.999}), "noise levels from .* to inf; expected them above 0 and finite"),
    (lambda: unet(scheduler={"num_train_timesteps": 10**9}), "num_train_timesteps is 1000000000; expected a whole"),
    (lambda: unet(scheduler={"_class_name": {"a": 1}, "beta_schedule": 7}), "beta_schedule is 7; expected one of"),
    (lambda: unet(scheduler={"trained_betas": [0.1, NAN]}), "trained_betas is .*; expected a list of"),
    (lambda: unet(vae={"scaling_factor": "x"}), "scaling_factor is 'x'; expected a number above 0"),
    (lambda: unet({"sample_size": 10**9}), "sample_size is 1000000000; expected a whole number from 1 to 16384"),
    (lambda: unet({"in_channels": "three"}), "in_channels is 'three'; expected a whole number"),
    (lambda: unet({"block_out_channels": [10**30, 8]}), r"block_out_channels is .*; expected finite numbers below"),
    (lambda: unet({"norm_eps": INF}), "norm_eps is inf; expected finite numbers"),
    (lambda: unet({"norm_eps": 1 << 70_000}), "norm_eps is an? int too long to show; expected finite numbers"),
    (lambda: unet({"act_fn": "\x1b[31m"}), r"activation function \?\[31m not found"),
    (lambda: unet({"down_block_types": ["DownBlock2D"] * 1000}), "down_block_types is a list of 1000; expected up to"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message[:50] for _, message in REFUSED])
def test_a_fact_that_cannot_be_is_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("sit/sit_patch4", lambda t: t.to(torch.int32), "not floating-point numbers: .* int32"),
        ("sit/sit_patch4", lambda t: t.to(torch.complex64), "not floating-point numbers: .* complex64"),
        ("edm/ddpmpp_cond_vp", lambda t: t.to(torch.int8), "not floating-point numbers: .* int8"),
        ("edm/edm2_cond", lambda t: t.bool(), "not floating-point numbers: .* bool"),
    ],
)
def test_weights_that_are_no_real_numbers(name: str, change: Callable[[Tensor], Tensor], message: str) -> None:
    tensors = {key: change(tensor) for key, tensor in weights(name).items()}
    config = {"num_heads": "4"} if "sit" in name else {"channels_per_head": "8"} if "edm2" in name else {}
    with pytest.raises(WeightsMismatch, match=message):
        families.load(stored("SiT.pt" if "sit" in name else "x.pt", tensors), config=config)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.update({"pos_embed": torch.ones(1, 10**12, 0)}),
        lambda t: t.update({"y_embedder.embedding_table.weight": torch.ones(10**12, 0)}),
        lambda t: t.update({"x_embedder.proj.weight": torch.ones(0, 4, 4, 4)}),
        lambda t: t.update({"blocks.0.attn.q_norm.weight": torch.ones(())}),
        lambda t: t.update({"blocks.0.attn.q_norm.weight": torch.ones(64)}),
        lambda t: t.update({"pos_embed": torch.ones(16)}),
        lambda t: t.update({f"blocks.{'9' * 5000}.attn.proj.bias": torch.ones(32)}),
        lambda t: t.update({f"more.{i}": torch.ones(1) for i in range(10_001)}),
    ],
)
def test_tensors_of_odd_sizes(change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = weights("sit/sit_patch4")
    change(tensors)
    with pytest.raises(CheckpointError) as caught:
        families.load(stored("SiT.pt", tensors), config={"num_heads": "4"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "u",
    [
        torch.ones(3, 3),
        torch.arange(1001),
        torch.ones(1001, dtype=torch.complex64),
        torch.linspace(0, 1, 1001),
        torch.linspace(1, 0.5, 1001),
        torch.full((1001,), NAN),
        torch.ones(1),
    ],
)
def test_tables_of_noise_levels_that_are_none(u: Tensor) -> None:
    tensors = {**weights("edm/adm_cond_iddpm"), "u": u}
    with pytest.raises(CheckpointError, match=r"is no table of noise levels|M is"):
        families.load(stored("x.pkl", tensors, class_name="iDDPMPrecond"))


def test_a_constructor_that_asks_for_more_is_stopped() -> None:
    """Before: built to its end, then compared. The second of ten million layers is one too many for one tensor."""
    made: list[nn.Module] = []

    def make() -> nn.Module:
        made.extend(nn.Linear(2, 2, bias=False) for _ in range(1000))
        return nn.ModuleList(made)

    with pytest.raises(CheckpointError, match="more weights than the file holds"):
        build_on_meta(make, "x.pt", {"weight": torch.ones(2, 2)})
    assert len(made) < 10
    nn.Linear(2, 2)  # the count has ended with it


def test_a_constructor_that_asks_for_less_is_told_apart() -> None:
    with pytest.raises(WeightsMismatch, match="not expected: more"):
        build_on_meta(lambda: nn.Linear(2, 2), "x", {n: torch.ones(2, 2) for n in ("weight", "bias", "more")})


HOSTILE = {
    "edm num_blocks": "edm(num_blocks=10**7)",
    "edm channel_mult": "edm(channel_mult=[1] * 20_000)",
    "edm2": "families.load(stored('x.safetensors', weights('edm/edm2_cond'), metadata={'family': 'edm2', "
    "'arguments': json.dumps({'num_blocks': 10**7, 'channels_per_head': 10**7})}))",
    "iddpm M": "edm('edm/ddpmpp_cond_vp', 'iDDPMPrecond', M=10**7)",
    "diffusers layers_per_block": "unet({'layers_per_block': 10**7})",
    "diffusers dit num_layers": "dit({'num_layers': 10**7})",
    "diffusers dit sample_size": "dit({'sample_size': 16384})",
    "toy": "families.load(read('toy:d=999999999,side=99999'))",
    "toy config": "families.load(read('toy:d=4,side=4'), config={'d': '900000', 'side': '1000'})",
    "mixture": "families.load(read('mixture:classes=9999,rank=99,side=1000'))",
}


def at(tensor: Tensor, floats: int) -> Tensor:
    """The same numbers, so many floats behind where torch would have put them, as a file's container may have it."""
    buffer = torch.empty(tensor.numel() + floats)
    placed = buffer[floats:].view(tensor.shape)
    return placed.copy_(tensor)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: at(t, 2),
        lambda t: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t.T.contiguous().T,
    ],
    ids=["another place", "another order"],
)
def test_features_do_not_go_with_the_weights_place_in_memory(change: Callable[[Tensor], Tensor]) -> None:
    """Kernels choose by alignment and strides, which are the container's: pickle, zip and safetensors differ."""
    tensors = weights("sit/sit_patch4")
    config = {"num_heads": "4"}
    given = {n: change(t) if t.dim() in (2, 4) else t for n, t in tensors.items()}
    assert any(t.data_ptr() % 64 or not t.is_contiguous() for t in given.values())
    first, second = (families.load(stored("SiT.pt", t), config=config) for t in (tensors, given))
    assert all(p.is_contiguous() and p.data_ptr() % 64 == 0 for p in second.network.state_dict().values())
    x = torch.randn(8, 4, first.space.side, first.space.side, generator=torch.Generator().manual_seed(0))
    label = first.label(None, torch.device("cpu"))
    with torch.inference_mode():
        for (name, a), (_, b) in zip(first.walk(x, 0.5, label), second.walk(x, 0.5, label), strict=True):
            assert torch.equal(a, b), name


CHILD = """
import json, resource, signal, sys, time
from test_facts import *
import diffusers

def dit(config):
    found = read(str(DATA / "sit" / "diffusers-dit"))
    return families.load(replace(found, arguments={**found.arguments, **config}))

def stop(*_):
    raise TimeoutError("20 s")

dit({})
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
signal.signal(signal.SIGALRM, stop)
for name, code in json.loads(sys.argv[1]).items():
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    signal.alarm(20)
    try:
        eval(code)
        outcome = "taken"
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    signal.alarm(0)
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps([name, [outcome, growth, time.process_time() - start]]), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Any]:
    """All in one child, of limited memory, that has imported what it needs: what was said, kB grown, seconds."""
    here = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    child = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(HOSTILE)],
        env={**os.environ, "PYTHONPATH": here},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stderr[-500:]
    return dict(json.loads(line) for line in child.stdout.splitlines())


@pytest.mark.parametrize("case", HOSTILE)
def test_small_files_that_ask_for_much_are_refused_at_once(case: str, outcomes: dict[str, Any]) -> None:
    """Within 1 GB and 5 s, as any file is inspected."""
    said, kilobytes, seconds = outcomes[case]
    assert said.startswith(("CheckpointError: ", "UsageError: "))
    assert "\n" not in said
    assert kilobytes < 1 << 20
    assert seconds < 5
