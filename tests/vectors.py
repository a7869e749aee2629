"""The estimator's test vectors: `data/estimator_vectors.json` and the recipes in it, as code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffscope.moments import BlockAccumulator, Moments
from diffscope.numerics import FloatArray

CASES: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "estimator_vectors.json").read_text())["cases"]


def features(case: str, noise: float = 1.0) -> FloatArray:
    """[N, V, d] of cases A–D; `noise` multiplies the residuals (case E)."""
    rng = np.random.default_rng(0)
    if case == "A":
        mixing = rng.standard_normal((4, 4))
        s = rng.standard_normal((64, 4)) @ mixing
        return 1.5 + s[:, None, :] + noise * rng.standard_normal((64, 2, 4)) * [1, 0.5, 0.25, 2]
    if case == "B":
        k = np.arange(1, 17)
        mixing = rng.standard_normal((16, 16)) / 4
        s = (rng.standard_normal((256, 16)) * k**-0.5) @ mixing.T
        tau = np.exp(0.5 * rng.standard_normal(256) - 0.25)
        xi = rng.standard_normal((256, 2, 16)) * (0.6 * k**-0.5) * tau[:, None, None]
        return 5 + s[:, None, :] + noise * xi
    if case == "C":
        s = rng.standard_normal((96, 8)) * np.linspace(2, 0.5, 8)
        return s[:, None, :] + noise * rng.standard_normal((96, 4, 8)) * np.linspace(0.5, 1.5, 8)
    i, v, k = np.arange(1, 25)[:, None, None], np.arange(1, 3)[:, None], np.arange(1, 4)
    return np.sin(0.9 * i * k) + 0.4 * np.cos(1.7 * i * v + 2.3 * k * (v + 1) + 0.31 * i * k * v)


BLOCKS = {"A": 8, "B": 16, "C": 8, "D": 8}


def moments_of(z: FloatArray, blocks: int) -> Moments:
    """Moments of features [N, V, d]; image i is in block i mod G."""
    finished = []
    for g in range(blocks):
        accumulator = BlockAccumulator(z.shape[1], z.shape[2])
        accumulator.update(torch.from_numpy(np.ascontiguousarray(z[g::blocks])))
        finished.append(accumulator.finish())
    return Moments.from_blocks(finished)


def case_moments(case: str) -> Moments:
    """Moments of cases A–D in their own number of blocks."""
    return moments_of(features(case), BLOCKS[case])


def expected(case: str) -> dict[str, Any]:
    """What the vectors say of a case, named by the first letters of its key."""
    return next(dict(value["expect"]) for key, value in CASES.items() if key.startswith(case))
