"""Live networks: the features of the native family, and nothing left on the owner's module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import EDM, write_pictures
from torch import Tensor, nn

import diffscope
from diffscope.errors import DiffscopeError, NetworkError, UnknownLayer, UsageError
from diffscope.families import live_record


class Small(nn.Module):
    """A plain network as somebody else writes it: shared and in-place activations, dropout, a tuple, a table."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6))
        self.act = nn.ReLU(inplace=True)
        self.pair = Pair()
        self.drop = nn.Dropout(0.5)
        self.down = nn.Conv2d(6, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4, 5)
        self.calls = 0
        self.kept: Tensor | None = None

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        assert sigma.shape == x.shape[:1]
        self.calls += 1
        self.kept = sigma
        h, _ = self.pair(self.act(self.body(x)))
        h = self.down(self.drop(h))
        h = self.act(h)
        return self.head(h.mean((2, 3))) * sigma[:, None]  # type: ignore[no-any-return]


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2, x


@pytest.fixture
def small() -> Small:
    torch.manual_seed(0)
    return Small().train()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_pictures(tmp_path_factory.mktemp("pictures"), 64))


def untouched(module: nn.Module) -> None:
    for part in module.modules():
        assert not part._forward_hooks
        assert not part._forward_pre_hooks


def test_layers_are_found_by_one_dry_run(small: Small) -> None:
    before = {name: value.clone() for name, value in small.state_dict().items()}
    flags = [part.training for part in small.modules()]
    small.drop.eval()
    flags[list(small.modules()).index(small.drop)] = False
    model = diffscope.wrap(small, side=8, channels=3)
    assert small.calls == 1
    # Left out: the container, the activation that is called twice, and what returns a pair.
    assert [(layer.name, layer.shape) for layer in model.layers] == [
        ("body.0", (6, 8, 8)), ("body.1", (6, 8, 8)), ("drop", (6, 8, 8)), ("down", (4, 4, 4)), ("head", (5,)),
    ]  # fmt: skip
    assert model.layer("mid").name == "down"  # of those with positions the one of lowest resolution
    assert [part.training for part in small.modules()] == flags
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    assert all(p.requires_grad for p in small.parameters())
    untouched(small)


def test_activations_are_those_that_were_returned(small: Small) -> None:
    """The activation works in place on `body.1` and `down`; what the walk gives is from before that."""
    model = diffscope.wrap(small, side=8, channels=3)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = dict(model.walk(x, 0.5, None))
    small.eval()
    with torch.no_grad():
        torch.testing.assert_close(found["body.1"], small.body(x))
        torch.testing.assert_close(found["head"], small.head(small.act(found["down"].clone()).mean((2, 3))))
    assert float(found["body.1"].min()) < 0


@pytest.mark.parametrize("until", [None, ["down"], ["body.0", "down"]])
def test_a_walk_stops_and_leaves_no_trace(small: Small, until: Sequence[str] | None) -> None:
    model = diffscope.wrap(small, side=8, channels=3)
    ran: list[str] = []
    handle = small.head.register_forward_hook(lambda *_: ran.append("head"))
    with torch.inference_mode():
        names = [name for name, _ in model.walk(torch.zeros(1, 3, 8, 8), 0.5, None, until)]
    handle.remove()
    assert names == (until or [layer.name for layer in model.layers])
    assert ran == ([] if until else ["head"])
    assert all(part.training for part in small.modules())
    untouched(small)


def test_what_the_network_keeps_can_still_be_trained_with(small: Small) -> None:
    model = diffscope.wrap(small, side=8, channels=3)
    with torch.inference_mode():
        list(model.walk(torch.zeros(1, 3, 8, 8), 0.5, None))
    assert small.kept is not None
    assert not small.kept.is_inference()
    small(torch.randn(4, 3, 8, 8), torch.ones(4)).sum().backward()


def test_an_error_inside_leaves_no_trace(small: Small) -> None:
    model = diffscope.wrap(small, side=8, channels=3)
    with pytest.raises(RuntimeError, match="channels"):
        list(model.walk(torch.zeros(1, 2, 8, 8), 0.5, None))
    assert all(part.training for part in small.modules())
    untouched(small)


def test_one_of_our_own_networks_has_its_family_s_features(pictures: str) -> None:
    _, native = diffscope.load(EDM)
    noise, names = native.noise, [layer.name for layer in native.layers]

    def as_its_owner_calls_it(x: Tensor, sigma: Tensor) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        level = float(sigma[0])
        label = native.label(None, x.device)
        return (x * noise.input_scale(level), torch.tensor([noise.to_native(level)])), {"label": label}

    model = diffscope.wrap(
        native.network, side=native.space.side, channels=native.space.channels, sigma_to_input=as_its_owner_calls_it,
        default_layer=native.default_layer,
    )  # fmt: skip
    found = {layer.name: layer.shape for layer in model.layers}
    common = [name for name in names if name in found]
    assert native.default_layer in common
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, walked = dict(native.walk(x, 0.5, native.label(None, x.device))), dict(model.walk(x, 0.5, None))
    assert all(torch.equal(expected[name], walked[name]) for name in common)
    options: dict[str, Any] = {"augment": "none", "layer": native.default_layer, "views": 4, "seed": 1}
    mine = diffscope.icr(model, pictures, sigma=0.5, **options)
    theirs = diffscope.icr(EDM, pictures, sigma=0.5, **options)
    # Measured, our own network has its channels last in memory; a wrapped one is left as it is. Float32 rounding.
    assert mine.rows[0]["icr"] == pytest.approx(theirs.rows[0]["icr"], rel=1e-5)
    assert mine.checkpoint["sha256"] == live_record(model).sha256()
    assert (mine.checkpoint["path"], mine.checkpoint["family"]) == (f"live:{model.network_class}", "wrapped")


