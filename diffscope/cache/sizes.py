"""Sizes as people write and read them: 8GB ↔ 8,000,000,000 bytes. Decimal units."""

from __future__ import annotations

import re

from diffscope.errors import UsageError


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
