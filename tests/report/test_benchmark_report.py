"""A benchmark in words: every number of the record is said once, in the unit in which it is read."""

from __future__ import annotations

import copy
from typing import Any

import made_results
import pytest

from diffscope.report.parts import table
from diffscope.report.views import bench
from diffscope.results import Record

RECORD: dict[str, Any] = {
    "checkpoint": {"path": "ckpt.pkl", "family": "edm", "class": "EDMPrecond(SongUNet)", "parameters": 55732739},
    "data": {"path": "images/", "count": 5000},
    "machine": {
        "cpu": "A CPU", "cores": 8, "threads": 1, "device": "cpu", "device_name": None, "torch": "2.13.0",
    },
    "settings": {"layers": ["enc.8x8_block3"], "precision": "fp32", "batch_size": 16},
    "stages": [
        {"stage": "decode", "unit": "image", "seconds": 0.0002, "per_second": 5000.0, "share": 0.0004},
        {"stage": "network", "unit": "pass", "seconds": 0.25, "per_second": 4.0, "share": 0.9996},
    ],
    "network": {"layer": "enc.8x8_block3", "flops": 13.76e9, "passes_per_second": 4.2, "flops_per_second": 57.8e9},
    "limit": {"operation": "convolution", "convolution": 80e9, "linear": 1.2e12},
    "share": 0.7225,
    "share_outside": 0.0004,
    "bottleneck": "network",
    "batch_size": {
        "used": 16, "best": 8, "gain": 0.12, "recommended": 8,
        "tried": [
            {"images": 8, "passes_per_second": 4.48, "why": None},
            {"images": 16, "passes_per_second": 4.0, "why": None},
            {"images": 32, "passes_per_second": None, "why": "about 24 s a batch"},
        ],
    },
    "forecast": {"images": 5000, "views": 2, "levels": 12, "passes": 120000, "seconds": 30001.0},
}  # fmt: skip


def changed(**parts: Any) -> dict[str, Any]:
    """Numbers replaced; of a part that is a dictionary, some of its keys."""
    record = copy.deepcopy(RECORD)
    for name, part in parts.items():
        record[name] = record[name] | part if isinstance(part, dict) else part
    return record


def said(record: dict[str, Any], heading: str) -> str:
    return dict(bench._verdicts(record))[heading]


def test_facts() -> None:
    assert bench._facts(RECORD) == [
        ("machine", "A CPU, 8 cores, 1 thread; torch 2.13.0 on cpu, fp32"),
        ("network", "EDMPrecond(SongUNet), 55,732,739 parameters, to enc.8x8_block3; ckpt.pkl"),
        ("images", "images/ (5,000)"),
    ]
    on_gpu = changed(machine={"device": "cuda", "device_name": "NVIDIA H100"}, settings={"layers": ["a", "b"]})
    assert "on NVIDIA H100, fp32" in bench._facts(on_gpu)[0][1]
    assert "to b, 2 layers" in bench._facts(on_gpu)[1][1]


def test_stages() -> None:
    assert table(bench.STAGES, RECORD["stages"]).rows == [
        ["decode", "5,000", "images", "0.2", "<0.1 %"],
        ["network", "4", "passes", "250", "100 %"],
    ]


def test_batches() -> None:
    assert bench._batches(RECORD) == [
        ["8", "4.48", "fastest"], ["16", "4", "this sweep's"], ["32", "–", "about 24 s a batch"],
    ]  # fmt: skip
    same = changed(batch_size={"best": 16})
    assert bench._batches(same)[1] == ["16", "4", "this sweep's, fastest"]


def test_verdicts() -> None:
    assert [heading for heading, _ in bench._verdicts(RECORD)] == [
        "Bottleneck:", "Share of the machine's limit:", "Batch size:", "Your sweep:",
    ]  # fmt: skip
    assert said(RECORD, "Bottleneck:") == (
        "network, with 100 % of a sweep's time; all that is not the network takes <0.1 %."
    )
    limit = said(RECORD, "Share of the machine's limit:")
    assert limit.startswith("0.72 of its best convolution. The walk to enc.8x8_block3 computes 57.8 GFLOP/s;")
    assert "80 GFLOP/s in a large convolution" in limit
    assert "1.2 TFLOP/s in a large matrix product" in limit
    assert said(RECORD, "Batch size:") == "--batch-size 8: 12 % faster than 16."
    assert said(RECORD, "Your sweep:").startswith("5,000 images × 2 views × 12 noise levels would take about 8.3 h")


def test_another_bottleneck_has_a_remedy() -> None:
    record = changed(bottleneck="decode", share_outside=0.7)
    record["stages"][0]["share"] = 0.65
    text = said(record, "Bottleneck:")
    assert text.startswith("decode, with 65 % of a sweep's time; all that is not the network takes 70 %.")
    assert "--workers" in text


@pytest.mark.parametrize("name", ["decode", "views", "VAE", "moments"])
def test_every_stage_may_be_the_bottleneck(name: str) -> None:
    record = changed(bottleneck=name)
    record["stages"][0]["stage"] = name
    assert said(record, "Bottleneck:").startswith(f"{name}, with")


def test_batch_sizes_in_words() -> None:
    right = changed(batch_size={"recommended": 16, "gain": 0.01})
    assert said(right, "Batch size:") == "16 is right; no other is more than 3 % faster."
    unknown = changed(batch_size={"gain": None})
    assert said(unknown, "Batch size:").startswith("16 took too much time or memory to be tried")


def test_a_share_that_there_is_not() -> None:
    assert said(changed(share=None), "Share of the machine's limit:").startswith("–. The walk to enc.8x8_block3 has")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "0.5 s"),
        (86, "86 s"),
        (119, "119 s"),
        (120, "2 min"),
        (2700, "45 min"),
        (30001, "8.3 h"),
        (1e6, "12 days"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert bench._duration(seconds) == text


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    made_results.show(Record("bench", RECORD))
    out, err = capsys.readouterr()
    assert err == ""
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[0] == "machine  A CPU, 8 cores, 1 thread; torch 2.13.0 on cpu, fp32"
    assert "Batch size: --batch-size 8: 12 % faster than 16." in lines
