"""The client's own variables, in processes that start with them; and that local paths need no client."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from commands import DATA, EDM, Ran, command_line
from fake_hub import TOKEN, FakeHub

OPEN = "from diffscope import hub; hub.open('hf://o/n', 'model').find('model.pkl')"


def run(environment: dict[str, str], *argv: str) -> Ran:
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert TOKEN not in done.stdout + done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


def test_the_variables_of_the_client(fake: FakeHub, environment: dict[str, str], tmp_path: Path) -> None:
    commit = fake.add("o/n", {"model.pkl": Path(EDM).read_bytes()})
    inspect = command_line("inspect", "hf://o/n", "--json")
    ran = run(environment, *inspect)
    assert (ran.code, ran.err) == (0, "")
    assert (tmp_path / "hf" / "hub" / "models--o--n" / "snapshots" / commit / "model.pkl").is_file()
    assert any(TOKEN in asked.headers.get("authorization", "") for asked in fake.asked)
    asked = len(fake.asked)
    offline = environment | {"HF_HUB_OFFLINE": "1"}
    again = run(offline, *inspect)
    assert (again.code, again.out, again.err) == (0, ran.out, "")
    elsewhere = run(offline | {"HF_HUB_CACHE": str(tmp_path / "else")}, sys.executable, "-c", OPEN)
    assert f"HF_HUB_OFFLINE is set and it is not in the cache ({tmp_path / 'else'})" in elsewhere.err
    assert len(fake.asked) == asked


LOCAL = """
import json, sys
from diffscope.checkpoints import read
from diffscope.sources.base import open_source
from diffscope.families.networks.autoencoder import _folder
read(sys.argv[1]).sha256()
open_source(sys.argv[2])
_folder(sys.argv[3])
print(json.dumps([name for name in sys.modules if name in ("huggingface_hub", "pyarrow", "diffusers")]))
"""


def test_local_paths_need_no_client(fake: FakeHub, environment: dict[str, str], pictures: Path) -> None:
    vae = DATA / "sit" / "diffusers-vae"
    ran = run(environment, sys.executable, "-W", "error", "-c", LOCAL, EDM, str(pictures), str(vae))
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out) == []
    assert fake.asked == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_progress_on_a_terminal(fake: FakeHub, environment: dict[str, str]) -> None:
    import fcntl
    import os
    import pty
    import termios

    fake.add("o/n", {"model.pkl": Path(EDM).read_bytes()})
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # a new one has no width
    done = subprocess.run(
        [sys.executable, "-c", OPEN], stdout=subprocess.PIPE, stderr=inner, env=environment, timeout=60, check=False
    )
    shown = os.read(outer, 1 << 16).decode()
    os.close(inner)
    os.close(outer)
    assert (done.returncode, done.stdout) == (0, b"")
    assert "100%" in shown
