"""How the program's process gets memory for large tensors. The library leaves its host's allocator alone.

glibc maps every block above 32 MB anew and returns it as soon as it is free, and the kernel clears each page again: on
a full-size U-Net (batches of 32 views, float32) an eighth of the CPU time. Kept, the block serves the next layer.
"""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_KEPT = 1 << 30
"""Bytes; larger blocks, whole files for instance, are still mapped and returned at once."""
FREE_KEPT = 256 << 20
"""Bytes free at the end of the heap before they are returned."""


def keep_large_blocks() -> bool:
    """Let freed memory serve again; call it before the first tensor. False, and no change, elsewhere than on glibc."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # An older glibc refuses a threshold above 32 MB: then nothing is changed.
    if mallopt is None or not mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT):
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, FREE_KEPT))
