"""The sets of weights in a file's objects, each as one flat dict: network objects, state dicts, two sets in one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from diffscope.checkpoints.averages import divided
from diffscope.checkpoints.standins import Module
from diffscope.checkpoints.storages import StoredTensor
from diffscope.errors import CheckpointError
from diffscope.names import first_few

COMPILED = "_orig_mod."  # torch.compile, of a network or of a part of it
WRAPPERS = ("module.", COMPILED)  # the former is DistributedDataParallel's

MAX_DEPTH = 64  # nesting of modules; EDM has 4
MAX_VISITS = 100_000  # modules and their entries, shared ones counted each time; the largest networks have 20,000
MAX_TENSORS = 50_000  # in one set
MAX_NAME = 1024  # characters of a tensor's full name


@dataclass
class WeightSet:
    """One set of weights in a file."""

    key: str
    """Its place in the file; empty for a bare state dict."""
    tensors: dict[str, Any]
    """Name → `StoredTensor`, or what else stands for a tensor."""
    module: Module | None = None
    """The network object that it came in, if any."""
    remarks: list[str] = field(default_factory=list)


def set_of(key: str, value: Any) -> WeightSet | None:
    """Reads a set of weights in any form that training codes write.

    Args:
        key: Its place in the file.
        value: A network object, a state dict, or EDM2's several averages, of which the first is taken.

    Returns:
        The set; None where `value` is none.

    Raises:
        CheckpointError: If it holds tensors under names that are not fit.
    """
    if isinstance(value, Module):
        tensors = stripped(StateDictWalk()(value))
        return WeightSet(key, tensors, value) if tensors else None
    if not isinstance(value, dict):
        return None
    emas = value.get("emas")
    if isinstance(emas, list) and emas:  # EDM2 trains several averages at once
        first = emas[0]
        found = plain_set(key, first) if isinstance(first, dict) else set_of(key, first)
        if found is not None:
            widths = value.get("stds")
            named = [str(w) for w in widths if type(w) is float] if isinstance(widths, list) else []
            found.remarks.append(f"of its {len(emas)} averages ({listed(named)}) the first was taken")
        return found
    return plain_set(key, value)


def plain_set(key: str, values: dict[Any, Any]) -> WeightSet | None:
    """Reads a state dict.

    Args:
        key: Its place in the file; "" for the file itself.
        values: Name → tensor; other values are left out, with a remark.

    Returns:
        The set; None where there are no tensors.

    Raises:
        CheckpointError: If a tensor's name is no text.
    """
    tensors = [(name, value) for name, value in values.items() if isinstance(value, StoredTensor)]
    if not tensors:
        return None
    if not all(type(name) is str for name, _ in tensors):
        raise CheckpointError(f"'{key}' holds tensors whose names are not text")
    others = [str(name) for name, value in values.items() if not isinstance(value, StoredTensor)]
    found = WeightSet(key, stripped(tensors))
    if others:
        found.remarks.append(f"beside tensors it holds {listed(others)}")
    return found


def flat_sets(found: WeightSet) -> tuple[WeightSet, WeightSet | None] | None:
    """Divides a set that holds an average beside what it is an average of.

    Args:
        found: Its tensors under the names of the file.

    Returns:
        (EMA, model), the latter None where there is none; None where there is no average.
    """
    parts = divided(list(found.tensors))
    if parts is None:
        return None
    key = f"{found.key}." if found.key else ""
    remarks = list(found.remarks)
    if parts.aside:
        remarks.append(f"outside of its sets it holds {listed(list(parts.aside))}")
    ema = WeightSet(f"{key}{parts.ema_place}*", _picked(found, parts.ema), remarks=list(remarks))
    if len(parts.averages) > 1:
        named = listed(list(parts.averages))
        ema.remarks.append(f"of its {len(parts.averages)} averages ({named}) the first was taken")
    if parts.added:
        ema.remarks.append(f"the average lacks {listed(list(parts.added))}, which are the model's own")
    if not parts.model:
        return ema, None
    return ema, WeightSet(f"{key}{parts.model_place}*", _picked(found, parts.model), remarks=remarks)


def _picked(found: WeightSet, names: Mapping[str, str]) -> dict[str, Any]:
    """Takes tensors of a set; `names` are own name → name in the set."""
    return stripped((own, found.tensors[stored]) for own, stored in names.items())


def completed(ema: WeightSet, model: WeightSet) -> WeightSet:
    """Gives an average of parameters what only the model has, such as buffers.

    Args:
        ema: The average.
        model: The model's own weights.

    Returns:
        `ema` itself where it lacks nothing, or is not an average of this model.
    """
    lacking = [name for name in model.tensors if name not in ema.tensors]
    if not lacking or not ema.tensors.keys() <= model.tensors.keys():
        return ema
    remark = f"the average lacks {listed(lacking)}, which are the model's own"
    return WeightSet(ema.key, model.tensors | ema.tensors, ema.module, [*ema.remarks, remark])


def callback_average(callbacks: Any, model: WeightSet) -> WeightSet | None:
    """Finds an average among the states of Lightning's callbacks: tensors that have the model's names.

    Args:
        callbacks: Name of a callback → its state.
        model: The model's own weights.

    Returns:
        The average; None where no callback that is named after one has it.
    """
    for name, state in callbacks.items() if isinstance(callbacks, dict) else ():
        inside = state.items() if isinstance(state, dict) else ()
        for place, value in ((str(name), state), *((f"{name}.{key}", value) for key, value in inside)):
            if re.search("ema|averag", place.lower()) is None or (found := set_of("ema", value)) is None:
                continue
            parts = flat_sets(WeightSet("", {f"ema.{own}": t for own, t in found.tensors.items()} | model.tensors))
            if parts is not None and parts[1] is not None:
                return WeightSet(f"callbacks.{place[:60]}", parts[0].tensors, remarks=parts[0].remarks)
    return None


def stripped(tensors: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Removes the prefixes of wrappers from names.

    Args:
        tensors: (name, tensor) in order.

    Returns:
        Name → tensor, at most one more than MAX_TENSORS.

    Raises:
        CheckpointError: If two have the same name then, or a name is not fit to be shown.
    """
    result: dict[str, Any] = {}
    for name, value in tensors:
        while wrapper := next((w for w in WRAPPERS if name.startswith(w)), None):
            name = name.removeprefix(wrapper)
        name = name.replace(f".{COMPILED}", ".")
        if name in result:
            raise CheckpointError(f"two tensors are named '{name}' once wrappers are stripped")
        result[name] = value
        if len(result) > MAX_TENSORS:
            break
    checked_names(result)
    return result


