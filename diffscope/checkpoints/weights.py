"""Which weights of a file to take: the sets that it holds, the one that was asked for, and why.

Training keeps two sets, the network being trained and an exponential moving average (EMA) of it. Published figures
use the EMA, so it is the default; a file that does not say which of the two it holds is not made to say it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffscope.checkpoints.run_files import RunFile
from diffscope.checkpoints.standins import Module
from diffscope.checkpoints.weight_sets import (
    WeightSet,
    callback_average,
    completed,
    flat_sets,
    listed,
    plain_set,
    set_of,
)  # fmt: skip
from diffscope.errors import CheckpointError

EMA_KEYS = ("ema", "model_ema", "model_ema1", "model_ema2", "ema_model", "ema_state_dict", "ema_model_state_dict")
MODEL_KEYS = ("model", "net", "state_dict", "model_state_dict", "module")
AVERAGED, CURRENT = "averaging_state", "current_model_state"
"""Keys of Lightning's WeightAveraging, which puts the average in the place of the model."""
NAMELESS = "shadow_params"
"""The key of an average that is a list in the order of the network's parameters, without their names."""


@dataclass
class Choice:
    """The set of weights that was taken, and why."""

    taken: WeightSet
    weights: str
    reason: str


def choose(top: Any, wanted: str, named: RunFile | None = None) -> Choice:
    """Chooses a set of weights of a file's top object.

    Args:
        top: A dict of sets, a state dict, or a network object.
        wanted: "ema" or "model"; of a file that holds one set, that set is taken.
        named: What the file's name says of a bare state dict.

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
        if top.keys() == {"state", "param_groups"}:
            raise CheckpointError("holds an optimiser's state alone, and no weights; give the file of the weights")
        raise CheckpointError(
            f"holds no weights: a state dict, or a dict with 'ema' or 'model', was expected; found {_keys_of(top)}"
        )
    if ema is None and wanted == "ema" and (key := _nameless_average(top)):
        raise CheckpointError(
            f"its average of the weights ('{key}') is a list without names, which cannot be told to fit; use "
            "`weights=model`, or save the average as a state dict"
        )
    if ema is None and model is not None and not model.key and named is not None:
        return _as_named(model, named, wanted)
    return _with_reason(ema, model, wanted)


def choose_names(names: Sequence[str], wanted: str) -> Choice:
    """Chooses among the names of a file of tensors alone, which may hold two sets.

    Args:
        names: Of all tensors, in order.
        wanted: "ema" or "model".

    Returns:
        The set, its `tensors` each tensor's own name → its name in the file, and the reason.

    Raises:
        CheckpointError: If the model's own are wanted and there is only an EMA.
    """
    whole = WeightSet("", {name: name for name in names})
    ema, model = flat_sets(whole) or (None, whole)
    return _with_reason(ema, model, wanted)


def _as_named(bare: WeightSet, named: RunFile, wanted: str) -> Choice:
    """Takes a bare state dict for what its file's name says.

    Args:
        bare: The set.
        named: The name.
        wanted: "ema" or "model".

    Returns:
        The set and the reason.

    Raises:
        CheckpointError: If the model's own are wanted and the name says an EMA.
    """
    if wanted == "model" and named.weights == "ema":
        raise CheckpointError(
            f"its name says that it holds {named.kind}, not the model's own weights; give model{named.step:06d}.pt, or "
            "use `weights=ema`"
        )
    return Choice(bare, named.weights, _sentence(f"the file's name says {named.kind}", bare))


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
        return set_of("state_dict", top.get("state_dict")), set_of(CURRENT, top[CURRENT])
    ema, model = _first_set(top, EMA_KEYS, "averages"), _first_set(top, MODEL_KEYS)
    if ema is None and model is None:
        model = plain_set("", top)
    if ema is not None and (inside := flat_sets(ema)) is not None:
        ema, model = inside[0], model or inside[1]
    if model is not None and (inside := flat_sets(model)) is not None:
        ema, model = ema or inside[0], inside[1]
    if ema is None and model is not None:
        ema = callback_average(top.get("callbacks"), model)
    if ema is not None and model is not None:
        ema = completed(ema, model)
    return ema, model


def _first_set(top: dict[Any, Any], keys: tuple[str, ...], word: str = "") -> WeightSet | None:
    """Finds the first of several keys that holds weights.

    Args:
        top: The file's top object.
        keys: In the order of preference.
        word: What several of them are, for a remark; "" for none.

    Returns:
        The set; None where no key holds one.
    """
    sets = [found for key in keys if (found := set_of(key, top.get(key))) is not None]
    if word and len(sets) > 1:
        sets[0].remarks.append(f"of its {len(sets)} {word} ({listed([s.key for s in sets])}) the first was taken")
    return sets[0] if sets else None


def _nameless_average(top: dict[Any, Any]) -> str:
    """Finds an average that is a list without names; gives its key, or ""."""
    for key, value in top.items():
        if isinstance(value, dict) and isinstance(value.get(NAMELESS), (list, tuple)) and value[NAMELESS]:
            return f"{key}.{NAMELESS}"
    states = top.get("optimizer_states")
    lists = [isinstance(s, dict) and isinstance(s.get("ema"), (list, tuple)) for s in states or () if states]
    return "optimizer_states.ema" if isinstance(states, list) and any(lists) else ""


def _keys_of(top: dict[Any, Any]) -> str:
    """Names the keys of a dict for a message."""
    return f"the keys {listed([str(key) for key in top])}" if top else "an empty dict"
