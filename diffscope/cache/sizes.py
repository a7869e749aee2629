"""Sizes as people write and read them: 8GB ↔ 8,000,000,000 bytes. Decimal units. And that of the cache."""

from __future__ import annotations

import os
import re

from diffscope.errors import UsageError

LIMIT = "DIFFSCOPE_CACHE_SIZE"
DEFAULT_LIMIT = "20GB"


def limit() -> int:
    """Bytes that all latents together may take: $DIFFSCOPE_CACHE_SIZE, 20GB by default; 0 keeps none. UsageError."""
    return 0 if keeps_nothing() else bytes_of(os.environ.get(LIMIT) or DEFAULT_LIMIT, LIMIT)


def keeps_nothing() -> bool:
    """Whether $DIFFSCOPE_CACHE_SIZE is 0: then nothing is kept that can be made again."""
    return os.environ.get(LIMIT, "").strip() == "0"


def bytes_of(text: str, option: str) -> int:
    """`8GB`, `500M` or plain bytes; UsageError naming the option where it is none of these."""
    match = re.fullmatch(r"\s*([\d.]+)\s*([kKmMgGtT]?)[bB]?\s*", text)
    try:
        number = float(match[1]) if match else 0.0
    except ValueError:
        number = 0.0
    if not match or not 0 < number < 1e18:
        raise UsageError(f"`{option}={text}`: expected a size such as 8GB or 500MB")
    return int(number * 1000 ** " kmgt".index(match[2].lower() or " "))


def in_bytes(number: int) -> str:
    """A size for people to read."""
    if number >= 1e9:
        return f"{number / 1e9:.1f} GB"
    return f"{number / 1e6:.0f} MB" if number >= 1e7 else f"{number / 1e6:.2g} MB"
