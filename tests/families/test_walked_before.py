"""Layers of a network that was walked before come from the cache folder: the same, and without torch's compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import DATA, EDM, EDM_CLASSES, SIT_PIXELS
from torch import nn

from diffscope.cache import answers
from diffscope.families import _walked
from diffscope.families._building import build_on_meta
from diffscope.families._walked import KIND, remembered
from diffscope.families.base import InputSpace, Layer

SPACE = InputSpace("pixels", 3, 16, 3, 16, "lanczos")
LAYERS = (Layer("first", (8, 4, 4), 100), Layer("last", (5, 32), 2**40))
LOADED: tuple[tuple[Any, dict[str, str]], ...] = (
    (EDM, {}),
    (EDM_CLASSES, {}),
    (SIT_PIXELS, {"num_heads": "4"}),
    (str(DATA / "lightningdit/0000100.pt"), {}),
)


class Walks:
    """Counts walks."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> tuple[Layer, ...]:
        self.count += 1
        return LAYERS


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test's own, and a process that has walked nothing."""
    monkeypatch.setenv("DIFFSCOPE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(_walked, "_known", {})
    return tmp_path / KIND


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new process."""
    monkeypatch.setattr(_walked, "_known", {})


def test_a_walk_is_made_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walk = Walks()
    for _ in range(2):
        assert remembered(nn.Linear(3, 4), SPACE, None, walk) == LAYERS
        forget(monkeypatch)
        assert remembered(nn.Linear(3, 4), SPACE, None, walk) == LAYERS
    assert walk.count == 1
    (record,) = cache.glob("*.json")
    record.write_bytes(b"{")
    forget(monkeypatch)
    assert remembered(nn.Linear(3, 4), SPACE, None, walk) == LAYERS
    assert walk.count == 2


def test_without_a_cache_each_process_walks(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSCOPE_CACHE_SIZE", "0")
    walk = Walks()
    for _ in range(2):
        remembered(nn.Linear(3, 4), SPACE, None, walk)
        remembered(nn.Linear(3, 4), SPACE, None, walk)
        forget(monkeypatch)
    assert (walk.count, cache.exists()) == (2, False)


def with_attribute(value: object) -> nn.Module:
    network = nn.Linear(3, 4)
    network.told = value  # type: ignore[assignment]
    return network


@pytest.mark.usefixtures("cache")
def test_whatever_differs_is_walked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    walk = Walks()
    networks = [
        *(nn.Linear(3, 4), nn.Linear(4, 3), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1, stride=2)),
        *(with_attribute(2), with_attribute({"heads": (1, 2)}), with_attribute({"heads": (1, 3)})),
        *(with_attribute({"text": torch.zeros(7, 2)}), with_attribute({"text": torch.zeros(8, 2)})),
        *(with_attribute(test_a_walk_is_made_once), with_attribute(forget)),
    ]
    for network in networks:
        remembered(network, SPACE, None, walk)
    assert walk.count == len(networks)
    remembered(networks[0], SPACE, torch.zeros(1), walk)
    remembered(networks[0], InputSpace("pixels", 3, 32, 3, 32, "lanczos"), None, walk)
    monkeypatch.setattr(answers, "_version", lambda name: "another")
    remembered(networks[0], SPACE, None, walk)
    assert walk.count == len(networks) + 3


def test_what_is_built_on_meta_is_filled_with_nothing() -> None:
    def make() -> nn.Sequential:
        first = nn.Linear(3, 4)
        nn.init.trunc_normal_(first.weight)
        return nn.Sequential(first, nn.Embedding(3, 4), nn.Conv2d(3, 3, 3), nn.LayerNorm(4))

    network = build_on_meta(make, "a.pt")
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
    assert nn.init.ones_(torch.empty(2)).tolist() == [1, 1], "outside of it, all is as it was"


def test_a_network_that_is_known_is_loaded_without_torch_s_compiler(tmp_path: Path) -> None:
    """Which some 300 modules of torch are, and sympy: it takes 1.4 s to import."""
    script = (
        "import sys\nfrom diffscope.measure.opening import load\nfrom diffscope.options.settings import Loading\n"
        f"for path, config in {LOADED!r}:\n    print([vars(x) for x in load(path, Loading(config=config))[1].layers])\n"
        "print('torch._dynamo' in sys.modules)\n"
    )

    def lines() -> list[str]:
        environment = {"DIFFSCOPE_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | environment, check=True
        )
        return done.stdout.splitlines()

    *cold, imported = lines()
    *warm, again = lines()
    assert (warm, len(warm)) == (cold, len(LOADED))
    assert (imported, again) == ("True", "False")
