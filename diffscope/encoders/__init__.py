"""Reference encoders, whose features stand beside a diffusion network's: one file a kind, found by what it accepts.

Used from outside:

    encoder = open_encoder("hf://facebook/dinov2-base", Setting(batch_size=32))
    z = encoder.features(images)                # uint8 [n, C, S, S] → float32 [n, encoder.dims]
"""

from __future__ import annotations

from diffscope import registry
from diffscope.encoders.base import EXPECTED, Encoder, Network, Setting
from diffscope.errors import UsageError

__all__ = ["Encoder", "Network", "Setting", "open_encoder"]


def open_encoder(spec: str, setting: Setting | None = None) -> Encoder:
    """Opens an encoder with the one module of this folder that accepts its spelling.

    Args:
        spec: A name, file, folder or reference; see `EXPECTED`.
        setting: Where and how it is run.

    Returns:
        An encoder that is ready to run.

    Raises:
        UsageError: If no kind is spelled like that, or the kind needs something that is not allowed or not given.
        DataError: If a file does not hold what it should.
        CheckpointError: If a network cannot be read, or its weights do not fit it.
    """
    for module in registry.load(__name__).values():
        if module.accepts(spec):
            found: Encoder = module.open(spec, setting or Setting())
            return found
    raise UsageError(f"`{(setting or Setting()).option}={spec}`: no encoder is spelled like that; expected {EXPECTED}")