def test_the_record_follows_the_weights(small: Small, pictures: str) -> None:
    model = diffscope.wrap(small, side=16, channels=3, family="mine", layers=["down"])
    result = diffscope.sweep(model, pictures, num_levels=2, views=2)
    assert [row.layer for row in result.rows] == ["down"] * 2
    assert result.checkpoint["family"] == "mine"
    with torch.no_grad():
        small.head.bias.add_(1)
    again = diffscope.sweep(model, pictures, num_levels=2, views=2)
    assert again.checkpoint["sha256"] != result.checkpoint["sha256"]
    assert [row["icr"] for row in again.rows] == [row["icr"] for row in result.rows]  # `down` stands before the head
    assert all(part.training for part in small.modules())


def test_a_model_in_half_precision_stays_so() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)).bfloat16()
    model = diffscope.wrap(module, side=4, channels=3, sigma_to_input=lambda x, sigma: ((x.bfloat16(),), {}))
    assert len(live_record(model).sha256()) == 64
    with pytest.raises(UsageError, match="in bfloat16; choose that precision"):
        model.network.set_precision(torch.float32)
    model.network.set_precision(torch.bfloat16)


def test_denoising_must_be_told(small: Small) -> None:
    x = torch.zeros(2, 3, 8, 8)
    with pytest.raises(UsageError, match="posterior_mean"):
        diffscope.wrap(small, side=8, channels=3).denoise(x, torch.ones(1), None)
    told = diffscope.wrap(small, side=8, channels=3, posterior_mean=lambda x, sigma: x / (1 + sigma[0]))
    assert torch.equal(told.denoise(x, torch.ones(1), None), x / 2)


def test_names_say_what_functions_say() -> None:
    """One network, called as `module(x, t)` with a step, by names and by functions."""
    module = nn.Sequential(Steps(), nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 3, 1))
    named = diffscope.wrap(Called(module), side=4, channels=3, noise="ddpm:linear", predicts="eps")
    noise = named.noise
    assert (noise.discrete, named.constructor["predicts"], named.constructor["call"]) == (True, "eps", "x,t")

    def by_hand(x: Tensor, sigma: Tensor) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        level = float(sigma[0])
        return (x * noise.input_scale(level), torch.full((len(x),), int(noise.to_native(level)))), {}

    functions = diffscope.wrap(Called(module), side=4, channels=3, sigma_to_input=by_hand)
    assert [layer.name for layer in named.layers] == [layer.name for layer in functions.layers]
    x, sigma = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), noise.nearest(0.5)
    pairs = zip(named.walk(x, sigma, None), functions.walk(x, sigma, None), strict=True)
    assert all(torch.equal(mine[1], theirs[1]) for mine, theirs in pairs)
    args, _ = by_hand(x, torch.full((2,), sigma))
    with torch.no_grad():
        expected = x - sigma * module(args)
        torch.testing.assert_close(named.denoise(x, torch.tensor([sigma]), None), expected)
    assert named.denoises
    assert not diffscope.wrap(Called(module), side=4, channels=3, noise="ddpm:linear").denoises


class Steps(nn.Module):
    """Adds a row of a table; it must be given whole steps."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(1000, 3)

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        return pair[0] + self.table(pair[1])[:, :, None, None]  # type: ignore[no-any-return]


class Called(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.module((x, t))  # type: ignore[no-any-return]


def test_what_is_refused(small: Small, pictures: str, tmp_path: Path) -> None:
    def refused(error: type[DiffscopeError], message: str, module: nn.Module = small, **said: Any) -> None:
        with pytest.raises(error, match=message) as caught:
            diffscope.wrap(module, **{"side": 8, "channels": 3, **said})
        assert "\n" not in str(caught.value)

    refused(UnknownLayer, "no submodule 'doun'", layers=["doun"])
    refused(UnknownLayer, "no layer 'act' among", default_layer="act")
    refused(UsageError, "'act' is not called exactly once", layers=["act"])
    refused(UsageError, "'pair' is not called exactly once or does not return", layers=["pair"])
    refused(UsageError, "cannot be run on zeros .*sigma_to_input", channels=4)
    refused(UsageError, "no submodule of Identity", module=nn.Identity(), sigma_to_input=lambda x, s: ((x,), {}))
    refused(UsageError, "`predicts=` goes with `noise=`", predicts="eps")
    refused(UsageError, "`call=` goes with `noise=`", call="x,t")
    refused(UsageError, "expected one or the other", noise="edm", posterior_mean=lambda x, sigma: x)
    refused(NetworkError, "run on x = zeros .* and t = 1, called as x: TypeError.*`call=`", noise="edm", call="x")
    refused(NetworkError, r"Small returns \[2, 5\] for x of \[2, 3, 8, 8\]", noise="edm", predicts="x0")
    model = diffscope.wrap(small, side=16, channels=3)
    with pytest.raises(UsageError, match="family, config, image_size and network are for files"):
        diffscope.icr(model, pictures, sigma=1.0, family="edm")
    with pytest.raises(UsageError, match="run where it is, on cpu"):
        model.to(torch.device("meta"))
