"""Several results in one figure: ICR of sweeps over noise, or of training runs over their steps.

Unlike the differences of two results, curves may be of different protocols: what these differ in is said beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from diffscope import __version__
from diffscope.errors import DataError
from diffscope.protocol import CHECKPOINT_FIELDS
from diffscope.results import RESULT, SCHEMA, Record, Result, Row, read_result

SWEEPS, RUNS = ("icr", "sweep", "probe"), ("track",)
"""Commands whose results are curves over noise, and over training."""
OWN = CHECKPOINT_FIELDS | {"layers", "sigmas", "hash"}
"""Fields of protocols that are each result's own: the figure names layers, and levels are its axis."""


def together(sources: Sequence[str | Result]) -> Record:
    """The record of `diffscope compare --figure`.

    Args:
        sources: Results, or where their `result.json` is.

    Returns:
        Under `curves` one for each layer of a sweep, or each layer and noise level of a run; under `rows` their points;
        under `unlike` the fields in which the protocols differ.

    Raises:
        DataError: One of them has no such curve, or they are of several kinds.
    """
    results = [source if isinstance(source, Result) else read_result(source) for source in sources]
    names = distinct([_path(source) for source in sources])
    for name, result in zip(names, results, strict=True):
        _check(name, result)
    if len({result.command in RUNS for result in results}) > 1:
        over = ", ".join(f"{name}: {result.command}" for name, result in zip(names, results, strict=True))
        raise DataError(f"curves over noise and over training ({over}); expected results of one kind")
    unit = _unit(names, results)
    curves = [curve for name, result in zip(names, results, strict=True) for curve in _curves(name, result)]
    return Record(
        "compare",
        {
            "diffscope": __version__,
            "schema": SCHEMA,
            "command": "compare",
            "across": "step" if results[0].command in RUNS else "sigma",
            "step_unit": unit,
            "unlike": _unlike(results),
            "results": [
                {"name": name, "path": _path(source), "command": result.command}
                for name, source, result in zip(names, sources, results, strict=True)
            ],
            "curves": [{key: value for key, value in curve.items() if key != "rows"} for curve in curves],
            "rows": [row for curve in curves for row in curve["rows"]],
        },
    )


def distinct(paths: Sequence[str]) -> list[str]:
    """Names as short as they can be while they tell the paths apart; equal paths are counted."""
    names: list[str] = []
    parts = [PurePath(path).parent.parts if PurePath(path).name == RESULT else PurePath(path).parts for path in paths]
    for count in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-count:]) or "result" for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({number})" if names.count(name) > 1 else name for number, name in enumerate(names, 1)]


def _path(source: str | Result) -> str:
    return str(source.checkpoint.get("path", "")) if isinstance(source, Result) else source


def _check(name: str, result: Result) -> None:
    if result.command not in (*SWEEPS, *RUNS):
        raise DataError(f"{name}: a result of {result.command}; expected results of sweep, icr, probe or track")
    if result.varied is not None or result.segmentation:
        kind = "`masks=`" if result.segmentation else f"several values of --{str(result.varied).replace('_', '-')}"
        raise DataError(f"{name}: a result of {kind}; expected one curve of ICR for each layer")
    if not any(row.get("icr") is not None for row in result.shown_rows):
        raise DataError(f"{name}: no row has an ICR; see the notes in it")


def _unit(names: Sequence[str], results: Sequence[Result]) -> str | None:
    """What steps count; DataError where they do not count the same."""
    units = {
        name: {entry.get("step_unit") for entry in result.checkpoints if "why" not in entry}
        for name, result in zip(names, results, strict=True)
    }
    all_units = {unit for of_one in units.values() for unit in of_one}
    if len(all_units) > 1:
        told = ", ".join(f"{name}: {' and '.join(map(str, sorted(map(str, of))))}" for name, of in units.items())
        raise DataError(f"steps count different things ({told}); expected runs whose steps count the same")
    return all_units.pop() if all_units else None


def _unlike(results: Sequence[Result]) -> list[str]:
    """Fields in which protocols differ, beside those that are each result's own."""
    first, *others = (result.protocol for result in results)
    fields = {field: None for protocol in (first, *others) for field in protocol if field not in OWN}
    return [field for field in fields if any(other.get(field) != first.get(field) for other in others)]


def _curves(name: str, result: Result) -> list[dict[str, Any]]:
    groups: dict[tuple[str | None, float | None], list[Row]] = {}
    is_run = result.command in RUNS
    for row in result.shown_rows:
        groups.setdefault((row.layer, row.sigma if is_run else None), []).append(row)
    return [_curve(name, result, rows, is_run) for rows in groups.values()]


def _curve(name: str, result: Result, rows: Sequence[Row], is_run: bool) -> dict[str, Any]:
    across = "step" if is_run else "sigma"
    rows = sorted(rows, key=lambda row: float(getattr(row, across)))
    layer, sigma = rows[0].layer, rows[0].sigma if is_run else None
    known = [row for row in rows if row.get("icr") is not None]
    best = min(known, key=lambda row: float(row["icr"]), default=None)
    verdict = _of_run(result, layer, sigma) if is_run else _of_sweep(result, layer)
    head = {"result": name, "layer": layer, **({"sigma": sigma} if is_run else {})}
    keys = ("icr", "icr_low", "icr_high")
    return {
        **head,
        "icr": None if best is None else best["icr"],
        "at": None if best is None else getattr(best, across),
        **verdict,
        "rows": [{**head, across: getattr(row, across), **{key: row.get(key) for key in keys}} for row in rows],
    }


def _of_sweep(result: Result, layer: str | None) -> Mapping[str, Any]:
    window = next((window for window in result.window if window.layer == layer), None)
    if window is None:
        return {"verdict": None, "recommended": None}
    return {"verdict": window.shape, "recommended": window.sigma if window.shape == "u" else None}


def _of_run(result: Result, layer: str | None, sigma: float | None) -> Mapping[str, Any]:
    onset = next((one for one in result.onset if (one.layer, one.sigma) == (layer, sigma)), None)
    if onset is None:
        return {"verdict": None, "fired_at": None, "keep_step": None}
    return {"verdict": onset.state, "fired_at": onset.fired_at, "keep_step": onset.keep_step}
