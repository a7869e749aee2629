"""Which weights of a file to take: the sets that it holds, the one that was asked for, and why.

Training keeps two sets, the network being trained and an exponential moving average (EMA) of it. Published figures
use the EMA, so it is the default; a file that does not say which of the two it holds is not made to say it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from diffscope.checkpoints.averages import divided
from diffscope.checkpoints.standins import Module
from diffscope.checkpoints.storages import StoredTensor
from diffscope.errors import CheckpointError

EMA_KEYS = ("ema", "model_ema", "model_ema1", "model_ema2", "ema_model", "ema_state_dict", "ema_model_state_dict")
MODEL_KEYS = ("model", "net", "state_dict", "model_state_dict", "module")
AVERAGED, CURRENT = "averaging_state", "current_model_state"
"""Keys of Lightning's WeightAveraging, which puts the average in the place of the model."""
NAMELESS = "shadow_params"
"""The key of an average that is a list in the order of the network's parameters, without their names."""
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
    tensors: dict[str, StoredTensor]
    module: Module | None = None
    """The network object that it came in, if any."""
    remarks: list[str] = field(default_factory=list)


@dataclass
class Choice:
    """The set of weights that was taken, and why."""

    taken: WeightSet
    weights: str
    reason: str


def choose(top: Any, wanted: str) -> Choice:
    """Chooses a set of weights of a file's top object.

    Args:
        top: A dict of sets, a state dict, or a network object.
        wanted: "ema" or "model"; of a file that holds one set, that set is taken.

    Returns:
        The set and the reason.

    Raises:
        CheckpointError: If there are no weights, or the model's own are wanted and there is only an EMA.
    """
    if isinstance(top, Module):
        top = {"net": top}
    if not isinstance(top, dict):
        raise CheckpointError(f"a {type(top).__name__} was found where a dict of weights was expected")
    ema, model = _sets_in(top)
    if ema is None and model is None:
        raise CheckpointError(
            f"holds no weights: a state dict, or a dict with 'ema' or 'model', was expected; found {_keys_of(top)}"
        )
    if ema is None and wanted == "ema" and (key := _nameless_average(top)):
        raise CheckpointError(
            f"its average of the weights ('{key}') is a list without names, which cannot be told to fit; use "
            "`weights=model`, or save the average as a state dict"
        )
    return _with_reason(ema, model, wanted)


def _with_reason(ema: WeightSet | None, model: WeightSet | None, wanted: str) -> Choice:
    """Chooses between two sets, one of which may be missing.

    Args:
        ema: The EMA.
        model: The model's own weights.
        wanted: "ema" or "model".

    Returns:
        The set and the reason.

    Raises:
        CheckpointError: If the model's own are wanted and there is only an EMA.
    """
    if wanted == "model" and model is None:
        assert ema is not None
        raise CheckpointError(f"holds EMA weights alone ('{ema.key}'), not the model's own; use `weights=ema`")
    if ema is not None and (wanted == "ema" or model is None):
        reason = f"the file holds '{ema.key}' alone" if model is None else _default_reason(ema, model)
        return Choice(ema, "ema", _sentence(reason, ema))
    assert model is not None
    if ema is not None:
        reason = f"the file holds '{ema.key}' and '{model.key}'; the model's own weights were asked for"
    elif model.key:
        reason = f"the file has no EMA; '{model.key}' was taken"
    else:
        reason = "the file holds one set of weights and does not say whether it is an EMA"
    return Choice(model, "model", _sentence(reason, model))


def _default_reason(ema: WeightSet, model: WeightSet) -> str:
    """Says why the EMA was taken where there are both."""
    return f"the file holds '{ema.key}' and '{model.key}'; the EMA is the default"


def _sentence(reason: str, taken: WeightSet) -> str:
    """Joins the reason and the remarks on the set that was taken."""
    return "; ".join([reason, *taken.remarks])


# From a file's objects to flat dicts


def _sets_in(top: dict[Any, Any]) -> tuple[WeightSet | None, WeightSet | None]:
    """Finds the sets of weights of a file, side by side or in one flat dict.

    Args:
        top: The file's top object.

    Returns:
        (EMA, model); each may be None.
    """
    if AVERAGED in top and CURRENT in top:
        return _set_of("state_dict", top.get("state_dict")), _set_of(CURRENT, top[CURRENT])
    ema, model = _first_set(top, EMA_KEYS), _first_set(top, MODEL_KEYS)
    if ema is None and model is None:
        model = _plain_set("", top)
    if ema is not None and (inside := _flat_sets(ema)) is not None:
        ema, model = inside[0], model or inside[1]
    if model is not None and (inside := _flat_sets(model)) is not None:
        ema, model = ema or inside[0], inside[1]
    if ema is None and model is not None:
        ema = in_callbacks(top, model)
    return ema, model


