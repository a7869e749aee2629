"""A model's card: metadata that the Hub's own reader takes, and text that no name of a file can break out of."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import made_results
import pytest
from commands import diffscope, refused
from huggingface_hub import ModelCard
from made_results import result, row

import diffscope as package
from diffscope.errors import DataError
from diffscope.report.card import card
from diffscope.results import Result


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "sweep"
    argv = ("toy:d=4,side=4", "--data", "synthetic:count=64", "--augment", "none", "--num-levels", 5)
    assert diffscope("sweep", *argv, "--out", folder, "--quiet").code == 0
    return folder


def test_the_hub_reads_back_what_was_measured(swept: Path) -> None:
    ran = diffscope("card", swept, "--name", "toy")
    assert (ran.code, ran.err) == (0, "")
    data: Any = ModelCard(ran.out).data
    assert (data.model_name, data.tags) == ("toy", ["diffscope"])
    (score,) = data.eval_results
    lowest = min(package.read_result(swept).rows, key=lambda row: row["icr"])
    assert (score.metric_type, score.metric_value) == ("icr", lowest["icr"])
    assert score.metric_args["sigma"] == lowest.sigma
    assert score.dataset_name == "synthetic:count=64"
    assert score.dataset_args["images"] == 64
    text = ModelCard(ran.out).text
    assert "### diffscope sweep: toy:d=4,side=4 on synthetic:count=64" in text
    assert len([line for line in text.splitlines() if line.startswith("| ")]) == 2 + 5


def test_from_python_and_as_json(swept: Path) -> None:
    made = package.card([package.read_result(swept), str(swept)])
    assert made["text"].count("### diffscope sweep") == 2
    assert made["name"] == "toy:d=4,side=4"
    assert diffscope("card", swept, swept, "--json").json == made.to_json()
    assert repr(made).splitlines()[-1] == "2 scores of toy:d=4,side=4"


def test_scores_of_runs_and_sweeps() -> None:
    run = made_results.track()
    (score,) = card([run])["scores"]
    assert run.onset[0].minimum is not None
    assert score["metric_value"] == run.onset[0].minimum.icr
    assert score["metric_args"]["step"] == run.onset[0].minimum.step
    assert len(card([made_results.sweep(layers=3)])["scores"]) == 3
    assert card([made_results.track_of_nothing()])["scores"] == []


def test_folders_of_this_machine_stay_here() -> None:
    made = made_results.sweep()
    private = dataclasses.replace(
        made,
        checkpoint={**made.checkpoint, "path": "/home/somebody/secret/ckpt.pkl"},
        data={**made.data, "path": "/home/somebody/secret/images/"},
    )
    document = card([private])
    assert document["name"] == "ckpt"
    assert "secret" not in document["text"]
    assert "ckpt.pkl on images" in document["text"]
    published = dataclasses.replace(made, data={**made.data, "path": "hf://datasets/uoft-cs/cifar10@main/plain_text"})
    assert card([published])["scores"][0]["dataset_type"] == "uoft-cs/cifar10"


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        "[click](http://evil.example)",
        "![](http://evil.example/a.png)",
        "a\n---\nlicense: mit\n---\n# b",
        "x: y\n- z: &a *b !!python/object:os.system",
        "`|`",
        "\x1b[31m\u202egpj.exe",
    ],
)
def test_no_name_breaks_out(name: str) -> None:
    made: Result = result([row(name, 0.3)], path=f"{name}.pkl")
    hostile = dataclasses.replace(made, data={**made.data, "path": name})
    read = ModelCard(card([hostile])["text"])
    assert set(read.data.to_dict()) == {"tags", "model-index"}
    data: Any = read.data
    (score,) = data.eval_results
    assert score.metric_value == hostile.rows[0]["icr"]
    for mark in ("<script>", "[click]", "![]", "\n# b", "\x1b", "\u202e"):
        assert mark not in read.text.replace(f"\\{mark}", "")
    heading = next(line for line in read.text.splitlines() if line.startswith("### "))
    assert heading.startswith("### diffscope sweep: ")


def test_a_card_is_of_one_model(swept: Path) -> None:
    with pytest.raises(DataError, match="results of 2 checkpoints"):
        card([package.read_result(swept), made_results.sweep()])
    assert len(card([made_results.sweep(), made_results.track()])["scores"]) == 2
    refused(diffscope("card", swept, "nosuch"), 1, "nosuch: No such file", "expected a result.json")


def test_an_ascii_terminal_gets_the_card_too(swept: Path) -> None:
    made = package.card(swept)
    assert "σ" in made["text"]
    assert made["scores"][0]["metric_name"].startswith("ICR of linear, lowest, at σ = ")
