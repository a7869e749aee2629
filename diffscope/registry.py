"""What an open folder offers: every module in it but its `base`, found by file name.

`families/`, `sources/`, `metrics/`, `report/views/` and `cli/commands/` are open folders: one more of a kind is one
new file, and no list is edited anywhere.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def members(package: str) -> list[str]:
    """Lists the members of an open folder.

    Args:
        package: Its dotted name, such as "diffscope.metrics".

    Returns:
        Names of its modules, sorted; sub-packages, `base` and `_private` modules are not members.
    """
    found = importlib.import_module(package)
    return sorted(
        module.name
        for module in pkgutil.iter_modules(found.__path__)
        if not module.ispkg and module.name != "base" and not module.name.startswith("_")
    )


def member(package: str, name: str) -> ModuleType:
    """Imports one member of an open folder, and none of the others.

    Args:
        package: The folder's dotted name, such as "diffscope.metrics".
        name: One of its `members`.
    """
    return importlib.import_module(f"{package}.{name}")


def load(package: str) -> dict[str, ModuleType]:
    """Imports all members of an open folder.

    Args:
        package: Its dotted name, such as "diffscope.metrics".

    Returns:
        Name → module, in sorted order.
    """
    return {name: member(package, name) for name in members(package)}
