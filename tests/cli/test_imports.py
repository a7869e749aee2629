"""Help appears at once: nothing heavy is imported for it. And it says all there is to say."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest
import typer
from commands import diffscope

from diffscope import registry
from diffscope.cli.app import build_app

HEAVY = ("torch", "numpy", "scipy", "matplotlib", "diffusers", "sklearn", "huggingface_hub", "PIL", "safetensors")
COMMANDS = registry.members("diffscope.commands")


def test_help_imports_nothing_heavy() -> None:
    # All of it in one fresh process, and the package itself.
    argvs = [["--help"], ["--version"], ["help"], ["help", "window"], *([name, "--help"] for name in COMMANDS)]
    script = (
        "import sys, contextlib, io, diffscope\n"
        "from diffscope.cli import run\n"
        f"for argv in {argvs!r}:\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "        assert run(argv) == 0 and out.getvalue(), argv\n"
        f"    print(argv, sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [f"{argv} []" for argv in argvs]


def test_the_package_offers_its_functions_without_torch() -> None:
    script = (
        "import sys, diffscope\n"
        "names = set(dir(diffscope))\n"
        "assert {'load', 'sweep', 'icr', 'compare'} <= names\n"
        "assert 'torch' not in sys.modules\n"
        "assert callable(diffscope.compare) and 'torch' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_commands_are_the_files_of_their_folder() -> None:
    assert {"demo", "inspect", "icr", "sweep", "features", "compare"} <= set(COMMANDS)
    listed = diffscope("--help").out
    assert all(f"\n  {name}" in listed for name in COMMANDS)
    # A newcomer's order first.
    assert listed.index("\n  demo") < listed.index("\n  inspect") < listed.index("\n  icr") < listed.index("\n  sweep")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_what_it_answers(name: str) -> None:
    run = registry.load("diffscope.commands")[name].run
    text = inspect.getdoc(run)
    assert text
    assert text.splitlines()[0].endswith((".", "?"))
    (example,) = [line for line in text.splitlines() if line.startswith("Example: ")]
    assert example.startswith(f"Example: diffscope {name}")
    helped = diffscope(name, "-h")
    assert (helped.code, helped.err) == (0, "")
    assert " ".join(example.split()) in " ".join(helped.out.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_options_have_help_and_one_spelling(name: str) -> None:
    command: Any = typer.main.get_command(build_app())
    for parameter in command.commands[name].params:
        assert parameter.help, parameter.name
        for spelling in (*parameter.opts, *parameter.secondary_opts):
            if spelling.startswith("-"):
                assert spelling in ("-o", "-q", "-h") or (spelling[:2] == "--" and "_" not in spelling), spelling
    assert {"-h", "--help"} <= set(diffscope(name, "--help").out.replace(",", " ").split())


def test_what_is_promised_of_options() -> None:
    command: Any = typer.main.get_command(build_app())
    options = {name: {o for p in c.params for o in p.opts} for name, c in command.commands.items()}
    measuring = {
        *("--data", "--layer", "--sigma", "--t", "--num-images", "--augment", "--augment-strength", "--input"),
        *("--views", "--pool", "--normalize", "--class", "--weights", "--family", "--config", "--vae", "--device"),
        *("--precision", "--batch-size", "--workers", "--max-memory", "--seed", "--strict", "--json"),
    }
    for name in ("icr", "sweep"):
        assert options[name] >= measuring | {"--out", "--fail-if", "--quiet", "--overwrite", "--self-check"}
    assert options["features"] >= measuring | {"--output", "-o"}
    assert options["sweep"] >= {"--num-levels"}
    assert options["compare"] >= {"--json", "--fail-if"}
    assert options["inspect"] >= {"--json", "--family", "--config", "--weights"}
    assert options["demo"] >= {"--out", "--family"}
