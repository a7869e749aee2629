"""diffscope looks inside pretrained diffusion models: the Invariant Contamination Ratio over noise levels and layers.

    import diffscope
    result = diffscope.sweep("network-snapshot.pkl", "images/", num_images=5000)
    print(result.window[0].sigma)

Every command of the command line is a function here, with the same names, defaults and units.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself takes as long as all else here
    from typing import Any

__version__ = "0.1.0"

_BESIDE_COMMANDS = ("Monitor", "load", "read_result", "wrap")


def __getattr__(name: str) -> Any:
    # The public functions need torch, which takes seconds to import and which `diffscope --help` can do without. Rooms
    # are asked for here as well, before they are imported: whether it is a command, its file tells.
    if name in _BESIDE_COMMANDS or _is_command(name):
        from diffscope import api

        try:
            found = getattr(api, name) if name in _BESIDE_COMMANDS else api.function(name)
        except KeyError:
            raise AttributeError(f"module 'diffscope' has no function '{name}': it is of the command line") from None
        globals()[name] = found
        return found
    raise AttributeError(f"module 'diffscope' has no attribute '{name}'")


def _is_command(name: str) -> bool:
    from importlib.util import find_spec

    return not name.startswith("_") and name != "base" and find_spec(f"diffscope.commands.{name}") is not None


def __dir__() -> list[str]:
    from diffscope.commands.base import commands

    return sorted([*(name for name, command in commands().items() if command.in_python), *_BESIDE_COMMANDS])
