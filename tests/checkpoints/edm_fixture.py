"""Writes files in the layout of EDM's training code, without any of that code.

Such a pickle holds, for each network object, a call of `torch_utils.persistence._reconstruct_persistent_obj` with the
class name, the source text of its module (which a reader must never run) and the object's attributes. Stand-ins for the
modules that the pickle names exist only while it is written.
"""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

EXPLODES = "raise SystemExit('module_src was executed')"


class EasyDict(dict[str, Any]):
    """dnnlib.util.EasyDict: a dict whose items are attributes too."""

    __module__ = "dnnlib.util"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]


class Persistent:
    """Pickles as EDM's persistent classes do."""

    def __init__(self, class_name: str, state: Mapping[str, Any], module_src: str = EXPLODES, version: int = 6) -> None:
        self.meta = {
            "type": "class",
            "version": version,
            "module_src": module_src,
            "class_name": class_name,
            "state": dict(state),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


def persistent(
    module: torch.nn.Module,
    class_name: str | None = None,
    init_kwargs: Mapping[str, Any] | None = None,
    module_src: str = EXPLODES,
) -> Any:
    """An ordinary module tree, each class named after its own, as persistent objects; a ModuleDict stays one."""
    children = {name: child and persistent(child, module_src=module_src) for name, child in module._modules.items()}
    if type(module) is torch.nn.ModuleDict:
        container = torch.nn.ModuleDict()
        container.__dict__.update({**vars(module), "_modules": children})
        return container
    state = {**vars(module), "_modules": children, "_init_args": (), "_init_kwargs": dict(init_kwargs or {})}
    return Persistent(class_name or type(module).__name__, state, module_src)


def write_edm_pickle(
    path: str | Path,
    module: torch.nn.Module,
    class_name: str | None = None,
    init_kwargs: Mapping[str, Any] | None = None,
    protocol: int = 4,
    *,
    easy_dict: bool = False,
    module_src: str = EXPLODES,
    key: str = "ema",
) -> None:
    """A `network-snapshot-KKKKKK.pkl`; `easy_dict` makes it EDM2's. `class_name` names the top object."""
    with original_modules(), open(path, "wb") as file:
        top: dict[str, Any] = EasyDict() if easy_dict else {}
        top[key] = persistent(module, class_name, init_kwargs, module_src)
        top["loss_fn"] = Persistent("EDMLoss", {"P_mean": -1.2, "P_std": 1.2, "sigma_data": 0.5}, module_src)
        top["augment_pipe"] = None
        top["dataset_kwargs"] = {"class_name": "training.dataset.ImageFolderDataset", "resolution": 8}
        pickle.dump(top, file, protocol=protocol)


def write_training_state(path: str | Path, module: torch.nn.Module, class_name: str, init_kwargs: Any) -> None:
    """A `training-state-KKKKKK.pt`: the raw network as an object, and Adam's state."""
    moments = {i: {"step": 3, "exp_avg": torch.ones_like(p)} for i, p in enumerate(module.parameters())}
    optimizer = {"state": moments, "param_groups": [{"lr": 1e-3, "params": list(moments)}]}
    with original_modules():
        torch.save({"net": persistent(module, class_name, init_kwargs), "optimizer_state": optimizer}, path)


@contextmanager
def original_modules() -> Iterator[None]:
    """Modules under the names that the pickle mentions, while it is written; the pickler looks them up."""

    def _reconstruct_persistent_obj(meta: Any) -> Any:
        raise AssertionError("a persistent object was reconstructed")

    names = ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")
    assert not any(name in sys.modules for name in names)
    made = {name: types.ModuleType(name) for name in names}
    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    made["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    made["dnnlib.util"].EasyDict = EasyDict  # type: ignore[attr-defined]
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
