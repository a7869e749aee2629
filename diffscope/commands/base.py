"""The contract of a command: a file named after it, with a function `run` whose parameters are declared options.

    '''diffscope blur: ICR of blurred images.'''

    @dataclass(frozen=True)
    class Blur(Declared):
        radius: Annotated[float, Option("Radius in pixels.", least=0, protocol=True)] = 1.0

    def run(checkpoint: Checkpoint, data: Data, settings: Settings, loading: Loading, blur: Blur) -> Study:
        '''What it answers, in one sentence.

        Example: diffscope blur CKPT --data IMAGES
        '''
        from diffscope.studies.blur import open_blur     # torch is imported here, not at the top
        return open_blur(...)

It returns a `Study`, which is then measured, written, shown and held to gates; or a finished `Result` or `Record`,
which is written and shown; or nothing, where it has printed what it had to say. Beside `run` a file may have:

    GATES        what --fail-if may ask of it
    DISTRIBUTED  whether it runs in several processes, as torchrun starts them
    LOGS         whether its results can be logged where people already look (`--log`)
    PYTHON       False where it is of the command line alone
    WITHOUT      options of `Output` and `Terminal` that it does not have
    DRAWS        whether it has options of `Drawing`, where that is not whether it measures and writes a result
    OVER_STEPS   whether its pictures are of training, so that their axis may be logarithmic
    WRITES_ITSELF, OVERWRITES, warnings, notes, acting, then, held: see `Command`
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from diffscope import registry
from diffscope.measure.study import Study
from diffscope.options.drawing import Drawing
from diffscope.options.option import Declared
from diffscope.options.preset import Presets, read_preset
from diffscope.options.settings import Logging, Output, Terminal
from diffscope.options.signature import Entry, entries
from diffscope.results import Record, Result

FOLDER = "diffscope.commands"
LIFECYCLE = (Output.__name__, Drawing.__name__, Logging.__name__, Terminal.__name__)
"""Owners of the options that are not of the question, but of what is done with the answer."""


@dataclass(frozen=True)
class Gates:
    """What `--fail-if` may ask of a command.

    Args:
        of: The rows that it looks at, in words.
        example: A condition.
        keys: The keys that a condition may name, from the arguments of `run`.
        rows: The rows of a result that conditions are held against.
        percent: Whether numbers may be percentages.
    """

    of: str
    example: str
    keys: Callable[[Mapping[str, Any]], Collection[str]]
    rows: Callable[[Any], Sequence[Mapping[str, Any]]]
    percent: bool = False


def windows_or_rows(result: Result) -> Sequence[Mapping[str, Any]]:
    """What gates look at: the windows of a sweep, else the rows."""
    return [vars(window) for window in result.window] or result.rows


@dataclass(frozen=True)
class Command:
    """A command, as its file declares it."""

    name: str
    module: ModuleType

    @property
    def run(self) -> Callable[..., Study | Result | Record | None]:
        """Opens the study, or finishes at once."""
        function: Callable[..., Study | Result | Record | None] = self.module.run
        return function

    @property
    def gates(self) -> Gates | None:
        """What --fail-if may ask."""
        return getattr(self.module, "GATES", None)

    @property
    def distributed(self) -> bool:
        """Whether several processes may run it together."""
        return bool(getattr(self.module, "DISTRIBUTED", False))

    @property
    def logs(self) -> bool:
        """Whether its results can be logged."""
        return bool(getattr(self.module, "LOGS", False))

    @property
    def in_python(self) -> bool:
        """Whether it is a function of the package."""
        return bool(getattr(self.module, "PYTHON", True))

    @property
    def returns(self) -> Any:
        """What `run` returns, as it says."""
        return get_type_hints(self.run).get("return")

    @property
    def measures(self) -> bool:
        """Whether it opens a study."""
        return self.returns is Study

    @property
    def writes_itself(self) -> bool:
        """Whether `out` names a file of its own, and no folder for results."""
        return bool(getattr(self.module, "WRITES_ITSELF", False))

    @property
    def draws(self) -> bool:
        """Whether it makes pictures, which may be drawn in several ways."""
        return bool(getattr(self.module, "DRAWS", self.measures and not self.writes_itself))

    @property
    def overwrites(self) -> bool:
        """Whether what stands in `out` is replaced whatever it is."""
        return bool(getattr(self.module, "OVERWRITES", False))

    def warnings(self, found: Result | Record) -> Sequence[str]:
        """What a person should not miss of what was found."""
        lines: Sequence[str] = getattr(self.module, "warnings", lambda found: ())(found)
        return lines

    def notes(self, found: Result | Record, out: Path | None) -> Sequence[str]:
        """What is said on stderr beside what is shown."""
        lines: Sequence[str] = getattr(self.module, "notes", lambda found, out: ())(found, out)
        return lines

    def held(self, found: Result | Record) -> list[str]:
        """Lines for which the command ends with exit code 3, whatever --fail-if asks; none where all is well."""
        lines: list[str] = getattr(self.module, "held", lambda found: [])(found)
        return lines

    def acting(self, arguments: Mapping[str, Any]) -> Callable[[Any], None]:
        """What the command does with each of its results, once that is out."""
        made: Callable[[Any], None] = getattr(self.module, "acting", lambda arguments: lambda found: None)(arguments)
        return made

    def then(self, found: Result | Record, arguments: Mapping[str, Any]) -> tuple[Study, str] | None:
        """The study that follows, and the folder for its result."""
        following: tuple[Study, str] | None = getattr(self.module, "then", lambda *given: None)(found, arguments)
        return following

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Arguments and options, with those of output, but for what concerns only what the command does not do."""
        shared: tuple[type[Declared], ...] = ()
        if self.returns is not type(None):
            shared = (Output, *([Drawing] if self.draws else []), Logging, Terminal, Presets)
        left = set(getattr(self.module, "WITHOUT", ()))
        left |= set() if self.gates else {"fail_if"}
        left |= set() if self.measures else {"dry_run"}
        left |= set() if self.logs else {"log"}
        left |= set() if getattr(self.module, "OVER_STEPS", False) else {"step_scale"}
        found = entries(self.run, shared)
        return tuple(entry for entry in found if entry.name not in left or entry.owner not in LIFECYCLE)


def preset_of(path: str, name: str) -> dict[str, Any]:
    """What a preset's file says of a command; see `read_preset`."""
    return read_preset(path, name, {other: command.entries for other, command in commands().items()})


def commands() -> dict[str, Command]:
    """All of them, by name."""
    return {name: Command(name, module) for name, module in registry.load(FOLDER).items()}
