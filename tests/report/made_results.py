"""Results from formulas: of a sweep, with U-shaped ICR, intervals and traces, and of training runs of every state."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from diffscope.report import layout
from diffscope.report.figures import canvas
from diffscope.report.parts import Part
from diffscope.report.terminal import stdout_console
from diffscope.report.views.base import view_of
from diffscope.results import Minimum, OnsetRow, Overlay, OverlayAgainst, Result, Row, Shown, WindowRow


def show(shown: Shown, *kinds: type[Part]) -> None:
    """Prints what there is to see, or its parts of some kinds alone."""
    parts = view_of(shown).parts(shown)
    layout.show([part for part in parts if not kinds or isinstance(part, kinds)], stdout_console())


def draw(result: Result, folder: Path) -> list[Path]:
    """The pictures of the result's view, written alone."""
    with canvas.look():
        figures = view_of(result).figures(result)
    return [path for name, figure in figures.items() for path in canvas.save(figure, folder / name)]


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
    return Row(layer=layer, sigma=sigma, t=math.log(sigma) / 4, n=5000, d=256, **values, notes=notes)


def without_icr(known: Row, why: str) -> Row:
    gone = dict.fromkeys(("icr", "icr_se", "icr_low", "icr_high", "icr_raw", "trace_s", "trace_s_l2"))
    return known.having(**gone, notes=(why,))


def window(layer: str, icr: float = 0.18, shape: str | None = "u", notes: tuple[str, ...] = ()) -> WindowRow:
    ends = {"low": 0.19, "high": 0.93, "practical_low": 0.15, "practical_high": 1.1}
    grid = {"lowest_sigma": levels(12)[6], "near": tuple(level for level in levels(12) if 0.19 <= level <= 0.93)}
    known = {"icr": icr, "t": math.log(0.41) / 4, "sigma_error": 0.08, "notes": notes}
    return WindowRow(layer, shape, 0.41, **ends, **grid, **known)


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
        sections={"window": tuple(windows)},
    )