def checked_names(names: Collection[str]) -> list[str]:
    """Checks that the names of the tensors of one set are fit to be shown and not too many.

    Args:
        names: In order.

    Returns:
        The same names.

    Raises:
        CheckpointError: If they are not.
    """
    if len(names) > MAX_TENSORS:
        raise CheckpointError(f"more than {MAX_TENSORS} tensors in one set of weights, which no network has")
    for name in names:
        if len(name) > MAX_NAME or not name.isprintable():
            raise CheckpointError(f"a tensor whose name has control characters, or too many: {name[:80]!r}")
    return list(names)


class StateDictWalk:
    """A network object's state dict: per module its parameters, its buffers, then its children, in their order.

    A module, or a table of one, may be referred to many times; each visit counts, so that a small file has an end.
    """

    def __init__(self) -> None:
        self.visits = 0

    def __call__(self, module: Module, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, StoredTensor]]:
        """Walks through a network object.

        Args:
            module: Its stand-in.
            prefix: What stands before its names, with a dot.
            depth: How deep it is nested.

        Yields:
            (full name, tensor).

        Raises:
            CheckpointError: If something in it is of the wrong kind, nested too deeply, or there is too much of it.
        """
        if depth > MAX_DEPTH or len(prefix) > MAX_NAME:
            raise CheckpointError(f"modules nested deeper than {MAX_DEPTH}, or with longer names than {MAX_NAME}")
        transient = module.state.get("_non_persistent_buffers_set") or set()
        if not isinstance(transient, set):
            raise CheckpointError(f"a {module.class_name} whose _non_persistent_buffers_set is no set")
        for table in ("_parameters", "_buffers"):
            for name, value in self.part(module, table).items():
                if value is None or (table == "_buffers" and name in transient):
                    continue
                if not isinstance(value, StoredTensor):
                    raise CheckpointError(f"'{prefix}{name}' is no tensor")
                yield f"{prefix}{name}", value
        for name, child in self.part(module, "_modules").items():
            if isinstance(child, Module):
                yield from self(child, f"{prefix}{name}.", depth + 1)
            elif child is not None:
                raise CheckpointError(f"'{prefix}{name}' is no module")

    def part(self, module: Module, table: str) -> dict[str, Any]:
        """Gives one of a module's tables.

        Args:
            module: A stand-in.
            table: "_parameters", "_buffers" or "_modules".

        Returns:
            Name → value; empty where it has none.

        Raises:
            CheckpointError: If it is no dict of names, or there were too many visits.
        """
        found = module.state.get(table, {})
        self.visits += 1 + len(found) if isinstance(found, dict) else 1
        if self.visits > MAX_VISITS:
            raise CheckpointError(f"modules with more than {MAX_VISITS} entries, shared ones counted each time")
        if not isinstance(found, dict) or not all(type(name) is str for name in found):
            raise CheckpointError(f"a {module.class_name} whose {table} is no dict of names")
        return found


def listed(names: list[str], limit: int = 12) -> str:
    """Joins names for a message.

    Args:
        names: Each is cut to 60 characters.
        limit: How many are named; the rest are counted.

    Returns:
        For example "a, b and 3 more".
    """
    return first_few([name[:60] for name in names], limit)
