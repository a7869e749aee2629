"""The table of rooms, held against the imports of every module (architecture.md).

Rooms stand in rows; a room imports what the table allows it, that is rooms of lower rows. Every import counts, at the
top of a file and inside functions. Whatever is checked is also checked to catch a made-up offence.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import diffscope
from diffscope import registry

ROOT = Path(diffscope.__file__).parent

ROWS: dict[int, set[str]] = {
    0: {"errors", "formats", "locks", "textfile"},
    1: {"registry", "seeding", "numerics", "protocol", "cache", "hub", "ranks", "allocation", "names"},
    2: {"results", "options"},
    3: {"checkpoints", "sources", "moments", "distributions"},
    4: {"families", "views", "metrics"},
    5: {"extraction", "sampling"},
    6: {"encoders", "report"},
    7: {"measure", "loggers"},
    8: {"studies"},
    9: {"commands", "callbacks"},
    10: {"api", "cli"},
}
OUTSIDE = {"__init__", "__main__", "demo"}
"""The package's version and lazy face, `python -m`, and the folder of the demo's data: no rooms."""


def rows(last: int) -> set[str]:
    return {room for row, rooms in ROWS.items() if row <= last for room in rooms}


# The table's last column. It leaves out rows 0–1 for row 5, which they stand under as under all others.
MAY: dict[str, set[str]] = {
    "errors": set(),
    "formats": set(),
    "locks": set(),
    "textfile": set(),
    **{room: rows(0) for room in ROWS[1]},
    "results": rows(1),
    "options": rows(1),
    "checkpoints": rows(1),
    "sources": rows(1),
    "moments": rows(1),
    "distributions": rows(1),
    "families": rows(1) | {"checkpoints"},
    "views": rows(1) | {"options", "sources.base"},
    "metrics": rows(1) | {"moments"},
    "extraction": rows(1) | {"families.base", "views", "sources.base"},
    "sampling": rows(1) | {"families.base"},
    "encoders": rows(5),
    "report": rows(2),
    "measure": rows(5) | {"encoders"},
    "loggers": rows(2) | {"report"},
    "studies": rows(5) | {"encoders", "measure", "loggers"},
    "commands": rows(8) | {"demo"},
    "callbacks": rows(1) | {"studies"},
    "api": rows(9) | {"api"},
    "cli": rows(10) | {"demo"},
}

OPEN_FOLDERS = ("families", "sources", "metrics", "encoders", "loggers", "report.views", "commands")

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
"""Name below `diffscope` → file."""


@dataclass(frozen=True)
class Import:
    name: str
    """Dotted; as deep as it is a module of ours."""
    line: int


def imports(source: str, modules: set[str]) -> Iterator[Import]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what they mean"
            assert node.module is not None
            for alias in node.names:
                deeper = f"{node.module}.{alias.name}"
                found = deeper if deeper.removeprefix("diffscope.") in modules else node.module
                yield Import(found, node.lineno)


def ours(source: str) -> Iterator[Import]:
    """What a source imports of ours, below `diffscope`; the package itself (its version) is left out."""
    for found in imports(source, set(MODULES)):
        if found.name.startswith("diffscope."):
            yield Import(found.name.removeprefix("diffscope."), found.line)


def room_offences(module: str, source: str) -> list[str]:
    """Imports that the table does not allow."""
    room = module.split(".")[0]
    offences = []
    for found in ours(source):
        target = found.name.split(".")[0]
        allowed = target == room or any(found.name == a or found.name.startswith(f"{a}.") for a in MAY[room])
        if not allowed:
            offences.append(f"{module}:{found.line} imports {found.name}")
    return offences


def study_of(module: str) -> str | None:
    """The question that a module of studies/ belongs to."""
    return module.split(".")[1] if module.startswith("studies.") else None


CONTAINS: dict[str, set[str]] = {"track": {"sweep"}, "probe": {"sweep", "features"}, "kinship": {"features"}}
"""A question → those that it contains: a run is tracked at a level that a sweep chose."""


def study_offences(module: str, source: str) -> list[str]:
    """Imports of one question by another that does not contain it."""
    study = study_of(module)
    if study is None:
        return []
    allowed = {None, study} | CONTAINS.get(study, set())
    return [
        f"{module}:{found.line} imports {found.name}" for found in ours(source) if study_of(found.name) not in allowed
    ]


def sibling_offences(module: str, source: str) -> list[str]:
    """Imports of one member of an open folder, or of what only it may use, by another."""
    folder = next((f for f in OPEN_FOLDERS if module.startswith(f"{f}.")), None)
    if folder is None:
        return []
    members = {f"{folder}.{name}" for name in registry.members(f"diffscope.{folder}")}
    return [
        f"{module}:{found.line} imports its sibling {found.name}"
        for found in ours(source)
        if found.name in members - {module}
    ]


def private_offences(module: str, source: str) -> list[str]:
    """Modules and names with a leading underscore that belong to another room."""
    room = module.split(".")[0]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("diffscope."):
            target = str(node.module).removeprefix("diffscope.")
            found |= {f"{target}.{alias.name}" for alias in node.names if target.split(".")[0] != room}
    private = {name for name in found if any(part.startswith("_") for part in name.split("."))}
    return sorted(f"{module} imports {name}" for name in private)


def third_parties(source: str) -> set[str]:
    return {found.name.split(".")[0] for found in imports(source, set(MODULES))}


FORBIDDEN = ("pickle.load", "torch.load(", "trust_remote_code", "allow_pickle=True", "weights_only=False")


def unsafe(source: str) -> list[str]:
    """Ways to run what a file says: none of them, in code or in words."""
    loaders = third_parties(source) & {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"}
    called = {
        node.func.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec")
    }
    return [*(mark for mark in FORBIDDEN if mark in source), *sorted(loaders), *sorted(called)]


@pytest.fixture(params=sorted(MODULES))
def module(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def text(module: str) -> str:
    return MODULES[module].read_text(encoding="utf-8")


def test_every_module_stands_in_a_room() -> None:
    rooms = {name.split(".")[0] for name in MODULES}
    assert rooms - OUTSIDE == rows(10)


def test_the_table_only_looks_down() -> None:
    row_of = {room: row for row, rooms in ROWS.items() for room in rooms}
    for room, allowed in MAY.items():
        for target in allowed - {room} - OUTSIDE:
            lower = row_of[target.split(".")[0]] < row_of[room]
            assert lower or (room, target) == ("cli", "api"), (room, target)


def test_imports_follow_the_table(module: str) -> None:
    if module.split(".")[0] in OUTSIDE:
        targets = {found.name for found in ours(text(module))}
        assert targets <= {"__init__": {"api", "commands.base"}, "__main__": {"cli"}}.get(module, set())
        return
    assert room_offences(module, text(module)) == []


def test_no_room_but_commands_and_cli_imports_the_outside() -> None:
    """The demo is a command's; `diffscope.api` is what the package's lazy face leads to."""
    for name in MODULES:
        if name.split(".")[0] not in {*OUTSIDE, "cli", "commands"}:
            assert not {"demo", "__main__"} & {found.name for found in ours(text(name))}, name


def test_members_of_an_open_folder_import_no_sibling(module: str) -> None:
    assert sibling_offences(module, text(module)) == []


def test_what_is_private_stays_in_its_room(module: str) -> None:
    assert private_offences(module, text(module)) == []


def test_a_private_import_is_caught() -> None:
    assert len(private_offences("api", "from diffscope.families._wrapped import wrap")) == 1
    assert len(private_offences("api", "from diffscope.families.base import _hidden")) == 1
    assert private_offences("families.new", "from diffscope.families._facts import Facts") == []


def test_a_question_imports_no_other_but_what_it_contains(module: str) -> None:
    assert study_offences(module, text(module)) == []


def test_a_question_that_imports_another_is_caught() -> None:
    assert len(study_offences("studies.sweep.new", "from diffscope.studies.track.onset import judge")) == 1


def test_shared_networks_know_no_family(module: str) -> None:
    if module.startswith("families.networks"):
        targets = {found.name for found in ours(text(module))}
        assert all(t in ("errors", "hub") or t.startswith("families.networks") for t in targets), targets


def test_nothing_runs_what_a_file_says(module: str) -> None:
    assert unsafe(text(module)) == []


def test_one_place_runs_torchscript_and_asks_first() -> None:
    """`FILE.pt --allow-torchscript`, the one exception: whoever takes such a file asks for the permission first."""
    ways = ("torch.jit", "torch.package", "torch.export.load", "torch.ops.load_library")
    users = {name for name in MODULES if any(way in text(name) for way in ways)}
    assert users == {"encoders.torchscript"}
    assert "require_permission(" in text("encoders.torchscript")
    assert "require_permission(" in text("studies.memorization.options")
    assert "add `allow_torchscript=`" in text("options.beside")


def test_one_place_imports_a_user_s_code_and_only_the_command_line_names_it() -> None:
    """`--network FILE.py:NAME`, the other exception. Names that the others import by stand in their own lines."""
    ways = ("import_module", "exec_module", "__import__", "runpy", "spec_from_file_location")
    users = {name for name in MODULES if any(way in text(name) for way in ways)}
    assert users == {"families._own_code", "registry", "hub.failures"}
    callers = {name for name in MODULES if "families._own_code" in {found.name for found in ours(text(name))}}
    assert callers == {"families._own", "families._wrapped"}  # of which the second only spells errors
    given = {name for name in MODULES if "OwnNetwork(" in text(name)}
    assert given == {"measure.opening"}  # from options, never from what a file says


@pytest.mark.parametrize(
    ("library", "place"),
    [
        ("rich", {"report.terminal", "report.layout", "report.manual"}),
        ("matplotlib", {"report.figures.canvas", "report.figures.style"}),
        ("huggingface_hub", {"hub.reference", "hub.card"}),
        ("diffusers", {"families.networks.library"}),
    ],
)
def test_a_library_has_one_place(library: str, place: set[str]) -> None:
    users = {name for name in MODULES if library in third_parties(text(name))}
    if library == "diffusers":
        assert all(name.startswith("families.") for name in users)
    assert users == place


def test_typer_is_known_to_the_command_line_alone() -> None:
    users = {name for name in MODULES if {"typer", "click"} & third_parties(text(name))}
    assert users
    assert {name.split(".")[0] for name in users} == {"cli"}


@pytest.mark.parametrize(
    "start",
    [
        *("results", "registry", "cache", "cache.store", "cache.inspected", "protocol"),
        *("report.levels", "report.views.track"),
    ],
)
def test_no_torch_behind_what_only_reads(start: str) -> None:
    """Through all that they import: a result is shown without waiting for torch."""
    seen, pending = set(), [start]
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        assert "torch" not in third_parties(text(name)), name
        pending += [found.name for found in ours(text(name))]


def test_statistics_know_no_networks_and_networks_no_statistics() -> None:
    """The two wings meet in studies alone."""
    for room, other in (
        ("moments", "families"),
        ("metrics", "families"),
        ("families", "moments"),
        ("views", "moments"),
    ):
        assert other not in MAY[room]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("metrics.new", "from diffscope.families.base import Denoiser"),
        ("metrics.new", "def f():\n    import diffscope.extraction"),
        ("sources.new", "from diffscope import families"),
        ("views", "from diffscope.families.base import Layer"),
        ("views", "from diffscope.sources.folder import FolderSource"),
        ("extraction", "from diffscope.families.edm import EDMDenoiser"),
        ("extraction", "from diffscope.moments import Moments"),
        ("measure.new", "from diffscope.studies.sweep.sweep import sweep"),
        ("studies.new", "from diffscope.report import terminal"),
        ("studies.new", "from diffscope import api"),
        ("commands.new", "from diffscope.cli.session import carry_out"),
        ("report.new", "from diffscope.studies.sweep.sweep import sweep"),
        ("report.new", "from diffscope.moments import Moments"),
        ("api", "from diffscope.cli import main"),
        ("results", "from diffscope.checkpoints import Checkpoint"),
        ("errors", "from diffscope import registry"),
        ("seeding", "from diffscope import numerics"),
        ("checkpoints.new", "if True:\n    from diffscope.families import load"),
    ],
)
def test_an_import_against_the_table_is_caught(module: str, source: str) -> None:
    assert len(room_offences(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("metrics.new", "from diffscope.moments import Moments\nfrom diffscope import numerics"),
        ("families.new", "from diffscope.families.networks.walk import Walk\nfrom diffscope.checkpoints import read"),
        ("views", "from diffscope.sources.base import Target"),
        ("extraction", "from diffscope.families.base import Layer\nfrom diffscope.seeding import Stream"),
        ("commands.new", "from diffscope import __version__\nfrom diffscope.options.settings import Settings"),
    ],
)
def test_an_import_by_the_table_is_not(module: str, source: str) -> None:
    assert room_offences(module, source) == []
    assert sibling_offences(module, source) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("metrics.new", "from diffscope.metrics.icr import estimate"),
        ("metrics.new", "from diffscope.metrics import icr"),
        ("families.new", "from diffscope.families.edm import EDMPrecond"),
        ("commands.new", "import diffscope.commands.sweep"),
    ],
)
def test_a_sibling_is_caught(module: str, source: str) -> None:
    assert len(sibling_offences(module, source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import Unpickler",
        "import torch\ntorch.load('x')",
        "torch.load('x', weights_only=False)",
        "model.from_pretrained(x, trust_remote_code=True)",
        "exec(source)",
        "np.load(f, allow_pickle=True)",
    ],
)
def test_an_unsafe_line_is_caught(source: str) -> None:
    assert unsafe(source)


def test_relative_imports_are_caught() -> None:
    with pytest.raises(AssertionError, match="relative"):
        list(ours("from . import base"))