def _first_set(top: dict[Any, Any], keys: tuple[str, ...]) -> WeightSet | None:
    """Finds the first of several keys that holds weights.

    Args:
        top: The file's top object.
        keys: In the order of preference.

    Returns:
        The set; None where no key holds one.
    """
    for key in keys:
        if (found := _set_of(key, top.get(key))) is not None:
            return found
    return None


def _set_of(key: str, value: Any) -> WeightSet | None:
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
        tensors = _stripped(StateDictWalk()(value))
        return WeightSet(key, tensors, value) if tensors else None
    if not isinstance(value, dict):
        return None
    emas = value.get("emas")
    if isinstance(emas, list) and emas:  # EDM2 trains several averages at once
        first = emas[0]
        found = _plain_set(key, first) if isinstance(first, dict) else _set_of(key, first)
        if found is not None:
            widths = value.get("stds")
            named = [str(w) for w in widths if type(w) is float] if isinstance(widths, list) else []
            found.remarks.append(f"of its {len(emas)} averages ({listed(named)}) the first was taken")
        return found
    return _plain_set(key, value)


def _plain_set(key: str, values: dict[Any, Any]) -> WeightSet | None:
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
    found = WeightSet(key, _stripped(tensors))
    if others:
        found.remarks.append(f"beside tensors it holds {listed(others)}")
    return found


def _flat_sets(found: WeightSet) -> tuple[WeightSet, WeightSet | None] | None:
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
        ema.remarks.append(f"of its {len(parts.averages)} averages ({listed(list(parts.averages))}) the first was taken")
    if parts.added:
        ema.remarks.append(f"the average lacks {listed(list(parts.added))}, which are the model's own")
    if not parts.model:
        return ema, None
    return ema, WeightSet(f"{key}{parts.model_place}*", _picked(found, parts.model), remarks=remarks)


def _picked(found: WeightSet, names: Mapping[str, str]) -> dict[str, StoredTensor]:
    """Takes tensors of a set; `names` are own name → name in the set."""
    return _stripped((own, found.tensors[stored]) for own, stored in names.items())


def in_callbacks(top: dict[Any, Any], model: WeightSet) -> WeightSet | None:
    """Finds an average among the states of Lightning's callbacks: a dict of tensors with the model's names.

    Args:
        top: The file's top object.
        model: The model's own weights.

    Returns:
        The average, completed by what only the model has; None where no callback has one.
    """
    callbacks = top.get("callbacks")
    for name, state in callbacks.items() if isinstance(callbacks, dict) else ():
        for key, value in state.items() if isinstance(state, dict) else ():
            average = _set_of(f"callbacks.{str(name)[:40]}.{str(key)[:40]}", value)
            if average is None or not average.tensors.keys() <= model.tensors.keys():
                continue
            if lacking := [own for own in model.tensors if own not in average.tensors]:
                average.remarks.append(f"the average lacks {listed(lacking)}, which are the model's own")
            average.tensors = model.tensors | average.tensors
            return average
    return None


def _nameless_average(top: dict[Any, Any]) -> str:
    """Finds an average that is a list without names; gives its key, or ""."""
    for key, value in top.items():
        if isinstance(value, dict) and isinstance(value.get(NAMELESS), (list, tuple)) and value[NAMELESS]:
            return f"{key}.{NAMELESS}"
    return ""


def _stripped(tensors: Iterable[tuple[str, StoredTensor]]) -> dict[str, StoredTensor]:
    """Removes the prefixes of wrappers from names.

    Args:
        tensors: (name, tensor) in order.

    Returns:
        Name → tensor, at most one more than MAX_TENSORS.

    Raises:
        CheckpointError: If two have the same name then, or a name is not fit to be shown.
    """
    result: dict[str, StoredTensor] = {}
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


def _keys_of(top: dict[Any, Any]) -> str:
    """Names the keys of a dict for a message."""
    return f"the keys {listed([str(key) for key in top])}" if top else "an empty dict"


def listed(names: list[str], limit: int = 12) -> str:
    """Joins names for a message.

    Args:
        names: Each is cut to 60 characters.
        limit: How many are named; the rest are counted.

    Returns:
        For example "a, b and 3 more".
    """
    shown = ", ".join(name[:60] for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
