"""diffscope looks inside pretrained diffusion models: the Invariant Contamination Ratio over noise levels and layers.

import diffscope
result = diffscope.sweep("network-snapshot.pkl", "images/", num_images=5000)
print(result.window[0].sigma)
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself takes as long as all else here
    from typing import Any

__version__ = "0.1.0"

_PUBLIC = ("load", "sweep", "icr", "compare", "track", "memorization", "neighbors", "probe", "wrap", "Monitor")


def __getattr__(name: str) -> Any:
    # The public functions need torch, which takes seconds to import and which `diffscope --help` can do without.
    if name in _PUBLIC:
        from diffscope import api

        return getattr(api, name)
    raise AttributeError(f"module 'diffscope' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
