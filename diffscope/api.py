"""The public Python face: every command as a function, from what the commands declare, and what else Python needs."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from diffscope.checkpoints import Checkpoint
from diffscope.commands.base import Command, commands, preset_of
from diffscope.families import wrap
from diffscope.families.base import Denoiser
from diffscope.loggers import Log
from diffscope.measure import opening
from diffscope.measure.folder import agreement, make_ready
from diffscope.measure.progress import Listener, Progress
from diffscope.measure.study import Study
from diffscope.options.drawing import Drawing
from diffscope.options.option import Declared, key_values
from diffscope.options.settings import REPEATABLE, Loading, Logging, Output
from diffscope.options.signature import Entry, built, nearest
from diffscope.report import terminal
from diffscope.report.views.base import require_style
from diffscope.results import Record, Result, read_result
from diffscope.studies.track.monitor import Monitor

D = TypeVar("D", bound=Declared)

__all__ = ["Monitor", "function", "load", "read_result", "wrap"]


def load(
    checkpoint: str | Path,
    *,
    family: str | None = None,
    config: Mapping[str, str] | None = None,
    weights: str = "ema",
    outline: bool = False,
    verify: bool = False,
) -> tuple[Checkpoint, Denoiser]:
    """A checkpoint as a frozen denoiser: `denoiser.walk(x, sigma, label)` yields (layer name, activation).

    Args:
        checkpoint: File, diffusers folder, `hf://OWNER/NAME[@REVISION][/PATH]` or `toy:d=32,side=8`.
        family: What a file cannot say of itself: edm, edm2, sit, dit, repa, diffusers.
        config: Constructor facts that the file lacks, such as `{"num_heads": "6"}`.
        weights: Which set of a training dump: ema or model.
        outline: Only what the file is, without its weights: it cannot be walked.
        verify: Compare every checksum in the file with the bytes that it is of.

    Returns:
        What the file says of itself, and the network.

    Raises:
        CheckpointError: Where the file cannot be read, recognised or fitted; or one of its children.
    """
    loading = Loading(family=family, config=key_values(config or {}), weights=weights)
    return opening.load(str(checkpoint), loading, outline, verify)


def function(name: str) -> Callable[..., Result | Record]:
    """A command as a function: the same names, defaults and units as on the command line, as keyword arguments.

    Args:
        name: Of the command.

    Raises:
        KeyError: Where Python has no such function.
    """
    command = commands()[name]
    if not command.in_python:
        raise KeyError(name)
    entries = [entry for entry in command.entries if entry.option is None or entry.option.python]
    signature = inspect.Signature([*map(_parameter, sorted(entries, key=_place)), *_PROGRESS[: command.measures]])

    def call(*arguments: Any, **options: Any) -> Result | Record:
        known = [parameter.name for parameter in signature.parameters.values()]
        for option in options:
            if option not in known:
                raise TypeError(f"{name}() has no argument {option!r}{nearest(option, known)}")
        given = signature.bind_partial(*arguments, **options).arguments
        if given.get("preset") is not None:
            preset = preset_of(str(given["preset"]), name)
            options = {key: value for key, value in preset.items() if key in known and key not in given} | options
        values = dict(signature.bind(*arguments, **options).arguments)
        return _run(command, values, progress=values.pop("progress", True))

    call.__name__ = call.__qualname__ = name
    call.__module__ = "diffscope"
    call.__signature__ = signature  # type: ignore[attr-defined]
    call.__doc__ = documentation(command, entries)
    return call


def _place(entry: Entry) -> int:
    """Arguments first, then what has to be given, then options."""
    return 0 if entry.argument else 1 if entry.is_required else 2


def _parameter(entry: Entry) -> inspect.Parameter:
    kinds = inspect.Parameter
    positional = entry.argument is not None or entry.is_required
    needed = entry.argument is not None and entry.argument.several and not entry.argument.optional
    default = kinds.empty if entry.is_required or needed else entry.default
    kind = kinds.POSITIONAL_OR_KEYWORD if positional else kinds.KEYWORD_ONLY
    if entry.declared is not None and entry.declared.several and len(entry.default) == 1:
        (default,) = entry.default
    return kinds(entry.name, kind, default=default, annotation=annotation(entry))


_PROGRESS = (inspect.Parameter("progress", inspect.Parameter.KEYWORD_ONLY, default=True, annotation="bool"),)


def annotation(entry: Entry) -> str:
    """The type that a user may give, as it is written in the stub."""
    if entry.argument is not None:
        return entry.argument.python
    declared, option = entry.declared, entry.option
    assert declared is not None
    assert option is not None
    if declared.is_mapping:
        return "Mapping[str, object] | str | Path" if option.path else "Mapping[str, str]"
    if declared.fixed:
        return f"tuple[{', '.join(['str | Path'] * declared.fixed)}] | None"
    one = "str | Path" if option.path else getattr(declared.item, "__name__", "str")
    if option.read is not None and not declared.several and declared.item is not str:
        one += " | str"
    kinds = [one, *([f"Sequence[{one}]"] if declared.several else []), *(["None"] if declared.optional else [])]
    return " | ".join(kinds)


def documentation(command: Command, entries: list[Entry]) -> str:
    """The command's own words, then its arguments in Google's form."""
    text = inspect.cleandoc(command.run.__doc__ or "")
    lines = [text.partition("\n\nExample:")[0], "", "Args:"]
    for entry in sorted(entries, key=_place):
        told = entry.argument or entry.option
        assert told is not None
        told_help = _FLAG.sub(_field, told.help).replace(f" {REPEATABLE}", ", or a list of them")
        lines += textwrap.wrap(f"{entry.name}: {told_help}", 112, initial_indent="    ", subsequent_indent="        ")
    if command.measures:
        lines.append("    progress: Show a bar, in terminals and notebooks.")
    lines += ["", "Raises:", "    DiffscopeError: Whatever keeps the question from being answered, in one line."]
    return "\n".join(lines)


_FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")
"""In help, which speaks of flags."""


def _field(flag: re.Match[str]) -> str:
    return f"`{flag[1].replace('-', '_')}`"


def _run(command: Command, values: dict[str, Any], progress: bool) -> Result | Record:
    """What the command line does, without its words."""
    for entry in command.entries:
        if entry.argument is not None and entry.name in values:
            values[entry.name] = _plain(entry, values[entry.name])
    output, drawing = _taken(command, values, Output), _taken(command, values, Drawing)
    logging = _taken(command, values, Logging)
    require_style(drawing)
    arguments = built(command.run, values)
    out = None if output.out is None or command.writes_itself else Path(output.out)
    with Log(logging.log, f"diffscope {command.name}") as log:
        found = command.run(**arguments)
        assert found is not None
        if isinstance(found, (Result, Record)):
            if out is not None:
                found.save(out, **vars(drawing))
            return found
        return _measured(command, found, out, output.overwrite, drawing, progress, log)


def _taken(command: Command, values: dict[str, Any], kind: type[D]) -> D:
    """Options that are not of the question, out of the values."""
    own = {entry.name for entry in command.entries if entry.owner == kind.__name__}
    return kind(**{name: values.pop(name) for name in own if name in values})


def _measured(
    command: Command, study: Study, out: Path | None, overwrite: bool, drawing: Drawing, progress: bool, log: Log
) -> Result | Record:
    log.open()
    if out is not None:
        make_ready(out)
    with terminal.progress(study.total, command.name, unit=study.unit, shown=progress) as advance:
        heard = Listener(advance, agree=agreement(out, overwrite))
        finished = study.run(out, Progress(heard, study.total, study.unit).listener)
    if out is not None:
        finished.result.save(out, **vars(drawing))
    if isinstance(finished.result, Result):
        log.result(finished.result)
    finished.forget()
    return finished.result


def _plain(entry: Entry, value: Any) -> Any:
    """Paths as text; one checkpoint where several may be given as a list of it."""
    assert entry.argument is not None
    if entry.argument.several:
        several = value if isinstance(value, (list, tuple)) else [value]
        return tuple(str(one) if isinstance(one, Path) else one for one in several)
    return str(value) if isinstance(value, Path) else value
