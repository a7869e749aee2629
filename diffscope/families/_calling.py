"""How a network is called, as `x,t` or `sample=x,timestep=t,class_labels=y:10`, and what is made of its output.

Parts stand in the order of the arguments. `x` is the noisy input, `t` what the network is told of the noise, `y:COUNT`
a class of COUNT; `y:COUNT:NULL` says what stands for no class, an index or `none`. Any other value is a constant: None,
True, False or a number.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diffscope.errors import NetworkError, UsageError
from diffscope.families.base import Classes

EXPECTED = "expected such as x,t or sample=x,timestep=t,class_labels=y:10"
MAX_CLASSES = 1 << 24


@dataclass(frozen=True)
class Calling:
    """The arguments of a network's forward."""

    text: str
    positional: tuple[Any, ...]
    keywords: Mapping[str, Any] = field(default_factory=dict)
    classes: Classes = field(default_factory=Classes)
    null: int | None = None
    """The index that stands for no class; None where that is None itself, or there is none."""

    PLACES: ClassVar[tuple[str, ...]] = ("x", "t", "y")

    def __call__(self, module: nn.Module, x: Tensor, time: Tensor, label: Tensor | None) -> Tensor:
        """Calls a network.

        Args:
            module: The network.
            x: (B, C, H, W).
            time: (B,), of the type that the network was trained with.
            label: Classes (B,) or (1,) int64; None for no class.

        Returns:
            Its output, or the first part of it.

        Raises:
            NetworkError: If that is no tensor.
        """
        given = {"x": x, "t": time, "y": None if label is None else label.expand(len(x))}

        def value(part: Any) -> Any:
            return given[part.name] if isinstance(part, _Place) else part

        keywords = {name: value(part) for name, part in self.keywords.items()}
        output = module(*map(value, self.positional), **keywords)
        return first_tensor(output, module)

    def label(self, classes: Tensor | None, device: torch.device) -> Tensor | None:
        """Makes what `__call__` takes for classes.

        Args:
            classes: Indices (B,) int64; None stands for no class.
            device: Where the result is used.

        Returns:
            int64 of length B or 1; None where the network takes no classes, or None for no class.

        Raises:
            UsageError: If there is no null class and `classes` is None.
        """
        if not self.classes.count:
            return None
        if classes is not None:
            return classes.to(device)
        if not self.classes.null:
            raise UsageError("this model has no null class; use `class_label=label` or `class_label=INT`")
        return None if self.null is None else torch.full((1,), self.null, device=device)


@dataclass(frozen=True)
class _Place:
    """Stands for x, t or y among the arguments."""

    name: str


def calling(text: str) -> Calling:
    """Reads how a network is called.

    Args:
        text: Such as "x,t".

    Returns:
        The arguments.

    Raises:
        UsageError: If it cannot be read, or x is not among them.
    """
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    classes, null, seen = Classes(), None, []
    for part in text.replace(" ", "").split(","):
        name, equals, spelled = part.rpartition("=")
        place, _, facts = spelled.partition(":")
        if place in Calling.PLACES:
            if place in seen:
                raise UsageError(f"`call={text}`: {place} stands there twice; {EXPECTED}")
            seen.append(place)
            value: Any = _Place(place)
            if place == "y":
                classes, null = _classes(text, facts)
            elif facts:
                raise UsageError(f"`call={text}`: '{part}' cannot be read; {EXPECTED}")
        else:
            value = _constant(text, part, spelled)
        if not equals:
            if keywords:
                raise UsageError(f"`call={text}`: '{part}' follows a keyword and has none; {EXPECTED}")
            positional.append(value)
        elif not name.isidentifier() or name in keywords:
            raise UsageError(f"`call={text}`: '{name}' is no keyword, or stands there twice; {EXPECTED}")
        else:
            keywords[name] = value
    if "x" not in seen:
        raise UsageError(f"`call={text}`: where does the noisy input stand? {EXPECTED}")
    return Calling(text, tuple(positional), keywords, classes, null)


def _classes(text: str, facts: str) -> tuple[Classes, int | None]:
    count, _, null = facts.partition(":")
    if not count.isdecimal() or not 1 <= int(count) <= MAX_CLASSES:
        raise UsageError(
            f"`call={text}`: how many classes? y:10, and y:10:10 or y:10:none for what stands for no class"
        )
    if not null:
        return Classes(int(count), null=False), None
    if null.lower() == "none":
        return Classes(int(count), null=True), None
    if not null.removeprefix("-").isdecimal():
        raise UsageError(f"`call={text}`: '{null}' for no class; expected an index or none, as in y:10:10")
    return Classes(int(count), null=True), int(null)


def _constant(text: str, part: str, spelled: str) -> Any:
    try:
        value = ast.literal_eval(spelled)
    except (ValueError, SyntaxError):
        value = text
    if value is not None and not isinstance(value, (bool, int, float)):
        raise UsageError(
            f"`call={text}`: '{part}' is none of x, t, y:COUNT, None, True, False and a number; {EXPECTED}"
        )
    return value


def first_tensor(output: Any, module: nn.Module) -> Tensor:
    """Takes the tensor of what a network returns: itself, the first of a tuple, or its `sample`.

    Args:
        output: Of the network.
        module: The network, for messages.

    Returns:
        The tensor.

    Raises:
        NetworkError: If there is none.
    """
    found = output[0] if isinstance(output, (tuple, list)) and output else getattr(output, "sample", output)
    if not isinstance(found, Tensor):
        raise NetworkError(
            f"{type(module).__name__} returns a {type(output).__name__}; expected a tensor, a tuple led by one, or an "
            "object whose `sample` is one"
        )
    return found
