"""`neighbors --beside`: the neighbours of the same queries by another encoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import EDM, LAYER, diffscope, left_behind
from safetensors.torch import save_file

from diffscope.sources.base import open_source

FEW = ("--layer", LAYER, "--sigma", 1, "--num-images", 60, "--num-queries", 20, "--rows", 2, "--views", 2, "--k", 3)


def test_shares_and_neighbours_by_hand(pictures: Path, tmp_path: Path) -> None:
    z = torch.randn(200, 5, generator=torch.Generator().manual_seed(1)) + 20
    source = open_source(str(pictures))
    assert source.labels is not None
    z[:, 0] += 1.5 * torch.from_numpy(source.labels)
    save_file({"z": z}, tmp_path / "z.safetensors")
    out = tmp_path / "out"
    beside = ("--beside", tmp_path / "z.safetensors", "--beside", "random")
    ran = diffscope("neighbors", EDM, "--data", pictures, *FEW, *beside, "--out", out)
    assert ran.code == 0, ran.err
    record = json.loads((out / "result.json").read_text())
    file, untrained = record["beside"]
    from diffscope import seeding

    used = seeding.permutation(0, 200)[:60].tolist()
    own = (z - z[used].mean(0)).numpy()
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    shares, near = [], {}
    for query in dict.fromkeys([*used[:20], *(one["image"] for one in file["grid"])]):
        others = np.array([image for image in used if image != query])
        near[query] = others[np.argsort(-(own[others] @ own[query]))[:3]]
        if query in used[:20]:
            shares.append((source.labels[near[query]] == source.labels[query]).mean())
    assert (file["n"], file["queries"], file["k"]) == (60, 20, 3)
    assert file["same_class"] == pytest.approx(np.mean(shares))
    assert file["same_class_se"] == pytest.approx(np.std(shares, ddof=1) / np.sqrt(20))
    for query in file["grid"]:
        assert [one["image"] for one in query["neighbors"]] == near[query["image"]].tolist()
    assert (untrained["kind"], untrained["d"]) == ("random", 32 * 8 * 8)  # pooled as the network's
    assert [one["image"] for one in file["grid"]] == [one["image"] for one in record["grid"][0]["queries"]]
    assert {"beside.png", "beside.svg", "neighbors.png"} <= {path.name for path in out.iterdir()}
    assert "By another encoder's features" in ran.out
    assert left_behind(out) == []
    plain = diffscope("neighbors", EDM, "--data", pictures, *FEW, "--json").json
    assert plain["rows"] == record["rows"]
    assert "beside" not in plain
    assert plain["protocol"]["hash"] != record["protocol"]["hash"]


def test_a_series_has_one_set_of_encoders(pictures: Path) -> None:
    from commands import DATA

    runs = sorted((DATA / "series").glob("snapshot-*"))[:2]
    ran = diffscope("neighbors", *runs, "--data", pictures, *FEW[2:], "--beside", "pixels", "--json")
    assert ran.code == 0, ran.err
    assert len(ran.json["rows"]) == 4
    assert [row["encoder"] for row in ran.json["beside"]] == ["pixels"]
