# mypy: disable-error-code="attr-defined"
"""An option is declared in one place, and found in four: command line, Python, manual, protocol."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import diffscope

import diffscope as package
from diffscope import api
from diffscope import commands as folder

THROWAWAY = '''
"""diffscope throwaway: a measurement with one option of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from diffscope.measure.study import Study
from diffscope.options.option import STATISTICS, Declared, Option
from diffscope.options.settings import Checkpoint, Data, Loading, Settings


@dataclass(frozen=True)
class Blur(Declared):
    radius: Annotated[float, Option("Radius in pixels.", group=STATISTICS, least=0, protocol=True)] = 1.5


def run(checkpoint: Checkpoint, data: Data, settings: Settings, loading: Loading, blur: Blur) -> Study:
    """What is thrown away?

    Example: diffscope throwaway CKPT --data IMAGES
    """
    from diffscope.measure.opening import open_images, open_job
    from diffscope.studies.sweep.study import SweepStudy

    job = open_job(checkpoint, open_images(settings, data), settings, loading, options=(blur,))
    return SweepStudy(job, "icr")
'''


@pytest.fixture
def throwaway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "throwaway.py").write_text(THROWAWAY)
    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path)])
    yield
    sys.modules.pop("diffscope.commands.throwaway", None)
    package.__dict__.pop("throwaway", None)


@pytest.mark.usefixtures("throwaway")
def test_it_is_a_flag() -> None:
    help_text = " ".join(diffscope("throwaway", "--help").out.split())
    assert "--radius" in help_text
    assert "Radius in pixels." in help_text
    assert "1.5" in help_text
    ran = diffscope("throwaway", "toy:d=4,side=4", "--data", "synthetic:count=64", "--radius", "-1")
    assert (ran.code, ran.err) == (2, "error: --radius -1.0: expected at least 0\n")


@pytest.mark.usefixtures("throwaway")
def test_it_is_a_keyword() -> None:
    parameter = inspect.signature(package.throwaway).parameters["radius"]
    assert (parameter.default, parameter.annotation) == (1.5, "float")
    assert "radius: Radius in pixels." in str(package.throwaway.__doc__)
    with pytest.raises(TypeError, match="did you mean radius"):
        package.throwaway("toy:d=4,side=4", "synthetic:count=64", radios=2)


@pytest.mark.usefixtures("throwaway")
def test_the_protocol_holds_it() -> None:
    model, data = "toy:d=4,side=4", "synthetic:count=64"
    result = package.throwaway(model, data, sigma=0.5, augment="none", radius=2)
    assert result.protocol["radius"] == 2.0
    assert result.protocol["hash"] != package.icr(model, data, sigma=0.5, augment="none").protocol["hash"]


def test_python_has_every_command_and_nothing_else() -> None:
    names = {"icr", "sweep", "track", "neighbors", "probe", "memorization", "features", "compare", "convert"}
    names |= {"inspect", "kinship", "merge", "bench", "card", "models", "load", "wrap", "read_result", "Monitor"}
    assert set(dir(package)) == names
    assert all(callable(getattr(package, name)) for name in names)
    assert "out" in inspect.signature(package.sweep).parameters


def test_what_python_has_no_function_for_is_no_attribute() -> None:
    with pytest.raises(AttributeError):
        _ = package.cache_folder
    with pytest.raises(KeyError):
        api.function("demo")


def test_the_stub_is_what_the_commands_declare() -> None:
    script = Path(__file__).parents[2] / "scripts" / "stubs.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
