"""The typer application: one command for every file in `diffscope.commands`, from what these declare."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from diffscope import __version__
from diffscope.cli.completion import completer
from diffscope.cli.session import ABSENT, carry_out
from diffscope.commands.base import Command, commands, preset_of
from diffscope.errors import UsageError
from diffscope.options.option import GROUPS, Argument, Declaration
from diffscope.options.preset import as_typed
from diffscope.options.signature import Entry

ORDER = ("demo", "inspect", "icr", "sweep")


def build_app() -> typer.Typer:
    """A newcomer's order first, then the rest by name."""
    app = typer.Typer(
        name="diffscope",
        cls=_Program,
        help="Looks inside pretrained diffusion models: the Invariant Contamination Ratio (ICR) over noise levels and "
        "layers, from images alone: no labels, no sampling, no other network.",
        epilog="First: diffscope demo. Then: diffscope inspect CKPT, diffscope sweep CKPT --data IMAGES.",
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=True,
    )
    app.callback(invoke_without_command=True)(_root)
    found = commands()
    for name in sorted(found, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n)):
        app.command(name, cls=_Grouped, short_help=_first_sentence(found[name].run))(as_typer(found[name]))
    return app


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print versions and exit.", is_eager=True)] = False,
) -> None:
    if version:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as installed

        try:
            torch = installed("torch")
        except PackageNotFoundError:
            torch = "not installed"
        typer.echo(f"diffscope {__version__} (torch {torch})")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _first_sentence(command: Callable[..., object]) -> str:
    """For the list of commands, which would otherwise end in three dots."""
    text = " ".join((command.__doc__ or "").split())
    return re.split(r"(?<=[.?])\s", text, maxsplit=1)[0]


def as_typer(command: Command) -> Callable[..., None]:
    """A function whose signature typer reads, and which carries the command out."""
    by_name = {entry.name: entry for entry in command.entries}

    def run(**given: Any) -> None:
        carry_out(command, {name: _read(by_name[name], value) for name, value in given.items()})

    # Arguments first; options with and without defaults stand in any order.
    ordered = sorted(by_name.values(), key=lambda entry: entry.argument is None)
    parameters = [_parameter(command, entry) for entry in ordered]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__doc__, run.__name__ = command.run.__doc__, command.name
    return run


def _parameter(command: Command, entry: Entry) -> inspect.Parameter:
    told, kind = _option(command, entry.declared) if entry.declared else _argument(entry.argument)
    default = inspect.Parameter.empty if entry.is_required else _shown_default(entry)
    kind = kind if entry.is_required or default is not None else kind | None
    return inspect.Parameter(
        entry.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, told]
    )


def _argument(argument: Argument | None) -> tuple[Any, Any]:
    assert argument is not None
    told = typer.Argument(
        metavar=argument.metavar,
        help=argument.help,
        show_default=argument.shown or False,
        autocompletion=completer(argument.completes, ()),
    )
    return told, list[str] if argument.several else str


def _option(command: Command, declared: Declaration) -> tuple[Any, Any]:
    option = declared.option
    flags = [declared.flag, *([option.short] if option.short else [])]
    help_text = option.help
    if declared.name == "fail_if" and (gates := command.gates):
        help_text = f"{help_text} of {gates.of}, such as '{gates.example}' (repeatable, or a list by commas)."
    if declared.item is bool and declared.default is True:
        flags = [f"{declared.flag}/--no-{declared.flag.removeprefix('--')}"]
    told = typer.Option(
        *flags,
        metavar=option.metavar,
        help=help_text,
        envvar=option.envvar,
        show_default=_words_of_default(declared),
        rich_help_panel=option.group,
        autocompletion=completer(option.completes, option.choices),
        is_eager=declared.name == "preset",
        callback=_preset(command) if declared.name == "preset" else None,
    )
    return told, _typer_kind(declared)


def _preset(command: Command) -> Callable[..., str | None]:
    """What reads a preset before the other options: its values are their defaults, as the parser has them."""

    def read(context: typer.Context, value: str | None) -> str | None:
        if value is not None and not context.resilient_parsing:
            declared = {entry.name: entry.declared for entry in command.entries if entry.declared is not None}
            found = preset_of(value, command.name)
            context.default_map = {name: as_typed(declared[name], one) for name, one in found.items()}
        return value

    return read


def _typer_kind(declared: Declaration) -> Any:
    """What typer reads; whatever has a form of its own is read as text, and brought to its form afterwards."""
    option = declared.option
    if declared.fixed:
        return tuple[(str,) * declared.fixed]  # type: ignore[misc]
    if declared.several or declared.is_mapping:
        return list[str] if option.repeated else str
    return str if option.read is not None or declared.item not in (int, float, bool) else declared.item


def _shown_default(entry: Entry) -> Any:
    """As typer takes it: what is read as text has no default there, but that of its dataclass."""
    declared = entry.declared
    if declared is None:
        return None if entry.default == () else entry.default
    if declared.several or declared.is_mapping or declared.fixed or declared.option.read is not None:
        return None
    return entry.default


def _words_of_default(declared: Declaration) -> str | bool:
    if declared.option.shown is not None:
        return declared.option.shown or False
    if declared.several:
        return ", ".join(map(str, declared.default)) or False
    return not (declared.default is None or declared.default is MISSING)


def _read(entry: Entry, value: Any) -> Any:
    """A value as the dataclass takes it; UsageError where it cannot be read."""
    declared = entry.declared
    if value is None:
        return ABSENT
    if declared is None:
        return tuple(value) if isinstance(value, list) else value
    if declared.several:
        texts = value if declared.option.repeated else [value]
        return tuple(one for text in texts for one in _several(declared, text))
    return value


def _several(declared: Declaration, text: str) -> list[Any]:
    """The values of one occurrence; what is refused is named as it was typed."""
    option = declared.option
    parts = [part.strip() for part in text.split(",")]
    if declared.item is str:
        return [part for part in parts if part]
    try:
        return [declared.item(part) if option.read is None else option.read(part) for part in parts]
    except UsageError as error:
        _, _, expected = str(error).partition("`: ")
        raise UsageError(f"`{declared.name}={text}`: {expected}") from None
    except ValueError:
        raise UsageError(f"`{declared.name}={text}`: expected a number, or several such as 0.1,0.3") from None


class _Program(TyperGroup):
    """`diffscope help COMMAND` is `diffscope COMMAND --help`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        asked = args[1:] if args[:1] == ["help"] and len(args) == 2 else []
        return super().parse_args(ctx, [*asked, "--help"] if set(asked) & set(self.commands) else args)


class _Grouped(TyperCommand):
    """Help in groups: what to measure, on what, statistics, speed, output."""

    def format_options(self, context: Any, formatter: Any) -> None:
        for title, rows in self._groups(context):
            with formatter.section(title):
                formatter.write_dl(rows)

    def _groups(self, context: Any) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        records = [
            ("Arguments" if p.param_type_name == "argument" else getattr(p, "rich_help_panel", None) or "Other", record)
            for p in self.get_params(context)
            if (record := p.get_help_record(context)) is not None
        ]
        titles = list(dict.fromkeys(title for title, _ in records))
        for title in sorted(titles, key=lambda t: ("Arguments", *GROUPS, "Other").index(t)):
            yield title, [record for group, record in records if group == title]