def sweep(layers: int = 1, count: int = 12) -> Result:
    """Layers whose curves lie a little above one another, best in the middle of the network."""
    names = [f"enc.{64 >> (i // 4)}x{64 >> (i // 4)}_block{i % 4}" for i in range(layers)]
    names = ["enc.8x8_block3"] if layers == 1 else names if layers < 9 else [f"blocks.{i}" for i in range(layers)]
    offsets = [0.0 if layers == 1 else 0.2 * abs(i - layers // 2 + 0.3) / layers for i in range(layers)]
    rows = [row(name, sigma, offset) for name, offset in zip(names, offsets, strict=True) for sigma in levels(count)]
    windows = [window(name, min(r["icr"] for r in rows if r.layer == name)) for name in names]
    return result(rows, windows if count >= 5 else ())


# --- training runs

LAYER, SIGMA = "enc.8x8_block3", 0.3


def snapshot(i: int, icr: float | None, layer: str = LAYER, sigma: float = SIGMA, held_out: bool = False) -> Row:
    """The i-th of a series, 12,800 images apart; without ICR it has no other value either, and a note that says why."""
    step = 12_800 * (i + 1)
    path = f"runs/limited/snapshot-{step:07d}.safetensors"
    names = ("icr", "icr_low", "icr_high", "icr_raw", "trace_s", "trace_xi", "trace_s_l2", "trace_xi_l2")
    values: dict[str, object] = dict.fromkeys((*names, "alignment", "alignment_raw", "uniformity", "effective_rank"))
    notes: tuple[str, ...] = ("rank_deficient: too few images for d = 256; measure more",)
    if icr is not None:
        xi, s = 2 + 3 * icr, 5 * (1 - icr)
        values = {
            **{"icr": icr, "icr_low": 0.96 * icr, "icr_high": 1.045 * icr, "icr_raw": 0.93 * icr},
            **{"trace_s": s, "trace_xi": xi, "trace_s_l2": s / (s + xi + 1), "trace_xi_l2": xi / (s + xi + 1)},
            **{"alignment": 2 * xi / (s + xi + 1), "alignment_raw": 2 * xi, "uniformity": -2.5 - 0.01 * i},
            **{"effective_rank": 40 + 0.8 * i, "replicates": [math.log(icr) + 0.01 * math.cos(g) for g in range(16)]},
        }
        notes = ()
    if held_out:
        worse = 1 + 0.004 * i
        values |= {"loss": 0.021 * 0.985**i, "loss_se": 2e-4, "loss_holdout": 0.021 * 0.985**i * worse**3}
        values |= {"loss_holdout_se": 3e-4, "icr_holdout": None, "icr_holdout_low": None, "icr_holdout_high": None}
        if icr is not None:
            values |= {
                f"icr_holdout{end}": worse * icr * by for end, by in (("", 1.02), ("_low", 0.97), ("_high", 1.07))
            }
    where = {"checkpoint": path, "step": step, "layer": layer, "sigma": sigma, "t": math.log(sigma) / 4}
    return Row(where, n=5000, d=256, **values, notes=notes)


def course(state: str, count: int) -> list[float]:
    """ICR of a run that falls and turns, falls throughout, or is flat after its first snapshots."""
    turn = {"turned": 0.4 * count, "falling": 2.0 * count, "flat": 0.2 * count, "unclear": 0.7 * count}[state]
    rise = {"turned": 0.35, "falling": 0.0, "flat": 0.0, "unclear": 0.03}[state]
    fall = [0.45 - 0.2 * (1 - math.exp(-3 * min(i, turn) / max(turn, 1))) for i in range(count)]
    return [
        low * (1 + rise * max(0.0, i - turn) / count) * (1 + 0.006 * math.sin(2.7 * i)) for i, low in enumerate(fall)
    ]


def onset(rows: Sequence[Row], state: str, fired: bool = True, notes: tuple[str, ...] = ()) -> OnsetRow:
    """The verdict on one series, its numbers read from the rows."""
    known = [row for row in rows if row.metrics["icr"] is not None]
    if not known:
        return OnsetRow(rows[0].layer, rows[0].sigma, state, None, None, *(None,) * 5, "short", *(None,) * 3, notes)
    best = min(known, key=lambda row: float(row["icr"]))
    at = known.index(best)
    near = [row for row in known[max(0, at - 3) : at + 4] if row["icr"] < 1.02 * best["icr"]]
    keep = known[max(0, at - 1)] if state == "turned" and fired else best
    rise = known[-1]["icr"] / keep["icr"] - 1
    turned = state == "turned"
    return OnsetRow(
        layer=best.layer,
        sigma=best.sigma,
        state=state,
        minimum=Minimum(best["step"], best["icr"], near[0]["step"], near[-1]["step"]),
        fired_at=known[min(at + 8, len(known) - 1)].step if turned and fired else None,
        rise=None if known[-1] is keep else rise,
        rise_low=None if known[-1] is keep else rise - 0.03,
        rise_high=None if known[-1] is keep else rise + 0.03,
        keep=keep.checkpoint,
        keep_step=keep.step,
        rule="long" if len(known) >= 30 else "short",
        fluctuation=0.0098,
        false_alarms=0.018,
        images_needed=12_400 if state == "unclear" else None,
        notes=notes,
    )


def training(rows: Sequence[Row], onsets: Sequence[OnsetRow] = (), overlay: Sequence[Overlay] = ()) -> Result:
    steps = {row["checkpoint"]: row["step"] for row in rows}
    listed = [{"path": path, "sha256": "0" * 64, "step": step, "step_unit": "images"} for path, step in steps.items()]
    return dataclasses.replace(
        result(rows, path=str(listed[-1]["path"])),
        command="track",
    ).having(checkpoints=tuple(listed), onset=tuple(onsets), overlay=tuple(overlay))


def track(state: str = "turned", count: int = 24, fired: bool = True, held_out: bool = False) -> Result:
    rows = [snapshot(i, icr, held_out=held_out) for i, icr in enumerate(course(state, count))]
    return training(rows, [onset(rows, state, fired)])


def track_of_layers(layers: int, count: int = 24, levels: Sequence[float] = (SIGMA,)) -> Result:
    """Series of several layers and noise levels; every third has turned, the others still fall."""
    series = [
        [
            snapshot(i, icr + 0.01 * layer + 0.02 * j, f"blocks.{layer}", level)
            for i, icr in enumerate(course(state, count))
        ]
        for layer, state in ((layer, "falling" if layer % 3 else "turned") for layer in range(layers))
        for j, level in enumerate(levels)
    ]
    onsets = [onset(rows, "falling" if int(rows[0].layer[7:]) % 3 else "turned") for rows in series]
    return training([row for rows in series for row in rows], onsets)


def track_with_nulls() -> Result:
    """Every fourth snapshot without ICR, one file left out."""
    rows = [snapshot(i, icr if i % 4 != 2 else None) for i, icr in enumerate(course("turned", 24))]
    made = training(rows, [onset(rows, "turned", notes=("snapshots_skipped: no ICR with replicates at step 38400",))])
    missing = {"path": "runs/limited/broken.pt", "sha256": None, "step": None, "why": "not a checkpoint: a zip of text"}
    return made.having(checkpoints=(*made.checkpoints, missing))


def track_of_nothing(count: int = 3) -> Result:
    rows = [snapshot(i, None) for i in range(count)]
    return training(rows, [onset(rows, "unclear", notes=("few_snapshots: none with ICR and replicates (limit 2)",))])


def overlay(column: str, turn: int | None, leads: int | None, correlation: float | None, count: int = 24) -> Overlay:
    """A column that falls to its turn and rises."""
    values = [
        abs(i - (count if turn is None else turn)) * 0.9 + 3 + 0.3 * math.sin(i) * (i != turn) for i in range(count)
    ]
    points = tuple((12_800 * (i + 1), value) for i, value in enumerate(values))
    against = (OverlayAgainst(LAYER, SIGMA, count, correlation, leads),)
    return Overlay(column, points, None if turn is None else points[turn][0], against)


def track_with_all() -> Result:
    made = track(held_out=True)
    columns = (overlay("fid", 11, 2, 0.83), overlay("memorization_third", None, None, -0.71))
    return made.having(overlay=columns)


def kinship(count: int) -> Result:
    """Layers and an encoder, the further apart the less alike; one pair without CKNNA."""
    names = [f"enc.8x8_block{number}" for number in range(count - 1)] + ["pixels"]
    items = [
        *(
            {"name": name, "checkpoint": "a.pkl", "step": None, "layer": name, "sigma": 0.3, "d": 64}
            for name in names[:-1]
        ),
        {"name": "pixels", "encoder": "pixels", "kind": "pixels", "d": 768},
    ]
    rows = []
    for b in range(count):
        for a in range(b):
            cka, cknna = 0.9 ** (b - a), 0.7 ** (b - a)
            values = {key: value for name, whole in (("cka", cka), ("cknna", cknna), ("mutual_knn", cknna))
                      for key, value in zip((name, *(f"{name}_{end}" for end in ("se", "low", "high"))),
                                            (whole, 0.01, whole - 0.02, whole + 0.02), strict=True)}  # fmt: skip
            rows.append(Row(a=names[a], b=names[b], n=500, d_a=64, d_b=64, **values, chance=0.02, notes=[]))
    rows[0] = rows[0].having(cknna=None, cknna_low=None, cknna_high=None, notes=["undefined: cknna: zero"])
    return Result(
        version="1",
        command="kinship",
        checkpoint={"path": "a.pkl"},
        data={"path": "images"},
        protocol={"kinship": {"k": 10}, "hash": "0"},
        rows=tuple(rows),
        sections={"items": tuple(items)},
    )
