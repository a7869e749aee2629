"""`track --watch`: beside a training, each snapshot as it appears, until a gate holds or the user interrupts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from diffscope.cli.leaving import last_word
from diffscope.cli.output import print_line, reader_may_leave, summarise_for_github
from diffscope.errors import CheckpointError, UsageError
from diffscope.measure.snapshots import LeftOut, Snapshot, check_series, snapshot_of, step_pattern
from diffscope.ranks import world
from diffscope.report import terminal
from diffscope.report.views.base import view_of

if TYPE_CHECKING:
    from diffscope.cli.session import Session


def follow(session: Session, tracker: Any) -> None:
    """Measures, prints and holds the gates; however it ends, the result so far is reported.

    Args:
        session: Of the command.
        tracker: Takes snapshots one by one (`studies.track.track.Tracker`).
    """
    from diffscope.studies.track.watch import Watch

    if world().size > 1:
        raise UsageError("`watch=`: one process waits for snapshots; without torchrun, or without `watch=`")
    watching = session.arguments["watching"]
    session.ready(tracker, session.out)
    tracker.listener, tracker.folder = session.listener(session.out), session.out
    watch = Watch(watching.watch, watching.every, session.arguments["loading"].weights)
    terminal.note(
        f"watching {watch.folder}: a snapshot is measured when it has not changed for {watch.every:g} s; "
        "end with Ctrl-C"
    )
    try:
        with last_word():
            while True:
                _look(session, tracker, watch)
                time.sleep(watch.every)
    finally:
        if tracker.taken:
            result = tracker.result()
            if session.out is not None:
                view_of(result).finish(result, session.out)
            session.show(result)
            summarise_for_github(result)


def _look(session: Session, tracker: Any, watch: Any) -> None:
    """What has newly appeared."""
    appeared = _appeared(session, tracker, watch)
    for snapshot in appeared:
        taken = tracker.take(snapshot)
        if taken is None:
            terminal.warn(f"left out, until it changes: {tracker.left_out[snapshot.path]}")
            continue
        result = tracker.result()
        if session.out is not None and (taken.fresh or snapshot is appeared[-1]):
            view_of(result).save(result, session.out, renewed=max(watch.every, 10.0), **vars(session.drawing))
        session.log.result(result)
        if not (session.printing.json or session.printing.quiet):
            from diffscope.report.words.training import training_line

            with reader_may_leave():
                for row in (row for row in result.shown_rows if row["step"] == snapshot.step):
                    print_line(training_line(row, result.onset))
        session.act(result)
        session.check(result)


def _appeared(session: Session, tracker: Any, watch: Any) -> list[Snapshot]:
    """What has newly appeared, by step. What a run is told once is chosen on the first of them."""
    pattern = step_pattern(session.arguments["following"].step_from)
    found = []
    for path in watch.look():
        try:
            found.append(snapshot_of(path, pattern, session.arguments["loading"].weights))
        except CheckpointError as error:
            tracker.leave_out([LeftOut(path, str(error))])
            terminal.warn(f"left out, until it changes: {error}")
    found.sort(key=lambda snapshot: snapshot.order)
    if found and not tracker.taken:
        check_series(found)
        tracker.settle(found)
    return found
