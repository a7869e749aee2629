"""What a shell completes values from: choices, families, topics, and layers of the checkpoint that was named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Completer = Callable[[Any, str], list[str]]


def completer(what: str | None, choices: tuple[str, ...]) -> Completer | None:
    """A function that typer calls with the context and the value begun.

    Args:
        what: As declared: choices, layers, families, topics, or the words themselves, with blanks between.
        choices: Of the option.
    """
    if what is None:
        return _of(choices) if choices else None
    named: dict[str, Callable[[Any], list[str]]] = {
        "choices": lambda context: list(choices),
        "families": lambda context: _families(),
        "layers": _layers,
        "topics": lambda context: _topics(),
    }
    find = named.get(what, lambda context: what.split())

    def complete(ctx: Any, incomplete: str) -> list[str]:
        return [value for value in find(ctx) if value.startswith(incomplete)]

    return complete


def _of(choices: tuple[str, ...]) -> Completer:
    return lambda ctx, incomplete: [value for value in choices if value.startswith(incomplete)]


def _families() -> list[str]:
    from diffscope import registry

    return registry.members("diffscope.families")


def _topics() -> list[str]:
    from diffscope.commands.help import topics

    return list(topics())


def _layers(context: Any) -> list[str]:
    """Of the checkpoint on the command line, from its outline; only the general names where there is none yet."""
    from diffscope.errors import DiffscopeError

    given = context.params.get("checkpoint") or context.params.get("checkpoints")
    path = given[0] if isinstance(given, (list, tuple)) and given else given
    known = ["mid", "all"]
    if isinstance(path, str):
        from diffscope.measure.opening import load
        from diffscope.options.settings import Loading

        try:
            denoiser = load(path, Loading(family=context.params.get("family")), outline=True)[1]
        except DiffscopeError:
            return known
        known += [layer.name for layer in denoiser.layers]
    return known
