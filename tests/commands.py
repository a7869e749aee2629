"""Runs the command line inside the test's process, and what the tests of commands and studies share."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffscope.cli import run
from diffscope.measure.job import Job
from diffscope.measure.opening import open_images, open_job
from diffscope.options.option import Declared
from diffscope.options.settings import Loading, Settings

DATA = Path(__file__).parent / "data"
EDM = str(DATA / "containers" / "edm_ddpmpp.pkl")
EDM_CLASSES = str(DATA / "containers" / "edm_ncsnpp_cond.pkl")
SIT_PIXELS = str(DATA / "containers" / "sit_dump.pt")
SIT_LATENTS = str(DATA / "sit" / "train_dump.pt")
LAYER = "enc.8x8_block1"
"""32 features at 8 × 8 positions, the default layer of EDM above."""
FEW = ("--layer", LAYER, "--augment", "none", "--num-images", "144")
"""The least for which ICR has all its estimates is 4 · 32 = 128."""


@dataclass(frozen=True)
class Ran:
    """What a user sees of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def diffscope(*argv: object) -> Ran:
    """One command line, in this process; its streams are no terminals."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = run([str(argument) for argument in argv])
    return Ran(code, out.getvalue(), err.getvalue())


def in_a_process(*argv: object, **environment: str) -> Ran:
    """The same in a process of its own."""
    done = subprocess.run(
        command_line(*argv), capture_output=True, text=True, env=os.environ | environment, timeout=120, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def command_line(*argv: object) -> tuple[str, ...]:
    return (sys.executable, "-m", "diffscope", *map(str, argv))


def prepared(
    checkpoint: str,
    data: object,
    settings: Settings,
    *,
    config: Mapping[str, str] | None = None,
    vae: str | None = None,
    options: tuple[Declared, ...] = (),
) -> Job:
    """Images and checkpoint opened and checked against the settings."""
    loading = Loading(config=config or {}, vae=vae)
    return open_job(checkpoint, open_images(settings, str(data)), settings, loading, options=options)


def refused(ran: Ran, code: int, *words: str) -> None:
    """One line on stderr with all the words, and nothing else."""
    assert (ran.code, ran.out) == (code, ""), ran.err
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
    assert ran.err.endswith("\n")
    assert not [word for word in words if word not in ran.err], ran.err
    assert "bug" not in ran.err
    assert "Traceback" not in ran.err


def left_behind(folder: Path) -> list[str]:
    """What stands in a folder beside results, their figures and their page: parts and records of a run."""
    kept = (".json", ".csv", ".svg", ".png", ".html")
    return [p.name for p in folder.iterdir() if p.is_dir() or p.suffix not in kept]


def without_timing(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key != "timing"}


def write_pictures(folder: Path, count: int, seed: int = 0) -> Path:
    """Smooth random pictures of 20 × 20, in two class folders."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        path = folder / ("cat", "dog")[number % 2] / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        coarse.resize((20, 20), Image.Resampling.BICUBIC).save(path)
    return folder
