"""What results are made into, once for all destinations; a destination of the test's own is told."""

from __future__ import annotations

import contextlib
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import DATA, diffscope, refused
from made_results import row, sweep, track

import diffscope as package
from diffscope import loggers
from diffscope.errors import DiffscopeError, GateHeld, StoreError
from diffscope.loggers import Log, scalars_of
from diffscope.results import Result

TOY = ("toy:d=4,side=4", "--data", "synthetic:count=64", "--augment", "none")

NOTEBOOK = '''
"""A destination that keeps what it is told."""

from diffscope.loggers.base import Destination, is_named

LIBRARY = "json"
TOLD = []


def accepts(spec):
    return is_named(spec, "notebook")


def open(spec, title):
    TOLD.append(("open", title))
    return Notebook(spec)


class Notebook(Destination):
    def __init__(self, spec):
        self.spec = spec

    def scalars(self, step, values):
        print("as some libraries do")
        if self.spec.endswith("full"):
            raise OSError("disk\\n full")
        TOLD.append((step, dict(values)))

    def image(self, step, name, png):
        TOLD.append((step, name, png[:4]))

    def text(self, step, name, text):
        TOLD.append((step, name, text))

    def close(self, failed):
        TOLD.append(("closed", failed))
'''


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    (tmp_path / "notebook.py").write_text(NOTEBOOK)
    monkeypatch.setattr(loggers, "__path__", [*loggers.__path__, str(tmp_path)])
    from diffscope.loggers import notebook  # type: ignore[attr-defined]

    yield notebook.TOLD
    del sys.modules["diffscope.loggers.notebook"], loggers.notebook  # type: ignore[attr-defined]


def test_rows_are_curves_over_the_steps_of_a_run() -> None:
    result = track(count=3)
    points = list(scalars_of(result))
    name = f"diffscope/icr/{result.rows[0].layer}/sigma_{result.rows[0].sigma:.6g}"
    assert [(step, value) for step, key, value in points if key == name] == [
        (row.step, row["icr"]) for row in result.rows
    ]
    logged = {key.split("/")[1] for _, key, _ in points}
    assert {"icr", "icr_low", "icr_high", "trace_s"} <= logged
    assert not {"n", "icr_se", "icr_raw", "replicates", "notes"} & logged
    assert all(math.isfinite(value) for *_, value in points)


def test_a_sweep_stands_at_the_step_of_its_checkpoint_with_its_windows() -> None:
    made = sweep(layers=2)
    at = Result(**{**vars(made), "checkpoint": {**made.checkpoint, "step": 700}})
    points = {key: (step, value) for step, key, value in scalars_of(at)}
    window = made.window[1]
    assert points[f"diffscope/window_sigma/{window.layer}"] == (700, window.sigma)
    assert points[f"diffscope/window_icr/{window.layer}"] == (700, window.icr)
    assert len([key for key in points if key.startswith("diffscope/icr/")]) == len(made.rows)
    assert {step for step, *_ in scalars_of(made)} == {0}  # the checkpoint does not say


def test_levels_that_four_digits_do_not_tell_apart_are_curves_of_their_own() -> None:
    made = sweep()
    near = Result(**{**vars(made), "rows": (row("mid", 0.30001), row("mid", 0.30002)), "sections": {}})
    assert len({key for _, key, _ in scalars_of(near)}) == 2 * 3


def test_hidden_characters_of_a_layer_s_name_are_shown() -> None:
    made = sweep()
    hostile = Result(**{**vars(made), "rows": (row("a\x1b[31mb", 0.3),), "sections": {}})
    assert next(key for _, key, _ in scalars_of(hostile)) == r"diffscope/icr/a\x1b[31mb/sigma_0.3"


def test_nothing_is_told_twice_and_what_changed_is(told: list[Any]) -> None:
    first, second = track(count=2), track(count=3)
    with Log(["notebook"], "diffscope track") as log:
        log.open()
        log.result(first)
        log.result(first)
        count = len(told)
        log.result(second)
    assert told[0] == ("open", "diffscope track")
    assert [one[0] for one in told[1:3]] == [row.step for row in first.rows]
    assert len([one for one in told if one[1] == "diffscope/verdict"]) == 2
    anew = {step for step, values, *_ in told[count:-1] if isinstance(values, dict)}
    assert second.rows[-1].step in anew
    assert told[-1] == ("closed", False)


