"""The outermost layer: signals, streams that refuse, disks that are full, names that are not what they seem."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import EDM, EDM_CLASSES, Ran, command_line, diffscope
from PIL import Image
from safetensors.numpy import load_file

from diffscope.names import visible

TOY = ("toy:d=8,side=4", "--data", "synthetic:count=200", "--augment", "none", "--sigma", "0.5")
DEMO = Path(__file__).parents[2] / "diffscope" / "demo" / "unet.safetensors"


def shell(words: str, *argv: object, limit: int | None = None, **environment: str) -> Ran:
    """A command line with redirections after it; of a pipe the code is the command's own."""
    script = f'set -o pipefail; "$0" "$@" {words}'
    done = subprocess.run(
        ["bash", "-c", script, *command_line(*argv)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | environment,
        preexec_fn=None if limit is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    return Ran(done.returncode, done.stdout, done.stderr)


# --- signals


def torch_that(folder: Path, source: str) -> dict[str, str]:
    """An environment in which `import torch` runs this, in the middle of a command."""
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text("import atexit, os, signal, sys, time\n" + source)
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.parametrize(
    ("number", "code", "word"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "ended by SIGTERM")]
)
@pytest.mark.parametrize(
    "source",
    [
        "os.kill(os.getpid(), signal.{})\ntime.sleep(1)",
        # A destructor, which swallows what is raised in it, and an import that takes it for a missing library.
        "class A:\n    def __del__(self):\n        os.kill(os.getpid(), signal.{})\n        time.sleep(1)\nA()",
        "try:\n    os.kill(os.getpid(), signal.{})\n    time.sleep(1)\nexcept BaseException:\n    os.abort()",
    ],
)
def test_a_signal_ends_the_command_wherever_it_is(
    source: str, number: str, code: int, word: str, tmp_path: Path
) -> None:
    source = source.replace("A()", "A()").format(number)
    ran = shell("", "inspect", EDM, **torch_that(tmp_path, source))
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1), ran.err
    assert ran.err.startswith(word)


def test_what_is_done_is_not_interrupted(tmp_path: Path) -> None:
    source = (
        "atexit.register(lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(0.1)))\nraise ImportError('none')"
    )
    ran = shell("", "inspect", EDM, **torch_that(tmp_path, source))
    assert ran.code == 1
    assert "KeyboardInterrupt" not in ran.err
    assert ran.err.count("\n") == 1


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    """As after nohup, or in the background of a script."""
    source = "os.kill(os.getpid(), signal.SIGINT)\ntime.sleep(0.1)\nraise ImportError('went on')"
    environment = torch_that(tmp_path, source)
    script = 'trap \'\' INT; exec "$0" "$@"'
    done = subprocess.run(
        ["bash", "-c", script, *command_line("inspect", EDM)],
        env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, "went on" in done.stderr) == (1, True)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_can_be_interrupted_at_any_moment(workers: int, tmp_path: Path) -> None:
    """What it leaves does no harm: the same command goes on and gives what another run gives."""
    command = ("icr", EDM, "--data", "synthetic:count=300", "--augment", "none", "--sigma", 0.5, "--workers", workers)
    codes = set()
    for delay in (0.3, 0.8, 1.3, 1.8, 2.4, 3.2):
        process = subprocess.Popen(
            command_line(*command, "--out", tmp_path / "out"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode in (0, 130), err
        assert "Traceback" not in err
        assert process.returncode == 0 or err.count("\n") <= 2, err  # and what was said before
        codes.add(process.returncode)
    assert 130 in codes
    assert diffscope(*command, "--out", tmp_path / "out").code == 0
    assert diffscope(*command, "--out", tmp_path / "whole").code == 0
    rows = [json.loads((tmp_path / name / "result.json").read_text())["rows"] for name in ("out", "whole")]
    assert rows[0] == rows[1]
    assert not list((tmp_path / "out").glob(".*"))


# --- streams


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (">/dev/full", 1, "error: stdout: cannot be written: No space left on device; "),
        (">&-", 1, "error: stdout: cannot be written: Bad file descriptor; "),
        ("<&- >&-", 1, "error: stdout: cannot be written: Bad file descriptor; "),
        ("2>/dev/full", 0, ""),
        ("2>&-", 0, ""),
        (">&- 2>&-", 1, ""),
        ("| true", 0, ""),
        ("2>&1 >/dev/null | true", 0, ""),
    ],
)
@pytest.mark.parametrize("command", [("--help",), ("inspect", "toy:d=4,side=4")])
def test_streams_that_refuse(command: tuple[str, ...], words: str, code: int, said: str) -> None:
    ran = shell(words, *command)
    assert ran.code == code
    assert ran.err.startswith(said) if said else ran.err == ""
    assert ran.err.count("\n") == bool(said)


def test_exit_codes_need_no_stderr() -> None:
    assert shell("2>&-", "nosuch").code == 2
    assert shell("2>/dev/full >/dev/null", "icr", *TOY, "--fail-if", "icr>0").code == 3
    assert shell("| head -1", "icr", *TOY, "--fail-if", "icr>0").code == 3


