"""`diffscope bench` as it is typed; what it measures with made-up clocks: tests/studies/test_benchmark.py."""

from __future__ import annotations

import json

import pytest
from commands import EDM, diffscope

from diffscope.studies.bench import benchmark, stopwatch
from diffscope.studies.bench.machine_limit import Operation

TOY = ("bench", "toy:d=32,side=8", "--data", "synthetic:count=40", "--augment", "none", "--workers", 0)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sample of one call after the first; limits that take no time: the numbers mean nothing."""
    monkeypatch.setattr(stopwatch, "SAMPLES", 1)
    monkeypatch.setattr(stopwatch, "SHORTEST", 1e-6)
    for name in ("convolution", "linear"):
        made = Operation(name, 10**9, lambda: sum(range(1000)))
        monkeypatch.setattr(benchmark, name, lambda precision, device, made=made: made)


def test_the_record() -> None:
    ran = diffscope(*TOY, "--num-levels", 5, "--num-images", 20, "--json")
    assert ran.code == 0, ran.err
    record = ran.json
    assert list(record) == [
        "diffscope", "schema", "command", "checkpoint", "data", "machine", "settings", "stages", "network", "limit",
        "share", "share_outside", "bottleneck", "batch_size", "forecast", "warnings", "notes",
    ]  # fmt: skip
    assert record["command"] == "bench"
    assert set(record["machine"]) == {"cpu", "cores", "threads", "device", "device_name", "torch"}
    assert record["machine"]["device"] == "cpu"
    assert record["checkpoint"]["family"] == "toy"
    assert [stage["stage"] for stage in record["stages"]] == ["decode", "views", "network", "moments"]
    assert all(stage["per_second"] > 0 for stage in record["stages"])
    expected = {"images": 20, "views": 2, "levels": 5, "passes": 200}
    assert {key: record["forecast"][key] for key in expected} == expected


def test_the_table() -> None:
    ran = diffscope(*TOY)
    assert ran.code == 0, ran.err
    words = ("decode", "views", "network", "moments", "Bottleneck:", "Share of the machine's limit:", "Batch size:")
    assert not [word for word in (*words, "40 images × 2 views × 12 noise levels") if word not in ran.out]


def test_nothing_but_warnings_beside_the_result() -> None:
    """Progress is for terminals."""
    ran = diffscope(*TOY, "--json")
    assert all(line.startswith("warning: busy: ") for line in ran.err.splitlines())


def test_quiet_is_the_share() -> None:
    ran = diffscope(*TOY, "--quiet")
    assert ran.code == 0
    assert ran.out.startswith("share ")
    assert float(ran.out.split()[1]) > 0
    assert ran.out.count("\n") == 1


def test_without_a_checkpoint_the_demo_is_measured() -> None:
    ran = diffscope("bench", "--num-images", 50_000, "--json")
    assert ran.code == 0, ran.err
    record = ran.json
    assert record["checkpoint"]["path"].endswith("unet.safetensors")
    assert record["data"]["path"].endswith("images.zip")
    # The demo's 2,000 images stand in for the user's.
    assert record["forecast"]["images"] == 50_000


def test_a_checkpoint_without_images_is_measured_on_those_of_the_demo() -> None:
    record = diffscope("bench", EDM, "--json").json
    assert record["checkpoint"]["path"] == EDM
    assert record["data"]["path"].endswith("images.zip")
    assert record["forecast"]["images"] == 2000


def test_own_images_are_no_more_than_there_are() -> None:
    record = diffscope(*TOY, "--num-images", 1000, "--json").json
    assert record["forecast"]["images"] == 40


def test_options_of_a_sweep() -> None:
    options = ("--layer", "all", "--batch-size", 3, "--views", 4, "--sigma", 0.2, "--sigma", 0.4, "--precision", "bf16")
    record = json.loads(diffscope(*TOY, *options, "--json").out)
    assert record["settings"]["layers"] == ["linear", "wiener"]
    assert (record["settings"]["batch_size"], record["settings"]["precision"]) == (3, "bf16")
    assert (record["forecast"]["views"], record["forecast"]["levels"]) == (4, 2)
    assert [tried["images"] for tried in record["batch_size"]["tried"]] == [1, 2, 3, 4, 8, 16]


@pytest.mark.parametrize(
    ("gate", "code"),
    [("share<1000000", 3), ("share<0", 0), ("passes_per_second<1e12", 3), ("seconds>1e9", 0), ("share_outside>1", 0)],
)
def test_gates(gate: str, code: int) -> None:
    ran = diffscope(*TOY, "--fail-if", gate)
    assert ran.code == code, ran.err
    assert ran.out
    if code:
        assert f"--fail-if {gate}: {gate.split('<')[0]} of linear is " in ran.err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--layer", "linaer"), 1, "close: linear"),
        (("--fail-if", "icr>0.5"), 2, "no key 'icr'; one of flops_per_second, gain, passes_per_second, seconds, share"),
        (("--views", "1"), 2, "expected at least 2"),
        (("--precision", "tf32"), 2, "exists on CUDA only"),
        (("--data", "nowhere"), 1, "nowhere"),
        (("--batch-size", "0"), 2, "--batch-size 0: expected at least 1"),
    ],
)
def test_what_is_wrong_is_one_line(options: tuple[str, ...], code: int, words: str) -> None:
    ran = diffscope(*TOY, *options)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("error: ")
    assert words in ran.err
    assert ran.err.count("\n") == 1
