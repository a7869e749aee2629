"""What a reference says; both parsers agree on it."""

import pytest

from diffscope import hub
from diffscope.errors import CheckpointError, DataError, DiffscopeError
from diffscope.hub.reference import parts_by_hand

GOOD = [
    ("hf://o/n", ("model", "o/n", None, "")),
    ("hf://o/n/", ("model", "o/n", None, "")),
    ("hf://models/o/n/a.pt", ("model", "o/n", None, "a.pt")),
    ("hf://o/n/a/b.pt", ("model", "o/n", None, "a/b.pt")),
    ("hf://o/n@v1/a@2.pt", ("model", "o/n", "v1", "a@2.pt")),
    ("hf://o/n/a@2.pt", ("model", "o/n", None, "a@2.pt")),
    ("hf://o/n@refs/pr/3/a.pt", ("model", "o/n", "refs/pr/3", "a.pt")),
    ("hf://o/n@a%2Fb/c.pt", ("model", "o/n", "a/b", "c.pt")),
    ("hf://datasets/o/n@main/train", ("dataset", "o/n", "main", "train")),
]
MISSPELT = ["hf://", "hf://o", "hf://datasets", "hf://datasets/o", "hf://o/n@", "hf://@v/n", "hf:///o/n@/x"]


@pytest.mark.parametrize(("text", "parts"), GOOD)
def test_parts(text: str, parts: tuple[str, str, str | None, str]) -> None:
    assert parts_by_hand(text) == parts
    found = hub.parse(text, "dataset" if parts[0] == "dataset" else "model")
    assert (found.kind, found.repo, found.revision, found.path) == parts
    assert found.text == text


@pytest.mark.parametrize("without_parser", [False, True])
@pytest.mark.parametrize(
    "text", [*MISSPELT, "hf://o/n/../x", "hf://o/n@../x", "hf://o/n@a%2F..%2Fb", "hf://spaces/o/n"]
)
def test_misspelt(text: str, without_parser: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if without_parser:
        monkeypatch.setattr("diffscope.hub.reference._parts", parts_by_hand)
    with pytest.raises(CheckpointError, match=r"expected a model, hf://OWNER/NAME\[@REVISION\]\[/PATH\]$"):
        hub.parse(text, "model")
    with pytest.raises(DataError, match=r"expected a data set, hf://datasets/OWNER/NAME\[@REVISION\]\[/PATH\]$"):
        hub.parse(text, "dataset")


def test_each_kind_in_its_place() -> None:
    with pytest.raises(CheckpointError, match="expected a model"):
        hub.parse("hf://datasets/o/n", "model")
    with pytest.raises(DataError, match="expected a data set"):
        hub.parse("hf://o/n", "dataset")


def test_spelled_with_another_path() -> None:
    assert hub.parse("hf://o/n@v1/a", "model").at("b/c.pt") == "hf://o/n@v1/b/c.pt"
    assert hub.parse("hf://datasets/o/n/a", "dataset").at("") == "hf://datasets/o/n"


def test_names_from_the_hub_do_not_reach_the_terminal_raw() -> None:
    failure = hub.parse("hf://o/n", "model").failure("a\n  b\x1b[2Jc")
    assert isinstance(failure, DiffscopeError)
    assert str(failure) == "hf://o/n: a b?[2Jc"


def test_pipelines_with_code_of_their_own() -> None:
    builtin = {"_class_name": "DiTPipeline", "vae": ["diffusers", "AutoencoderKL"], "scheduler": [None, None]}
    assert hub.local_modules(builtin, ["vae/config.json", "vae/diffusion.py"]) == []
    assert hub.local_modules({"transformer": ["sit", "SiT"]}, ["transformer/sit.py"]) == ["transformer/sit.py"]
    assert hub.local_modules({"transformer": ["sit", "SiT"]}, ["sit.py"]) == ["sit.py"]
    assert hub.local_modules({"_class_name": ["pipeline", "MyPipeline"]}, []) == ["pipeline.py"]
    assert hub.local_modules(["no", "index"], []) == []
