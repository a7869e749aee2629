"""The one door to code: what is imported, from where, and that whatever it does ends in a line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from diffscope.errors import DiffscopeError, NetworkError, UsageError
from diffscope.families._own_code import built, named

GOOD = "from torch import nn\n\nclass Net(nn.Module):\n    def __init__(self, width=2):\n        super().__init__()\n"
GOOD += "        self.layer = nn.Linear(width, 1)\n"


@pytest.fixture(autouse=True)
def own_path() -> Iterator[None]:
    """Folders that stay on the search path are forgotten again."""
    before = list(sys.path)
    yield
    sys.path[:] = before


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def network_of(text: str, **arguments: object) -> tuple[nn.Module, dict[str, str]]:
    return built(named(text), arguments)


def test_a_class_and_a_function_of_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "torch.py", GOOD + "\ndef small(width):\n    print('made')\n    return Net(width)\n")
    network, sources = network_of(f"{path}:Net")
    assert (type(network).__name__, network.training) == ("Net", False)
    assert list(sources) == ["torch.py"]
    wide, again = network_of(f"{path}:small", width=5)
    assert wide.layer.in_features == 5  # type: ignore[union-attr]
    assert again == sources
    assert sys.modules["torch"].__file__ != path


def test_nothing_of_it_reaches_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network_of(f"{write(tmp_path / 'loud.py', GOOD + 'print(1)')}:Net")
    assert capsys.readouterr().out == ""


def test_random_weights_are_the_same_each_time(tmp_path: Path) -> None:
    path = write(tmp_path / "again.py", GOOD)
    first, second = (network_of(f"{path}:Net")[0].layer.weight for _ in range(2))  # type: ignore[union-attr]
    assert first.equal(second)  # type: ignore[arg-type,operator,union-attr]


def test_siblings_and_packages_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "flat" / "parts_of_it.py", GOOD)
    flat = write(tmp_path / "flat" / "whole.py", "from parts_of_it import Net\n")
    _, sources = network_of(f"{flat}:Net")
    assert set(sources) == {"whole.py", "parts_of_it"}  # of the file named, and of that with the class
    inside = write(tmp_path / "lab" / "inner.py", "from .blocks import Net\n")
    write(tmp_path / "lab" / "blocks.py", GOOD)
    write(tmp_path / "lab" / "__init__.py", "")
    with pytest.raises(NetworkError, match=r"say package\.module:NAME, in the folder above the package"):
        network_of(f"{inside}:Net")
    monkeypatch.chdir(tmp_path)
    _, sources = network_of("lab.inner:Net")
    assert set(sources) == {"lab.inner", "lab.blocks"}
    assert sys.path[-1] == str(tmp_path)


def test_files_of_two_folders_have_neighbours_of_their_own(tmp_path: Path) -> None:
    for number, folder in enumerate(("old", "new"), 1):
        write(tmp_path / folder / "neighbour_of_it.py", f"{GOOD}\nWIDTH = {number}\n")
        write(tmp_path / folder / "it.py", "import neighbour_of_it as n\n\ndef make():\n    return n.Net(n.WIDTH)\n")
    widths, hashes = [], []
    for folder in ("old", "new", "old"):
        network, sources = network_of(f"{tmp_path / folder / 'it.py'}:make")
        widths.append(network.layer.in_features)  # type: ignore[union-attr]
        hashes.append(sources["neighbour_of_it"])
    assert widths == [1, 2, 1]
    assert (hashes[0] == hashes[2], hashes[0] == hashes[1]) == (True, False)


@pytest.mark.parametrize(
    "text",
    ["hf://owner/name:Net", "https://example.org/models.py:Net", "models.py", "models.py:", ":Net", "models-1.txt:Net",
     "a b:Net", "models.py:Net()"],
)  # fmt: skip
def test_what_is_not_named_like_code_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="`network=") as caught:
        named(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [
        (GOOD, "Nett", "no Nett in it; its networks: Net"),
        (GOOD + "\nnet = Net()\n", "net", "net is a Net; expected FILE.py:NAME"),
        (GOOD + "\nNUMBER = 3\n", "NUMBER", "NUMBER is a int"),
        ("def make():\n    return 3\n", "make", "it returns a int"),
        ("\n\n1 / 0\n", "Net", "cannot be imported: ZeroDivisionError: division by zero (broken.py, line 3)"),
        ("import sys\nsys.exit('usage: train.py')\n", "Net", "cannot be imported: SystemExit: usage: train.py"),
        ("def make(:\n", "make", "cannot be imported: SyntaxError"),
        ("import not_there_at_all\n", "Net", "No module named 'not_there_at_all'"),
        ("def make():\n    raise ValueError('two\\nlines')\n", "make", "cannot be built: ValueError: two lines"),
        ("def make(width):\n    return width\n", "make", "missing a required argument: 'width'; make takes width"),
    ],
)
def test_whatever_the_code_does_ends_in_a_line(source: str, name: str, words: str, tmp_path: Path) -> None:
    path = write(tmp_path / "broken.py", source)
    with pytest.raises(DiffscopeError) as caught:
        network_of(f"{path}:{name}")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_or_module_is_a_failure() -> None:
    with pytest.raises(NetworkError, match=r"no file nowhere\.py"):
        named("nowhere.py:Net")
    with pytest.raises(NetworkError, match="No module named 'no_such_package'"):
        network_of("no_such_package.models:Net")
