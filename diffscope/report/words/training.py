"""ICR over a training run in words: what its shape means for the user, which checkpoint to keep, what to do next."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from pathlib import PurePath

from diffscope.report.text import COLUMNS, code, interval, metric, number, percent, share
from diffscope.results import Alarm, AlarmCell, AlarmLimit, OnsetRow, Overlay, OverlayAgainst, Result, Row, WindowRow

HEADLINE = {
    "fired": "turned, onset of memorization",
    "retrospective": "turned, seen looking back",
    "falling": "still falling, no sign of memorization",
    "flat": "flat, which is not memorizing",
    "unclear": "undecided",
}

MEANING = {
    "fired": "ICR rises again where a network learns single training images instead of what they share. Stop here, or "
    "go on from the checkpoint to keep with more images or stronger augmentation.",
    "retrospective": "ICR rises again where a network learns single training images instead of what they share; so few "
    "snapshots have shown it that the rule has not fired. Keep the checkpoint named, and measure later ones before "
    "throwing them away.",
    "falling": "Features still improve with training, and nothing speaks for stopping. Train on and measure again.",
    "flat": "A run that has merely flattened is not memorizing: the last snapshot is not worse than the best by as "
    "much as would matter, and these images would have shown it. Any snapshot from the lowest on will do.",
    "unclear": "These snapshots show neither a rise nor that there is none. Measure more images (--num-images) or more "
    "snapshots; where ICR jumps from one to the next by more than 2 %, take EMA weights (--weights ema).",
}
"""Both by verdict: the state, of which `turned` has two kinds."""

POOLED = "layers and levels pooled"

LOSSES = {
    "loss_views": "the loss on views that training never saw",
    "loss_gap": "the loss on held-out images",
}
"""What the alarm watches beside ICR."""

RUNS = {"long": 100, "short": 20}
"""Snapshots of the runs in which the false alarms of a preset were counted."""

ROWS = 30
"""Lines of a table that a reader still reads; of a longer series the first, the last and some between are shown."""
FIRST, LAST = 5, 10

AXIS = {"images": "training images seen", "steps": "training steps"}


# --- series and names


def by_series(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each layer and noise level by rising step, named by what tells the series apart."""
    groups: dict[tuple[str | None, float | None], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.layer, row.sigma), []).append(row)
    layers, levels = ({key[i] for key in groups} for i in (0, 1))

    def name(layer: str | None, sigma: float | None) -> str:
        if layer is None or sigma is None:
            return POOLED
        parts = [layer] if len(layers) > 1 or len(groups) == 1 else []
        return ", ".join([*parts, f"σ = {number(sigma)}"] if len(levels) > 1 or len(groups) == 1 else parts)

    return {name(*key): sorted(group, key=step) for key, group in groups.items()}


def shared(rows: Sequence[Row]) -> str:
    """The layer and the noise level, whichever all series have in common."""
    layers, levels = list({row.layer for row in rows}), list({row.sigma for row in rows})
    if layers == [None]:
        return POOLED
    return ", ".join([*layers[: len(layers) == 1], *(f"σ = {number(level)}" for level in levels[: len(levels) == 1])])


def place(of: Row | OnsetRow | OverlayAgainst | AlarmCell) -> str:
    """Layer and noise level, as a heading says them."""
    return POOLED if of.layer is None or of.sigma is None else f"{of.layer}, σ = {number(of.sigma)}"


def onset_of(result: Result, row: Row) -> OnsetRow | None:
    """The verdict on the series that a row belongs to."""
    return next((onset for onset in result.onset if (onset.layer, onset.sigma) == (row.layer, row.sigma)), None)


def step(row: Row) -> int:
    """The step of a row of a series."""
    assert row.step is not None, "a row of a series without its step"
    return row.step


def short(value: float) -> str:
    """A step as axes and titles say it: 92,160 is 92.16 k."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{number(value / unit, 4)} {name}"
    return number(value)


def steps_count(result: Result) -> str:
    """What the steps are a number of, as an axis says it."""
    units = {checkpoint.get("step_unit") for checkpoint in result.checkpoints if "why" not in checkpoint}
    return AXIS.get(units.pop() or "", "training step") if len(units) == 1 else "training step"


def run_name(result: Result) -> str:
    """The folder that holds all snapshots; of a single one its file."""
    paths = [str(checkpoint["path"]) for checkpoint in result.checkpoints]
    if len(paths) < 2:
        return PurePath(*paths).name
    levels = zip(*(PurePath(path).parent.parts for path in paths), strict=False)
    common = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels)]
    return common[-1] if common else ""


def file_names(result: Result) -> dict[str, str]:
    """Path of each checkpoint → its file's name, with as many folders as it takes to tell them all apart."""
    parts = {str(checkpoint["path"]): PurePath(str(checkpoint["path"])).parts for checkpoint in result.checkpoints}
    for depth in range(1, 1 + max(map(len, parts.values()), default=0)):
        names = {path: "/".join(split[-depth:]) for path, split in parts.items()}
        if len(set(names.values())) == len(names):
            return names
    return {path: path for path in parts}


