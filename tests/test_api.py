"""The package from Python: functions of the declared commands, the numbers of the command line."""

# mypy: disable-error-code="arg-type,union-attr,attr-defined"

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import EDM, FEW, LAYER, diffscope, left_behind

import diffscope as package
from diffscope.errors import CheckpointError, DiffscopeError, ProtocolMismatch, UnknownLayer, UsageError
from diffscope.measure.progress import Listener
from diffscope.options.settings import Loading, Settings
from diffscope.report import terminal
from diffscope.results import Result, read_result
from diffscope.studies.sweep.study import open_sweep

OPTIONS = {"layer": (LAYER,), "augment": "none", "num_images": 144}


@pytest.fixture(scope="module")
def swept(pictures: Path) -> Result:
    result: Result = package.sweep(EDM, str(pictures), sigma=(0.5, 2.0), **OPTIONS)
    return result


def test_sweep_is_that_of_the_command_line(swept: Result, pictures: Path) -> None:
    ran = diffscope("sweep", EDM, "--data", pictures, *FEW, "--sigma", 0.5, "--sigma", 2, "--json")
    mine, theirs = swept.to_json(), ran.json
    assert set(mine) == set(theirs)
    for key in set(mine) - {"timing"}:
        assert mine[key] == theirs[key], key


def test_icr_is_a_row_of_the_sweep(swept: Result, pictures: Path) -> None:
    # A Path is as good as its text.
    result = package.icr(Path(EDM), pictures, sigma=2.0, **OPTIONS)
    assert (result.command, result.window) == ("icr", ())
    assert result.rows == (swept.rows[1],)
    assert result.rows[0]["icr"] == swept.rows[1]["icr"]


def test_compare_takes_results_fresh_or_from_a_file(swept: Result, tmp_path: Path, pictures: Path) -> None:
    command = ("sweep", EDM, "--data", pictures, *FEW, "--sigma", 0.5, "--sigma", 2, "--out", tmp_path)
    assert diffscope(*command).code == 0
    stored = read_result(str(tmp_path / "result.json"))
    assert stored.rows == swept.rows
    assert [record["change"] for record in package.compare(stored, swept)["rows"]] == [0, 0]
    other = package.icr(EDM, str(pictures), sigma=2.0, seed=1, **OPTIONS)
    with pytest.raises(ProtocolMismatch, match="seed: 0 and 1"):
        package.compare(swept, other)


def test_load_gives_a_network_to_walk() -> None:
    checkpoint, denoiser = package.load(EDM)
    assert checkpoint.path == EDM
    x = torch.zeros(2, 3, 16, 16)
    with torch.inference_mode():
        walked = {name: activation.shape for name, activation in denoiser.walk(x, 0.5, None)}
        denoised = denoiser.denoise(x, torch.tensor([0.5]), None)
    assert list(walked) == [layer.name for layer in denoiser.layers]
    assert walked[LAYER] == (2, 32, 8, 8)
    assert denoised.shape == x.shape
    assert not any(parameter.requires_grad for parameter in denoiser.network.parameters())


@pytest.mark.parametrize("shown", [True, False])
def test_a_bar_hears_every_pass_where_it_is_wanted(
    shown: bool, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[float] = []

    @contextmanager
    def bar(total: float, name: str, *, unit: str, shown: bool) -> Iterator[Callable[[float], None]]:
        assert (total, name, unit) == (144 * 2, "icr", "passes")
        yield heard.append if shown else lambda units: None

    monkeypatch.setattr(terminal, "progress", bar)
    package.icr(EDM, str(pictures), sigma=1.0, progress=shown, **OPTIONS)
    assert sum(heard) == (144 * 2 if shown else 0)


def test_a_study_tells_its_listener_of_the_protocol_and_every_pass(pictures: Path) -> None:
    heard: list[float] = []
    agreed: list[Any] = []
    study = open_sweep(EDM, str(pictures), Settings(sigma=(1.0,), **OPTIONS), Loading(), command="icr")

    def agree(protocol: Mapping[str, Any]) -> None:
        assert not heard
        agreed.append(protocol)

    finished = study.run(None, Listener(heard.append, agree=agree))
    finished.forget()
    assert sum(heard) == study.total == 144 * 2
    assert [finished.result.protocol] == agreed


def test_errors_are_of_one_family(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownLayer, match=r"enc\.8x8_blok1"):
        package.icr(EDM, str(pictures), sigma=1.0, layer=("enc.8x8_blok1",))
    with pytest.raises(UsageError, match="above 0"):
        package.icr(EDM, str(pictures), sigma=-1.0)
    with pytest.raises(UsageError, match="weights=best"):
        package.load(EDM, weights="best")
    with pytest.raises(CheckpointError, match="no such file"):
        package.load(str(tmp_path / "gone.pkl"))
    assert issubclass(CheckpointError, DiffscopeError)
    with pytest.raises(AttributeError, match="no attribute 'sweeep'"):
        _ = package.sweeep


def test_nothing_is_left_behind(swept: Result, pictures: Path, tmp_path: Path) -> None:
    package.icr(EDM, str(pictures), sigma=1.0, out=tmp_path, **OPTIONS)
    assert read_result(str(tmp_path / "result.json")).command == "icr"
    assert left_behind(tmp_path) == []
