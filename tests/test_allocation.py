from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from diffscope import allocation

TWICE = """
import ctypes, resource
from diffscope.allocation import keep_large_blocks
kept = keep_large_blocks()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def use():
    block = libc.malloc(48_000_000)
    ctypes.memset(block, 1, 48_000_000)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = use()
print(int(kept), use() - before)
"""


def test_a_freed_block_serves_again_without_page_faults() -> None:
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, check=True)
    kept, faults = map(int, done.stdout.split())
    if not kept:
        pytest.skip("this C library cannot be told")
    assert faults < 1000  # 48 MB are 11,719 pages


def test_nothing_is_done_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert allocation.keep_large_blocks() is False