# --- the table

HELD_OUT: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "loss": ("loss", number),
    "held-out loss": ("loss_holdout", number),
    "held-out ICR": ("icr_holdout", share),
}
"""Headings, with the key and how it is shown, of what only a run with held-out images has."""


def columns(result: Result) -> dict[str, Callable[[Row], str]]:
    """Headings and how a row fills them; those of held-out images only where some row has them."""
    names = file_names(result)
    head: dict[str, Callable[[Row], str]] = {
        "step": lambda row: f"{step(row):,}",
        "checkpoint": lambda row: names.get(row.checkpoint or "", row.checkpoint or ""),
    }
    marked = {"mark": lambda row: ", ".join(marks(row, onset_of(result, row)))} if result.onset else {}
    if result.alarm is not None:
        losses = {HEADINGS[key]: metric(key) for limit in result.alarm.limits if (key := limit.quantity) in HEADINGS}
        return {
            **head,
            **{heading: COLUMNS[heading] for heading in ("ICR", "95 % interval")},
            "ICR rise": lambda row: risen(row.get("icr_rise"), row.get("icr_rise_se")),
            **losses,
            **({"loss rise": lambda row: risen(row.get("loss_rise"), row.get("loss_rise_se"))} if losses else {}),
            **marked,
        }
    return {
        **head,
        **{heading: COLUMNS[heading] for heading in ("ICR", "95 % interval", "trace s", "trace ξ")},
        "alignment": metric("alignment"),
        "uniformity": metric("uniformity"),
        "eff. rank": COLUMNS["eff. rank"],
        **{heading: metric(key, show) for heading, (key, show) in HELD_OUT.items() if _any(result, key)},
        **marked,
    }


HEADINGS = {"loss_views": "loss, new views", "loss_gap": "held-out loss"}


def risen(rise: float | None, se: float | None) -> str:
    """A rise above the lowest so far, with its standard error; nothing at the lowest itself."""
    if rise is None or se is None:
        return ""
    return "" if rise == 0 else f"{percent(rise)} ± {100 * (1 + rise) * se:.1f}"


def _any(result: Result, key: str) -> bool:
    return any(row.get(key) is not None for row in result.rows)


def marks(row: Row, onset: OnsetRow | None) -> list[str]:
    """What is special about a snapshot: lowest, to keep, where the rule fired."""
    if onset is None:
        return []
    lowest = onset.minimum is not None and onset.minimum.step == row.step
    found = {"lowest": lowest, "keep": onset.keep == row.checkpoint, "onset fired": onset.fired_at == row.step}
    return [mark for mark, holds in found.items() if holds]


