"""Results as a sweep would give them, from a formula: U-shaped ICR with intervals, traces that fall and rise."""

from __future__ import annotations

import math
from collections.abc import Sequence

from diffscope.results import Result, Row, WindowRow


def levels(count: int, low: float = 0.002, high: float = 20.0) -> list[float]:
    step = math.log(high / low) / max(count - 1, 1)
    return [low * math.exp(step * i) for i in range(count)]


def row(layer: str, sigma: float, offset: float = 0.0, notes: tuple[str, ...] = ()) -> Row:
    """ICR of 0.18 + offset at sigma 0.4, rising by the square of the distance in decades."""
    x = math.log10(sigma / 0.4)
    icr = 0.5 - (0.32 - offset) * math.exp(-x * x / 1.6) + 0.008 * math.sin(7 * x + 9 * offset)
    s, xi = 40.0 * math.exp(-0.9 * sigma) + 0.4, 6.0 * sigma**0.35 / (1 + sigma) + 0.5 + 10 * offset
    total = s + xi + 30
    values = {
        "icr": icr,
        "icr_se": 0.02 * icr,
        "icr_low": icr * 0.955,
        "icr_high": icr * 1.05,
        "icr_raw": icr * 0.93,
        "kappa_ratio": 1.01,
        "replicates": [math.log(icr) + 0.01 * math.cos(g) for g in range(16)],
        "trace_s": s,
        "trace_xi": xi,
        "effective_rank": 123.4 - 10 * x,
        "trace_s_l2": s / total,
        "trace_xi_l2": xi / total,
    }
    return Row(layer, sigma, math.log(sigma) / 4, 5000, 256, values, notes)


def without_icr(known: Row, why: str) -> Row:
    gone = dict.fromkeys(("icr", "icr_se", "icr_low", "icr_high", "icr_raw", "trace_s", "trace_s_l2"))
    return Row(known.layer, known.sigma, known.t, known.n, known.d, {**known.values, **gone}, (why,))


def window(layer: str, icr: float = 0.18, shape: str | None = "u", notes: tuple[str, ...] = ()) -> WindowRow:
    return WindowRow(layer, shape, 0.41, 0.19, 0.93, icr, math.log(0.41) / 4, 0.08, 0.15, 1.1, notes)


def result(
    rows: Sequence[Row], windows: Sequence[WindowRow] = (), path: str = "runs/network-snapshot-050.pkl"
) -> Result:
    return Result(
        version="0.1.0",
        command="sweep",
        checkpoint={"path": path, "sha256": None, "family": "edm", "class": "SongUNet", "parameters": 55_733_891},
        data={"path": "images", "count": 5000, "used": 5000, "skipped": [], "fingerprint": "0" * 16},
        protocol={"hash": "0" * 16},
        rows=tuple(rows),
        window=tuple(windows),
    )


def sweep(layers: int = 1, count: int = 12) -> Result:
    """Layers whose curves lie a little above one another, best in the middle of the network."""
    names = [f"enc.{64 >> (i // 4)}x{64 >> (i // 4)}_block{i % 4}" for i in range(layers)]
    names = ["enc.8x8_block3"] if layers == 1 else names if layers < 9 else [f"blocks.{i}" for i in range(layers)]
    offsets = [0.0 if layers == 1 else 0.2 * abs(i - layers // 2 + 0.3) / layers for i in range(layers)]
    rows = [row(name, sigma, offset) for name, offset in zip(names, offsets, strict=True) for sigma in levels(count)]
    windows = [window(name, min(r["icr"] for r in rows if r.layer == name)) for name in names]
    return result(rows, windows if count >= 5 else ())
