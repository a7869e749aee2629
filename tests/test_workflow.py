"""What stands beside the code agrees with it: the workflow, the issue forms, scripts that they name, the version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import diffscope

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

FIELDS = {"input", "textarea", "dropdown", "checkboxes", "markdown"}
"""What a form may ask with (https://docs.github.com/en/communities, syntax for GitHub's form schema)."""


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(workflow: Any) -> list[Any]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_scripts_of_a_workflow_can_be_run(path: Path) -> None:
    named = [name for step in steps(read(path)) for name in re.findall(r"scripts/\w+", step.get("run", ""))]
    assert named
    assert [name for name in named if not os.access(ROOT / name, os.X_OK)] == []


def test_options_of_the_check_that_the_workflow_gives() -> None:
    """A misspelt one would be pytest's, which would run everything."""
    given = {found for path in WORKFLOWS for found in re.findall(r"scripts/check (--\w+)", path.read_text())}
    assert given == set(re.findall(r"--\w+", (ROOT / "scripts" / "check").read_text().splitlines()[2]))


def test_every_python_that_the_package_names_is_tested_on_every_system() -> None:
    matrix = read(ROOT / ".github" / "workflows" / "check.yml")["jobs"]["tests"]["strategy"]["matrix"]
    named = re.findall(r"Python :: (3\.\d+)", PROJECT)
    assert matrix["python"] == named
    assert re.findall(r'requires-python = ">=(3\.\d+)"', PROJECT) == named[:1]
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert {extra["dependencies"] for extra in matrix["include"]} | set(matrix["dependencies"]) == {"oldest", "newest"}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_asks_for_something(path: Path) -> None:
    form = read(path)
    assert {"name", "description", "body"} <= form.keys()
    asked = [field for field in form["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in form["body"]} <= FIELDS
    assert len({field["id"] for field in asked}) == len(asked)
    assert all(field["attributes"]["label"] for field in asked)
    assert any(field["validations"]["required"] for field in asked)


def test_the_version_stands_once_and_needs_no_torch() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", diffscope.__version__)
    assert re.search(r"^version = \"", PROJECT, re.MULTILINE) is None
    script = "import sys, diffscope; print(diffscope.__version__, 'torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [diffscope.__version__, "False"]


ACTION = read(ROOT / ".github" / "actions" / "diffscope" / "action.yml")


def test_the_action_takes_its_inputs_from_the_environment_alone() -> None:
    named = set()
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"]
        given = step.get("env", {})
        named |= set(re.findall(r"inputs\.([\w-]+)", " ".join(given.values())))
        assert set(re.findall(r"\$([A-Z_]+)", step["run"])) <= {*given, "GITHUB_ACTION_PATH"}
    assert named == set(ACTION["inputs"])
    installed = ROOT / ".github" / "actions" / "diffscope" / "../../.."
    assert (installed / "pyproject.toml").exists()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_the_action_sweeps_and_fails_by_a_condition(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "diffscope"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m diffscope "$@"\n')
    program.chmod(0o755)
    (step,) = (step for step in ACTION["runs"]["steps"] if step["name"] == "Sweep")
    given = {
        "CHECKPOINT": "toy:d=4,side=4",
        "DATA": "synthetic:count=64",
        "FAIL_IF": "icr>2\nicr>=0\n",
        "ARGUMENTS": "--augment none\n--num-levels 4 --quiet",
        "OUT": "sweep $(touch run)",
    }
    assert set(given) == set(step["env"])
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    summary = tmp_path / "summary.md"
    told = {**os.environ, **given, "PATH": path, "PYTHONPATH": str(ROOT), "GITHUB_STEP_SUMMARY": str(summary)}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    ran = subprocess.run(command, cwd=tmp_path, env=told, capture_output=True, text=True, check=False)
    assert ran.returncode == 3, ran.stderr
    assert "icr>=0" in ran.stderr
    assert "icr>2" not in ran.stderr
    assert (tmp_path / given["OUT"] / "result.json").exists()  # a name like any other: nothing was run
    assert not (tmp_path / "run").exists()
    assert summary.read_text("utf-8").startswith("### diffscope sweep: toy:d=4,side=4 on synthetic:count=64")
