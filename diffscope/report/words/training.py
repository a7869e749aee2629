"""ICR over a training run in words: what its shape means for the user, which checkpoint to keep, what to do next."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from diffscope.report.text import COLUMNS, CORRELATED, code, interval, metric, number, percent, share
from diffscope.report.words import alarm
from diffscope.report.words.series import FIRST, LAST, ROWS, file_names, onset_of, place, step
from diffscope.results import OnsetRow, Overlay, OverlayAgainst, Result, Row

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

RUNS = {"long": 100, "short": 20}
"""Snapshots of the runs in which the false alarms of a preset were counted."""


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
        losses = {
            alarm.HEADINGS[key]: metric(key)
            for limit in result.alarm.limits
            if (key := limit.quantity) in alarm.HEADINGS
        }
        return {
            **head,
            **{heading: COLUMNS[heading] for heading in ("ICR", "95 % interval")},
            "ICR rise": lambda row: alarm.risen(row.get("icr_rise"), row.get("icr_rise_se")),
            **losses,
            **({"loss rise": lambda row: alarm.risen(row.get("loss_rise"), row.get("loss_rise_se"))} if losses else {}),
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


# --- the verdict


def images(told: Mapping[str, Any]) -> str:
    """Of a run with an accuracy (`Result.accuracy`): how many images that took, and whether they were enough."""
    reason, whole = told["reason"], told["looks"][-1]
    ended = f"{reason[0].upper()}{reason[1:]}" if told["reached"] else f"Accuracy not reached: {reason}"
    saved = 100 * (1 - told["images"] / whole)
    return f"{ended}. All snapshots were given the same {told['images']:,} images, {saved:.0f} % fewer than {whole:,}."


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
    fired = _rule(onset) if result.alarm is None else alarm.sentences(result.alarm)
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
    if against.rank_correlation is None or against.n < CORRELATED:
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
        f", {what} {alarm.risen(row.get(key), row.get(f'{key}_se'))}"
        for key, what in (("icr_rise", "ICR"), ("loss_rise", "loss"))
        if row.get(key)
    )
    return f"step {step(row):,}{where}: {icr} {found}{rises}" + ("" if onset is None else f", {_so_far(onset)}")


def _so_far(onset: OnsetRow) -> str:
    if onset.fired_at is None:
        return onset.state
    keep = "" if onset.keep is None else f", keep {PurePath(onset.keep).name} (step {onset.keep_step:,})"
    return f"turned: memorization onset fired at step {onset.fired_at:,}{keep}"
