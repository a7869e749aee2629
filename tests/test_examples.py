"""The examples of a training loop that watches itself run as a user runs them, and measure what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
LINE = re.compile(r"step (\d+): ICR (0\.\d+), (falling|flat|unclear|turned)")


def measured(script: str, cwd: Path) -> tuple[list[tuple[int, float]], list[str]]:
    """(step, ICR) of the lines that say so, and the other lines; nothing is said beside them."""
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / script), "--steps", "4"],
        cwd=cwd, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    found = [match for match in map(LINE.fullmatch, lines) if match]
    assert list(cwd.iterdir()) == []
    return [(int(match[1]), float(match[2])) for match in found], lines[len(found) :]


def test_a_plain_loop(tmp_path: Path) -> None:
    rows, rest = measured("monitor_plain.py", tmp_path)
    assert [step for step, _ in rows] == [1, 2, 3, 4]
    assert len({icr for _, icr in rows}) == 4  # the network is another one each time
    assert rest == []


@pytest.mark.skipif(not (find_spec("lightning") or find_spec("pytorch_lightning")), reason="Lightning is not installed")
def test_a_lightning_callback(tmp_path: Path) -> None:
    rows, (logged,) = measured("monitor_lightning.py", tmp_path)
    assert [step for step, _ in rows] == [1, 2, 3, 4]
    assert len({icr for _, icr in rows}) == 4
    assert logged == f"logged: {rows[-1][1]:.6f}"


@pytest.mark.skipif(not find_spec("accelerate"), reason="Accelerate is not installed")
@pytest.mark.parametrize("script", ["monitor_accelerate.py", "monitor_trainer.py"])
def test_loops_of_hugging_face(script: str, tmp_path: Path) -> None:
    rows, rest = measured(script, tmp_path)
    assert [step for step, _ in rows] == [1, 2, 3, 4]
    assert len({icr for _, icr in rows}) == 4
    assert rest == []
