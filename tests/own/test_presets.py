"""`--preset`: options from a file, for every command; what is given comes first."""

# mypy: disable-error-code="attr-defined,call-arg"

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import EDM, diffscope, refused, without_timing
from owned import FLOW, FLOW_FILE, NETWORKS

import diffscope as package
from diffscope.errors import UsageError

OURS = """
network = "flow_transformer.py:FlowTransformer"
noise = "flow:data=1"
predicts = "velocity"
call = "sample=x,timestep=t,class_labels=y:2:2"
image-size = 16
channels = 3
data = "pictures"
augment = "none"
class = "1"
num_images = 64
[arguments]
image_size = 16
[sweep]
num-levels = 2
layer = ["blocks.0", "blocks.2"]
[memorization]
samples = 8
"""


@pytest.fixture
def lab(tmp_path: Path, pictures: Path) -> Path:
    """A folder as a lab has it: the preset, the code and the images beside each other."""
    (tmp_path / "ours.toml").write_text(OURS)
    (tmp_path / "pictures").symlink_to(pictures)
    for path in NETWORKS.glob("*.py"):
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def test_it_stands_for_what_would_be_typed(lab: Path, pictures: Path) -> None:
    short = diffscope("sweep", FLOW_FILE, "--preset", lab / "ours.toml", "--json")
    assert short.code == 0, short.err
    typed = ("--predicts", "velocity", "--data", lab / "pictures", "--augment", "none", "--class", 1)
    levels = ("--num-images", 64, "--num-levels", 2, "--layer", "blocks.0,blocks.2", "--json")
    long = diffscope("sweep", FLOW_FILE, *FLOW, *typed, *levels)
    assert without_timing(short.json) == without_timing(long.json)
    assert sorted(row["layer"] for row in short.json["rows"]) == ["blocks.0"] * 2 + ["blocks.2"] * 2


def test_what_is_given_comes_first_and_what_a_command_lacks_is_left(lab: Path) -> None:
    ran = diffscope("icr", FLOW_FILE, "--preset", lab / "ours.toml", "--sigma", 0.5, "--class", "null", "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["protocol"]["class_label"], ran.json["protocol"]["augment"]) == ("null", "none")
    assert ran.json["rows"][0]["layer"] == "blocks.1"  # [sweep] is of sweep alone
    inspected = diffscope("inspect", FLOW_FILE, "--preset", lab / "ours.toml", "--json")
    assert inspected.code == 0, inspected.err
    checked = diffscope("network", "check", FLOW_FILE, "--preset", lab / "ours.toml")
    assert checked.code == 0, checked.err


def test_python_takes_it_too(lab: Path) -> None:
    result = package.icr(FLOW_FILE, preset=lab / "ours.toml", sigma=0.5, class_label="null")
    assert (result.protocol["class_label"], result.protocol["augment"]) == ("null", "none")
    (lab / "ours.toml").write_text("[swep]\nviews = 3\n")
    with pytest.raises(UsageError, match="no command"):
        package.icr(FLOW_FILE, preset=lab / "ours.toml", sigma=0.5)


def test_json_and_every_kind_of_value(tmp_path: Path, pictures: Path) -> None:
    preset = tmp_path / "ours.json"
    said = {"sigma": [0.5, 2], "views": 3, "normalize": True, "augment-strength": 0.5, "json": True, "seed": 7}
    preset.write_text(json.dumps({**said, "num-images": "64", "layer": "8x8_block1", "icr": {"fail-if": "icr>100"}}))
    ran = diffscope("icr", EDM, "--data", pictures, "--preset", preset, "--layer", "enc.8x8_block1")
    assert ran.code == 0, ran.err
    protocol = ran.json["protocol"]
    assert (protocol["sigmas"], protocol["views"], protocol["seed"]) == ([0.5, 2.0], 3, 7)
    assert (protocol["normalize"], protocol["augment_strength"]) == (True, 0.5)


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("num-imgaes = 3", 2, ("no command has an option 'num-imgaes'", "did you mean num_images?")),
        ("[sweep]\nviws = 3", 2, ("sweep has no option 'viws'", "did you mean views?")),
        ("[icr]\nnum-levels = 3", 2, ("icr has no option 'num-levels'",)),
        ("[sweeep]\nviews = 3", 2, ("no command [sweeep]", "did you mean sweep?")),
        ("preset = 'other.toml'", 2, ("no command has an option 'preset'",)),
        ("views = [1, 2]", 2, ("'views': a list where one value is expected",)),
        ("[views]\na = 1", 2, ("no command [views]",)),
        ("normalize = 'yes'", 2, ("'normalize': expected true or false",)),
        ("views = 'two'", 2, ("'views': 'two'; expected a number",)),
        ("views = ", 1, ("not TOML",)),
    ],
)
def test_what_is_refused(text: str, code: int, words: tuple[str, ...], tmp_path: Path, pictures: Path) -> None:
    preset = tmp_path / "ours.toml"
    preset.write_text(text)
    ran = diffscope("icr", EDM, "--data", pictures, "--sigma", 0.5, "--preset", preset)
    refused(ran, code, *words)


def test_a_missing_preset_is_a_line(pictures: Path) -> None:
    ran = diffscope("icr", EDM, "--data", pictures, "--sigma", 0.5, "--preset", "none.toml")
    refused(ran, 1, "--preset none.toml: No such file", "expected a TOML or JSON file")