def test_a_command_tells_of_its_rows_pictures_and_verdict(told: list[Any]) -> None:
    ran = diffscope("sweep", *TOY, "--num-levels", 4, "--log", "notebook", "--json")
    assert ran.code == 0, ran.err
    assert "as some libraries do" in ran.err  # stdout is JSON alone
    (_, values), *rest = told[1:-1]
    assert told[0] == ("open", "diffscope sweep")
    for found in ran.json["rows"]:
        assert values[f"diffscope/icr/{found['layer']}/sigma_{found['sigma']:.6g}"] == found["icr"]
    assert (0, "diffscope/icr", b"\x89PNG") in rest
    (text,) = [one[2] for one in rest if one[1] == "diffscope/verdict"]
    assert ran.json["protocol"]["hash"] in text
    assert "toy:d=4,side=4 on synthetic:count=64" in text
    assert told[-1] == ("closed", False)


def test_from_python_it_is_the_same(told: list[Any]) -> None:
    result = package.sweep(*TOY[:1], TOY[2], augment="none", num_levels=4, log="notebook", progress=False)
    assert len(told[1][1]) == len(list(scalars_of(result)))
    shard = diffscope("sweep", *TOY, "--shard", "1/2", "--out", "part", "--log", "notebook")
    refused(shard, 2, "--shard 1/2: --log needs the whole")


def test_a_gate_that_holds_is_no_failure_and_an_error_is(told: list[Any], tmp_path: Path) -> None:
    assert diffscope("sweep", *TOY, "--num-levels", 4, "--log", "notebook", "--fail-if", "icr>0").code == 3
    assert told[-1] == ("closed", False)
    for error, failed in ((DiffscopeError("anything"), True), (GateHeld(["held"]), False)):
        with contextlib.suppress(DiffscopeError, GateHeld), Log(["notebook"], "title") as log:
            log.open()
            raise error
        assert told[-1] == ("closed", failed)


def test_what_a_library_raises_is_one_line_and_the_result_is_safe(told: list[Any], tmp_path: Path) -> None:
    ran = diffscope("sweep", *TOY, "--num-levels", 4, "--log", "notebook:full", "--out", tmp_path / "out", "--quiet")
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == "error: --log notebook:full: disk full"
    assert (tmp_path / "out" / "result.json").exists()
    assert told[-1] == ("closed", True)
    with pytest.raises(StoreError), Log(["notebook:full"], "title") as log:
        log.result(track(count=2))


def test_a_trial_opens_nothing(told: list[Any]) -> None:
    assert diffscope("sweep", *TOY, "--num-levels", 4, "--log", "notebook", "--dry-run").code == 0
    assert diffscope("sweep", "nosuch.pkl", *TOY[1:], "--log", "notebook").code == 1
    assert told == []


def test_a_library_that_is_missing_is_named_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda library: None)
    ran = diffscope("sweep", "nosuch.pkl", *TOY[1:], "--log", "wandb:mine")
    refused(ran, 1, "--log wandb:mine: needs wandb, which is not installed: pip install wandb")


def test_a_folder_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """wandb makes one of its name where it is run."""
    (tmp_path / "nosuchlibrary").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert loggers.find_spec("nosuchlibrary") is not None
    assert not loggers._is_installed("nosuchlibrary")
    assert loggers._is_installed("json")


@pytest.mark.parametrize("spec", ["csv:runs", "tensorboards:runs", "tensorboard", "tensorboard:", ":runs"])
def test_a_spelling_that_nobody_knows(spec: str) -> None:
    refused(diffscope("sweep", *TOY, "--log", spec), 2, f"--log {spec}", "expected tensorboard:DIR")


def test_beside_a_training_each_snapshot_is_told_once(told: list[Any], tmp_path: Path) -> None:
    for step in (25_600, 51_200):
        shutil.copy(DATA / "series" / f"snapshot-{step:07d}.safetensors", tmp_path)
    at = ("--data", DATA / "series" / "images.npz", "--sigma", 0.3, "--num-images", 64, "--every", 0.1)
    ran = diffscope("track", "--watch", tmp_path, *at, "--log", "notebook", "--fail-if", "step>50000")
    assert ran.code == 3, ran.err
    points = [(step, one) for step, one, *_ in told[1:-1] if isinstance(one, dict)]
    assert [step for step, _ in points] == [25_600, 51_200]
    assert all("diffscope/icr/enc.8x8_block1/sigma_0.3" in values for _, values in points)
    assert told[-1] == ("closed", False)
