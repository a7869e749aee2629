"""What a network predicts, by the field's names: which of them there are, and which fit a noise convention."""

from __future__ import annotations

import difflib

from diffscope.errors import UsageError
from diffscope.families._named_noise import NamedNoise

PREDICTIONS = ("eps", "x0", "v", "velocity", "denoised", "score")


def check_prediction(predicts: str, noise: NamedNoise) -> None:
    """Refuses what a network of this noise convention cannot predict.

    Args:
        predicts: One of PREDICTIONS.
        noise: The convention.

    Raises:
        UsageError: If there is no such name, or it is not defined for this noise.
    """
    if predicts not in PREDICTIONS:
        close = difflib.get_close_matches(predicts, PREDICTIONS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UsageError(f"`predicts={predicts}`: {hint}expected {', '.join(PREDICTIONS[:-1])} or {PREDICTIONS[-1]}")
    if predicts not in possible(noise):
        fits = "ddpm and vp" if predicts == "v" else "flow"
        raise UsageError(
            f"`predicts={predicts}`: defined for the noise of {fits}, not for {noise.kind}; expected "
            f"{', '.join(possible(noise))}"
        )


def possible(noise: NamedNoise) -> tuple[str, ...]:
    """Lists what a network of this noise convention can predict."""
    own = {"flow": ("velocity",), "ddpm": ("v",), "vp": ("v",)}.get(noise.kind, ())
    return tuple(name for name in PREDICTIONS if name in own or name not in ("v", "velocity"))
