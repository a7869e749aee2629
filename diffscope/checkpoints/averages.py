"""Two sets of weights in one flat dict of names: which names are an average of which others.

Training codes keep the average (EMA) as a module beside the network, so that one state dict holds both: the
ema-pytorch package's wrapper (`online_model.` and `ema_model.`), an attribute of a Lightning module (`ema.module.`,
`net_ema.`), or the latent-diffusion code's, which drops the dots of the names that it averages. Which set is the
average is seen by its root's name; what it is an average of, by the names below, which must be the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

EMA_ROOT = re.compile(r"(?:\w+_)?ema\d?(?:_\w+)?")
"""The first part of an averaged tensor's name: ema, ema_model, model_ema, model_ema1, net_ema."""
INNER = ("ema_model.", "module.")
"""What ema-pytorch and torch's AveragedModel put before names, inside such a root."""
COUNTERS = ("decay", "num_updates")
"""What latent-diffusion's average holds beside the weights."""


@dataclass(frozen=True)
class Divided:
    """An average and what it is an average of; each tensor's own name → its name in the file."""

    ema: Mapping[str, str]
    ema_place: str
    """What stands before the average's names."""
    model: Mapping[str, str]
    """Empty where nothing beside the average has its names."""
    model_place: str
    added: tuple[str, ...]
    """Tensors that the average lacks, such as buffers, and that stand in `ema` as the model has them."""
    aside: tuple[str, ...]
    """Names in the file that belong to neither."""
    averages: tuple[str, ...]
    """Roots of all averages in the file, of which the first was taken."""


def divided(names: Sequence[str]) -> Divided | None:
    """Divides names into an average and what it is an average of.

    Args:
        names: Of all tensors of a flat dict, in order.

    Returns:
        The two sets; None where there is no average, or one that is smaller than what it does not fit.
    """
    roots = tuple(dict.fromkeys(root for name in names if (root := _root_of(name))))
    if not roots:
        return None
    place = _place(f"{roots[0]}.", names)
    average = {name.removeprefix(place): name for name in names if name.startswith(place)}
    rest = [name for name in names if not name.startswith(place) and _root_of(name) not in roots[1:]]
    if (match := _same_names(average, rest, roots[0]) or _names_without_dots(average, rest)) is None:
        if len(rest) > len(average):
            return None
        return Divided(average, place, {}, "", (), tuple(rest), roots)
    named, head = match
    model = {name.removeprefix(head): name for name in rest if name.startswith(head)}
    added = tuple(name for name in model if name not in named)
    return Divided(
        ema={own: named.get(own, stored) for own, stored in model.items()},
        ema_place=place,
        model=model,
        model_place=head,
        added=added,
        aside=tuple(name for name in rest if not name.startswith(head)),
        averages=roots,
    )


def _root_of(name: str) -> str:
    """Gives a name's first part if it is that of an average; "" for all others."""
    root, dot, _ = name.partition(".")
    return root if dot and EMA_ROOT.fullmatch(root) else ""


def _place(place: str, names: Sequence[str]) -> str:
    """Goes into the wrappers inside an average's root.

    Args:
        place: The root with a dot.
        names: Of all tensors.

    Returns:
        What stands before the names of the average's tensors.
    """
    for inner in INNER:
        if any(name.startswith(place + inner) for name in names):
            place += inner
    return place


def _same_names(average: Mapping[str, str], rest: Sequence[str], root: str) -> tuple[Mapping[str, str], str] | None:
    """Finds what has the names of an average.

    Args:
        average: Own name → name in the file.
        rest: Names in the file that are none of the average's.
        root: Of the average, below which the averaged weights may stand a second time.

    Returns:
        (the average, what stands before the names of its counterpart); None where nothing has them all.
    """
    first, known = next(iter(average)), set(rest)
    heads = [name.removesuffix(first) for name in rest if name.endswith(first)]
    heads.sort(key=lambda head: head.startswith(f"{root}."))
    whole = [h for h in heads if h == "" or h.endswith(".") if all(h + name in known for name in average)]
    whole = [head for head in whole if head.startswith(f"{root}.") or _is_most(head, rest)]
    return (average, whole[0]) if whole else None


def _is_most(head: str, rest: Sequence[str]) -> bool:
    """Tells whether most of a network lies below a name: of two layers of one form, one is no average of the other."""
    root = head[: head.find(".") + 1]
    network = [name for name in rest if name.startswith(root)]
    return 2 * sum(name.startswith(head) for name in network) > len(network)


def _names_without_dots(average: Mapping[str, str], rest: Sequence[str]) -> tuple[Mapping[str, str], str] | None:
    """Finds what has the names of an average once its dots are dropped, as latent-diffusion's code spells them.

    Args:
        average: Own name → name in the file.
        rest: Names in the file that are none of the average's.

    Returns:
        (the average under the dotted names, what stands before these); None where nothing has them all.
    """
    plain = [name for name in average if name not in COUNTERS]
    if not plain or any("." in name for name in plain):
        return None
    for head in dict.fromkeys(f"{name.partition('.')[0]}." for name in rest):
        own = [name.removeprefix(head) for name in rest if name.startswith(head)]
        dotted = {name.replace(".", ""): name for name in own}
        if len(dotted) == len(own) and all(name in dotted for name in plain):
            return {dotted[name]: average[name] for name in plain}, head
    return None