def test_a_result_that_cannot_be_printed_is_in_its_folder(tmp_path: Path) -> None:
    ran = shell(">/dev/full", "icr", *TOY, "--json", "--out", tmp_path)
    assert ran.code == 1
    assert "error: stdout: cannot be written" in ran.err
    assert json.loads((tmp_path / "result.json").read_text())["rows"]


# --- full disks


@pytest.mark.parametrize(
    ("command", "limit"),
    [
        (("convert", EDM, "{}/out.safetensors"), 100_000),
        (("features", *TOY, "-o", "{}/out.safetensors"), 10_000),
        (("icr", *TOY, "--out", "{}"), 500),
        (("icr", *TOY, "--out", "{}"), 20_000),
    ],
)
def test_a_disk_that_is_full(command: tuple[str, ...], limit: int, tmp_path: Path) -> None:
    words = [word.format(tmp_path) for word in command]
    ran = shell("", *words, limit=limit)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: ")
    assert (ran.err.count("\n"), "File too large" in ran.err, "bug" in ran.err) == (1, True, False), ran.err
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(("parts-", ".out.safetensors."))]
    assert shell("", *words).code == 0


# --- names


NAMES = ["\x1b[31mred\x1b[0m.png", "=cmd|calc.png", "gnp.\u202eexe.png", "[red]x[/].png", "\x9b2J.png"]
SEEN = ["\\x1b[31mred\\x1b[0m.png", "=cmd|calc.png", "gnp.\\u202eexe.png", "[red]x[/].png", "\\x9b2J.png"]


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    folder = tmp_path / "images\x1b[1m"
    for number in range(200):
        name = NAMES[number] if number < len(NAMES) else f"{number:03d}.png"
        path = folder / ("=a", "\x1b]0;b\x07")[number % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colours = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((16, 16)).save(path)
    return folder


def harmless(text: str) -> bool:
    return visible(text, spared="\t\n\r") == text


def test_names_of_files_are_shown_and_stored_escaped(odd: Path, tmp_path: Path) -> None:
    out = tmp_path / "out\x1b[2J"
    command = ("neighbors", EDM_CLASSES, "--data", odd, "--sigma", 0.5, "--views", 2, "--k", 2, "--pool", "mean")
    queries = [word for number, name in enumerate(NAMES) for word in ("--query", name)]
    for ran in (diffscope(*command, *queries), diffscope(*command, *queries, "--out", out)):
        assert ran.code == 0, ran.err
        assert harmless(ran.out)
        assert harmless(ran.err)
    shown = diffscope(*command, *queries).out
    assert all(name in shown for name in SEEN)
    text = (out / "result.json").read_text("utf-8")
    assert harmless(text)
    assert NAMES[2] in json.dumps(json.loads(text), ensure_ascii=False)


def test_names_of_unreadable_files_and_of_what_is_not_there(odd: Path, tmp_path: Path) -> None:
    (odd / "=a" / NAMES[0]).write_bytes(b"no picture")
    ran = diffscope("icr", EDM, "--data", odd, "--augment", "none", "--sigma", 0.5, "--json")
    assert (ran.code, ran.err.count("\n")) == (0, 1)
    assert SEEN[0] in ran.err
    assert harmless(ran.err + ran.out)
    assert ran.json["data"]["skipped"][0]["file"].endswith(NAMES[0])
    for ran in (diffscope("inspect", tmp_path / NAMES[2]), diffscope("inspect", EDM, "--family", NAMES[0])):
        assert ran.code in (1, 2)
        assert harmless(ran.err)


def test_cells_that_a_spreadsheet_would_compute(tmp_path: Path) -> None:
    from diffscope.report.spreadsheet import write_csv
    from diffscope.studies.track.overlay import read_columns

    rows = tuple({"step": step, "=fid": -0.5 * step, "checkpoint": "=HYPERLINK(1)\x1b"} for step in (1, 2))
    write_csv(rows, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        head, first, _ = csv.reader(file)
    assert (head, first) == (["checkpoint", "step", "'=fid"], ["'=HYPERLINK(1)\\x1b", "1", "-0.5"])
    assert read_columns(str(tmp_path / "a.csv")) == {"=fid": ((1, -0.5), (2, -1.0))}


# --- files that are written


@pytest.mark.parametrize("name", ["x.pt", "x.npz", "x", "x.safetensors.bak"])
def test_a_name_says_what_is_in_the_file(name: str, tmp_path: Path) -> None:
    for command in (("convert", tmp_path / "gone", tmp_path / name), ("features", *TOY, "-o", tmp_path / name)):
        ran = diffscope(*command)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert ".safetensors" in ran.err
    assert os.listdir(tmp_path) == []


def test_files_of_others_are_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out.safetensors"
    features = ("features", *TOY, "-o", path)
    for command, other in (
        (("convert", EDM, path), ("convert", EDM_CLASSES, path)),
        (features, (*features, "--seed", 1)),
    ):
        path.write_text("mine")
        ran = diffscope(*command)
        assert (ran.code, path.read_text()) == (1, "mine")
        assert "--overwrite" in ran.err
        assert diffscope(*command, "--overwrite").code == 0
        assert diffscope(*command).code == 0
        before = path.read_bytes()
        ran = diffscope(*other)
        assert (ran.code, path.read_bytes() == before, "--overwrite" in ran.err) == (1, True, True)
        assert diffscope(*other, "--overwrite").code == 0
        assert path.read_bytes() != before


def test_files_have_the_rights_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        assert diffscope("convert", EDM, tmp_path / "a.safetensors").code == 0
        assert diffscope("features", *TOY, "-o", tmp_path / "b.safetensors").code == 0
        assert diffscope("icr", *TOY, "--out", tmp_path).code == 0
    finally:
        os.umask(before)
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o640}
    assert len(files) > 3


def test_pieces_that_the_disk_has_damaged_are_computed_again(tmp_path: Path) -> None:
    """Of features in work, with the file cut short and with a bit flipped."""
    whole, path = tmp_path / "whole.safetensors", tmp_path / "f.safetensors"
    command = ("features", *TOY, "-o")
    assert diffscope(*command, whole).code == 0
    script = (
        "import sys\nfrom diffscope.studies.features.export import _Filling\nfrom diffscope.cli import run\n"
        "taken = _Filling.take\n"
        "def take(self, number, *rest):\n    taken(self, number, *rest)\n"
        "    if number == 3:\n        raise KeyboardInterrupt\n"
        "_Filling.take = take\nsys.exit(run(sys.argv[1:]))\n"
    )

    def flipped(data: bytes) -> bytes:
        """One bit in each of the last images, of which some were finished."""
        return bytes(byte ^ (8 if place > len(data) // 2 and place % 32 == 0 else 0) for place, byte in enumerate(data))

    for damage in (lambda data: data[:-100], flipped):
        stopped = subprocess.run(
            [sys.executable, "-c", script, *map(str, command), path], capture_output=True, check=False
        )
        assert stopped.returncode == 130
        (part,) = tmp_path.glob(".f.safetensors.*.part")
        part.write_bytes(damage(part.read_bytes()))
        ran = diffscope(*command, path)
        assert ran.code == 0
        assert sum("damaged" in line for line in ran.err.splitlines()) == 1, ran.err
        found, expected = load_file(path), load_file(whole)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
        assert list(tmp_path.glob(".*")) == []
        path.unlink()


# --- gates, devices, lists


def test_a_gate_names_the_level_that_was_measured() -> None:
    command = ("sweep", *TOY[:-2], "--sigma", "0.1,0.3,1,3", "--json")
    found = diffscope(*command).json
    lowest = min(found["rows"], key=lambda row: row["icr"])
    ran = diffscope(*command, "--fail-if", "icr>0.01")
    told = f"--fail-if icr>0.01: icr of linear at sigma {lowest['sigma']:.4g} is {lowest['icr']:.4g}\n"
    assert (ran.code, ran.err) == (3, told)
    ran = diffscope(*command, "--fail-if", "sigma>0.01")
    assert (ran.code, ran.err) == (3, f"--fail-if sigma>0.01: sigma of linear is {found['window'][0]['sigma']:.4g}\n")


@pytest.mark.parametrize(
    ("command", "words"),
    [("icr", "any row"), ("sweep", "layer's window"), ("track", "last checkpoint"), ("probe", "best accuracy")],
)
def test_help_says_which_rows_a_gate_looks_at(command: str, words: str) -> None:
    assert words in " ".join(diffscope(command, "--help").out.split())


@pytest.mark.parametrize(
    ("name", "said"),
    [("gpu", "did you mean cuda?"), ("CUDA", "did you mean cuda?"), ("metal", "did you mean mps?"), ("meta", "cpu"),
     ("cuda:x", "cuda:x"), ("nosuch", "no such kind of device"), ("cuda:99", "here there is cpu")],
)  # fmt: skip
def test_devices_that_are_not_here(name: str, said: str) -> None:
    ran = diffscope("icr", *TOY, "--device", name)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith(f"error: --device {name}: ")
    assert said in ran.err


def test_lists_by_commas_are_the_option_given_again() -> None:
    toy = TOY[:-2]
    twice = (
        "--sigma",
        0.1,
        "--sigma",
        0.3,
        "--layer",
        "linear",
        "--layer",
        "wiener",
        "--fail-if",
        "icr>9",
        "--fail-if",
        "n<0",
    )
    once = ("--sigma", "0.1,0.3", "--layer", "linear, wiener", "--fail-if", "icr>9,n<0")
    first, second = (diffscope("icr", *toy, *options, "--num-images", 150, "--json") for options in (twice, once))
    assert (first.code, second.code) == (0, 0), second.err
    assert first.json["rows"] == second.json["rows"]
    assert len(first.json["rows"]) == 4
    ran = diffscope("icr", *toy, "--sigma", "0.1,much")
    assert (ran.code, ran.err) == (2, "error: --sigma 0.1,much: expected a number, or several such as 0.1,0.3\n")
