"""A command's life, the same for all: opened, warned of, measured, written, shown, forgotten, held to gates."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from diffscope.cli.distributed import joined
from diffscope.cli.gates import Gate, parse
from diffscope.cli.gates import check as hold
from diffscope.cli.output import print_json, print_line, reader_may_leave, summarise_for_github
from diffscope.commands.base import LIFECYCLE, Command
from diffscope.errors import GateHeld, UsageError
from diffscope.loggers import Log
from diffscope.measure.folder import agreement, make_ready
from diffscope.measure.progress import Listener, Progress
from diffscope.measure.study import Finished, Study
from diffscope.options.drawing import Drawing
from diffscope.options.settings import Logging, Output, Terminal
from diffscope.options.signature import built
from diffscope.ranks import world
from diffscope.report import terminal
from diffscope.report.views.base import require_style, view_of
from diffscope.results import Record, Result

ABSENT = object()
"""Stands for an option that was not given: its dataclass knows the default."""


def carry_out(command: Command, given: Mapping[str, Any]) -> None:
    """Everything that one command line asks for.

    Args:
        command: What was called.
        given: Values by name, as the command line has them; ABSENT where it has none.

    Raises:
        GateHeld: A `--fail-if` holds.
        DiffscopeError: Whatever keeps the command from being carried out.
    """
    values = {name: value for name, value in given.items() if value is not ABSENT}
    chosen = {entry.name: entry.owner for entry in command.entries}
    own = {kind: {n: v for n, v in values.items() if chosen[n] == kind} for kind in LIFECYCLE}
    printing, output = Terminal(**own["Terminal"]), Output(**own["Output"])
    drawing, logging = Drawing(**own["Drawing"]), Logging(**own["Logging"])
    require_style(drawing)
    arguments = built(command.run, values)
    _check_levels(arguments)
    _check_shard(arguments, printing, output, logging)
    gates = _gates(command, printing, arguments)
    with joined(command, arguments), Log(logging.log, f"diffscope {command.name}") as log:
        if command.returns is type(None):  # it prints what it has to say itself
            command.run(**arguments)
            return
        with terminal.waiting(f"{command.name}: reading"):
            found = command.run(**arguments)
        if found is not None:
            Session(command, printing, output, drawing, gates, arguments, log).finish(found)


def _check_levels(arguments: Mapping[str, Any]) -> None:
    """UsageError where levels are spoken in both variables: one may be there by mistake."""
    settings = arguments.get("settings")
    if getattr(settings, "sigma", ()) and getattr(settings, "t", ()):
        raise UsageError("`sigma=` and `t=` both give noise levels; expected one of the two, repeated as needed")


def _check_shard(arguments: Mapping[str, Any], printing: Terminal, output: Output, logging: Logging) -> None:
    """UsageError where a share of a measurement is asked for what needs the whole."""
    shard = getattr(arguments.get("sharding"), "shard", None)
    if shard is None:
        return
    if output.out is None:
        raise UsageError(f"`shard={shard}` needs `out=DIR`, a folder of its own for each shard")
    for name in ("fail_if", "json"):
        if getattr(printing, name):
            raise UsageError(f"`shard={shard}`: `{name}=` needs the whole; give it to diffscope merge")
    if logging.log:
        raise UsageError(f"`shard={shard}`: `log=` needs the whole; leave it out")


def _gates(command: Command, printing: Terminal, arguments: Mapping[str, Any]) -> list[Gate]:
    if command.gates is None or not printing.fail_if:
        return []
    keys = command.gates.keys(arguments)
    return [parse(text, keys, percent=command.gates.percent) for text in printing.fail_if]


class Session:
    """One command, from what it has opened to its end."""

    def __init__(
        self,
        command: Command,
        printing: Terminal,
        output: Output,
        drawing: Drawing,
        gates: Sequence[Gate],
        arguments: Mapping[str, Any],
        log: Log,
    ) -> None:
        self.command, self.printing, self.gates, self.arguments = command, printing, gates, arguments
        self.log = log
        out = arguments.get("out", output.out)
        self.out = None if out is None or command.writes_itself else Path(out)
        self.drawing = drawing
        self.overwrite = output.overwrite or command.overwrites
        self.act = command.acting(arguments)
        """What else the command does with a result."""

    def finish(self, found: Study | Result | Record) -> None:
        """Measures what is to be measured, then writes and shows it, and holds it to gates."""
        if isinstance(found, (Result, Record)):
            self._deliver(found, self.out)
            self.check(found)
        elif self.printing.dry_run:
            expected = found.estimate()
            self.show(Record("estimate", {**expected.to_json(), "lines": expected.lines()}))
        elif getattr(found, "online", False):
            from diffscope.cli.following import follow

            follow(self, found)
        else:
            result = self._finish(found, self.out)
            if (following := self.command.then(result, self.arguments)) is not None:
                self._finish(following[0], Path(following[1]), is_first=False)

    def _finish(self, study: Study, out: Path | None, is_first: bool = True) -> Result | Record:
        finished = self._measured(study, out)
        if not finished.is_whole:  # it lies in `out` as it is, and is no result that a gate could look at
            self.show(finished.result)
            return finished.result
        self._deliver(finished.result, out, is_first)
        if isinstance(finished.result, Result):
            self.log.result(finished.result)
        # Only now: until the result is out, what stands on disk is all there is of the work.
        finished.forget()
        self.act(finished.result)
        self.check(finished.result)
        return finished.result

    def listener(self, out: Path | None, advance: Any = lambda units: None) -> Listener:
        """What a study tells of itself, on stderr; it may not overwrite what stands in `out`."""
        return Listener(advance, terminal.note, terminal.warn, agreement(out, self.overwrite))

    def ready(self, study: Study, out: Path | None) -> None:
        """What is to be said and done before a run."""
        if world().leads:
            self.log.open()
        for line in study.warnings():
            terminal.warn(line)
        if out is not None:
            make_ready(out)

    def _measured(self, study: Study, out: Path | None) -> Finished:
        self.ready(study, out)
        with terminal.progress(study.total, self.command.name, unit=study.unit) as advance:
            lines = not sys.stderr.isatty()
            heard = Progress(self.listener(out, advance), study.total, study.unit, lines=lines)
            finished = study.run(out, heard.listener)
        if not world().leads:  # the first has the result to write
            raise typer.Exit(0)
        return finished

    def _deliver(self, found: Result | Record, out: Path | None, is_first: bool = True) -> None:
        """Files, then what stdout is for: with --json one document, that of the first of several results."""
        skipped = found.data["skipped"] if isinstance(found, Result) else ()
        if skipped:
            terminal.warn(f"{len(skipped)} unreadable images were left out; the first: {skipped[0]['why']}")
        for line in self.command.warnings(found):
            terminal.warn(line)
        self.save(found, out)
        if not is_first and not self.printing.json:
            print()
        if is_first or not self.printing.json:
            self.show(found, out)
        for line in () if self.printing.json or self.printing.quiet else self.command.notes(found, out):
            terminal.note(line)
        summarise_for_github(found)

    def save(self, found: Result | Record, out: Path | None) -> None:
        """The files, in `out` if there is one."""
        for path in [] if out is None else found.save(out, **vars(self.drawing)):
            terminal.note(f"wrote {path}")

    def show(self, found: Result | Record, out: Path | None = None) -> None:
        """What stdout is for: one JSON document, numbers with their names, or all there is to see."""
        with reader_may_leave():
            if self.printing.json:
                print_json(found.to_json())
            elif self.printing.quiet:
                for line in view_of(found).quiet(found):
                    print_line(line)
            else:
                view_of(found).show(found, terminal.stdout_console(), pictured=out is not None)

    def check(self, found: Result | Record) -> None:
        """GateHeld where one of the gates holds, or the command itself says so."""
        if lines := self.command.held(found):
            raise GateHeld(lines)
        if self.command.gates is not None:
            hold(self.gates, self.command.gates.rows(found), found.onset if isinstance(found, Result) else ())