def selection(rows: Sequence[Row], onset: OnsetRow | None) -> list[Row]:
    """Rows that a table shows: of a long series the first, the last, evenly spaced ones, and whichever is marked."""
    if len(rows) <= ROWS:
        return list(rows)
    between = ROWS - FIRST - LAST
    room = len(rows) - FIRST - LAST
    kept = {FIRST + (2 * i + 1) * room // (2 * between) for i in range(between)}
    return [row for i, row in enumerate(rows) if i < FIRST or i >= len(rows) - LAST or i in kept or marks(row, onset)]


# --- windows


def swept_layers(result: Result) -> list[str]:
    """Those whose window is known at each snapshot."""
    return list(dict.fromkeys(window.layer for window in result.window))


def is_told(result: Result, window: WindowRow) -> bool:
    """Whether a table shows it: of a long run first and last ones and some between."""
    steps = sorted({one.step for one in result.window if one.step is not None})
    every = max(1, len(steps) // (ROWS - LAST))
    place = steps.index(window.step) if window.step is not None else 0
    return place % every == 0 or place >= len(steps) - LAST


def window_lines(result: Result) -> list[str]:
    """Of each layer, where its window was first and last, and where it was lost."""
    lines = []
    for layer in swept_layers(result):
        found = [window for window in result.window if window.layer == layer and window.shape == "u"]
        if not found:
            lines.append(f"{layer}: no snapshot has a semantic window.")
            continue
        first, last = found[0], found[-1]
        lost = [
            window.step
            for window in result.window
            if window.layer == layer and window.shape != "u" and (window.step or 0) > (first.step or 0)
        ]
        moved = f"{layer}: the window lies at σ = {number(first.sigma)} at step {first.step:,}"
        if last is not first:
            moved += f", at {number(last.sigma)} at step {last.step:,}"
        gone = (
            ""
            if not lost
            else f"; there is none at step {', '.join(f'{step:,}' for step in lost[:5])}"
            + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
        )
        lines.append(f"{moved}{gone}.")
    return lines


# --- the verdict


def verdict(onset: OnsetRow) -> str:
    """A key of HEADLINE."""
    if onset.state != "turned":
        return onset.state
    return "retrospective" if onset.fired_at is None else "fired"


def by_urgency(rows: Iterable[OnsetRow]) -> list[OnsetRow]:
    """Those that have turned first, then by lowest ICR."""
    return sorted(rows, key=lambda row: (row.state != "turned", math.inf if row.minimum is None else row.minimum.icr))


def finding(result: Result, onset: OnsetRow) -> str:
    """What one series says: a few sentences with the numbers, without its notes."""
    fired = _rule(onset) if result.alarm is None else _alarm(result.alarm)
    return " ".join([*_lowest(result, onset), *_keep(result, onset), *fired, *_undecided(onset)])


def _lowest(result: Result, onset: OnsetRow) -> list[str]:
    minimum = onset.minimum
    if minimum is None:
        return ["No snapshot has an ICR that can be compared."]
    row = next((row for row in result.shown_rows if row.step == minimum.step and onset_of(result, row) is onset), None)
    ends = "" if row is None else interval(row.get("icr_low"), row.get("icr_high"))
    icr = f"{share(minimum.icr)} (95 % interval {ends})" if ends.startswith("[") else share(minimum.icr)
    if minimum.low_step == minimum.high_step:
        return [f"Lowest ICR {icr} at step {minimum.step:,}; every other snapshot can be told apart from it."]
    return [
        f"Lowest ICR {icr} at step {minimum.step:,}; snapshots from step {minimum.low_step:,} to "
        f"{minimum.high_step:,} cannot be told apart from it."
    ]


def _keep(result: Result, onset: OnsetRow) -> list[str]:
    if onset.keep is None or onset.keep_step is None:
        return []
    keep = f"Checkpoint to keep: {file_names(result).get(onset.keep, onset.keep)} (step {onset.keep_step:,})."
    if onset.rise is None:
        return [keep]
    ends = "" if onset.rise_low is None else f" (95 % interval [{percent(onset.rise_low)}, {percent(onset.rise_high)}])"
    return [keep, f"From there to the last snapshot ICR changed by {percent(onset.rise)}{ends}."]


def _alarm(alarm: Alarm) -> list[str]:
    """Whether it fired, on what, and what stands beside it."""
    passes = "" if alarm.passes is None else f" (after {_count(alarm.passes)} passes over these images in all)"
    if alarm.fired_at is None:
        waits = " and ".join(
            f"{_quantity(limit)} by {limit.rise:.0%}, {limit.errors:g} standard error{'s' * (limit.errors != 1)}"
            for limit in alarm.limits
        )
        return [f"The alarm has not fired{passes}: it waits for a rise of {waits}."]
    point = next(point for point in alarm.points if point.step == alarm.fired_at)
    said = [
        f"{_quantity(limit)} by {percent(point.icr_rise if limit.quantity == 'icr' else point.loss_rise)}"
        for limit in alarm.limits
    ]
    cells = ", ".join(f"{place(cell)} ({percent(cell.rise)})" for cell in alarm.cells[:3])
    rate = (
        ""
        if alarm.false_alarms is None
        else f" In simulations of runs that only flatten out or drift it fires in {100 * alarm.false_alarms:.2g} %."
    )
    return [
        f"The alarm fired at step {alarm.fired_at:,}{passes}: there is a rise of {' and of '.join(said)}. "
        f"ICR rose most surely in {cells}.{rate}"
    ]


def _quantity(limit: AlarmLimit) -> str:
    if limit.quantity == "icr":
        return "ICR above its lowest"
    above = "that on the training images" if limit.quantity == "loss_gap" else "its lowest"
    return f"{LOSSES[limit.quantity]} above {above}"


def _count(passes: float) -> str:
    return f"{passes:,.0f}" if passes >= 10 else number(passes, 2)


def _rule(onset: OnsetRow) -> list[str]:
    """Whether the rule fired, and how often it does so for nothing: that matters where something has turned."""
    if onset.fired_at is None:
        fired = [f"The rule for memorization (preset {onset.rule}) has not fired."] if onset.minimum else []
    else:
        fired = [f"The rule for memorization (preset {onset.rule}) fired at step {onset.fired_at:,}."]
    return [*fired, *([false_alarms(onset)] if onset.state == "turned" else [])]


def false_alarms(onset: OnsetRow) -> str:
    """How often the rule fires for nothing, or why that is not known."""
    if onset.fluctuation is None:
        return "How often it fires for nothing is not known: there are too few snapshots to see how far ICR fluctuates."
    fluctuates = f"{100 * onset.fluctuation:.2g} % from one snapshot to the next"
    if onset.false_alarms is None:
        return (
            f"How often it fires for nothing is not known: ICR fluctuates by {fluctuates}, which is above what was "
            "simulated."
        )
    rate = "none" if onset.false_alarms == 0 else f"{100 * onset.false_alarms:.2g} %"
    return (
        f"In simulations of runs that only flatten out this rule fires in {rate} of runs of {RUNS[onset.rule]} "
        f"snapshots at this fluctuation ({fluctuates})."
    )


def _undecided(onset: OnsetRow) -> list[str]:
    if onset.images_needed is None:
        return []
    return [f"About {onset.images_needed:,} images would decide (--num-images {onset.images_needed})."]


def overlay_lines(result: Result) -> list[str]:
    """One sentence for each column of the user's against each series."""
    several = len(result.onset) > 1
    return [
        f"{column.column}{f' ({place(against)})' if several else ''}: {correlation(against)}; {lead(column, against)}."
        for column in result.overlay
        for against in column.against
    ]


def correlation(against: OverlayAgainst) -> str:
    """How alike a column and ICR are."""
    if against.rank_correlation is None:
        return f"no rank correlation with ICR ({against.n} snapshots have both)"
    return f"rank correlation with ICR {against.rank_correlation:+.2f} over {against.n} snapshots"


def lead(column: Overlay, against: OverlayAgainst) -> str:
    """Which of the two turned first."""
    if column.turn_step is None:
        return f"{column.column} has no turn within the run"
    if against.lead is None:
        return f"it turned at step {column.turn_step:,}, ICR within the run did not"
    if against.lead == 0:
        return f"ICR turned at the same snapshot as {column.column}"
    count = f"{abs(against.lead)} snapshot{'' if abs(against.lead) == 1 else 's'}"
    return f"ICR turned {count} {'before' if against.lead > 0 else 'after'} {column.column}"


def left_out(result: Result) -> list[str]:
    """A sentence for each checkpoint that was left out."""
    names = file_names(result)
    missing = [checkpoint for checkpoint in result.checkpoints if checkpoint.get("why")]
    lines = []
    for checkpoint in missing:
        path = str(checkpoint["path"])
        lines.append(f"Left out: {names[path]}: {str(checkpoint['why']).removeprefix(f'{path}: ')}")
    return lines


def training_line(row: Row, onset_rows: Sequence[OnsetRow]) -> str:
    """A newly measured snapshot on one line: step, ICR with its interval, and what the run says so far."""
    onset = next((onset for onset in onset_rows if (onset.layer, onset.sigma) == (row.layer, row.sigma)), None)
    where = "" if len(onset_rows) == 1 else f" ({place(row)})"
    icr = f"ICR {share(row.get('icr'))}"
    if row.get("icr") is None:
        found = ", ".join(dict.fromkeys(code(note) for note in row.notes)) or "not computed"
    else:
        found = interval(row.get("icr_low"), row.get("icr_high"))
    rises = "".join(
        f", {what} {risen(row.get(key), row.get(f'{key}_se'))}"
        for key, what in (("icr_rise", "ICR"), ("loss_rise", "loss"))
        if row.get(key)
    )
    return f"step {step(row):,}{where}: {icr} {found}{rises}" + ("" if onset is None else f", {_so_far(onset)}")


def _so_far(onset: OnsetRow) -> str:
    if onset.fired_at is None:
        return onset.state
    keep = "" if onset.keep is None else f", keep {PurePath(onset.keep).name} (step {onset.keep_step:,})"
    return f"turned: memorization onset fired at step {onset.fired_at:,}{keep}"
